"""Plant faults in the stitching code, one at a time, and show that each makes a test fail.

Every fault is a change of a line or two in a copy of the tree, with the test files that should see it. A fault that no
test sees survives, and the exit code is 1. The tests must pass before anything is changed.

    python tools/mutate_stitch.py [NAME ...]      all faults, or those whose name contains a given word
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Fault:
    """A mistake somebody could make: `old` becomes `new` in a file of the package, and some of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_PLACE = ("tests/canvas/test_place.py",)
_ADJOINT = ("tests/canvas/test_adjoint.py",)
_CANVAS = ("tests/canvas/test_canvas.py",)
_TAPS = ("tests/canvas/test_taps.py",)
_COVERAGE = ("tests/canvas/test_coverage.py",)

FAULTS = (
    Fault(
        "axes swapped",
        "canvas/contract.py",
        "positions.to(torch.float64).flip(1)",
        "positions.to(torch.float64)",
        _PLACE,
    ),
    Fault(
        "sign flipped",
        "canvas/contract.py",
        "positions.to(torch.float64).flip(1)",
        "-positions.double().flip(1)",
        _PLACE,
    ),
    Fault(
        "half a pixel off",
        "canvas/contract.py",
        "positions.to(torch.float64).flip(1)",
        "(positions.to(torch.float64) + 0.5).flip(1)",
        _PLACE,
    ),
    Fault(
        "positions centred on their mean",
        "canvas/contract.py",
        "positions.to(torch.float64).flip(1)",
        "(positions.double() - positions.double().mean(dim=0)).flip(1)",
        _PLACE,
    ),
    Fault(
        "positions in float32",
        "canvas/contract.py",
        "positions.to(torch.float64).flip(1)",
        "positions.to(torch.float32).flip(1).to(torch.float64)",
        _PLACE,
    ),
    Fault(
        "offsets recycled",
        "canvas/contract.py",
        "if count is not None and len(positions) != count:",
        "if count is not None:\n        positions = positions[torch.arange(count) % len(positions)]\n    if False:",
        _CANVAS,
    ),
    Fault(
        "NaN positions let through",
        "canvas/contract.py",
        "bad = ~(positions.detach().abs() <= _FARTHEST)",
        "bad = (positions.detach().abs() > _FARTHEST)",
        _CANVAS,
    ),
    Fault(
        "a tile dropped",
        "canvas/blocks.py",
        "in zip(blocks.unbind(), _places(canvas, blocks.shape[1:-1], starts), strict=True)",
        "in list(zip(blocks.unbind(), _places(canvas, blocks.shape[1:-1], starts)))[:-1]",
        _PLACE,
    ),
    Fault(
        "tiles overwrite",
        "canvas/blocks.py",
        "view.add_(block if part is None else block[part])",
        "view.copy_(block if part is None else block[part])",
        _PLACE,
    ),
    Fault(
        "crop starts at the wrong end",
        "canvas/blocks.py",
        "(low - starts)[row].tolist(), (high - starts)[row]",
        "(low - low)[row].tolist(), (high - low)[row]",
        _PLACE,
    ),
    Fault("taps swapped", "canvas/taps.py", "torch.cat([1 - f, f], dim=1)", "torch.cat([f, 1 - f], dim=1)", _TAPS),
    Fault(
        "cubic starts one pixel late",
        "canvas/taps.py",
        "share.shape[1] // 2 - 1",
        "share.shape[1] // 2 - 1 - (share.shape[1] == 4)",
        _TAPS,
    ),
    Fault(
        "nearest rounds down",
        "canvas/taps.py",
        "torch.floor(corners.detach() + 0.5)",
        "torch.floor(corners.detach())",
        _TAPS,
    ),
    Fault("cubic of another a", "canvas/taps.py", "-0.5 * f * (1 - f) ** 2", "-0.75 * f * (1 - f) ** 2", _TAPS),
    Fault("sinc without its taper", "canvas/taps.py", "torch.sinc(distance) * taper", "torch.sinc(distance)", _TAPS),
    Fault(
        "whole positions have no gradient", "canvas/taps.py", "if not corners.requires_grad and not", "if not", _ADJOINT
    ),
    Fault(
        "a tap dropped in collect",
        "canvas/spread.py",
        "for t in range(1, count):",
        "for t in range(1, count - 1):",
        _ADJOINT,
    ),
    Fault(
        "extract is not transposed",
        "canvas/spread.py",
        "tiles.narrow(axis, t, n), _like(weight[:, t], tiles)",
        "tiles.narrow(axis, t, n), _like(weight[:, count - 1 - t], tiles)",
        _ADJOINT,
    ),
    Fault(
        "gradient of the sum forgotten",
        "canvas/blocks.py",
        "return take_blocks(gradients[0], ctx.block_size, ctx.starts), None, None",
        "return 0 * take_blocks(gradients[0], ctx.block_size, ctx.starts), None, None",
        _ADJOINT,
    ),
    Fault(
        "summed over channels",
        "canvas/canvas.py",
        "numbers = self._numbers(tiles[some])\n            factor = every",
        "numbers = self._numbers(tiles[some].sum(1, keepdim=True).expand_as(tiles[some]))\n            factor = every",
        _PLACE,
    ),
    Fault(
        "only the first tile shown",
        "canvas/canvas.py",
        "            self._add_numbers(numbers, taps.some(some))\n",
        "            self._add_numbers(numbers[:1], taps.some(slice(first, first + 1)))\n",
        _PLACE,
    ),
    Fault(
        "mean fallback",
        "canvas/canvas.py",
        "            self._add_numbers(numbers, taps.some(some))\n",
        "            self._add_numbers(numbers.mean(dim=0, keepdim=True).expand_as(numbers), taps.some(some))\n",
        _PLACE,
    ),
    Fault(
        "window left out of the weight",
        "canvas/canvas.py",
        "windows = (one if factor is None else factor[..., 0].contiguous())",
        "windows = one",
        _PLACE,
    ),
    Fault(
        "tile weights left out",
        "canvas/canvas.py",
        "factor = each if factor is None else factor * each",
        "factor = factor",
        _PLACE,
    ),
    Fault(
        "sum not divided",
        "canvas/canvas.py",
        "mean = total / torch.where(covered, weight, 1)[..., None]",
        "mean = total",
        _PLACE,
    ),
    Fault(
        "holes are NaN",
        "canvas/canvas.py",
        "return torch.where(covered[..., None], mean, fill)",
        "return torch.where(covered[..., None], mean, math.nan)",
        _PLACE,
    ),
    Fault(
        "ringing blown up",
        "canvas/canvas.py",
        "covered & (coverage > _LEAST_PART * self._unsigned.total())",
        "covered",
        _PLACE,
    ),
    Fault(
        "counts in uint8",
        "canvas/coverage.py",
        "for axis in range(plan.ndim)], plan.size, torch.int32)",
        "for axis in range(plan.ndim)], plan.size, torch.uint8)",
        _CANVAS,
    ),
    Fault(
        "coverage in uint8",
        "canvas/coverage.py",
        "total[top:bottom] = inner",
        "total[top:bottom] = inner.to(torch.uint8).to(dtype) if dtype.is_floating_point else inner",
        _COVERAGE,
    ),
    Fault(
        "rounding noise counts as covered",
        "canvas/coverage.py",
        "total.masked_fill_(total <= least, 0)",
        "pass",
        _COVERAGE,
    ),
    Fault("bands forget the rows above", "canvas/coverage.py", "inner[0] += carry", "pass", _COVERAGE),
    Fault(
        "the origin is lost",
        "canvas/plan.py",
        "origin = tuple(int(b) - margin for b in first.amin(dim=0))",
        "origin = tuple(0 for b in first.amin(dim=0))",
        ("tests/canvas/test_plan.py",),
    ),
    Fault(
        "square canvas",
        "canvas/plan.py",
        "return CanvasPlan(origin, tuple(e - o for o, e in zip(origin, end, strict=True)))",
        "return CanvasPlan(origin, (max(e - o for o, e in zip(origin, end, strict=True)),) * len(end))",
        ("tests/canvas/test_plan.py",),
    ),
    Fault(
        "tiles outside dropped in silence", "canvas/canvas.py", "        if not crop:\n", "        if False:\n", _PLACE
    ),
    Fault(
        "windows swapped in dense",
        "dense.py",
        "w.start[::-1] for w in part",
        "w.start for w in part",
        ("tests/test_dense.py",),
    ),
)


