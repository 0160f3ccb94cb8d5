"""`bundled:sift`: dense SIFT descriptors on the patch grid, the encoder that needs no weights.

Each 8-pixel patch gets upright SIFT descriptors (Lowe, IJCV 60(2), 2004) of several sizes about its exact centre, one
after the other, each turned into RootSIFT (Arandjelovic and Zisserman, CVPR 2012: divide by the sum, take the root).

Flat places: where the picture under a descriptor's support holds less contrast than rounding to 8 bits makes by itself,
that part of the token is zero, since SIFT would scale rounding noise up to full length. A token that is flat at every
size is the zero vector, whose cosine with everything is taken as 0: it matches nothing, not even another flat patch.

Axes: b batch, h w pixels, gh gw patch grid, n patches (row-major), s sizes, d features.
"""

import hashlib
import json
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from patchatlas.colour import LUMA
from patchatlas.encoders.inputs import grid_shape
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import MissingExtraError
from patchatlas.spec import EncoderSpec

PATCH = 8

OCTAVES = (0, 2, 3)
"""Octaves of SIFT's scale space that are read: supports of 24, 96 and 192 pixels, that is 3, 12 and 24 patches.
Chosen on graf 1-3 (both ways), aloe and the Middlebury motorcycle among 1.5 to 48 patches, alone and in sets of up to
five, by PCK@16 at 100 points a pair: the best other set of three was one point ahead, the best set of five two. Mean
colour beside a set of four gained up to three, but would tie matches to the exposure, which these pairs share."""

LAYER = 1
"""Level within each octave; its blur is 1.6 * 2 ** (1 / 3), about 2 pixels of that octave (Lowe 2004, section 3)."""

BLUR = 1.6 * 2 ** (LAYER / 3)

BINS = 4 * 4 * 8
"""Numbers in one SIFT descriptor: 4 rows and 4 columns of 8 directions."""

MARGIN = 100
"""Pixels of repeated border, enough for the largest support (96 to each side). Lattice point 8 i + 4 + MARGIN is a
multiple of 8, so each patch centre is a whole pixel in every octave up to the third: OpenCV rounds keypoints to whole
pixels of their octave before it reads (seen by experiment with 4.14)."""

LEAST_CONTRAST = 2.0
"""Grey levels of 255; rounding to 8 bits alone makes differences of one."""


