"""Perturb one patch at a time over the whole grid, and say where the tokens sit."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import ShapeError, UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.probe.fit import Fit
from patchatlas.probe.report import ProbeReport
from patchatlas.probe.responses import Answers, locate, measure
from patchatlas.probe.verdict import Finding, flat, judge
from patchatlas.probe.wording import ADVICE, explain


def probe(
    encoder: Encoder,
    size: tuple[int, ...],
    *,
    batch: int = 8,
    pictures: int = 8,
    cells: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ProbeReport:
    """Check that the token that changes most is that of the patch whose pixels were replaced.

    Costs one forward a cell and picture, and one more a picture. Answers are averaged over up to `pictures` pictures of
    noise, and a rule that already holds for every cell ends the work: a ViT needs one. Memory: a batch of inputs and
    their activations, and two tables of cells x tokens float32 numbers.

    Args:
        encoder: any encoder.
        size: (h, w) or (z, h, w), multiples of the patch. Non-square sizes see swapped axes best.
        batch: inputs a forward; it does not change the verdict.
        pictures: noise pictures at most.
        cells: flat numbers of the cells to probe; the whole grid without it.
        generator: draws the noise; on the CPU. Without it, one with seed 0.
        on_progress: called with the forwards done and the most there can be.

    Raises:
        ShapeError: sides that are not multiples of the patch, a grid of one cell, or cells outside it.
        UsageError: batch or pictures below 1.
        MisalignedError: the encoder gives another number of tokens than the grid has cells.
        InputError: tokens that are not finite.
        ResourceError: out of memory.
    """
    if batch < 1 or pictures < 1:
        raise UsageError(f"batch {batch} and pictures {pictures} must be 1 or more")
    grid = PatchGrid.on(Frame.whole(size), encoder.spec.patch)
    probed = list(range(grid.count)) if cells is None else list(cells)
    if grid.count < 2:
        raise ShapeError(
            f"one patch cannot be misplaced: {size} holds a single patch of {grid.patch}; take a larger size"
        )
    if len(probed) < 2 or min(probed) < 0 or max(probed) >= grid.count or len(set(probed)) < len(probed):
        raise ShapeError(f"cells must be two or more different numbers of 0 to {grid.count - 1}, given {probed}")
    generator = generator or torch.Generator().manual_seed(0)
    total, done, used = pictures * len(probed), 0, 0

    def count(forwards: int) -> None:
        nonlocal done
        done += forwards
        if on_progress is not None:
            on_progress(done, total)

    changes = torch.zeros(len(probed), grid.count)
    while True:
        changes += measure(encoder, grid, cells=probed, batch=batch, generator=generator, on_batch=count)
        used += 1
        answers = locate(changes, probed, grid.shape)
        finding = judge(answers, grid.shape)
        if finding.certain or used == pictures:
            return _report(encoder, grid, answers, finding, pictures=used)


def _report(encoder: Encoder, grid: PatchGrid, answers: Answers, finding: Finding, *, pictures: int) -> ProbeReport:
    own = flat(answers.cells, grid.shape)
    heard = ~answers.silent
    hit = (answers.peak == own) & heard
    offset, seen = None, None
    if finding.fit is not None and finding.verdict in ("aligned", "cropped", "padded", "offset"):
        offset = tuple(finding.fit.shift(axis, (sides - 1) / 2) for axis, sides in enumerate(grid.shape))
    if finding.fit is not None and finding.verdict == "cropped":
        seen = _seen(finding.fit, grid)
    steps = (answers.peak_index - answers.cells)[heard].tolist()
    return ProbeReport(
        encoder=encoder.spec.name,
        size=grid.frame.size,
        patch=grid.patch,
        grid=grid.shape,
        verdict=finding.verdict,
        explanation=explain(
            finding,
            grid=grid.shape,
            patch=grid.patch,
            hits=f"{int(hit.sum())} of {len(own)} cells",
            silent=int(answers.silent.sum()),
            offset=offset,
            seen=seen,
        ),
        advice=ADVICE[finding.verdict],
        hit_rate=int(hit.sum()) / len(own),
        cells=len(own),
        misses=tuple(own[~hit].tolist()),
        silent=tuple(own[answers.silent].tolist()),
        displacements=dict(Counter(tuple(step) for step in steps)),
        flat_displacements=dict(Counter((answers.peak - own)[heard].tolist())),
        agreement=finding.agreement,
        shift=finding.shift,
        cyclic=finding.cyclic,
        axes=finding.axes,
        slope=None if finding.fit is None else finding.fit.slope,
        offset=offset,
        seen=seen,
        pictures=pictures,
        forwards=pictures * (len(own) + 1),
    )


def _seen(fit: Fit, grid: PatchGrid) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The pixels at the first and the last edge of the tokens, kept within the input."""
    edges = []
    for axis, (sides, patch) in enumerate(zip(grid.shape, grid.patch, strict=True)):
        low, high = fit.seen(axis, sides)
        edges.append((patch * max(low, 0.0), patch * min(high, float(sides))))
    return tuple(low for low, _ in edges), tuple(high for _, high in edges)
