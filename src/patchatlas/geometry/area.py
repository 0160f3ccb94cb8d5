"""Resample a patch grid by area, and say whether patches and latent tokens meet one to one.

Axes: gh gw the grid given, oh ow the grid wanted, n = gh * gw patches row-major, m = oh * ow, d features. Both grids
span the same rectangle, so a cell of one covers whole and partial cells of the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.geometry.buckets import Hw, to_patches
from patchatlas.geometry.frame import Frame


def area_weights(n_in: int, n_out: int) -> Float64[Tensor, "n_out n_in"]:
    """The part of each output cell that each input cell covers; rows sum to 1.

    Measured in units of 1 / (n_in * n_out) of the side, input cell i spans [i * n_out, (i + 1) * n_out) and output cell
    j spans [j * n_in, (j + 1) * n_in): all ends are integers, so every overlap is exact.

    Raises:
        ShapeError: a count below 1.
    """
    if n_in < 1 or n_out < 1:
        raise ShapeError(f"cannot resample {n_in} cells to {n_out}; both need at least one")
    begin_in = torch.arange(n_in)[None] * n_out
    begin_out = torch.arange(n_out)[:, None] * n_in
    low = torch.maximum(begin_in, begin_out)
    high = torch.minimum(begin_in + n_out, begin_out + n_in)
    return (high - low).clamp(min=0).to(torch.float64) / n_in


def resample_area(values: Float[Tensor, "gh gw d"], shape: Sequence[int]) -> Float[Tensor, "oh ow d"]:
    """Each output cell is the mean of what it covers, weighted by area; float32, constants and totals kept.

    An equal shape gives the values themselves. A finer grid repeats what its cells lie in.

    Args:
        values: features on their grid.
        shape: (rows, columns) wanted.

    Raises:
        ShapeError: a side below 1, or `shape` is not two numbers.
    """
    if len(shape) != 2:
        raise ShapeError(f"a grid of (rows, columns) is wanted, given {tuple(shape)}")
    if tuple(shape) == tuple(values.shape[:2]):
        return values.float()
    down, across = (
        area_weights(n_in, n_out).to(values.device) for n_in, n_out in zip(values.shape, shape, strict=False)
    )
    return torch.einsum("ig,jw,gwd->ijd", down, across, values.double()).float()


@dataclass(frozen=True)
class LatentMatch:
    """The patch grid of an encoder and the token grid of a latent model over one bucket.

    Attributes:
        bucket: (h, w) in pixels.
        patches: (rows, columns) of the encoder.
        tokens: (rows, columns) of the latent model.
    """

    bucket: Hw
    patches: Hw
    tokens: Hw

    @property
    def one_to_one(self) -> bool:
        """Whether patch (r, c) and token (r, c) cover the same part of the picture."""
        return self.patches == self.tokens

    def resample(self, patches: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
        """Patch features, row-major, as one row for each latent token; unchanged where they meet one to one.

        Raises:
            ShapeError: not one row for each patch.
        """
        rows, columns = self.patches
        if len(patches) != rows * columns:
            raise ShapeError(f"{len(patches)} features do not fill a grid of {self.patches}")
        return resample_area(patches.reshape(rows, columns, -1), self.tokens).reshape(-1, patches.shape[1])

    def describe(self) -> str:
        """One sentence."""
        (h, w), (rows, columns), (token_rows, token_columns) = self.bucket, self.patches, self.tokens
        meet = "meet one to one" if self.one_to_one else "do not meet one to one: resample by area"
        return (
            f"bucket {w}x{h}: {rows} x {columns} patches (rows x columns) and {token_rows} x {token_columns} latent "
            f"tokens {meet}"
        )


def match_latents(bucket: Hw, *, patch: Sequence[int], latent_stride: int = 8, latent_patch: int = 2) -> LatentMatch:
    """Whether the patches of an encoder meet the tokens of a latent model over a bucket.

    Args:
        bucket: (h, w) in pixels.
        patch: patch of the encoder, (h, w); the bucket is scaled to whole patches as `to_patches` does.
        latent_stride: pixels to a latent pixel along an axis; 8 in the autoencoders of latent diffusion.
        latent_patch: latent pixels to a token along an axis; 2 in DiT (arXiv:2212.09748, "DiT-XL/2") and its heirs.

    Raises:
        ShapeError: a stride or patch below 1, or a bucket that is not whole tokens.
    """
    step = latent_stride * latent_patch
    if latent_stride < 1 or latent_patch < 1:
        raise ShapeError(f"latent stride {latent_stride} and latent patch {latent_patch} must be 1 or more")
    for side in bucket:
        if side % step:
            raise ShapeError(
                f"bucket {bucket[1]}x{bucket[0]} is not whole latent tokens: side {side} is no multiple of stride "
                f"{latent_stride} x patch {latent_patch} = {step}; take another bucket table or latent patch"
            )
    frame = to_patches(Frame.whole(bucket), patch)
    rows, columns = (n // p for n, p in zip(frame.size, patch, strict=True))
    return LatentMatch(bucket, (rows, columns), (bucket[0] // step, bucket[1] // step))
