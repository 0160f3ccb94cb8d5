"""How fast tiles become a canvas, in what memory: ours (torch, numba) beside PtychoPINN's methods and six libraries.

    python benchmarks/stitch.py [--cases quick|grid|all] [--only WORD] [--repeats 7] [--peaks] [--json FILE]

One thread, methods interleaved in rounds after a warm-up; the table gives the best round and the median. Time is CPU
time of the process, so that waiting for a core on a busy machine does not count; on an idle one it is what a clock
shows. Caches and memory are still shared with whatever else runs, so the load stands beside each case. A run is
everything from tiles and positions in memory to the weighted mean and its coverage, on a fresh canvas. Positions are
random fractions of a pixel where a method knows them (`sub-pixel`), else whole (`whole`), or a regular grid where it
knows nothing else (`grid`). Peak memory is that of a fresh child process, beyond what it had with its modules loaded,
its tiles made and the method warmed up on a few tiles. Copy bandwidth is that of a large `copy_` of tensors, bytes read
and written, measured in the same run; a method's share of it counts what cannot be avoided, each tile read once and the
canvas (value and weight) written once.

Methods that PyPI has are called as published: monai, tiler, kornia, pytorch-toolbelt (its `tiles.py` alone, for the
package wants torchvision). A library that is absent is named as absent. PtychoPINN's methods are written here from
their formulas: every tile padded to the canvas, moved there by `grid_sample`, and summed, with ones for the weight (the
first 8 tiles: its time for one does not depend on their number); and four `scatter_add_` of all tiles, and of ones.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from patchatlas.canvas.place import place

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """A scan: n tiles of N x N on about so many layers of coverage."""

    n: int
    size: int
    coverage: float
    channels: int
    is_complex: bool

    @property
    def side(self) -> int:
        """Of the square canvas, pixels."""
        return round(self.size * math.sqrt(self.n / self.coverage))

    @property
    def along(self) -> int:
        """Tiles along a side of the grid."""
        return math.isqrt(self.n)

    @property
    def step(self) -> int:
        """Pixels between tiles of the grid."""
        return (self.side - self.size) // (self.along - 1)

    @property
    def grid_side(self) -> int:
        """Of what the grid covers, pixels."""
        return self.size + self.step * (self.along - 1)

    @property
    def name(self) -> str:
        """As in the table."""
        kind = "complex64" if self.is_complex else "float32"
        return f"n={self.n} N={self.size} canvas={self.side}^2 ({self.channels} x {kind})"

    @property
    def value_and_weight(self) -> int:
        """Bytes of the canvas."""
        return self.side**2 * (self.channels * (8 if self.is_complex else 4) + 4)

    @property
    def least_bytes(self) -> int:
        """Tiles read once, value and weight written once."""
        return self.n * self.size**2 * self.channels * (8 if self.is_complex else 4) + self.value_and_weight

    def tiles(self) -> Tensor:
        """(n, c, N, N)."""
        dtype = torch.complex64 if self.is_complex else torch.float32
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.n, self.channels, self.size, self.size, dtype=dtype, generator=generator)

    def positions(self, kind: str) -> Tensor:
        """(n, 2) corners, float64: sub-pixel, whole, or on the grid."""
        if kind == "grid":
            steps = torch.arange(self.along, dtype=torch.float64) * self.step
            return torch.cartesian_prod(steps, steps).flip(1)
        generator = torch.Generator().manual_seed(2)
        room = self.side - self.size - 1
        positions = torch.rand(self.n, 2, dtype=torch.float64, generator=generator) * room
        return positions.floor() if kind == "whole" else positions


# What the issue names first, then the grid of sides, coverages and kinds, about as many bytes of tiles in each case.
QUICK = (
    Case(1024, 64, 42.0, 1, True),
    Case(1024, 64, 2.5, 1, True),
    Case(1024, 64, 42.0, 2, False),
    Case(256, 32, 4.0, 384, False),
)
SIDES = {64: 1024, 128: 256, 256: 64}
"""Pixels of a tile, and how many tiles."""
GRID = (
    *(
        Case(n, side, coverage, channels, channels == 1)
        for side, n in SIDES.items()
        for channels, coverage in ((1, 2.5), (1, 10.0), (1, 42.0), (2, 2.5), (2, 42.0), (3, 2.5), (3, 42.0))
    ),
    *(Case(n, 64, coverage, 1, True) for n in (256, 8192) for coverage in (2.5, 10.0)),
    *(Case(n, side, 4.0, 384, False) for n, side in ((64, 64), (16, 128))),
)


def ours(backend: str, *, until: str = "mean") -> Callable[[Tensor, Tensor, Case], Run]:
    """`place`, the coverage and the mean, written over the sum.

    Args:
        backend: see `place`.
        until: `sum` stops after placing, `kept` makes the mean beside the sum.
    """

    def prepare(tiles: Tensor, positions: Tensor, _: Case) -> Run:
        def run() -> Tensor:
            canvas = place(tiles, positions, backend=backend)
            if until == "sum":
                return canvas.sum
            assert canvas.coverage.ndim == 2
            return canvas.value(consume=until == "mean")

        return run

    return prepare


def padded_grid_sample(tiles: Tensor, positions: Tensor, case: Case) -> Run:
    """PtychoPINN's `reassemble`: each tile padded to the canvas, resampled there, summed; the same for ones."""
    reals = torch.view_as_real(tiles[:, 0]).movedim(-1, 1) if case.is_complex else tiles
    side, pad = case.side + 1, case.side + 1 - case.size
    theta = torch.eye(2, 3).repeat(len(tiles), 1, 1)
    # Output pixel u shows input pixel u - shift; in units where the centres of the border pixels are at -1 and 1.
    theta[:, :, 2] = (-2 * positions / (side - 1)).float()

    def run() -> Tensor:
        total = torch.zeros(reals.shape[1], side, side)
        weight = torch.zeros(1, side, side)
        for some in torch.arange(len(tiles)).split(32):
            padded = F.pad(reals[some], (0, pad, 0, pad))
            ones = F.pad(torch.ones(len(some), 1, case.size, case.size), (0, pad, 0, pad))
            grid = F.affine_grid(theta[some], list(padded.shape), align_corners=True)
            total += F.grid_sample(padded, grid, align_corners=True).sum(0)
            weight += F.grid_sample(ones, grid, align_corners=True).sum(0)
        return total / (weight + 1e-9)

    return run


