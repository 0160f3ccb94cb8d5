"""How fast crops with enough foreground are drawn, and whether they have it: ours, MONAI's and TorchIO's.

    python -m benchmarks.crops --size 300 512 512 --crop 128 --crops 16

One volume in memory (int16, a trunk in air made from a seed), one crop size, one thread, one process. Times are those
of the processor, not of the clock, and the least of `--rounds` rounds, so that other work on the machine counts little.
For each:

* set-up: what is done once a volume, from the voxels on; for ours threshold, cells, table, list of positions
* draw: from there to a view of one crop; no voxel is copied by ours and MONAI, TorchIO copies
* crops a second: set-up, `--crops` draws and each crop copied to float32, over all the time it takes
* below: share of crops with less foreground than `--ratio`, counted voxel by voxel

A sample is more than draws: its crops overlap, lie in each other, and have records. `Views.plan` of two global and
eight local crops is timed on the same volume, a sample and a crop.

The peers are in no extra of patchatlas. Put them into an environment of their own beside it:

    python -m venv peers
    peers/bin/pip install . torch==2.13.0 monai==1.6.1 torchio==1.2.1
    peers/bin/python -m benchmarks.crops

A peer that is not installed is left out, and the table says so. TorchIO's set-up takes about 3 GB for this volume.
"""

import argparse
import importlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from patchatlas.pretrain.cache import CellCounts
from patchatlas.pretrain.crops.config import CropConfig
from patchatlas.pretrain.crops.draw import Ground, Rule
from patchatlas.pretrain.crops.table import SummedTable
from patchatlas.pretrain.crops.views import Views
from patchatlas.pretrain.foreground import count_above

THRESHOLD = -500.0

DRAWS, CROPS, MEMORY = 50, 25, 1000
"""What is claimed: times faster a draw and times more crops a second than MONAI uncached and TorchIO, and the memory
of MONAI with cached indices over ours."""

COUNTED = 300
"""Crops whose foreground is counted voxel by voxel, at most."""


@dataclass(frozen=True)
class Result:
    """One way of drawing crops.

    Attributes:
        name: of the way.
        setup_s: seconds a volume.
        draw_us: microseconds a crop, the mean of a round.
        crops_s: crops a second with the set-up and a copy of each to float32.
        below: share of crops with less foreground than asked for.
        bytes: what is kept between draws beside the volume, where it is known.
    """

    name: str
    setup_s: float
    draw_us: float
    crops_s: float
    below: float
    bytes: int | None


Crop = torch.Tensor | np.ndarray
Way = Callable[[], tuple[Iterator[tuple[Crop, Crop]], int | None]]
"""Does the set-up, and gives crops (values, mask) without end, and the bytes that are kept."""


def trunk(size: tuple[int, int, int], seed: int) -> np.ndarray:
    """A trunk of soft tissue with lungs and a spine in noisy air; about a third of the volume."""
    rng = np.random.default_rng(seed)
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    values = np.full(size, -1000, np.int16)
    values[:, (y[:, None] / 0.55) ** 2 + (x / 0.8) ** 2 < 1] = 50
    for side in (-0.4, 0.4):
        lung = (z[:, None, None] / 0.6 - 0.3) ** 2 + (y[:, None] / 0.3) ** 2 + ((x - side) / 0.25) ** 2 < 1
        values[lung] = -800
    values[:, (y[:, None] + 0.4) ** 2 + x**2 < 0.01] = 350
    for section in values:
        section += rng.integers(-30, 31, section.shape, dtype=np.int16)
    return values


