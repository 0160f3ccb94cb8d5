"""A cache in memory, as crops see one, and volumes to put in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from patchatlas.pretrain.cache import CellCounts


@dataclass(frozen=True)
class MemoryVolume:
    """A record whose values are at hand."""

    id: str
    values: np.ndarray
    spacing_zyx: tuple[float, float, float] = (1.0, 1.0, 1.0)
    masks: Mapping[str | float, np.ndarray] = field(default_factory=dict)

    @property
    def size_zyx(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        z, y, x = self.values.shape
        return z, y, x

    def mask(self, key: str | float) -> np.ndarray:
        """Foreground, as given or by threshold; the body is what is dense unless given."""
        if key in self.masks:
            return self.masks[key]
        return self.values > (-500.0 if key == "body" else key)


@dataclass(frozen=True)
class MemoryCache:
    """Volumes that are read as from a cache; counts what it is asked."""

    records: tuple[MemoryVolume, ...]
    cell: tuple[int, int, int] = (4, 4, 4)
    reads: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    body_hu: float = -500.0

    def read(self, record: MemoryVolume, start_zyx: Sequence[int], size_zyx: Sequence[int]) -> np.ndarray:
        """One box; refuses what reaches beyond the volume, as the real one does."""
        for at, n, whole in zip(start_zyx, size_zyx, record.size_zyx, strict=True):
            assert 0 <= at < at + n <= whole
        self.reads.append((record.id, tuple(start_zyx), tuple(size_zyx)))
        return record.values[tuple(slice(at, at + n) for at, n in zip(start_zyx, size_zyx, strict=True))]

    def cells(self, record: MemoryVolume, key: str | float) -> CellCounts:
        """Voxels of a mask in each cell."""
        return CellCounts(count_cells(record.mask(key), self.cell).astype(np.uint32), self.cell)


def count_cells(mask: np.ndarray, cell: Sequence[int]) -> np.ndarray:
    """Voxels of a mask in each cell, slowly."""
    counts = mask.astype(np.int64)
    for axis, side in enumerate(cell):
        counts = np.add.reduceat(counts, np.arange(0, counts.shape[axis], side), axis=axis)
    return counts


def blob(
    rng: np.random.Generator, size: tuple[int, int, int] = (40, 48, 44), *, name: str = "blob", share: float = 0.4
) -> MemoryVolume:
    """A smooth random body of some share of the volume in air, with texture."""
    field = ndimage.gaussian_filter(rng.standard_normal(size), 5.0, mode="wrap")
    inside = field > np.quantile(field, 1 - share)
    values = np.where(inside, 40, -1000) + rng.integers(-30, 31, size)
    return MemoryVolume(name, values.astype(np.int16), (1.5, 0.75, 0.75))


def small_config(**changes: object) -> dict[str, object]:
    """Settings that fit the volumes above: patches of 4, crops of 16 and 8."""
    settings: dict[str, object] = {
        "patch": 4,
        "globals": {"size": 16, "foreground": -500},
        "locals": {"size": 8, "count": 4, "foreground": -500},
    }
    for key, value in changes.items():
        below = settings.get(key)
        settings[key] = below | value if isinstance(below, dict) and isinstance(value, dict) else value
    return settings
