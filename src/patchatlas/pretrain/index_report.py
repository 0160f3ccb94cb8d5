"""What an index of volumes holds and what it left out: report.json, and the lines that people read."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from patchatlas import __version__
from patchatlas.io.volumes.sources import Fault
from patchatlas.pretrain.cache import VALUES_FILE, VolumeCache
from patchatlas.pretrain.entry import Done
from patchatlas.pretrain.histogram import BIN, EDGES, percentile

REPORT_FILE = "report.json"
FORMAT = "patchatlas.volume-index-report"
VERSION = 1

_PERCENTILES = (0.005, 0.05, 0.5, 0.95, 0.995)

_NAMED = 8
"""Volumes, and files of one reason, that people are shown by name."""


@dataclass(frozen=True, eq=False)
class IndexReport:
    """The outcome of one run.

    Attributes:
        cache: what was indexed, ready to be read.
        how: volumes by how they came there: made, kept, counted.
        skipped: what cannot be used, and why.
        ignored: files that are no volumes, by suffix.
        duplicates: sources of the same bytes, in groups.
        left_over: entries in the folder that no source stands for any more.
        unused_masks: mask files that no volume has the name of.
        bytes_stored: of the compressed values.
        histogram: voxels of all volumes in each bin of `histogram.EDGES`.
        seconds: how long it took.
    """

    cache: VolumeCache
    how: Mapping[str, int]
    skipped: tuple[Fault, ...]
    ignored: Mapping[str, int]
    duplicates: tuple[tuple[str, ...], ...]
    left_over: tuple[str, ...]
    unused_masks: tuple[str, ...]
    bytes_stored: int
    histogram: Int64[np.ndarray, " bins"]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text."""
        records = self.cache.records
        return {
            "format": FORMAT,
            "version": VERSION,
            "package": __version__,
            "settings": self.cache.settings,
            "volumes": len(records),
            **{name: self.how.get(name, 0) for name in ("made", "kept", "counted")},
            "skipped": [
                {"source": fault.source, "reason": fault.reason, "message": fault.message} for fault in self.skipped
            ],
            "reasons": dict(sorted(Counter(fault.reason for fault in self.skipped).items())),
            "ignored": dict(self.ignored),
            "duplicates": [list(group) for group in self.duplicates],
            "left_over": list(self.left_over),
            "unused_masks": list(self.unused_masks),
            "voxels": int(sum(np.prod(record.size_zyx, dtype=np.int64) for record in records)),
            "bytes_stored": self.bytes_stored,
            "foreground": self._foreground(),
            "percentiles_hu": {
                f"{100 * share:g}": round(percentile(self.histogram, share), 1) for share in _PERCENTILES
            }
            if records
            else {},
            "histogram": {"low": int(EDGES[0]), "bin": BIN, "counts": self.histogram.tolist()},
            "entries": [
                {
                    "id": record.id,
                    "source": record.source,
                    "size_zyx": list(record.size_zyx),
                    "spacing_zyx": list(record.spacing_zyx),
                    "low": record.low,
                    "high": record.high,
                    "foreground": dict(record.foreground),
                }
                for record in records
            ],
            "seconds": round(self.seconds, 2),
        }

    def lines(self) -> list[str]:
        """The same for people, shorter."""
        records = self.cache.records
        counts = ", ".join(f"{self.how[name]} {name}" for name in ("made", "kept", "counted") if self.how.get(name))
        lines = [
            f"{len(records)} volumes in {self.cache.folder}" + (f" ({counts})" if counts else ""),
            f"{self.bytes_stored / 1e6:.1f} MB of values, {self.seconds:.1f} s",
        ]
        if records:
            sides = np.array([record.size_zyx for record in records])
            steps = np.array([record.spacing_zyx for record in records])
            lines += [f"voxels (z, y, x): {_range(sides, 'd')}", f"mm (z, y, x): {_range(steps, '.3g')}"]
            lines += self._named()
        for key, share in self._foreground().items():
            lines.append(f"foreground {key}: {share['min']:.1%} to {share['max']:.1%}, median {share['median']:.1%}")
        for group in self.duplicates:
            lines.append(f"the same bytes: {', '.join(group)}")
        if self.ignored:
            lines.append("no volumes: " + ", ".join(f"{count} {suffix}" for suffix, count in self.ignored.items()))
        if self.left_over:
            lines.append(f"{len(self.left_over)} entries without a source stay in the folder and are not in the index")
        if self.unused_masks:
            some = ", ".join(self.unused_masks[:5]) + (" ..." if len(self.unused_masks) > 5 else "")
            lines.append(f"{len(self.unused_masks)} masks without a volume: {some}")
        return [*lines, *self._told_skipped()]

    def _named(self) -> list[str]:
        """The smallest volumes by name: what is no scan to learn from is among them."""
        smallest = sorted(self.cache.records, key=lambda record: math.prod(record.size_zyx))[:_NAMED]
        lines = [
            f"  {record.source}: {_sides(record.size_zyx, 'd')} voxels of {_sides(record.spacing_zyx, '.3g')} mm"
            for record in smallest
        ]
        more = len(self.cache.records) - len(smallest)
        return [*lines, f"  and {more} that are no smaller; {REPORT_FILE} lists all"] if more else lines

    def _told_skipped(self) -> list[str]:
        """What was left out: how many for each reason, and the first ones of each."""
        by_reason: dict[str, list[Fault]] = {}
        for fault in self.skipped:
            by_reason.setdefault(fault.reason, []).append(fault)
        lines = []
        if len(self.skipped) > 1:
            counts = ", ".join(f"{len(faults)} {reason}" for reason, faults in sorted(by_reason.items()))
            lines.append(f"{len(self.skipped)} skipped: {counts}")
        for reason, faults in by_reason.items():
            lines += [f"skipped {fault.source}: {reason}: {fault.message}" for fault in faults[:_NAMED]]
            if len(faults) > _NAMED:
                lines.append(f"skipped {len(faults) - _NAMED} more: {reason}; {REPORT_FILE} lists all")
        return lines

    def _foreground(self) -> dict[str, dict[str, float]]:
        """Smallest, median and largest share of foreground by key."""
        shares: dict[str, list[float]] = {}
        for record in self.cache.records:
            for key, share in record.foreground.items():
                shares.setdefault(key, []).append(share)
        return {
            key: {"min": min(all_), "median": float(np.median(all_)), "max": max(all_)} for key, all_ in shares.items()
        }


