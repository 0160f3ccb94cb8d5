"""Plant faults in the stitching code, one at a time, and show that each makes a test fail.

Every fault is a change of a line or two in a copy of the tree, with the test files that should see it. A fault that no
test sees survives, and the exit code is 1. The tests must pass before anything is changed.

    python tools/mutate_stitch.py [NAME ...]      all faults, or those whose name contains one of these
"""

import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Imported once here, for all the processes that run tests.
import numba  # noqa: F401
import pytest
import torch  # noqa: F401
import zarr  # noqa: F401

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
_POSITIONS = ("tests/stitch/test_positions.py",)
_COMPAT = ("tests/stitch/test_compat.py",)
_DIAGNOSIS = ("tests/stitch/test_diagnosis.py",)
_MARGINS = ("tests/stitch/test_diagnosis_margins.py",)
_REFINE = ("tests/stitch/test_refine.py",)
_RUN = ("tests/stitch/test_run.py",)
_LARGE = ("tests/stitch/test_large.py",)
_SCANS = ("tests/io/test_scans.py",)
_COMMANDS = ("tests/cli/test_stitch.py",)
_COMPILED = ("tests/canvas/test_compiled.py",)
_STREAM = ("tests/canvas/test_stream.py",)
_OUT_OF_CORE = ("tests/canvas/test_outofcore.py",)

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
        "bad = ~(positions.detach().abs() <= FARTHEST)",
        "bad = (positions.detach().abs() > FARTHEST)",
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
        "canvas/mean.py",
        "torch.div(total[some][..., number], divisor, out=part)",
        "part.copy_(total[some][..., number])",
        _PLACE,
    ),
    Fault(
        "holes are NaN",
        "canvas/mean.py",
        ".masked_fill_(empty, filling)",
        ".masked_fill_(empty, math.nan)",
        _PLACE,
    ),
    Fault(
        "ringing blown up",
        "canvas/canvas.py",
        "trusted = (self.counts > 0) & (weight > _LEAST_PART * self._unsigned.total())",
        "trusted = (self.counts > 0) & (weight > 0)",
        _PLACE,
    ),
    Fault(
        "Fourier traces blown up",
        "canvas/canvas.py",
        "trusted &= weight > _LEAST_OF_BEST * best",
        "trusted &= weight > 0 * best",
        _PLACE,
    ),
    Fault(
        "counts in uint8",
        "canvas/coverage.py",
        "_running_sums(edges, plan.size, torch.int32, least=0.0)",
        "_running_sums(edges, plan.size, torch.uint8, least=0.0)",
        _CANVAS,
    ),
    Fault(
        "coverage in uint8",
        "canvas/coverage.py",
        "total[top:bottom] = inner.masked_fill_(inner <= least, 0)",
        "total[top:bottom] = inner.to(torch.uint8).to(dtype) if dtype.is_floating_point else inner",
        _COVERAGE,
    ),
    Fault(
        "rounding noise counts as covered",
        "canvas/coverage.py",
        "inner.masked_fill_(inner <= least, 0)",
        "inner",
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
        "taps swapped in compiled code",
        "canvas/rows.py",
        "_add_two(out, to, this, before, low, high - low, part * y_here, part * y_next)",
        "_add_two(out, to, this, before, low, high - low, part * y_next, part * y_here)",
        _COMPILED,
    ),
    Fault(
        "compiled reading not transposed",
        "canvas/rows.py",
        "row[i] = here * line[i] + following * line[m + i]",
        "row[i] = following * line[i] + here * line[m + i]",
        _COMPILED,
    ),
    Fault(
        "last tap forgotten",
        "canvas/rows.py",
        "row[w + i] = following * tile[at + w - m + i]",
        "row[w + i] = 0.0",
        _COMPILED,
    ),
    Fault(
        "tile weights left out of rows",
        "canvas/rows.py",
        "share[k, 0, layer % 2] * scale[k]",
        "share[k, 0, layer % 2]",
        _COMPILED,
    ),
    Fault("a tile left out of the order", "canvas/rows.py", "for k in order:", "for k in order[1:]:", _COMPILED),
    Fault(
        "bands of threads overlap",
        "canvas/compiled.py",
        "edges = [0, *cuts, rows]\n    return list(itertools.pairwise(edges))",
        "edges = [0, *cuts, rows]\n    return [(max(0, a - 1), b) for a, b in itertools.pairwise(edges)]",
        _COMPILED,
    ),
    Fault(
        "a thread forgets the tiles above",
        "canvas/finish.py",
        "while edge < len(edge_row) and edge_row[edge] <= row:",
        "while edge < len(edge_row) and edge_row[edge] < first:\n            edge += 1\n        "
        "while edge < len(edge_row) and edge_row[edge] <= row:",
        _COMPILED,
    ),
    Fault("boxes never end", "canvas/finish.py", "level -= taps[i - size]", "level -= 0.0", _COVERAGE),
    Fault(
        "compiled holes are zero",
        "canvas/finish.py",
        "if each[i] > 0 else fill[i]",
        "if each[i] > 0 else 0 * fill[i]",
        _COMPILED,
    ),
    Fault("compiled noise counts", "canvas/finish.py", "row[i] if row[i] > least else 0.0", "row[i]", _COVERAGE),
    Fault(
        "portions lose their weights",
        "canvas/stream.py",
        "each = None if weights is None else weights[some]",
        "each = None if weights is None else weights[: len(some)]",
        _STREAM,
    ),
    Fault("runs of rows joined", "canvas/stream.py", "(rows.diff() != 1)", "(rows.diff() > 3)", _STREAM),
    Fault(
        "a band loses the tiles above it",
        "canvas/outofcore.py",
        "int((ends <= top).sum())",
        "int((begins < top).sum())",
        _OUT_OF_CORE,
    ),
    Fault(
        "the stamp forgets the window",
        "canvas/store.py",
        '"tile_window_sha256": _hash(window)',
        '"tile_window_sha256": _hash(None)',
        _OUT_OF_CORE,
    ),
    Fault(
        "centre of a tile read as (h, w)",
        "stitch/positions.py",
        '"centre": (w // 2, h // 2)',
        '"centre": (h // 2, w // 2)',
        _POSITIONS,
    ),
    Fault("anchor added", "stitch/positions.py", "[o - a for o, a", "[o + a for o, a", _POSITIONS),
    Fault("x and y read as they are stored", "stitch/positions.py", 'if scan.order == "yx"', "if False", _POSITIONS),
    Fault("sign of x forgotten", "stitch/positions.py", '"minus-x": (-1, 1)', '"minus-x": (1, 1)', _POSITIONS),
    Fault("the other sign of the reference", "stitch/compat.py", "if xla else mean", "if not xla else mean", _COMPAT),
    Fault("padding not even", "stitch/compat.py", "2 * math.ceil(math.ceil(", "1 * math.ceil(2 * math.ceil(", _COMPAT),
    Fault(
        "rule of the shape dropped",
        "stitch/diagnosis/contract.py",
        "if given != wanted:",
        "if False:",
        _DIAGNOSIS,
    ),
    Fault(
        "recycled positions let through",
        "stitch/diagnosis/spread.py",
        "if self.repeats_disagree > self.limits.loose:",
        "if False:",
        _DIAGNOSIS,
    ),
    Fault(
        "disagreement biased",
        "stitch/diagnosis/overlap.py",
        "* some / (some - 1).clamp(min=1)).clamp(",
        ").clamp(",
        _MARGINS,
    ),
    Fault(
        "tiles less their own means",
        "stitch/diagnosis/overlap.py",
        "tuple(range(values.ndim - 1))",
        "(1, 2)",
        _DIAGNOSIS,
    ),
    Fault(
        "no orientation tried",
        "stitch/diagnosis/orientation.py",
        "if not least < limits.turned",
        "if True or least < limits.turned",
        _DIAGNOSIS,
    ),
    Fault("one tile taken for right", "stitch/diagnosis/box.py", "if self.shows_one_tile:", "if False:", _MARGINS),
    Fault(
        "holes let through",
        "stitch/diagnosis/coverage.py",
        "        if self.dropped:\n",
        "        if False:\n",
        _MARGINS,
    ),
    Fault(
        "brightness let through",
        "stitch/diagnosis/picture.py",
        "if brightness > limits.brightest:",
        "if False:",
        _DIAGNOSIS,
    ),
    Fault(
        "half a pixel let through",
        "stitch/diagnosis/picture.py",
        "if farthest < limits.displaced_px:",
        "if True:",
        _DIAGNOSIS,
    ),
    Fault(
        "picture compared with unweighted tiles",
        "stitch/diagnosis/picture.py",
        "interpolation=picture.interpolation, window=picture.window, crop=True",
        "interpolation=picture.interpolation, crop=True",
        _DIAGNOSIS,
    ),
    Fault("refined the wrong way", "stitch/refine.py", "rest = tiles - back", "rest = back - tiles", _REFINE),
    Fault("slopes swapped", "stitch/refine.py", "for axis in (2, 1):", "for axis in (1, 2):", _REFINE),
    Fault("moved where there is no slope", "stitch/refine.py", "_OWN_SLOPE = 0.03", "_OWN_SLOPE = 0.0", _REFINE),
    Fault("empty tiles moved", "stitch/refine.py", "_COMMON_SLOPE = 0.01", "_COMMON_SLOPE = 0.0", _REFINE),
    Fault(
        "the round that smooths noise best",
        "stitch/refine.py",
        "if settled or number >= rounds:",
        "if settled or number >= rounds or residuals[-1] < 0.7 * residuals[0]:",
        _REFINE,
    ),
    Fault("held tiles moved", "stitch/refine.py", "        moved[held] = 0\n", "", _REFINE),
    Fault(
        "residual of single tiles",
        "stitch/misfit.py",
        "(canvas.counts.to(values.device) >= 2)",
        "(canvas.counts.to(values.device) >= 1)",
        _RUN,
    ),
    Fault(
        "origin as (row, column)",
        "stitch/run.py",
        "origin_xy=(float(column), float(row))",
        "origin_xy=(float(row), float(column))",
        _RUN,
    ),
    Fault(
        "place of a part forgotten",
        "stitch/large.py",
        "origin[0] + low_column, origin[1] + low_row",
        "origin[0], origin[1]",
        _LARGE,
    ),
    Fault("rows of a band skipped", "stitch/large.py", "first = -top % step", "first = 0", _LARGE),
    Fault(
        "folder written in place",
        "stitch/output.py",
        "        yield temporary\n",
        "        folder.mkdir(exist_ok=True)\n        yield folder\n",
        _RUN,
    ),
    Fault("NaN positions read", "io/scans/scan.py", "if not finite.all():", "if False:", _SCANS),
    Fault("counts that differ read", "io/scans/scan.py", "if count is not None and count != n:", "if False:", _SCANS),
    Fault("sample's motion not turned", "io/scans/cxi.py", "bool(-right[0] > 0)", "bool(right[0] > 0)", _SCANS),
    Fault("rows of ptyd read as x", "io/scans/ptyd.py", '"order": ("yx", rule)', '"order": ("xy", rule)', _SCANS),
    Fault("centre of the object added", "io/scans/ptychodus.py", "w / 2 - c / p", "w / 2 + c / p", _SCANS),
    Fault(
        "coordinates of PtychoPINN swapped",
        "io/scans/ptychopinn.py",
        "positions=np.stack([x, y], axis=1)",
        "positions=np.stack([y, x], axis=1)",
        _SCANS,
    ),
    Fault(
        "faults written all the same",
        "cli/stitch_run.py",
        'config.diagnose == "error"',
        'config.diagnose == "never"',
        _COMMANDS,
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
        if failed := _failing(tree, tests, planted=False):
            print(f"{failed} fails before anything was changed", file=sys.stderr)
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
    seen_by = _failing(tree, fault.tests, planted=True)
    file.write_text(original, encoding="utf-8")
    print(
        f"{fault.name:40} {'seen by ' + seen_by if seen_by else 'SURVIVES'} ({time.monotonic() - begin:.1f} s)",
        flush=True,
    )
    return bool(seen_by)


def _failing(tree: Path, tests: tuple[str, ...], *, planted: bool) -> str:
    """Name of the first test that fails; empty where all pass.

    A forked process runs them, for which torch is imported already and the package and its tests are not.
    """
    answers = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(target=_run_tests, args=(tree, tests, answers.put, planted))
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(f"the tests ended with {child.exitcode}, see {tree}")
    code, failed, output = answers.get()
    if code == 0:
        return ""
    if not failed:
        raise SystemExit(f"pytest ended with {code}:\n{output}")
    return str(failed[0])


class _Failures:
    """A plugin of pytest that notes what failed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest after each step of each test."""
        if report.failed:
            self.names.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Called by pytest after each file."""
        if report.failed:
            self.names.append(report.nodeid)


def _run_tests(
    tree: Path, tests: tuple[str, ...], answer: Callable[[tuple[int, list[str], str]], None], planted: bool
) -> None:
    os.chdir(tree)
    sys.path[:0] = [str(tree / "src"), str(tree)]
    # The first run leaves bytecode for the others, which change one file each, and its time with it.
    sys.dont_write_bytecode = planted
    failures, output = _Failures(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        options = ["-x", "-q", "-p", "no:cacheprovider", "--capture=no"]
        # What is imported already cannot have its assertions rewritten; none of it has any to show.
        options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
        code = pytest.main([*options, *tests], plugins=[failures])
    # Little enough for a pipe to hold: it is read only when this process has ended.
    answer((int(code), failures.names[:1], output.getvalue()[-4000:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