def main(words: list[str]) -> int:
    """Run the faults that were asked for; 1 where one survives."""
    faults = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    if not faults:
        print(f"no fault has any of {words} in its name", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for part in ("src", "tests", "tools"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        tests = tuple(sorted({test for fault in faults for test in fault.tests}))
        if _fails(tree, tests):
            print(f"{', '.join(tests)} fail before anything was changed", file=sys.stderr)
            return 2
        survivors = [fault.name for fault in faults if not _caught(tree, fault)]
    print(f"{len(faults) - len(survivors)} of {len(faults)} faults are seen")
    return 1 if survivors else 0


def _caught(tree: Path, fault: Fault) -> bool:
    """Plant a fault, run its tests, take it out again."""
    file = tree / "src" / "patchatlas" / fault.file
    original = file.read_text(encoding="utf-8")
    if original.count(fault.old) != 1:
        raise SystemExit(f"{fault.name}: {fault.file} has {original.count(fault.old)} times: {fault.old!r}")
    file.write_text(original.replace(fault.old, fault.new), encoding="utf-8")
    begin = time.monotonic()
    seen_by = _fails(tree, fault.tests)
    file.write_text(original, encoding="utf-8")
    print(
        f"{fault.name:40} {'seen by ' + seen_by if seen_by else 'SURVIVES'} ({time.monotonic() - begin:.0f} s)",
        flush=True,
    )
    return bool(seen_by)


def _fails(tree: Path, tests: tuple[str, ...]) -> str:
    """Name of the first test that fails; empty where all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode != 1 or not failed:
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return failed[0].split()[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
