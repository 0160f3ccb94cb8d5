"""What many crops have in common, in numbers: ratios, overlaps, flags. From records alone, so before any training."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from patchatlas.pretrain.crops.config import CropConfig, PhotoCropConfig
from patchatlas.pretrain.crops.records import ANYWHERE, FLAGS, CropRecord


@dataclass(frozen=True)
class CropSummary:
    """Crops of several samples.

    Attributes:
        samples: how many.
        global_ratios: foreground ratio of each global crop.
        local_ratios: of each local crop.
        overlaps: of each global crop after the first with the first one of its sample.
        flags: crops with each flag, of all.
        below_min: crops that were held to the least ratio of their scale and have less.
    """

    samples: int
    global_ratios: tuple[float, ...]
    local_ratios: tuple[float, ...]
    overlaps: tuple[float, ...]
    flags: dict[str, int]
    below_min: int

    @property
    def crops(self) -> int:
        """Crops in all."""
        return len(self.global_ratios) + len(self.local_ratios)

    @property
    def disjoint(self) -> float:
        """Share of the pairs of global crops that show nothing in common; 0 without pairs."""
        return fmean(overlap == 0 for overlap in self.overlaps) if self.overlaps else 0.0

    def to_json(self) -> dict[str, Any]:
        """Counts and means; not the single ratios."""
        means = {
            f"mean_{name}": fmean(values) if values else None
            for name, values in (
                ("global_ratio", self.global_ratios),
                ("local_ratio", self.local_ratios),
                ("overlap", self.overlaps),
            )
        }
        counts = {"samples": self.samples, "crops": self.crops, "below_min": self.below_min, "flags": self.flags}
        return counts | means | {"disjoint_pairs": self.disjoint}


def summarise(samples: Iterable[Sequence[CropRecord]], config: CropConfig | PhotoCropConfig) -> CropSummary:
    """Put samples together.

    Args:
        samples: the records of each, its global crops first.
        config: what they were made with.
    """
    n = config.globals.count
    large: list[float] = []
    small: list[float] = []
    overlaps: list[float] = []
    flags: Counter[str] = Counter()
    count = below = 0
    for records in samples:
        count += 1
        large += [record.fg_ratio for record in records[:n]]
        small += [record.fg_ratio for record in records[n:]]
        overlaps += [records[0].overlap(record) for record in records[1:n]]
        flags.update(flag for record in records for flag in record.flags)
        if isinstance(config, CropConfig):
            below += sum(_misses(config, k, record) for k, record in enumerate(records))
    counted = {flag: flags[flag] for flag in FLAGS}
    return CropSummary(count, tuple(large), tuple(small), tuple(overlaps), counted, below)


def _misses(config: CropConfig, number: int, record: CropRecord) -> bool:
    """Whether a crop of a volume was held to its scale's ratio and has less."""
    scale = config.globals if number < config.globals.count else config.locals
    return ANYWHERE not in record.flags and record.fg_ratio < scale.min_foreground_ratio
