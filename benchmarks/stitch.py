"""How fast tiles become a canvas, in what memory: ours (torch, numba) beside PtychoPINN's method and six libraries.

    python benchmarks/stitch.py [--cases quick|full] [--repeats 7] [--json FILE]

One thread, methods interleaved, best of the repeats after a warm-up. A run is everything from tiles and positions in
memory to the weighted mean and its coverage, on a fresh canvas. Positions are random fractions of a pixel where a
method knows them (`sub-pixel`), else whole (`whole`), or a regular grid where it knows nothing else (`grid`). Peak
memory is that of a fresh child process, beyond what it had with its modules loaded, its tiles made and the method
warmed up on a few tiles. Copy bandwidth is that of a large `copy_` of tensors, bytes read and written,
measured in the same run; a method's share of it counts what cannot be avoided, each tile read once and the canvas
(value and weight) written once.

Methods that PyPI has are called as published: monai, tiler, kornia, pytorch-toolbelt (its `tiles.py` alone, for the
package wants torchvision). A library that is absent is named as absent. PtychoPINN's method is written here from its
formulas: every tile is padded to the canvas, moved there by `grid_sample`, and summed, with ones for the weight.
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
    def least_bytes(self) -> int:
        """Tiles read once, value and weight written once."""
        number = self.channels * (8 if self.is_complex else 4)
        return self.n * self.size**2 * number + self.side**2 * (number + 4)

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


# What the issue names first, then more of each axis.
QUICK = (
    Case(1024, 64, 42.0, 1, True),
    Case(1024, 64, 2.5, 1, True),
    Case(256, 64, 10.0, 1, True),
    Case(1024, 64, 42.0, 2, False),
    Case(256, 32, 4.0, 384, False),
)
FULL = (
    *QUICK,
    *(Case(n, 64, 10.0, 1, True) for n in (1024, 8192)),
    *(Case(1024, size, 10.0, 1, True) for size in (20, 128)),
    Case(256, 256, 10.0, 1, True),
    *(Case(1024, 64, coverage, 1, True) for coverage in (2.0, 50.0)),
)


def ours(backend: str) -> Callable[[Tensor, Tensor, Case], Run]:
    """`place`, the mean and the coverage."""

    def prepare(tiles: Tensor, positions: Tensor, _: Case) -> Run:
        def run() -> Tensor:
            canvas = place(tiles, positions, backend=backend)
            assert canvas.coverage.ndim == 2
            return canvas.value(consume=True)

        return run

    return prepare


def padded_grid_sample(tiles: Tensor, positions: Tensor, case: Case) -> Run:
    """PtychoPINN's method: each tile padded to the canvas, resampled there, summed; the same for ones; 32 at a time."""
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
    knows_complex: bool = True

    def absent(self) -> bool:
        """Whether its package is not installed."""
        return bool(self.package) and importlib.util.find_spec(self.package) is None


METHODS = {
    "ours, numba": Method(ours("numba"), "sub-pixel", "numba"),
    "ours, torch": Method(ours("torch"), "sub-pixel"),
    "PtychoPINN's method": Method(padded_grid_sample, "sub-pixel"),
    "ours, numba, whole": Method(ours("numba"), "whole", "numba"),
    "ours, torch, whole": Method(ours("torch"), "whole"),
    "MONAI AvgMerger": Method(monai, "whole", "monai"),
    "pytorch-toolbelt TileMerger": Method(toolbelt, "whole", "pytorch_toolbelt"),
    "tiler Merger": Method(tiler, "grid", "tiler"),
    "kornia combine_tensor_patches": Method(kornia, "grid", "kornia"),
    "torch F.fold": Method(fold, "grid"),
}
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
    method = METHODS[name]
    tiles = case.tiles()
    if case.is_complex and not name.startswith(("ours", "PtychoPINN")):
        tiles = torch.view_as_real(tiles).movedim(-1, 2).flatten(1, 2).contiguous()
        case = Case(case.n, case.size, case.coverage, 2 * case.channels, False)
    count = case.along**2 if method.kind == "grid" else case.n
    return method.prepare(tiles[:count], case.positions(method.kind), case), count


def copy_bandwidth() -> float:
    """Bytes a second that one thread reads and writes, best of several copies far larger than any cache."""
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source)) for _ in range(7))
    return 2 * source.numel() * 4 / best


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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


def measure(case: Case, repeats: int, bandwidth: float) -> list[dict[str, object]]:
    """One row a method, in the order of METHODS."""
    runs: dict[str, tuple[Run, int]] = {}
    rows: dict[str, dict[str, object]] = {}
    for name, method in METHODS.items():
        if method.absent():
            rows[name] = {"method": name, "positions": method.kind, "note": "not installed"}
        elif name.startswith("PtychoPINN") and case.channels * case.n * case.side**2 > 1 << 28:
            rows[name] = {"method": name, "positions": method.kind, "note": "left out, minutes a run"}
        else:
            runs[name] = prepare(name, case)
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
            "peak_bytes": peak_of_child(name, case),
        }
    return [rows[name] for name in METHODS]


def ratio_to_best(rows: list[dict[str, object]], row: dict[str, object], kinds: tuple[str, ...]) -> str:
    """How many times as fast as the best peer among those with such positions."""
    peers = [
        float(str(r["tiles_per_second"]))
        for r in rows
        if "tiles_per_second" in r and not str(r["method"]).startswith("ours") and r["positions"] in kinds
    ]
    if not peers or not str(row["method"]).startswith("ours"):
        return ""
    return f"{float(str(row['tiles_per_second'])) / max(peers):.1f}"


def table(case: Case, rows: list[dict[str, object]]) -> str:
    """Markdown."""
    lines = [
        f"### {case.name}",
        "",
        "| method | positions | tiles/s, best | median | of copy | peak MB | x best sub-pixel peer | x best peer |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        start = f"| {row['method']} | {row['positions']} | "
        if "note" in row:
            lines.append(f"{start}{row['note']} | | | | | |")
            continue
        lines.append(
            f"{start}{row['tiles_per_second']:,.0f} | {row['median_tiles_per_second']:,.0f} | "
            f"{row['part_of_copy_bandwidth']:.1%} | {float(str(row['peak_bytes'])) / 1e6:.1f} | "
            f"{ratio_to_best(rows, row, ('sub-pixel',))} | {ratio_to_best(rows, row, ('sub-pixel', 'whole', 'grid'))} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", choices=["quick", "full"], default="quick")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        child(options.child[0], Case(**json.loads(options.child[1])))
        return
    versions = {p: importlib.metadata.version(p) for p in ("torch", "numba", "monai", "tiler", "kornia") if _has(p)}
    load = os.getloadavg()[0]
    bandwidth = copy_bandwidth()
    print(f"load {load:.1f} on {os.cpu_count()} cores, copy {bandwidth / 1e9:.1f} GB/s, {versions}\n")
    results = []
    for case in FULL if options.cases == "full" else QUICK:
        rows = measure(case, options.repeats, bandwidth)
        print(table(case, rows), flush=True)
        results.append({"case": asdict(case), "side": case.side, "load": os.getloadavg()[0], "rows": rows})
    if options.json:
        content = {"versions": versions, "copy_bytes_per_second": bandwidth, "load": load, "results": results}
        options.json.write_text(json.dumps(content, indent=1))


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


if __name__ == "__main__":
    main()
