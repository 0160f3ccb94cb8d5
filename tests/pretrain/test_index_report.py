"""What people are told of an index: the volumes by name where one may be odd, and no list that is too long to read."""

from pathlib import Path

import numpy as np

from patchatlas.io.volumes.sources import Fault
from patchatlas.pretrain.cache import VolumeCache, VolumeRecord
from patchatlas.pretrain.histogram import EDGES
from patchatlas.pretrain.index_report import IndexReport


def record(name: str, slices: int) -> VolumeRecord:
    """A volume of some slices."""
    return VolumeRecord(
        id=name,
        source=f"{name}.nii",
        size_zyx=(slices, 16, 16),
        spacing_zyx=(2.0, 0.75, 0.75),
        affine=((1.0, 0.0, 0.0, 0.0),) * 4,
        cell_zyx=(8, 8, 8),
        foreground={"body": 0.5},
        low=-1000,
        high=1000,
        sha256=name,
        facts={},
    )


def lines(records: list[VolumeRecord], faults: list[Fault]) -> list[str]:
    """What is told of them."""
    return IndexReport(
        cache=VolumeCache(Path("cache"), tuple(records), {}),
        how={"made": len(records)},
        skipped=tuple(faults),
        ignored={},
        duplicates=(),
        left_over=(),
        unused_masks=(),
        bytes_stored=0,
        histogram=np.zeros(len(EDGES) - 1, np.int64),
        seconds=0.0,
    ).lines()


def test_the_smallest_volumes_are_named() -> None:
    told = lines([record("scan", 90), record("stub", 5)], [])
    assert told[4:6] == [
        "  stub.nii: 5 x 16 x 16 voxels of 2 x 0.75 x 0.75 mm",
        "  scan.nii: 90 x 16 x 16 voxels of 2 x 0.75 x 0.75 mm",
    ]
    told = lines([record(f"v{k}", 90 - k) for k in range(30)], [])
    assert [line.split(":")[0] for line in told if line.startswith("  v")] == [f"  v{k}.nii" for k in range(29, 21, -1)]
    assert "  and 22 that are no smaller; report.json lists all" in told


def test_many_files_of_one_reason_are_counted() -> None:
    faults = [Fault(f"d{k}", "not_a_volume", "DICOM without a picture") for k in range(50)]
    told = lines([record("scan", 90)], [*faults, Fault("x.npy", "no_spacing", "it does not say")])
    skipped = [line for line in told if "skipped" in line]
    assert skipped[0] == "51 skipped: 1 no_spacing, 50 not_a_volume"
    assert skipped[1] == "skipped d0: not_a_volume: DICOM without a picture"
    assert skipped[9:] == [
        "skipped 42 more: not_a_volume; report.json lists all",
        "skipped x.npy: no_spacing: it does not say",
    ]
    assert lines([], faults[:1])[-1] == "skipped d0: not_a_volume: DICOM without a picture"