def four_scatters(tiles: Tensor, positions: Tensor, case: Case) -> Run:
    """PtychoPINN's accumulator: each tap of all tiles by one `scatter_add_`, and of ones; positions in float64 here."""
    numbers = torch.view_as_real(tiles).movedim(-1, 2).flatten(1, 2) if case.is_complex else tiles
    numbers = numbers.movedim(1, 0).flatten(1).contiguous()
    side = case.side + 1
    pixels = torch.arange(case.size)

    def run() -> Tensor:
        total, weight = torch.zeros(len(numbers), side * side), torch.zeros(side * side)
        corner = positions.floor().long()
        fraction = (positions - corner).float()
        for dy in (0, 1):
            for dx in (0, 1):
                row, column = corner[:, 1, None] + dy + pixels, corner[:, 0, None] + dx + pixels
                index = (row[:, :, None] * side + column[:, None, :]).flatten()
                part = (fraction[:, 1] if dy else 1 - fraction[:, 1]) * (fraction[:, 0] if dx else 1 - fraction[:, 0])
                each = part.repeat_interleave(case.size**2)
                total.scatter_add_(1, index.expand(len(numbers), -1), numbers * each)
                weight.scatter_add_(0, index, each)
        return total / (weight + 1e-9)

    return run


def monai(tiles: Tensor, positions: Tensor, case: Case) -> Run:
    """`AvgMerger`, with counts in int32 (its default, uint8, wraps at 256)."""
    from monai.inferers.merger import AvgMerger

    corners = [(int(y), int(x)) for x, y in positions.tolist()]

    def run() -> Tensor:
        merger = AvgMerger((1, case.channels, case.side, case.side), value_dtype=tiles.dtype, count_dtype=torch.int32)
        for tile, corner in zip(tiles, corners, strict=True):
            merger.aggregate(tile[None], corner)
        return merger.finalize()

    return run


