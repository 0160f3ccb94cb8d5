"""What a loader hands out: samples of a batch as padded or packed sequences, and whatever stacks as it is.

Axes: b samples, n tokens of the longest sample, t tokens of all samples, d features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from patchatlas.datasets.coordinates import grid_coordinates
from patchatlas.errors import ShapeError


@dataclass(frozen=True)
class Padded:
    """Sequences filled up with zeros to the length of the longest.

    Attributes:
        values: tokens, row-major over each sample's grid, then zeros.
        mask: true where there is a token.
        grids: rows and columns of each sample.
        coordinates: centre (x, y) of each patch, see `grid_coordinates`; zero where there is no token.
    """

    values: Float[Tensor, "b n d"]
    mask: Bool[Tensor, "b n"]
    grids: Int64[Tensor, "b 2"]
    coordinates: Float[Tensor, "b n 2"] | None = None

    def packed(self) -> "Packed":
        """The same samples end to end."""
        lengths = self.mask.sum(dim=1)
        return Packed(
            self.values[self.mask],
            cumulative(lengths),
            int(lengths.max()),
            self.grids,
            None if self.coordinates is None else self.coordinates[self.mask],
        )


@dataclass(frozen=True)
class Packed:
    """Sequences end to end, as variable-length attention takes them (`torch.nn.attention.varlen.varlen_attn`).

    Attributes:
        values: tokens of all samples.
        cu_seqlens: where each sample begins, and at last the number of tokens; one more than samples.
        max_seqlen: tokens of the longest sample.
        grids: rows and columns of each sample.
        coordinates: centre (x, y) of each patch, see `grid_coordinates`.
    """

    values: Float[Tensor, "t d"]
    cu_seqlens: Int32[Tensor, " ends"]
    max_seqlen: int
    grids: Int64[Tensor, "b 2"]
    coordinates: Float[Tensor, "t 2"] | None = None

    def padded(self) -> Padded:
        """The same samples side by side."""
        lengths = self.cu_seqlens.diff().tolist()
        values = torch.nn.utils.rnn.pad_sequence(list(self.values.split(lengths)), batch_first=True)
        mask = torch.arange(values.shape[1], device=values.device) < self.cu_seqlens.diff()[:, None]
        coordinates = self.coordinates
        if coordinates is not None:
            coordinates = torch.nn.utils.rnn.pad_sequence(list(coordinates.split(lengths)), batch_first=True)
        return Padded(values, mask, self.grids, coordinates)


@dataclass(frozen=True)
class Batch:
    """Some samples; none, and no tensors, where none of them could be read.

    Attributes:
        ids: image ids.
        records: manifest records as JSON has them; empty objects where the loader was told not to read them.
        sequences: kind -> tokens, for kinds with one vector a patch.
        stacked: kind -> array with samples first, for CLS, registers and latents.
        skipped: (image id, reason) of samples that could not be read and were left out, where the loader allows any.
    """

    ids: tuple[str, ...]
    records: tuple[Mapping[str, Any], ...]
    sequences: Mapping[str, Padded | Packed]
    stacked: Mapping[str, Tensor]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def captions(self) -> tuple[str | None, ...]:
        """Captions of the records, `None` where there is none."""
        return tuple(record.get("caption") for record in self.records)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; `DataLoader(pin_memory=True)` calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Any) -> "Batch":
        sequences = {}
        for kind, sequence in self.sequences.items():
            parts = {part.name: getattr(sequence, part.name) for part in fields(sequence)}
            changed = {name: change(part) for name, part in parts.items() if isinstance(part, Tensor)}
            sequences[kind] = replace(sequence, **changed)
        stacked = {kind: change(tensor) for kind, tensor in self.stacked.items()}
        return replace(self, sequences=sequences, stacked=stacked)


def cumulative(lengths: Int64[Tensor, " b"]) -> Int32[Tensor, " ends"]:
    """Where each of several sequences begins when they lie end to end, and where the last one ends."""
    return F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def padded_coordinates(grids: Int64[Tensor, "b 2"], length: int) -> Float[Tensor, "b n 2"]:
    """Patch centres of several grids, filled up with zeros to `length`.

    Raises:
        ShapeError: a grid has more patches than `length`.
    """
    known = {shape: grid_coordinates(*shape) for shape in {(int(r), int(c)) for r, c in grids.tolist()}}
    coordinates = torch.zeros(len(grids), length, 2)
    for i, (rows, columns) in enumerate(grids.tolist()):
        if rows * columns > length:
            raise ShapeError(f"a grid of {rows} x {columns} patches does not fit {length} tokens")
        coordinates[i, : rows * columns] = known[rows, columns]
    return coordinates.to(grids.device)


def packed_coordinates(grids: Int64[Tensor, "b 2"]) -> Float[Tensor, "t 2"]:
    """Patch centres of several grids end to end."""
    known = {shape: grid_coordinates(*shape) for shape in {(int(r), int(c)) for r, c in grids.tolist()}}
    return torch.cat([known[int(rows), int(columns)] for rows, columns in grids.tolist()]).to(grids.device)
