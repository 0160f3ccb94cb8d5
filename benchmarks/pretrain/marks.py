"""How marks of one part of a volume are found in another that overlaps it: what the search does, and what the features.

    OMP_NUM_THREADS=1 python -m benchmarks.pretrain.marks CACHE ENCODER [--shift-zyx 16 16 24] [--off-zyx 0 0 1]

CACHE is of `patchatlas pretrain index`, its first volume is used; ENCODER of a run on it, with patches of 8. Two
parts of one size are cut out, the second so many voxels later, so the truth is known and every voxel that both show
is the same. Marks are the centres of those patches of the first part that show tissue, or lie so many voxels off
them. Where the shift is whole patches and nothing is off, the second part has the very patches of the first.

Features: voxels of a patch of 8 less their mean (raw), rises and falls about a patch of 4 (gradients, of
examples/locate_volume.py), and the encoder, whole and in windows of 32. Ways: `centred`, as `locate_in_volume` does,
the source encoded anew with the mark in the centre of a patch; `between`, the descriptor read between the patches of
a grid that begins where the part does. A hit is within 8 voxels along each axis. `rank` is the median share of places
that are more like the mark than the patch where it is, `sigma` how far that one lies above the mean of all, in
standard deviations.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.locate.volumes import RawEncoder
from examples.locate_volume import GradientEncoder
from patchatlas.dense import encode
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Encoder
from patchatlas.features import FeatureMap
from patchatlas.locate.centring import centred_on
from patchatlas.locate.search import in_picture
from patchatlas.locate.volume import volume_frame
from patchatlas.matching.peaks import find_peaks, refine, scored_cells
from patchatlas.pretrain.cache import open_cache
from patchatlas.pretrain.window import normalise

PATCH, NEAR = 8, 8.0
TISSUE_HU = -200


def tissue_marks(part: Tensor, shift: np.ndarray, off: np.ndarray, most: int) -> np.ndarray:
    """Marks (z, y, x) on patches of tissue that both parts show a patch or more from their borders."""
    size = np.array(part.shape[1:])
    split = [n for side in size // PATCH for n in (side, PATCH)]
    hu = part[0].numpy().reshape(split).mean(axis=(1, 3, 5)) * 2000 - 1000
    marks = np.argwhere(hu > TISSUE_HU) * PATCH + PATCH / 2 + off
    inside = (
        (marks - shift >= PATCH) & (marks - shift <= size - PATCH) & (marks >= PATCH) & (marks <= size - PATCH)
    ).all(1)
    marks = marks[inside]
    return marks[np.sort(np.random.default_rng(0).permutation(len(marks))[:most])]


def found(descriptors: FeatureMap, target: FeatureMap, marks: np.ndarray, shift: np.ndarray) -> str:
    """The line of numbers of one way."""
    here, there = (torch.from_numpy(at[:, ::-1].copy()).double() for at in (marks, marks - shift))
    similarity, scored = target.similarity(descriptors.at(here)).cpu(), scored_cells(target.grid)
    best = find_peaks(similarity, scored, radius=0.0, count=1)
    apart = (in_picture(target.grid, refine(similarity, scored, best.cells))[:, 0] - there).abs()
    cells = target.grid.cells_of(there).floor().long()  # x y z
    flat = similarity.flatten(1)
    _, rows, columns = similarity.shape[1:]
    true = flat.gather(1, ((cells[:, 2] * rows + cells[:, 1]) * columns + cells[:, 0])[:, None])
    sigma = (true[:, 0] - flat.mean(1)) / flat.std(1)
    return (
        f"hits {(apart <= NEAR).all(1).double().mean():4.0%}  "
        f"median {apart.square().sum(1).sqrt().median():5.1f} voxels  "
        f"rank {(flat > true).double().mean(1).median():6.2%}  sigma {sigma.mean():4.1f}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--start-zyx", type=int, nargs=3, default=(24, 48, 56), help="first voxel of the first part")
    parser.add_argument("--size-zyx", type=int, nargs=3, default=(64, 112, 112), help="voxels of a part; whole patches")
    parser.add_argument(
        "--shift-zyx", type=int, nargs=3, default=(16, 16, 24), help="from the first to the second part"
    )
    parser.add_argument("--off-zyx", type=float, nargs=3, default=(0, 0, 0), help="of marks from centres of patches")
    parser.add_argument("--marks", type=int, default=300, help="at most")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cache = open_cache(args.cache)
    first, size, shift, off = (np.array(one) for one in (args.start_zyx, args.size_zyx, args.shift_zyx, args.off_zyx))
    one, two = (
        torch.from_numpy(normalise(cache.read(cache.records[0], start.tolist(), size.tolist()), (-1000, 1000)))[None]
        for start in (first, first + shift)
    )
    marks = tissue_marks(one, shift, off, args.marks)
    trained = load_encoder(args.encoder, device="cpu", dtype="fp32")
    ways: dict[str, tuple[Encoder, int | None]] = {
        "raw": (RawEncoder(), None),
        "gradients": (GradientEncoder(), None),
        "encoder": (trained, None),
        "encoder, windows": (trained, 32),
    }
    print(f"{len(marks)} marks {off.tolist()} off centres of patches, the second part {shift.tolist()} voxels later")
    for name, (encoder, windows) in ways.items():
        patch = encoder.spec.patch
        drawn = volume_frame(size.tolist(), patch=patch)
        target, plain = (encode(part, encoder, frame=drawn, windows=windows) for part in (two, one))
        # All marks lie alike on the patches, so that one grid is centred on all of them.
        centred = centred_on(drawn, marks[0, ::-1].tolist(), patch=patch)
        for way, source in (("centred", encode(one, encoder, frame=centred, windows=windows)), ("between", plain)):
            print(f"{name:<17}{way:<8} {found(source, target, marks, shift)}", flush=True)


if __name__ == "__main__":
    main()
