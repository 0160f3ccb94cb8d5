"""How long one crop of a CT volume takes to read, by how the volume is stored.

    OMP_NUM_THREADS=1 python -m benchmarks.pretrain.reading [--size-zyx 300 512 512] [--crop 128] [--repeats 5]

The volume is a phantom (phantoms.py) enlarged to full size, with noise at every voxel so that it compresses as CT does.
It is written in each form to a temporary folder, then boxes at seeded places are read one after the other in a process
that keeps its files open, as a training worker does. Files are in the page cache. Every box is compared with the truth.
Printed: median and largest time by the clock, median time of the processor (on a busy machine the two differ), size of
the files.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

from benchmarks.pretrain.phantoms import NOISE_HU, make_phantom
from patchatlas.pretrain.cache import open_cache
from patchatlas.pretrain.index import index_volumes

Read = Callable[[tuple[slice, ...]], np.ndarray]


def full_size(size_zyx: tuple[int, int, int]) -> np.ndarray:
    """A phantom with each voxel repeated, and fresh noise."""
    factors = tuple(max(1, n // m) for n, m in zip(size_zyx, (100, 256, 256), strict=True))
    z, y, x = (-(-n // factor) for n, factor in zip(size_zyx, factors, strict=True))
    values = make_phantom(np.random.default_rng(0), size_zyx=(z, y, x)).values
    for axis, factor in enumerate(factors):
        values = values.repeat(factor, axis=axis)
    values = values[tuple(slice(n) for n in size_zyx)].astype(np.float32)
    values += NOISE_HU * np.random.default_rng(1).standard_normal(values.shape, dtype=np.float32)
    return np.clip(values, -1024, 3071).astype(np.int16)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-zyx", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--crop", type=int, default=128, help="voxels a side")
    parser.add_argument("--repeats", type=int, default=5, help="boxes; mapped forms read ten times as many")
    args = parser.parse_args()
    size = tuple(args.size_zyx)
    values = full_size(size)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        image = nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([0.8, 0.8, 1.0, 1.0]))
        nibabel.save(image, folder / "a.nii")
        nibabel.save(image, folder / "a.nii.gz")
        np.save(folder / "a.npy", values)
        began = time.perf_counter()
        index_volumes([folder / "a.nii"], folder / "cache")
        indexed = time.perf_counter() - began
        cache = open_cache(folder / "cache")
        (record,) = cache.records
        mapped = np.load(folder / "a.npy", mmap_mode="r")
        opened = nibabel.load(folder / "a.nii")

        def from_cache(box: tuple[slice, ...]) -> np.ndarray:
            return cache.read(record, [part.start for part in box], [args.crop] * 3)

        forms: dict[str, tuple[Read, Path, int]] = {
            "nii.gz, get_fdata": (
                lambda box: nibabel.load(folder / "a.nii.gz").get_fdata(dtype=np.float32)[box[::-1]].T,
                folder / "a.nii.gz",
                args.repeats,
            ),
            "nii.gz, int16 dataobj": (
                lambda box: np.asanyarray(nibabel.load(folder / "a.nii.gz").dataobj)[box[::-1]].T,
                folder / "a.nii.gz",
                args.repeats,
            ),
            "nii, mapped": (lambda box: np.array(opened.dataobj[box[::-1]].T), folder / "a.nii", 10 * args.repeats),
            "npy, mapped": (lambda box: np.array(mapped[box]), folder / "a.npy", 10 * args.repeats),
            "cache (b2nd, mapped)": (
                from_cache,
                folder / "cache" / "volumes" / record.id / "values.b2nd",
                10 * args.repeats,
            ),
        }
        print(
            f"volume {size}, {values.nbytes / 1e6:.0f} MB as int16; boxes of {args.crop}^3; indexed in {indexed:.1f} s"
        )
        for name, (read, path, repeats) in forms.items():
            rng = np.random.default_rng(2)
            took, worked = [], []
            for _ in range(repeats):
                start = [int(rng.integers(n - args.crop + 1)) for n in size]
                box = tuple(slice(at, at + args.crop) for at in start)
                began, busy = time.perf_counter(), time.process_time()
                found = read(box)
                took.append(time.perf_counter() - began)
                worked.append(time.process_time() - busy)
                assert np.array_equal(found, values[box]), name
            milliseconds, cpu = 1e3 * np.array(took), 1e3 * np.array(worked)
            print(
                f"{name:<22} median {np.median(milliseconds):8.1f} ms, largest {milliseconds.max():8.1f} ms, "
                f"processor {np.median(cpu):8.1f} ms, "
                f"{path.stat().st_size / 1e6:6.1f} MB"
            )


if __name__ == "__main__":
    main()
