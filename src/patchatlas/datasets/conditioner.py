"""Text, CLS and patches as one sequence that a generative network attends to, with learnt stand-ins for what is absent.

Axes: b samples, l text tokens, e text features, n patches of the longest sample, t patches of all samples, d patch
features, w width of the sequence, s = l + 1 + n its length.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor, nn

from patchatlas.datasets.batch import Packed, Padded, cumulative, packed_coordinates, padded_coordinates
from patchatlas.errors import ShapeError, UsageError


class Mode(IntEnum):
    """What a sample is conditioned on."""

    NONE = 0
    TEXT = 1
    IMAGE = 2
    BOTH = 3


DROPOUT: Mapping[Mode, float] = {Mode.NONE: 0.10, Mode.TEXT: 0.30, Mode.IMAGE: 0.05, Mode.BOTH: 0.55}
"""How often each mode is drawn in training, so that one network can later be guided by text, picture, both or neither
(classifier-free guidance, Ho and Salimans, arXiv:2207.12598). The shares are those of timlawrenz/prx-tg."""


@dataclass(frozen=True)
class Conditioning:
    """The sequence of each sample: its text, its CLS, its patches, row-major; gaps where a sample has less than others.

    Attributes:
        tokens: zero in the gaps.
        mask: true where there is a token; what attends to the sequence must leave out the rest.
    """

    tokens: Float[Tensor, "b s w"]
    mask: Bool[Tensor, "b s"]

    def packed(self) -> "PackedConditioning":
        """The same sequences without gaps, end to end."""
        lengths = self.mask.sum(dim=1)
        return PackedConditioning(self.tokens[self.mask], cumulative(lengths), int(lengths.max()))


@dataclass(frozen=True)
class PackedConditioning:
    """Sequences end to end, as variable-length attention takes them.

    Attributes:
        tokens: of all samples, one after the other.
        cu_seqlens: where each sample begins, and at last the number of tokens.
        max_seqlen: tokens of the longest sample.
    """

    tokens: Float[Tensor, "total w"]
    cu_seqlens: Int32[Tensor, " ends"]
    max_seqlen: int


class PatchConditioner(nn.Module):
    """Projects text, CLS and patches to one width and says what and where each token is.

    A token is its projection plus an embedding of its type; patches also get one of their place, linear in sines and
    cosines of their coordinates. What is dropped becomes one learnt token, so that the length of the sequence does not
    betray the size of a picture that the network must not know.

    Args:
        width: of the sequence.
        text_dim: features of the text encoder.
        patch_dim: features of the patches and CLS.
        has_cls: whether there is a CLS; `bundled:sift` has none.
        bands: octaves of the place embedding: sin and cos of 2**k pi x for k below it (Mildenhall et al., ECCV 2020,
            equation 4). Six tell neighbours apart on grids up to some hundred patches.
        dropout: share of each mode in `draw_modes`.

    Raises:
        UsageError: shares that are negative or do not add up to one.
    """

    def __init__(
        self,
        width: int,
        *,
        text_dim: int,
        patch_dim: int,
        has_cls: bool = True,
        bands: int = 6,
        dropout: Mapping[Mode, float] = DROPOUT,
    ) -> None:
        super().__init__()
        shares = [dropout.get(mode, 0.0) for mode in Mode]
        if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-9):
            raise UsageError(f"the shares of the modes are {shares}; they must not be negative and add up to 1")
        self.text = nn.Linear(text_dim, width)
        self.cls = nn.Linear(patch_dim, width) if has_cls else None
        self.patches = nn.Linear(patch_dim, width)
        self.place = nn.Linear(4 * bands, width, bias=False)
        self.text_type, self.patch_type, self.null_text, self.null_patch = (_learnt(width) for _ in range(4))
        self.cls_type, self.null_cls = (_learnt(width) if has_cls else None for _ in range(2))
        # Not buffers, for `module.to(torch.bfloat16)` would round them.
        self._bands = bands
        self._shares = tuple(shares)

    def draw_modes(self, count: int, generator: torch.Generator) -> Int64[Tensor, " b"]:
        """Modes of `count` samples by the shares of `dropout`; the same generator state gives the same modes."""
        drawn = torch.rand(count, dtype=torch.float64, generator=generator, device=generator.device)
        return torch.bucketize(drawn, drawn.new_tensor(self._shares).cumsum(0)[:-1], right=True)

    def waves(self, coordinates: Float[Tensor, "*shape 2"]) -> Float[Tensor, "*shape waves"]:
        """Sines and cosines of coordinates, which `place` takes; a network can give its own tokens places with them."""
        frequencies = math.pi * 2.0 ** torch.arange(self._bands, dtype=torch.float32, device=coordinates.device)
        angles = (coordinates.float()[..., None] * frequencies).flatten(-2)  # *shape (2 bands)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(
        self,
        patches: Padded | Packed,
        *,
        text: Float[Tensor, "b l e"] | None = None,
        text_mask: Bool[Tensor, "b l"] | None = None,
        cls: Float[Tensor, "b d"] | None = None,
        modes: Int64[Tensor, " b"] | None = None,
    ) -> Conditioning:
        """The sequence of each sample.

        Args:
            patches: as a loader gives them, padded or packed; both give the same sequence.
            text: from a text encoder, its own positions in it. Without it, no sample has text.
            text_mask: true where there is a text token; all without it. A sample without any counts as without text.
            cls: of the samples, if the conditioner was made for one.
            modes: what each sample is conditioned on, from `draw_modes` in training; without it, all there is.

        Raises:
            ShapeError: a CLS is given and not expected, or the reverse; or the sizes do not fit.
        """
        count = len(patches.grids)
        if (cls is None) != (self.cls is None):
            raise ShapeError(
                f"this conditioner was made {'with' if self.cls else 'without'} a CLS, given {cls is not None}"
            )
        for name, given in (("text", text), ("cls", cls), ("modes", modes)):
            if given is not None and len(given) != count:
                raise ShapeError(f"{name} is of {len(given)} samples, the patches of {count}")
        if modes is None:
            modes = torch.full((count,), int(Mode.BOTH))
        modes = modes.to(self.null_text.device)
        with_text = (modes == Mode.TEXT) | (modes == Mode.BOTH)
        with_image = (modes == Mode.IMAGE) | (modes == Mode.BOTH)
        blocks = [self._text_block(text, text_mask, with_text)]
        if self.cls is not None and self.null_cls is not None and cls is not None:
            seen = (self.cls(cls) + self.cls_type)[:, None]
            known = torch.ones(count, 1, dtype=torch.bool, device=seen.device)
            blocks.append(_or_null(seen, known, with_image, self.null_cls))
        blocks.append(_or_null(*self._placed(patches), with_image, self.null_patch))
        tokens = torch.cat([tokens for tokens, _ in blocks], dim=1)
        mask = torch.cat([mask for _, mask in blocks], dim=1)
        return Conditioning(tokens * mask[..., None], mask)

    def _text_block(
        self, text: Tensor | None, mask: Tensor | None, with_text: Bool[Tensor, " b"]
    ) -> tuple[Tensor, Tensor]:
        if text is None or text.shape[1] == 0:
            null = self.null_text.expand(len(with_text), 1, -1)
            return null, torch.ones_like(with_text)[:, None]
        if mask is None:
            mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        seen = self.text(_without_padding(text, mask)) + self.text_type
        return _or_null(seen, mask, with_text & mask.any(dim=1), self.null_text)

    def _placed(self, patches: Padded | Packed) -> tuple[Float[Tensor, "b n w"], Bool[Tensor, "b n"]]:
        """Projected patches with their places, side by side."""
        at = patches.coordinates
        if isinstance(patches, Padded):
            at = padded_coordinates(patches.grids, patches.values.shape[1]) if at is None else at
            return self._embedded(_without_padding(patches.values, patches.mask), at), patches.mask
        at = packed_coordinates(patches.grids) if at is None else at
        embedded = self._embedded(patches.values, at)
        side_by_side = Packed(embedded, patches.cu_seqlens, patches.max_seqlen, patches.grids).padded()
        return side_by_side.values, side_by_side.mask

    def _embedded(self, values: Float[Tensor, "*shape d"], at: Float[Tensor, "*shape 2"]) -> Float[Tensor, "*shape w"]:
        embedded: Tensor = self.patches(values) + self.place(self.waves(at).to(values.dtype)) + self.patch_type
        return embedded


def _without_padding(tokens: Float[Tensor, "b n e"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n e"]:
    """Zeros for whatever lies in the padding: times a mask of zeros NaN stays NaN, in the tokens or in gradients."""
    return torch.where(mask[..., None], tokens, 0)


def _learnt(width: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(width))


def _or_null(
    tokens: Float[Tensor, "b n w"], mask: Bool[Tensor, "b n"], kept: Bool[Tensor, " b"], null: Float[Tensor, " w"]
) -> tuple[Float[Tensor, "b n w"], Bool[Tensor, "b n"]]:
    """The block itself for samples that are kept; one null token, in the first place, for the others."""
    first = torch.zeros_like(mask)
    first[:, 0] = True
    keep = kept[:, None]
    return torch.where(keep[..., None], tokens, null.to(tokens.dtype)), torch.where(keep, mask, first)
