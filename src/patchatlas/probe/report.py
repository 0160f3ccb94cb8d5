"""What the probe found: a verdict, the numbers behind it, and what to do."""

from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["aligned", "shifted", "transposed", "mirrored", "cropped", "padded", "offset", "unclear", "scrambled"]


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """The result of one probe. Displacements are token minus cell, in cells, along (row, col) or (z, row, col).

    Attributes:
        encoder: name of the encoder.
        size: size of the pictures it was probed with, (h, w) or (z, h, w).
        patch: its patch.
        grid: patches along each axis.
        verdict: `aligned`; `shifted` (by whole tokens of the flat list); `transposed`; `mirrored`; `cropped` (sees only
            part of the input); `padded` (sees it smaller); `offset` (by a fraction of a patch, or whole patches without
            running over the row ends); `unclear` (most cells hit, the misses follow no rule); `scrambled`.
        explanation: the verdict in words, with its numbers.
        advice: what to do about it.
        hit_rate: part of the probed cells whose own token changes most.
        cells: number of cells probed.
        misses: flat numbers of the cells that another token answers, or none.
        silent: flat numbers of the cells that no token answers.
        displacements: how many answered cells are displaced by so much.
        flat_displacements: the same in positions of the flat token list.
        agreement: part of the cells that the verdict accounts for.
        shift: tokens of the flat list, for `shifted`.
        cyclic: for `shifted`, whether the tokens pushed out at one end come back at the other.
        axes: the axis of the input that each axis of the tokens follows.
        slope: tokens per cell along each axis of the tokens: above 1, the input is seen enlarged; below 0, mirrored;
            `None` where tokens do not follow lines.
        offset: displacement at the middle of the grid, to a fraction of a cell, for `aligned`, `offset`, `cropped` and
            `padded`.
        seen: what the whole grid sees, as pixels (low corner, high corner) along (row, col) or (z, row, col); `None`
            unless `cropped`.
        pictures: noise pictures used.
        forwards: pictures encoded in all.
    """

    encoder: str
    size: tuple[int, ...]
    patch: tuple[int, ...]
    grid: tuple[int, ...]
    verdict: Verdict
    explanation: str
    advice: str
    hit_rate: float
    cells: int
    misses: tuple[int, ...]
    silent: tuple[int, ...]
    displacements: dict[tuple[int, ...], int]
    flat_displacements: dict[int, int]
    agreement: float
    shift: int | None
    cyclic: bool | None
    axes: tuple[int, ...]
    slope: tuple[float, ...] | None
    offset: tuple[float, ...] | None
    seen: tuple[tuple[float, ...], tuple[float, ...]] | None
    pictures: int
    forwards: int

    @property
    def aligned(self) -> bool:
        """Whether the tokens may be trusted to sit where their pixels are."""
        return self.verdict == "aligned"

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; displacements as `{"by": [row, col], "cells": count}`, most frequent first."""
        stored = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        stored["displacements"] = [
            {"by": list(by), "cells": count} for by, count in sorted(self.displacements.items(), key=_most)
        ]
        stored["flat_displacements"] = [
            {"by": by, "cells": count} for by, count in sorted(self.flat_displacements.items(), key=_most)
        ]
        if self.seen is not None:
            stored["seen"] = [list(corner) for corner in self.seen]
        return stored


def _most(item: tuple[Any, int]) -> tuple[int, Any]:
    return -item[1], item[0]
