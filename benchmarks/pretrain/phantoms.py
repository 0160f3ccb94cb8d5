"""CT phantoms made from a seed, with the organ of every voxel: a trunk in air on a table, organs of equal mean HU.

    python -m benchmarks.pretrain.phantoms OUT --count 28 --seed 0

writes OUT/volumes/phantom-NNN.nii.gz (HU, int16) and OUT/labels/phantom-NNN.nii.gz (uint8) of the same name. Muscle,
heart, liver, spleen and kidneys have one mean (50 HU), one spread (20 HU within, 25 HU of noise) and differ in texture,
shape and place only: with organs that differ in HU, networks that never learnt anything tell them apart already, so
such phantoms measure nothing (0.90 balanced accuracy of a linear probe on random weights). Sizes, places and pose vary
by volume. 60 to 75 % of the voxels are air. The table touches some bodies.

Axes: z y x, growing to Superior, Anterior and Right.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8
from numpy.random import Generator
from scipy import ndimage

LABELS = ("air", "fat", "muscle", "lung", "spine", "heart", "liver", "spleen", "kidney")
"""Names by label; the table is air, since it is not of the body."""

MEAN_HU = {"fat": -100.0, "muscle": 50.0, "lung": -800.0, "spine": 350.0}
ORGAN_HU, TEXTURE_HU, NOISE_HU, TABLE_HU = 50.0, 20.0, 25.0, 150.0

# Correlation length of the texture of each tissue along z, y and x, voxels.
TEXTURE = {
    "fat": (2.0, 2.0, 2.0),
    "muscle": (3.0, 0.8, 0.8),  # fibres along the body
    "lung": (0.6, 0.6, 0.6),
    "spine": (0.8, 2.0, 2.0),  # discs
    "heart": (0.8, 0.8, 3.0),
    "liver": (1.2, 1.2, 1.2),
    "spleen": (2.4, 2.4, 2.4),
    "kidney": (0.8, 3.0, 0.8),
}

# Centre and semi-axes (z, y, x) as shares of the semi-axes of the trunk; later ones lie over earlier ones.
ORGANS: tuple[tuple[str, tuple[float, float, float], tuple[float, float, float]], ...] = (
    ("lung", (0.40, 0.00, 0.45), (0.42, 0.62, 0.34)),
    ("lung", (0.40, 0.00, -0.45), (0.42, 0.62, 0.34)),
    ("heart", (0.32, 0.22, -0.14), (0.28, 0.46, 0.34)),
    ("liver", (-0.20, 0.10, 0.36), (0.26, 0.58, 0.44)),
    ("spleen", (-0.16, -0.28, -0.58), (0.24, 0.42, 0.26)),
    ("kidney", (-0.56, -0.32, 0.44), (0.28, 0.36, 0.24)),
    ("kidney", (-0.52, -0.32, -0.44), (0.28, 0.36, 0.24)),
)


@dataclass(frozen=True, eq=False)
class Phantom:
    """One made volume.

    Attributes:
        values: HU.
        labels: index into `LABELS` of each voxel.
        spacing_zyx: mm between voxels.
    """

    values: Int16[np.ndarray, "z y x"]
    labels: UInt8[np.ndarray, "z y x"]
    spacing_zyx: tuple[float, float, float]


def make_phantom(
    rng: Generator, *, size_zyx: tuple[int, int, int] = (96, 128, 128), spacing_mm: float = 3.0
) -> Phantom:
    """One volume.

    Args:
        rng: decides sizes, places, pose, texture and noise.
        size_zyx: voxels.
        spacing_mm: between voxels along each axis; a mere statement, organs are as large in voxels whatever it says.
    """
    body_axes = np.array(size_zyx) * (0.56, 0.265, 0.375) * rng.uniform(0.94, 1.06, 3)
    at = _body_coordinates(rng, size_zyx, body_axes)
    # A trunk: round across, cut flat by the ends of the volume or nearly so.
    radius = np.sqrt(at[1] ** 2 + at[2] ** 2 + np.abs(at[0]) ** 6)
    labels = np.zeros(size_zyx, np.uint8)
    labels[radius < 1] = LABELS.index("fat")
    labels[radius < 1 - rng.uniform(0.06, 0.14)] = LABELS.index("muscle")
    inner = labels == LABELS.index("muscle")
    for name, centre, semi_axes in ORGANS:
        moved = np.array(centre) + rng.normal(0, 0.03, 3)
        grown = np.array(semi_axes) * rng.uniform(0.88, 1.12, 3)
        labels[inner & _ellipsoid(at, moved, grown)] = LABELS.index(name)
    spine = (at[1] + 0.62) ** 2 / 0.20**2 + at[2] ** 2 / 0.13**2 < 1
    labels[inner & spine] = LABELS.index("spine")

    values = np.full(size_zyx, -1000.0, np.float32)
    for name in LABELS[1:]:
        mask = labels == LABELS.index(name)
        texture = _texture(rng, size_zyx, TEXTURE[name])
        values[mask] = MEAN_HU.get(name, ORGAN_HU) + TEXTURE_HU * texture[mask]
    values[_table(rng, labels > 0)] = TABLE_HU
    values += NOISE_HU * rng.standard_normal(size_zyx, dtype=np.float32)
    return Phantom(np.clip(np.rint(values), -1024, 3071).astype(np.int16), labels, (spacing_mm,) * 3)


def write_phantom(phantom: Phantom, volume: Path, labels: Path) -> None:
    """Write values and labels as NIfTI, axes (x, y, z) in RAS as that format has them."""
    z, y, x = phantom.spacing_zyx
    affine = np.diag([x, y, z, 1.0])
    for array, path in ((phantom.values, volume), (phantom.labels, labels)):
        image = nibabel.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, path)


def write_phantoms(out: Path, *, count: int, seed: int) -> list[Path]:
    """Write phantoms 0 to `count` - 1 of a seed; each depends on the seed and its number only.

    Returns:
        The volumes.
    """
    volumes, labels = out / "volumes", out / "labels"
    volumes.mkdir(parents=True, exist_ok=True)
    labels.mkdir(exist_ok=True)
    written = []
    for number in range(count):
        name = f"phantom-{number:03d}.nii.gz"
        write_phantom(make_phantom(np.random.default_rng([seed, number])), volumes / name, labels / name)
        written.append(volumes / name)
    return written


def _body_coordinates(
    rng: Generator, size: tuple[int, int, int], axes: np.ndarray
) -> list[Float32[np.ndarray, "z y x"]]:
    """Coordinates of the voxels in the frame of the trunk, turned a little about z and moved, in its semi-axes."""
    grid = np.meshgrid(*(np.arange(n, dtype=np.float32) + 0.5 - n / 2 for n in size), indexing="ij", sparse=True)
    dz, dy, dx = rng.uniform(-1, 1, 3) * (2, 4, 5)
    angle = np.deg2rad(rng.uniform(-8, 8))
    y, x = grid[1] - dy, grid[2] - dx
    turned = (grid[0] - dz, np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x)
    return [(part / side + np.zeros(size)).astype(np.float32) for part, side in zip(turned, axes, strict=True)]


def _ellipsoid(at: list[np.ndarray], centre: np.ndarray, semi_axes: np.ndarray) -> Bool[np.ndarray, "z y x"]:
    squares = [((a - c) / s) ** 2 for a, c, s in zip(at, centre, semi_axes, strict=True)]
    inside: Bool[np.ndarray, "z y x"] = sum(squares[1:], squares[0]) < 1
    return inside


def _texture(
    rng: Generator, size: tuple[int, int, int], sigma: tuple[float, float, float]
) -> Float32[np.ndarray, "z y x"]:
    """Smoothed noise of mean 0 and spread 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(size, dtype=np.float32), sigma, mode="wrap")
    return (noise - noise.mean()) / noise.std()


def _table(rng: Generator, body: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """A flat shell behind the body, one or two voxels thick, that touches it in a third of the volumes."""
    lowest = int(np.flatnonzero(body.any(axis=(0, 2)))[0])
    gap = 0 if rng.random() < 1 / 3 else int(rng.integers(2, 5))
    top = max(1, lowest - gap)
    table = np.zeros_like(body)
    width = body.shape[2]
    table[:, max(0, top - int(rng.integers(1, 3))) : top, width // 8 : -width // 8] = True
    return table & ~body


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=28, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    written = write_phantoms(args.out, count=args.count, seed=args.seed)
    print(f"{len(written)} phantoms in {args.out}")


if __name__ == "__main__":
    main()
