"""Boxes read from the patch map of a whole frame: each takes of every patch the share that it covers.

An RoI pooling without rounding (He et al., Mask R-CNN, arXiv 1703.06870, section 3, rounds nothing either, but reads
points; here a box weighs cells by exact area). One forward serves all boxes of a frame.

Axes: n boxes, p patches (row-major), h w source pixels, d features.
"""

import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.dense import RESAMPLE_RULE, encode
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import ShapeError, UsageError
from patchatlas.features import FeatureMap
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.rounding import ceil_to_multiple
from patchatlas.geometry.sampling import resample
from patchatlas.reid.embed.crops import require_side
from patchatlas.reid.embed.pooling import GEM_POWER, TokenPooling, patch_mean, unit_rows
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp


def pool_boxes(
    features: FeatureMap,
    boxes: Float[Tensor, "n 4"],
    *,
    pooling: TokenPooling = "mean",
    masks: Bool[Tensor, "n h w"] | None = None,
) -> tuple[Float32[Tensor, "n d"], Bool[Tensor, " n"]]:
    """One unit vector a box, and which rows are any good; a box that covers no patch, or whose mask covers none of the
    patches in it, is NaN and marked false.

    Args:
        features: of the frame.
        boxes: source pixels.
        masks: which pixels of the source belong to each object.

    Raises:
        UsageError: a pooling with the class token, which is of the whole frame.
        ShapeError: masks of another size than the source.
    """
    _require_patches(pooling)
    shares = area_shares(features.grid, boxes)
    if masks is not None:
        shares = shares * mask_shares(features.grid, masks)
    mean = patch_mean(features.tokens, shares, power=GEM_POWER if pooling == "gem" else 1.0)
    return unit_rows(mean.cpu())


def area_shares(grid: PatchGrid, boxes: Float[Tensor, "n 4"]) -> Float64[Tensor, "n p"]:
    """How much of each patch lies in each box, 0..1, exact."""
    corners = torch.stack([grid.cells_of(boxes[:, :2]), grid.cells_of(boxes[:, 2:])])
    low, high = corners.amin(dim=0), corners.amax(dim=0)
    along = []
    for axis, count in enumerate(grid.shape):
        cells = torch.arange(count, dtype=torch.float64)
        start, end = low[:, -1 - axis, None], high[:, -1 - axis, None]  # cells run (x, y), axes (row, column)
        along.append((torch.minimum(end, cells + 1) - torch.maximum(start, cells)).clamp(min=0))
    return torch.einsum("ni,nj->nij", *along).flatten(1)


def mask_shares(grid: PatchGrid, masks: Bool[Tensor, "n h w"]) -> Float64[Tensor, "n p"]:
    """How much of each patch each mask covers, 0..1.

    Raises:
        ShapeError: masks of another size than the source.
    """
    if tuple(masks.shape[1:]) != grid.frame.source_size:
        raise ShapeError(f"masks of {tuple(masks.shape[1:])} do not lie on a source of {grid.frame.source_size}")
    drawn = resample(masks.float(), grid.frame, fill=(0.0,) * len(masks)).double()
    (rows, columns), (tall, wide) = grid.shape, grid.patch
    return drawn.reshape(-1, rows, tall, columns, wide).mean(dim=(2, 4)).flatten(1)


class RegionEmbedder:
    """A forward for each frame, from which all its boxes are read.

    Args:
        encoder: makes the patch map.
        pooling: `mean` or `gem`.
        size: long side of the frame as the encoder sees it; its own size, padded to whole patches, if not given.

    Raises:
        UsageError: a size that is no multiple of the patch, or a pooling with the class token.
    """

    def __init__(self, encoder: Encoder, *, pooling: TokenPooling = "mean", size: int | None = None) -> None:
        _require_patches(pooling)
        if size is not None:
            require_side(size, encoder.spec, what="frame")
        self._encoder, self._pooling, self._size = encoder, pooling, size

    @property
    def spec(self) -> EncoderSpec:
        """The facts of the encoder."""
        return self._encoder.spec

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.spec.dim

    @property
    def stamp(self) -> Stamp:
        """What the vectors depend on."""
        recipe = {"resample": RESAMPLE_RULE, "fill": "edge", "pooling": self._pooling}
        return Stamp.of(self.spec, regions="frame", frame=self._size or 0, **recipe)

    def embed_boxes(
        self, picture: ImageU8, boxes: Float[Tensor, "n 4"], *, masks: Bool[Tensor, "n h w"] | None = None
    ) -> tuple[Float32[Tensor, "n d"], Bool[Tensor, " n"]]:
        """As `pool_boxes`, of an RGB frame. Without a box nothing is encoded.

        Raises:
            ResourceError: memory ran out on the frame; take a smaller size.
        """
        if not len(boxes):
            return torch.zeros(0, self.dim), torch.zeros(0, dtype=torch.bool)
        frame = frame_of((picture.shape[0], picture.shape[1]), self.spec, size=self._size)
        return pool_boxes(encode(picture, self._encoder, frame=frame), boxes, pooling=self._pooling, masks=masks)


def frame_of(size_hw: tuple[int, int], spec: EncoderSpec, *, size: int | None) -> Frame:
    """What an encoder sees of a whole picture: scaled to a long side, or as it is; padded to whole patches."""
    if size is not None:
        return fit(size_hw, long_side=size, patch=spec.patch)
    after = [ceil_to_multiple(n, p) - n for n, p in zip(size_hw, spec.patch, strict=True)]
    return Frame.whole(size_hw).pad((0, 0), after)


def _require_patches(pooling: TokenPooling) -> None:
    if pooling not in ("mean", "gem"):
        raise UsageError(
            f"pooling {pooling} takes the class token, which is of the whole frame and alike for all boxes; allowed "
            "are mean and gem, or regions: crops"
        )
