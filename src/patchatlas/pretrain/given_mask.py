"""Foreground that a user gives in place of the body: a folder of masks, one for each volume, or a function.

Axes: z y x, growing to Superior, Anterior and Right, as those of the volume; true is foreground. A mask file is read
and turned as a volume is, holds whole numbers, 0 outside and above 0 inside, and lies on the voxels of its volume.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int16

from patchatlas.errors import InputError, UsageError
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.sources import Fault, Source, find_volumes, read_source
from patchatlas.io.volumes.volume import Declared

MaskCall = Callable[[Int16[np.ndarray, "z y x"], tuple[float, float, float]], Bool[np.ndarray, "z y x"]]
"""HU of a volume as it is stored, read only, and mm between its voxels (z, y, x), to what of it is foreground."""

FILES = "files"
"""What the settings of a cache say where masks were given as files."""

_SPACING_DIFFERS = 0.01
"""Largest part of a voxel's side by which that of its mask may differ."""

_APART = 0.1
"""How far off a corner of a mask may lie, in voxels: above the rounding of headers, below half a voxel, by which
programs differ that put the first voxel's corner where others put its centre."""


@dataclass(frozen=True)
class MaskFunction:
    """A function that finds the foreground.

    Attributes:
        name: says which function, and which version of it, made a cache: another name means counting again.
        call: the function. With several workers it must be one that can be pickled, defined at the top of a module.
    """

    name: str
    call: MaskCall

    def label(self) -> str:
        """The same for the settings of a cache."""
        return f"function {self.name}"


@dataclass(frozen=True)
class MaskFiles:
    """The masks of a folder.

    Attributes:
        folder: that they were looked for in.
        by_stem: masks by name, without suffix.
        faults: what looked like one and cannot be read.
    """

    folder: Path
    by_stem: Mapping[str, tuple[Source, ...]]
    faults: tuple[Fault, ...]

    def of(self, volume: Source) -> Source:
        """The mask of a volume.

        Raises:
            VolumeError: there is none of its name, or there are several (no_mask).
        """
        found = self.by_stem.get(volume.stem, ())
        if not found:
            raise VolumeError(
                f"{self.folder} has no mask of its name; put one there as {volume.stem}.nii.gz or in another format "
                f"that is read, or leave the volume out",
                reason="no_mask",
            )
        if len(found) > 1:
            names = ", ".join(mask.name for mask in found)
            raise VolumeError(f"{self.folder} has {len(found)} masks of its name ({names}); keep one", reason="no_mask")
        return found[0]

    def unused(self, volumes: Sequence[Source]) -> tuple[str, ...]:
        """The masks that no volume has the name of."""
        stems = {volume.stem for volume in volumes}
        return tuple(mask.name for stem, masks in self.by_stem.items() if stem not in stems for mask in masks)


def find_masks(folder: str | Path) -> MaskFiles:
    """All masks below a folder, by the names that their volumes have in the index.

    Raises:
        InputError: it is no folder, or has none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the one with the masks")
    found = find_volumes(folder)
    if not found.sources:
        raise InputError(f"{folder} holds no mask: read are the formats of volumes, such as .nii.gz")
    by_stem: dict[str, tuple[Source, ...]] = {}
    for mask in found.sources:
        by_stem[mask.stem] = (*by_stem.get(mask.stem, ()), mask)
    return MaskFiles(folder, by_stem, tuple(replace(fault, source=f"mask {fault.source}") for fault in found.faults))


def read_mask(
    mask: Source, declared: Declared, *, size_zyx: Sequence[int], affine: Float64[np.ndarray, "4 4"]
) -> Bool[np.ndarray, "z y x"]:
    """Read the mask of a volume.

    Args:
        mask: of `MaskFiles.of`.
        declared: what the caller says of arrays that say little, volumes and masks alike.
        size_zyx: voxels of the volume.
        affine: of the volume, as `Volume.affine`.

    Raises:
        VolumeError: it cannot be read, is no mask (not_a_mask), or lies on other voxels (mask_differs).
    """
    try:
        read = read_source(mask, replace(declared, units="labels"))
    except VolumeError as error:
        raise VolumeError(f"its mask {mask.name}: {error}", reason=error.reason) from error
    remedy = "resample it onto the volume, or give the one that was made of it"
    if read.values.shape != tuple(size_zyx):
        raise VolumeError(
            f"its mask {mask.name} has {read.values.shape} voxels (z, y, x), the volume {tuple(size_zyx)}; {remedy}",
            reason="mask_differs",
        )
    spacing_xyz = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(read.spacing_zyx[::-1], spacing_xyz, rtol=_SPACING_DIFFERS, atol=0):
        raise VolumeError(
            f"the voxels of its mask {mask.name} are {_mm(read.spacing_zyx)} mm (z, y, x), those of the volume "
            f"{_mm(spacing_xyz[::-1].tolist())}; {remedy}",
            reason="mask_differs",
        )
    ends = np.array([[*at, 1.0] for at in np.ndindex(2, 2, 2)]) * [*size_zyx[::-1], 1.0]
    apart = np.linalg.solve(affine, read.affine @ ends.T) - ends.T  # in voxels of the volume
    if np.abs(apart).max() > _APART:
        raise VolumeError(
            f"its mask {mask.name} lies elsewhere, up to {np.abs(apart).max():.3g} voxels off; {remedy}",
            reason="mask_differs",
        )
    inside: Bool[np.ndarray, "z y x"] = read.values != 0
    return inside


def call_mask(
    function: MaskFunction, values: Int16[np.ndarray, "z y x"], spacing_zyx: tuple[float, float, float], *, name: str
) -> Bool[np.ndarray, "z y x"]:
    """Ask a function for the foreground of a volume.

    Args:
        function: what is asked.
        values: HU.
        spacing_zyx: mm between voxels.
        name: of the volume, for messages.

    Raises:
        UsageError: it gives something else than one truth value a voxel. What the function raises itself goes through.
    """
    shown = values.view()
    shown.flags.writeable = False
    found: object = function.call(shown, spacing_zyx)
    if not isinstance(found, np.ndarray) or found.dtype != np.bool_ or found.shape != values.shape:
        given = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise UsageError(f"the mask {function.name!r} gave {given} for {name}; it must give bool {values.shape}")
    return np.ascontiguousarray(found)


def require_sendable(function: MaskFunction) -> None:
    """Refuse a function that other processes cannot be given.

    Raises:
        UsageError: it cannot be pickled.
    """
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"the mask {function.name!r} cannot be sent to other processes ({error}); define it at the top of a "
            f"module, or take workers=1"
        ) from error


def _mm(steps: Sequence[float]) -> str:
    return " x ".join(f"{step:.4g}" for step in steps)
