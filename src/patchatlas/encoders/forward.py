"""Forwards within a budget: how many inputs one may hold, and what happens when the accelerator has not the memory.

Axes: b batch, c channels, size = (h, w) or (z, h, w).
"""

import logging
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.errors import ResourceError, ShapeError
from patchatlas.spec import EncoderSpec

log = logging.getLogger(__name__)

BATCH = 8
"""Inputs a forward holds at most where nobody says otherwise."""

WORKSPACE = 4 * 2**20
"""Bytes for what is worked on in blocks: scores of attention, hidden activations of a feed-forward part."""


def activation_bytes(cells: Sequence[int], spec: EncoderSpec, *, inputs: int = 1) -> int:
    """An upper estimate of what one forward over `inputs` of `cells` patches holds at its peak, in bytes.

    Per token and feature a transformer block holds the residual, the normed copy, q, k, v, the attention output and the
    hidden layer (4 wide, 2 copies): 14 numbers of 4 bytes. The input pixels and their unfolded patches come on top, and
    once `WORKSPACE`.
    """
    patches = math.prod(cells)
    volume = spec.channels * patches * math.prod(spec.patch)
    return inputs * ((patches + 1 + spec.registers) * spec.dim * 14 * 4 + 2 * volume * 4) + WORKSPACE


def affordable(cells: Sequence[int], spec: EncoderSpec, *, inputs: int, batch: int | None, budget: int | None) -> int:
    """How many inputs of `cells` patches a forward may hold: as many as were asked for and as the budget allows.

    Args:
        cells: patches of one input along each axis.
        spec: of the encoder.
        inputs: how many there are in all.
        batch: how many were asked for; `BATCH` if nobody did.
        budget: bytes that the activations of a forward may take; any number if not given.

    Raises:
        ShapeError: `batch` is not positive.
        ResourceError: even one is more than the budget.
    """
    wanted = min(BATCH, inputs) if batch is None else batch
    if wanted < 1:
        raise ShapeError(f"a batch of {wanted} inputs is not positive; give at least 1")
    if budget is None:
        return wanted
    one = activation_bytes(cells, spec)
    if one > budget:
        size = tuple(n * p for n, p in zip(cells, spec.patch, strict=True))
        raise ResourceError(
            f"encoding {size} pixels at once takes about {one / 1e6:.3g} MB, the budget is {budget / 1e6:.3g} MB; use "
            "(smaller) windows, a smaller size or a larger budget"
        )
    return min(wanted, 1 + (budget - one) // (one - WORKSPACE))


def forward(encoder: Encoder, pixels: Float[Tensor, "b c *size"]) -> Tokens:
    """Encode a batch; where the accelerator has not the memory, halve the batch and say so.

    Raises:
        ResourceError: memory ran out on a single input.
    """
    try:
        return encoder(pixels)
    except torch.OutOfMemoryError as error:
        if len(pixels) == 1:
            raise ResourceError(
                f"{encoder.device} ran out of memory on one input of {tuple(pixels.shape[1:])}; use windows or a "
                "smaller size"
            ) from error
    half = len(pixels) // 2
    log.warning("%s ran out of memory on %d inputs; trying %d at a time", encoder.device, len(pixels), half)
    parts = [forward(encoder, part) for part in pixels.split(half)]
    cls = [p.cls for p in parts if p.cls is not None]
    registers = [p.registers for p in parts if p.registers is not None]
    patches = torch.cat([p.patches for p in parts])
    return Tokens(patches, torch.cat(cls) if cls else None, torch.cat(registers) if registers else None)
