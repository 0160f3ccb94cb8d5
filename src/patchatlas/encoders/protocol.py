"""What an encoder is: pixels in 0..1 in, tokens out, and a spec that says what they are.

Axes: b batch, c channels, size = (h, w) or (z, h, w), n patch tokens (row-major over the grid), r registers, d
features.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.spec import EncoderSpec


@dataclass(frozen=True)
class Tokens:
    """Tokens of a batch, split by kind.

    Attributes:
        patches: row-major over the patch grid: token i is row i // columns, column i % columns.
        cls: the class token, or `None` where the encoder has none.
        registers: the register tokens, or `None` where the encoder has none.
    """

    patches: Float[Tensor, "b n d"]
    cls: Float[Tensor, "b d"] | None = None
    registers: Float[Tensor, "b r d"] | None = None


@runtime_checkable
class Encoder(Protocol):
    """Turns pictures (or volumes) of one size into tokens.

    Inputs are floats in 0..1, channels first, each side a multiple of `spec.patch`; the encoder normalises them itself
    and never resizes, crops or pads. It runs without gradients, on `device`, and gives float32 tokens on that device
    whatever its arithmetic.
    """

    @property
    def spec(self) -> EncoderSpec:
        """The facts."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def __call__(self, pixels: Float[Tensor, "b c *size"], /) -> Tokens:
        """Encode a batch.

        Raises:
            ShapeError: a side is not a multiple of the patch, or the channels are not `spec.channels`.
        """
        ...
