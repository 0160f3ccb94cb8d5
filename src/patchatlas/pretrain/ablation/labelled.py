"""Volumes with the organ of every voxel, which no run of an ablation learns from, for the probe of frozen features.

Axes: z y x, growing to Superior, Anterior and Right; values in HU.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int16

from patchatlas.errors import InputError
from patchatlas.io.volumes.sources import read_volume
from patchatlas.io.volumes.volume import Declared
from patchatlas.pretrain.foreground import body_mask
from patchatlas.pretrain.probe import Case
from patchatlas.pretrain.window import normalise


@dataclass(frozen=True, eq=False)
class Labelled:
    """One volume with the truth about it.

    Attributes:
        name: of its file.
        sha256: of the bytes of both files.
        values: HU.
        labels: class of each voxel, 0 for what is of none.
        foreground: body or not.
    """

    name: str
    sha256: str
    values: Int16[np.ndarray, "z y x"]
    labels: Int16[np.ndarray, "z y x"]
    foreground: Bool[np.ndarray, "z y x"]

    def case(self, window_hu: tuple[float, float]) -> Case:
        """As the probe takes it, in the window of an arm."""
        pixels = torch.from_numpy(normalise(self.values, window_hu))[None]
        return Case(pixels, self.labels, self.foreground)


def read_labelled(
    folder: str | Path, *, spacing_mm: Sequence[float], learnt_from: Collection[str] = ()
) -> tuple[Labelled, ...]:
    """The volumes in FOLDER/volumes with the labels of the same names in FOLDER/labels, in the order of their names.

    Args:
        folder: of both.
        spacing_mm: of a voxel as runs see it, along each axis.
        learnt_from: hashes of files that runs learn from.

    Raises:
        InputError: fewer than two volumes, a volume without labels or of other size or spacing, or one of those that
            runs learn from.
        VolumeError: a file that cannot be read, or labels that are not whole numbers from 0 on.
    """
    folder = Path(folder)
    paths = sorted(path for path in (folder / "volumes").glob("*") if path.is_file() and path.name[0] != ".")
    if len(paths) < 2:
        raise InputError(
            f"{folder}/volumes holds {len(paths)} volumes; a probe needs two or more, and their labels under the same "
            f"names in {folder}/labels"
        )
    return tuple(_read(path, folder / "labels" / path.name, spacing_mm, learnt_from) for path in paths)


def fingerprint(volumes: Sequence[Labelled]) -> str:
    """Of all that the probe is asked about."""
    return hashlib.sha256("\n".join(f"{one.name}:{one.sha256}" for one in volumes).encode()).hexdigest()


def _read(path: Path, labels_path: Path, spacing_mm: Sequence[float], learnt_from: Collection[str]) -> Labelled:
    if not labels_path.is_file():
        raise InputError(f"{path} has no labels; put them in {labels_path}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() in learnt_from:
        raise InputError(f"{path} is among the volumes that runs learn from; hold it out, and index without it")
    volume = read_volume(path)
    labels = read_volume(labels_path, Declared(units="labels"))
    if labels.values.shape != volume.values.shape:
        raise InputError(
            f"{labels_path} has {labels.values.shape} voxels; labels are whole numbers from 0 on, one for each of the "
            f"{volume.values.shape} voxels of {path}"
        )
    if not np.allclose(volume.spacing_zyx, spacing_mm, rtol=0.01):
        raise InputError(
            f"{path} has voxels of {volume.spacing_zyx} mm, runs see {tuple(spacing_mm)} mm; resample it and its labels"
        )
    return Labelled(
        name=path.name,
        sha256=hashlib.sha256(content + labels_path.read_bytes()).hexdigest(),
        values=volume.values,
        labels=labels.values,
        foreground=body_mask(volume.values, volume.spacing_zyx),
    )