def toolbelt(tiles: Tensor, positions: Tensor, case: Case) -> Run:
    """`TileMerger` with a window of ones."""
    merger_type = _toolbelt_tiles().TileMerger
    corners = [(int(x), int(y), case.size, case.size) for x, y in positions.tolist()]
    ones = torch.ones(case.size, case.size).numpy()

    def run() -> Tensor:
        merger = merger_type((case.side, case.side), case.channels, ones, dtype=tiles.dtype)
        merger.integrate_batch(tiles, corners)
        return merger.merge()

    return run


def tiler(tiles: Tensor, _: Tensor, case: Case) -> Run:
    """`Merger` on tiler's own grid."""
    import tiler as package

    overlap = case.size - case.step
    cut = package.Tiler(
        (case.channels, case.grid_side, case.grid_side),
        (case.channels, case.size, case.size),
        (0, overlap, overlap),
        channel_dimension=0,
    )
    arrays = tiles[: len(cut)].numpy()

    def run() -> Tensor:
        merger = package.Merger(cut, data_dtype=arrays.dtype)
        for number, tile in enumerate(arrays):
            merger.add(number, tile)
        return torch.from_numpy(merger.merge())

    return run


def kornia(tiles: Tensor, _: Tensor, case: Case) -> Run:
    """`combine_tensor_patches` with overlap."""
    from kornia.contrib import combine_tensor_patches

    patches = tiles[: case.along**2][None]
    return lambda: combine_tensor_patches(patches, (case.grid_side, case.grid_side), case.size, case.step)


def fold(tiles: Tensor, _: Tensor, case: Case) -> Run:
    """`F.fold`, and the same of ones to divide by."""
    grid = tiles[: case.along**2]
    options = {"output_size": (case.grid_side, case.grid_side), "kernel_size": case.size, "stride": case.step}

    def run() -> Tensor:
        total = F.fold(grid.flatten(1).T[None], **options)
        ones = torch.ones(1, case.size**2, len(grid))
        return total / F.fold(ones, **options)

    return run


@dataclass(frozen=True)
class Method:
    """One way, the positions that it knows, and the package that it needs."""

    prepare: Callable[[Tensor, Tensor, Case], Run]
    kind: str
    package: str = ""
    most: int | None = None

    def absent(self) -> bool:
        """Whether its package is not installed."""
        return bool(self.package) and importlib.util.find_spec(self.package) is None


METHODS = {
    "ours, numba": Method(ours("numba"), "sub-pixel", "numba"),
    "ours, torch": Method(ours("torch"), "sub-pixel"),
    "PtychoPINN's grid-sample": Method(padded_grid_sample, "sub-pixel", most=8),
    "PtychoPINN's scatter-add": Method(four_scatters, "sub-pixel"),
    "ours, numba, whole": Method(ours("numba"), "whole", "numba"),
    "ours, torch, whole": Method(ours("torch"), "whole"),
    "MONAI AvgMerger": Method(monai, "whole", "monai"),
    "pytorch-toolbelt TileMerger": Method(toolbelt, "whole", "pytorch_toolbelt"),
    "tiler Merger": Method(tiler, "grid", "tiler"),
    "kornia combine_tensor_patches": Method(kornia, "grid", "kornia"),
    "torch F.fold": Method(fold, "grid"),
}
STAGES = {
    "ours, numba, sum alone": Method(ours("numba", until="sum"), "sub-pixel", "numba"),
    "ours, numba, mean beside the sum": Method(ours("numba", until="kept"), "sub-pixel", "numba"),
    "ours, torch, sum alone": Method(ours("torch", until="sum"), "sub-pixel"),
    "ours, torch, mean beside the sum": Method(ours("torch", until="kept"), "sub-pixel"),
}
"""More runs whose peak is measured, not their time."""
SLOW = 3.0
"""Seconds of a run beyond which it is not repeated."""