def ours(values: torch.Tensor, mask: torch.Tensor, side: int, cell: int, ratio: float, seed: int) -> Way:
    """Tables of cells."""

    def way() -> tuple[Iterator[tuple[Crop, Crop]], int]:
        array, known = values[0].numpy(), mask[0].numpy()
        counts = count_above(array, THRESHOLD, (cell,) * 3)
        table = SummedTable.of(counts, (cell,) * 3, array.shape)
        choice = Ground("trunk", {THRESHOLD: table}).choice((side // cell,) * 3, Rule(THRESHOLD, ratio))
        kept = table.sums.nbytes + choice.mask.nbytes + choice.valid.flat.nbytes

        def crops() -> Iterator[tuple[Crop, Crop]]:
            rng = np.random.default_rng(seed)
            while True:
                z, y, x = (at * cell for at in choice.valid.draw(rng))
                box = slice(z, z + side), slice(y, y + side), slice(x, x + side)
                yield array[box], known[box]

        return crops(), kept

    return way


def monai(values: torch.Tensor, mask: torch.Tensor, side: int, seed: int, *, cached: bool) -> Way:
    """`RandCropByPosNegLabel` with only positive centres; indices found for each crop, or once."""

    def way() -> tuple[Iterator[tuple[Crop, Crop]], int]:
        from monai.transforms import RandCropByPosNegLabel
        from monai.transforms.utils import map_binary_to_indices

        crop = RandCropByPosNegLabel(spatial_size=(side,) * 3, label=mask, pos=1, neg=0, num_samples=1)
        crop.set_random_state(seed)
        foreground, background = map_binary_to_indices(mask) if cached else (None, None)
        kept = foreground.nbytes + background.nbytes if cached else 0

        def crops() -> Iterator[tuple[Crop, Crop]]:
            while True:
                (found,) = crop(values, label=mask, fg_indices=foreground, bg_indices=background)
                z, y, x = (centre - side // 2 for centre in crop.centers[0])
                yield found, mask[:, z : z + side, y : y + side, x : x + side]

        return crops(), kept

    return way


def torchio(values: torch.Tensor, mask: torch.Tensor, side: int, seed: int) -> Way:
    """`WeightedSampler` with the mask as the probability of a centre."""

    def way() -> tuple[Iterator[tuple[Crop, Crop]], None]:
        import torchio as tio

        torch.manual_seed(seed)
        subject = tio.Subject(image=tio.ScalarImage(tensor=values), mask=tio.LabelMap(tensor=mask))
        found = tio.data.WeightedSampler((side,) * 3, "mask")(subject)

        def crops() -> Iterator[tuple[Crop, Crop]]:
            for crop in found:
                yield crop["image"].data, crop["mask"].data

        generator = crops()
        first = next(generator)  # the set-up is done when the first crop is asked for

        def all_crops() -> Iterator[tuple[Crop, Crop]]:
            yield first
            yield from generator

        return all_crops(), None

    return way


@dataclass(frozen=True)
class Trunk:
    """The volume as a record of a cache."""

    size_zyx: tuple[int, int, int]
    id: str = "trunk"
    spacing_zyx: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class OneVolume:
    """The volume as a cache, of which only cells are asked."""

    values: np.ndarray
    cell: tuple[int, int, int]
    body_hu: float = THRESHOLD

    @property
    def records(self) -> tuple[Trunk]:
        """The one record."""
        z, y, x = self.values.shape
        return (Trunk((z, y, x)),)

    def read(self, record: Trunk, start_zyx: Sequence[int], size_zyx: Sequence[int]) -> np.ndarray:  # noqa: ARG002
        """One box."""
        return self.values[tuple(slice(at, at + n) for at, n in zip(start_zyx, size_zyx, strict=True))]

    def cells(self, record: Trunk, key: str | float) -> CellCounts:  # noqa: ARG002
        """Voxels above a threshold in each cell."""
        return CellCounts(count_above(self.values, float(key), self.cell), self.cell)


def sample_us(values: np.ndarray, cell: int, *, samples: int, rounds: int, seed: int) -> tuple[float, int]:
    """Microseconds that the plan of a sample of default sizes takes, the least mean of a round, and its crops."""
    scale = {"foreground": THRESHOLD}
    config = CropConfig.model_validate({"patch": cell, "globals": scale, "locals": scale})
    views = Views(OneVolume(values, (cell,) * 3), config, seed=seed)
    crops = len(views.plan(0, 0))  # lists of positions are made, as for the single draw
    each = []
    for epoch in range(1, rounds + 1):
        begun = time.process_time()
        for index in range(samples):
            views.plan(index, epoch)
        each.append((time.process_time() - begun) / samples)
    return 1e6 * min(each), crops


def measure(name: str, way: Way, *, crops: int, draws: int, ratio: float, rounds: int) -> Result:
    """Time one way, and count what it gives."""
    setups, totals, each = [], [], []
    masks: list[Crop] = []
    for _ in range(rounds):
        masks.clear()
        begun = time.process_time()
        found, kept = way()
        setups.append(time.process_time() - begun)
        for _ in range(crops):
            torch.as_tensor(next(found)[0]).to(torch.float32, copy=True)
        totals.append(time.process_time() - begun)
        begun = time.process_time()
        for _ in range(draws):
            masks.append(next(found)[1])
        each.append((time.process_time() - begun) / draws)
    counted = masks[:COUNTED]
    below = sum(int(mask.sum()) < ratio * torch.as_tensor(mask).numel() for mask in counted) / len(counted)
    return Result(name, min(setups), 1e6 * min(each), crops / min(totals), below, kept)


def main() -> None:
    """Print the table, and whether what is claimed holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(300, 512, 512), help="voxels (z, y, x)")
    parser.add_argument("--crop", type=int, default=128, help="voxels of a side")
    parser.add_argument("--cell", type=int, default=8, help="voxels of a cell")
    parser.add_argument("--ratio", type=float, default=0.4, help="least foreground")
    parser.add_argument("--crops", type=int, default=16, help="crops a volume")
    parser.add_argument("--rounds", type=int, default=3, help="of each, of which the least counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    values = torch.from_numpy(trunk(tuple(args.size), args.seed))[None]
    mask = (values > THRESHOLD).to(torch.uint8)
    ways: dict[str, tuple[str | None, Way, int]] = {
        "patchatlas": (None, ours(values, mask, args.crop, args.cell, args.ratio, args.seed), 2000),
        "MONAI PosNeg": ("monai", monai(values, mask, args.crop, args.seed, cached=False), 12),
        "MONAI PosNeg, cached": ("monai", monai(values, mask, args.crop, args.seed, cached=True), 300),
        "TorchIO Weighted": ("torchio", torchio(values, mask, args.crop, args.seed), 60),
    }
    results = {}
    for name, (package, way, draws) in ways.items():
        if package is None or importlib.util.find_spec(package):
            if package:
                importlib.import_module(package)  # no part of the set-up
            results[name] = measure(name, way, crops=args.crops, draws=draws, ratio=args.ratio, rounds=args.rounds)
    whole, crops = sample_us(values[0].numpy(), args.cell, samples=300, rounds=args.rounds, seed=args.seed)
    if args.json:
        told = {"ways": [asdict(result) for result in results.values()], "sample_us": whole, "crops_a_sample": crops}
        print(json.dumps(told, indent=2))
        return
    shape = " x ".join(map(str, args.size))
    print(f"{shape} int16, {mask.float().mean():.0%} foreground, crops of {args.crop}, least ratio {args.ratio}")
    print(f"{'':<22}{'set-up s':>10}{'draw us':>12}{'crops/s':>10}{'below':>8}{'kept MB':>10}")
    for name, (package, _, _) in ways.items():
        if name not in results:
            print(f"{name:<22}{f'{package} is not installed':>30}")
            continue
        result = results[name]
        kept = "" if result.bytes is None else f"{result.bytes / 1e6:.2f}"
        print(
            f"{name:<22}{result.setup_s:>10.3f}{result.draw_us:>12.1f}{result.crops_s:>10.2f}{result.below:>8.1%}{kept:>10}"
        )
    print(f"a sample of {crops} crops is placed in {whole:.0f} us, {whole / crops:.0f} us a crop, records included")
    for line in claims(results):
        print(line)


def claims(results: dict[str, Result]) -> Iterator[str]:
    """What is claimed, with the numbers found."""
    mine = results["patchatlas"]
    yield f"{'holds' if mine.draw_us < 20 else 'FAILS'}: a draw takes {mine.draw_us:.1f} us, claimed below 20"
    yield f"{'holds' if mine.below == 0 else 'FAILS'}: {mine.below:.1%} of crops below the ratio, claimed 0"
    for name in ("MONAI PosNeg", "TorchIO Weighted"):
        if name in results:
            faster, more = results[name].draw_us / mine.draw_us, mine.crops_s / results[name].crops_s
            yield f"{'holds' if faster >= DRAWS else 'FAILS'}: {faster:.0f} x a draw of {name}, claimed {DRAWS}"
            yield f"{'holds' if more >= CROPS else 'FAILS'}: {more:.1f} x the crops/s of {name}, claimed {CROPS}"
    cached = results.get("MONAI PosNeg, cached")
    if cached and cached.bytes and mine.bytes:
        more, less = mine.crops_s / cached.crops_s, cached.bytes / mine.bytes
        yield f"{'holds' if more >= 1 else 'FAILS'}: {more:.1f} x the crops/s of MONAI with cached indices, claimed 1"
        yield f"{'holds' if less >= MEMORY else 'FAILS'}: 1/{less:.0f} of its memory, claimed 1/{MEMORY}"


if __name__ == "__main__":
    main()