def make_report(
    cache: VolumeCache,
    done: Sequence[Done],
    faults: Sequence[Fault],
    *,
    ignored: Mapping[str, int],
    left_over: Sequence[str],
    unused_masks: Sequence[str],
    seconds: float,
) -> IndexReport:
    """Sum up a run.

    Args:
        cache: its result.
        done: its entries.
        faults: what cannot be used.
        ignored: see `IndexReport`.
        left_over: likewise.
        unused_masks: likewise.
        seconds: likewise.
    """
    same: dict[str, list[str]] = {}
    histogram = np.zeros(len(EDGES) - 1, np.int64)
    stored = 0
    for record in cache.records:
        same.setdefault(record.sha256, []).append(record.source)
        histogram += cache.histogram(record)
        stored += (cache.folder / "volumes" / record.id / VALUES_FILE).stat().st_size
    return IndexReport(
        cache=cache,
        how=Counter(one.how for one in done),
        skipped=tuple(sorted(faults, key=lambda fault: fault.source)),
        ignored=ignored,
        duplicates=tuple(tuple(group) for group in same.values() if len(group) > 1),
        left_over=tuple(left_over),
        unused_masks=tuple(unused_masks),
        bytes_stored=stored,
        histogram=histogram,
        seconds=seconds,
    )


def _sides(sides: Sequence[int | float], form: str) -> str:
    return " x ".join(format(side, form) for side in sides)


def _range(values: np.ndarray, form: str) -> str:
    low, high = ([format(one, form) for one in ends] for ends in (values.min(axis=0), values.max(axis=0)))
    return " x ".join(a if a == b else f"{a}-{b}" for a, b in zip(low, high, strict=True))