def _toolbelt_tiles() -> ModuleType:
    package = importlib.util.find_spec("pytorch_toolbelt")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "inference" / "tiles.py"
    spec = importlib.util.spec_from_file_location("pytorch_toolbelt_tiles", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(name: str, case: Case) -> tuple[Run, int]:
    """A method ready to run, and how many tiles it takes.

    Libraries that have no complex numbers get real and imaginary part as two channels.
    """
    method = (METHODS | STAGES)[name]
    tiles = case.tiles()
    if case.is_complex and not name.startswith(("ours", "PtychoPINN")):
        tiles = torch.view_as_real(tiles).movedim(-1, 2).flatten(1, 2).contiguous()
        case = Case(case.n, case.size, case.coverage, 2 * case.channels, False)
    positions = case.positions(method.kind)
    count = min(len(positions), method.most or len(positions))
    return method.prepare(tiles[:count], positions[:count], case), count


def copy_bandwidth() -> float:
    """Bytes a second that one thread reads and writes, best of several copies far larger than any cache."""
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source)) for _ in range(7))
    return 2 * source.numel() * 4 / best


def _seconds(run: Run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def peak_of_child(name: str, case: Case) -> int:
    """Peak memory in bytes of one run in a fresh process, beyond what it had before."""
    command = [sys.executable, __file__, "--child", name, json.dumps(asdict(case))]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def child(name: str, case: Case) -> None:
    """Print how far one run raises the peak of this process."""
    # Warm up on little, so that compilers and libraries are not counted.
    prepare(name, Case(4, case.size, 1.5, case.channels, case.is_complex))[0]()
    run, _ = prepare(name, case)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is in use (Linux, proc(5))
    before = _peak()
    run()
    print(_peak() - before)


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(case: Case, repeats: int, bandwidth: float, *, peaks: bool) -> list[dict[str, object]]:
    """One row a method, in the order of METHODS."""
    runs: dict[str, tuple[Run, int]] = {}
    rows: dict[str, dict[str, object]] = {}
    for name, method in METHODS.items():
        if method.absent():
            rows[name] = {"method": name, "positions": method.kind, "note": "not installed"}
        else:
            runs[name] = prepare(name, case)
    for run, _ in runs.values():
        run()  # compiles
    first = {name: _seconds(run) for name, (run, _) in runs.items()}
    times = {name: [seconds] if seconds > SLOW else [] for name, seconds in first.items()}
    for _ in range(repeats):
        for name, (run, _) in runs.items():
            if first[name] <= SLOW:
                times[name].append(_seconds(run))
    for name, (_, count) in runs.items():
        best = min(times[name])
        rows[name] = {
            "method": name,
            "positions": METHODS[name].kind,
            "tiles_per_second": count / best,
            "median_tiles_per_second": count / statistics.median(times[name]),
            "part_of_copy_bandwidth": case.least_bytes * count / case.n / best / bandwidth,
            "peak_bytes": peak_of_child(name, case) if peaks and METHODS[name].most is None else None,
        }
    return [rows[name] for name in METHODS]


def ratio_to_best(rows: list[dict[str, object]], row: dict[str, object], kinds: tuple[str, ...]) -> str:
    """How many times as fast, by medians, as the best peer among those with such positions."""
    speed = "median_tiles_per_second"
    peers = [
        float(str(r[speed]))
        for r in rows
        if speed in r and not str(r["method"]).startswith("ours") and r["positions"] in kinds
    ]
    if not peers or not str(row["method"]).startswith("ours"):
        return ""
    return f"{float(str(row[speed])) / max(peers):.1f}"


def table(case: Case, rows: list[dict[str, object]], load: float) -> str:
    """Markdown."""
    lines = [
        f"### {case.name}",
        "",
        f"Load {load:.1f}; value and weight take {case.value_and_weight / 1e6:.1f} MB.",
        "",
        "| method | positions | tiles/s, best | median | of copy | peak MB | x best sub-pixel peer | x best peer |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        start = f"| {row['method']} | {row['positions']} | "
        if "note" in row:
            lines.append(f"{start}{row['note']} | | | | | |")
            continue
        peak = "" if row["peak_bytes"] is None else f"{float(str(row['peak_bytes'])) / 1e6:.1f}"
        lines.append(
            f"{start}{row['tiles_per_second']:,.0f} | {row['median_tiles_per_second']:,.0f} | "
            f"{row['part_of_copy_bandwidth']:.1%} | {peak} | {ratio_to_best(rows, row, ('sub-pixel',))} | "
            f"{ratio_to_best(rows, row, ('sub-pixel', 'whole', 'grid'))} |"
        )
    return "\n".join([*lines, ""])


def summary(results: list[tuple[Case, list[dict[str, object]]]]) -> str:
    """One line a case: medians of ours, and how many times that is the best peer of each kind."""
    lines = [
        "| tiles | canvas | numba | torch | numba, whole | numba: x sub-pixel peer | torch: x sub-pixel peer | "
        "whole: x MONAI | whole: x best peer |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case, rows in results:
        named = {str(row["method"]): row for row in rows}
        speed = {name: float(str(row.get("median_tiles_per_second", "nan"))) for name, row in named.items()}
        kind = "complex64" if case.is_complex else "float32"
        whole = named["ours, numba, whole"]
        lines.append(
            f"| {case.n} x {case.channels} x {case.size}^2 {kind} | {case.side}^2 | {speed['ours, numba']:,.0f} | "
            f"{speed['ours, torch']:,.0f} | {speed['ours, numba, whole']:,.0f} | "
            f"{ratio_to_best(rows, named['ours, numba'], ('sub-pixel',))} | "
            f"{ratio_to_best(rows, named['ours, torch'], ('sub-pixel',))} | "
            f"{speed['ours, numba, whole'] / speed['MONAI AvgMerger']:.1f} | "
            f"{ratio_to_best(rows, whole, ('whole', 'grid'))} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", choices=["quick", "grid", "all"], default="quick")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peaks", action="store_true", help="measure memory too, each in a process of its own")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        child(options.child[0], Case(**json.loads(options.child[1])))
        return
    packages = ("torch", "numba", "monai", "tiler", "kornia", "pytorch_toolbelt")
    versions = {p: importlib.metadata.version(p) for p in packages if importlib.util.find_spec(p) is not None}
    bandwidth = copy_bandwidth()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, copy {bandwidth / 1e9:.1f} GB/s, {versions}\n")
    cases = {"quick": QUICK, "grid": GRID, "all": (*QUICK, *GRID)}[options.cases]
    results, kept = [], []
    for case in cases:
        if options.only not in case.name:
            continue
        load = os.getloadavg()[0]
        rows = measure(case, options.repeats, bandwidth, peaks=options.peaks)
        print(table(case, rows, load), flush=True)
        results.append((case, rows))
        kept.append({"case": asdict(case), "side": case.side, "load": load, "rows": rows})
        if options.peaks:
            for name in STAGES:
                print(f"{name}: {peak_of_child(name, case) / 1e6:.1f} MB")
            print(flush=True)
    print(summary(results))
    if options.json:
        content = {"versions": versions, "copy_bytes_per_second": bandwidth, "results": kept}
        options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