def load(*, device: torch.device) -> "DenseSift":
    """Dense SIFT; the work is done on the CPU, and tokens are moved to `device`.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(
            "opencv-python-headless", extra="opencv", needed_for="bundled:sift (bundled:vit-tiny16 needs nothing)"
        ) from error
    return DenseSift(cv2, device=device)


class DenseSift:
    """The `Encoder` of dense SIFT. Results do not depend on the batch: pictures are described one after the other.

    Args:
        cv2: the OpenCV module; `load` imports it.
        device: where tokens go.
    """

    def __init__(self, cv2: ModuleType, *, device: torch.device) -> None:
        self._cv2: Any = cv2
        self._sift = self._cv2.SIFT_create()
        self._device = device
        recipe = {
            "octaves": OCTAVES,
            "layer": LAYER,
            "patch": PATCH,
            "margin": MARGIN,
            "least_contrast": LEAST_CONTRAST,
            "grey": LUMA,
            "opencv": self._cv2.__version__,
        }
        self._spec = EncoderSpec(
            name="bundled:sift",
            family="sift",
            patch=(PATCH, PATCH),
            dim=len(OCTAVES) * BINS,
            registers=0,
            has_cls=False,
            channels=3,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            layer=0,
            depth=1,
            norm="none",
            dtype="fp32",
            licence="Apache-2.0 (OpenCV)",
            weights_sha256=hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(),
            source="bundled",
        )

    @property
    def spec(self) -> EncoderSpec:
        """The facts. There are no weights: the hash is over the parameters and the version of OpenCV, whose arithmetic
        may change between versions."""
        return self._spec

    @property
    def device(self) -> torch.device:
        """Where tokens go."""
        return self._device

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "b c *size"], /) -> Tokens:
        """Describe each picture of a batch, RGB in 0..1; values outside are clipped.

        Raises:
            ShapeError: a side is not a multiple of 8, or the channels are not three.
        """
        rows, columns = grid_shape(pixels, self._spec)
        grey = torch.einsum("bchw,c->bhw", pixels.detach().cpu().double(), torch.tensor(LUMA, dtype=torch.float64))
        levels = (grey * 255).clamp(0, 255)
        described = [self._describe(lattice(picture), rows, columns) for picture in levels]
        blocks = root_sift(torch.stack(described).reshape(-1, rows * columns, len(OCTAVES), BINS))
        tokens = blocks * contrasted(levels).unsqueeze(-1)
        return Tokens(patches=tokens.flatten(2).to(self._device))

    def _describe(
        self, picture: UInt8[np.ndarray, "lattice_h lattice_w"], rows: int, columns: int
    ) -> Float32[Tensor, "n_times_s 128"]:
        """SIFT descriptors of every patch, sizes innermost, at patch centres of a `lattice` picture."""
        keypoints = [
            self._cv2.KeyPoint(
                float(column * PATCH + PATCH // 2 + MARGIN),
                float(row * PATCH + PATCH // 2 + MARGIN),
                2 * BLUR * 2**octave,  # OpenCV's size is twice the blur, in pixels of the full picture
                0.0,  # angle: upright
                1.0,  # response, unused
                octave | LAYER << 8,  # as OpenCV's own detector packs them
            )
            for row in range(rows)
            for column in range(columns)
            for octave in OCTAVES
        ]
        kept, descriptors = self._sift.compute(picture, keypoints)
        assert len(kept) == len(keypoints)
        return torch.from_numpy(descriptors)


def lattice(levels: Float[Tensor, "h w"]) -> UInt8[np.ndarray, "lattice_h lattice_w"]:
    """The picture read at the corners of its pixels, with `MARGIN` more on every side, in 8 bits as OpenCV wants it.

    Patch centres lie on pixel corners, halfway between pixel centres; OpenCV counts from pixel centres and rounds
    keypoints to whole pixels, so on the picture itself each descriptor would sit half a pixel off. A corner is the mean
    of the four pixels around it: lattice pixel (MARGIN + i, MARGIN + j) is our point (x, y) = (j, i).
    """
    repeated = F.pad(levels[None, None], [MARGIN + 1] * 4, mode="replicate")
    corners = F.avg_pool2d(repeated, kernel_size=2, stride=1)[0, 0]
    return corners.round().to(torch.uint8).numpy()


def root_sift(descriptors: Float[Tensor, "*shape 128"]) -> Float[Tensor, "*shape 128"]:
    """Square roots of L1-normalised descriptors: dot products become Hellinger kernels; zero stays zero."""
    return F.normalize(descriptors, p=1, dim=-1).sqrt()


def contrasted(levels: Float[Tensor, "b h w"]) -> Float32[Tensor, "b n s"]:
    """One where the patches under a support differ by `LEAST_CONTRAST` or more, zero where they do not."""
    highest = F.max_pool2d(levels[:, None], PATCH)
    lowest = -F.max_pool2d(-levels[:, None], PATCH)
    ends = torch.cat([highest, -lowest], dim=1)  # b 2 gh gw
    per_size = []
    for octave in OCTAVES:
        reach = round(4 * 3 * BLUR * 2**octave / (2 * PATCH))  # in patches; a support is 4 bins of 3 blurs each
        span = F.max_pool2d(ends, kernel_size=2 * reach + 1, stride=1, padding=reach).sum(dim=1)  # b gh gw
        per_size.append((span >= LEAST_CONTRAST).flatten(1))
    return torch.stack(per_size, dim=-1).float()
