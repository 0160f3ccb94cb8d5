"""Fit the calibration that turns cues into a probability, and draw how far it can be trusted.

    python -m benchmarks.locate.calibrate observe --encoder sift --seeds 40 --centred 8 sift.jsonl
    python -m benchmarks.locate.calibrate fit --name sift --for bundled:sift --into FOLDER sift.jsonl
    python -m benchmarks.locate.calibrate observe --encoder sift --split test --seeds 20 --centred 4 test.jsonl
    python -m benchmarks.locate.calibrate check --calibration FOLDER/sift.json --plot reliability.png test.jsonl

`observe` looks for every mark of the drawn sets (see sets.py), and of the photos with `--photos`, in each of the ways
that the package has, and notes the cues and whether the place was right, within one patch side of the truth:

    alone     from one source, all marks of it from one encoding
    centred   from one source, encoded anew for each mark so that the mark is the centre of a patch
    views     from all sources that show it
    together  with all other marks of the target

`fit` weighs every encoder, way and set alike, however many marks each has. The regression is logistic with a slight
ridge. The lines are drawn so that 0.95 of all called found are right, in each way by itself, or on average over all
ways if the calibration is for any encoder; and that 0.05 of all that are present are called absent, where at least half
of them are found right. (A mark on a round body, seen from another side, looks as lost to a weak encoder as one that is
not there: with such sets among the others, the line would be where next to nothing is called absent.)
"""

import argparse
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from scipy.optimize import minimize

from benchmarks.locate import photos
from benchmarks.locate.encoders import Remembering, open_encoder
from benchmarks.locate.methods import Question, as_mask, patches_inside
from benchmarks.locate.metrics import auroc
from benchmarks.locate.sets import KINDS, SEEDS, Case, case
from benchmarks.locate.skin import Array
from patchatlas.encoders.protocol import Encoder
from patchatlas.locate.encoding import encode_view
from patchatlas.locate.pair import locate_pair
from patchatlas.locate.recipe import Recipe
from patchatlas.locate.reference import Reference
from patchatlas.locate.search import locate_points, patch_side
from patchatlas.locate.together import locate_together
from patchatlas.locate.views import meet_views
from patchatlas.matching.confidence import Calibration, Cue, Cues, Term, on_scale, read_calibration

PRECISION = 0.95
"""Part of right places among those called found."""

MISSED = 0.05
"""Part of the present marks that may be called absent, of sets and ways in which they can be found."""

FINDABLE = 0.5
"""Marks can be found in a set, by an encoder and a way, where so large a part of those that are present is."""

RIDGE = 1e-3
"""Weight of the squared coefficients of standardised cues against the mean log-loss: keeps a cue that parts a small set
perfectly from being believed without bounds."""

BETTER: dict[Cue, int] = {"lead": 1, "cycle": -1, "entropy": -1, "views": 1, "agreement": 1, "residual": -1}
"""Whether more or less of a cue is better. Coefficients are held to it, so that no cue speaks against a place by being
good, which chance and the other cues bring about in a small sample."""

ALWAYS: tuple[Cue, ...] = ("lead", "cycle", "entropy")
"""Cues that are never missing: their `known` is part of the base."""

BINS = 10

PHOTO_SIZE = 896
"""Long side at which the real photos are encoded, as `locate` does unless told otherwise."""


@dataclass(frozen=True)
class Observation:
    """One mark, looked for in one way.

    Attributes:
        encoder: which.
        kind: of the case.
        way: see the top of the file.
        case: which.
        present: whether the mark is in the target.
        right: whether the place is.
        cues: of the place.
    """

    encoder: str
    kind: str
    way: str
    case: str
    present: bool
    right: bool
    cues: Cues


def observe(one: Case, encoder: Encoder, *, name: str, image_size: int, centred: bool) -> Iterator[Observation]:
    """Every mark of a case in every way that it can be looked for.

    Args:
        name: of the encoder, for the record.
        centred: whether to encode each mark's source anew, too.
    """
    question, recipe = Question.of(one), Recipe(image_size=image_size)
    target_map = encode_view(one.target, encoder, recipe)
    target_mask = patches_inside(one.target_mask, target_map)
    side = patch_side(target_map.grid)

    def seen(way: str, mark: int, xy: Sequence[float], cues: Cues) -> Observation:
        present = bool(one.visible[mark])
        right = present and float(np.hypot(*(np.array(xy) - one.truth[mark]))) <= side
        return Observation(name, one.kind, way, one.name, present, right, cues)

    references = []
    found: list[list] = [[] for _ in one.uuids]
    for view, (source, points, mask) in enumerate(zip(one.sources, one.source_points, one.source_masks, strict=True)):
        shown = np.flatnonzero(~np.isnan(points[:, 0]))
        source_map = encode_view(source, encoder, recipe)
        reference = Reference(
            str(view),
            source_map,
            tuple(one.uuids[k] for k in shown),
            torch.from_numpy(points[shown]),
            patches_inside(mask, source_map),
        )
        references.append(reference)
        findings = locate_points(
            source_map,
            target_map,
            reference.points_source,
            uuids=reference.uuids,
            image_size=image_size,
            source_mask=reference.mask,
            target_mask=target_mask,
        )
        for k, finding in zip(shown.tolist(), findings, strict=True):
            found[k].append(finding)
            yield seen("alone", k, finding.target_xy, finding.cues)
    for k, alone in enumerate(found):
        if len(alone) > 1:
            met = meet_views(alone, views=[str(view) for view in range(len(alone))]).finding
            yield seen("views", k, met.target_xy, met.cues)
    together = locate_together(references, target_map, target_mask=target_mask, image_size=image_size)
    for placement in together.placements:
        yield seen("together", one.uuids.index(placement.uuid), placement.target_xy, placement.cues)
    for k in range(len(one.uuids) if centred else 0):
        view = question.first_view(k)
        finding = locate_pair(
            one.sources[view],
            one.target,
            tuple(one.source_points[view][k].tolist()),
            encoder,
            uuid=one.uuids[k],
            recipe=recipe,
            source_mask=as_mask(one.source_masks[view]),
            target_mask=as_mask(one.target_mask),
        )
        yield seen("centred", k, finding.target_xy, finding.cues)


def fit(
    observations: Sequence[Observation], *, name: str, encoders: Sequence[str], fitted_on: str
) -> tuple[Calibration, Array]:
    """The calibration of some observations, and the probabilities that it gives them.

    Raises:
        ValueError: no threshold reaches `PRECISION`, or the lines would cross.
    """
    right = np.array([one.right for one in observations])
    weights = weigh_alike(observations)
    columns, signs, centres, scales = _design(observations, weights)
    coefficients = _logistic(columns, signs, right, weights)
    terms: dict[Cue, Term] = {}
    column = 1
    for cue in get_args(Cue):
        weight = float(coefficients[column] / scales[cue])
        column += 1
        known = 0.0
        if cue not in ALWAYS:
            known = float(coefficients[column])
            column += 1
        terms[cue] = Term(round(weight, 4), round(centres[cue], 4), round(known, 4))
    plain = Calibration(
        name=name,
        fitted_on=fitted_on,
        encoders=tuple(encoders),
        base=round(float(coefficients[0]), 4),
        terms=terms,
        found=1.0,
        absent=0.0,
    )
    sure = np.array([plain.probability(one.cues) for one in observations])
    found, absent = _draw_lines(observations, sure, weights, each_way=bool(encoders))
    return Calibration(
        **{**vars(plain), "found": math.ceil(found * 1e4) / 1e4, "absent": math.floor(absent * 1e4) / 1e4}
    ), sure


def weigh_alike(observations: Sequence[Observation]) -> Array:
    """Weights with a mean of 1 that count each sort of encoder alike, and for each sort each way and kind."""
    cells = _cells(observations)
    marks = Counter(cells)
    parts = Counter(sort for sort, _, _ in marks)
    return np.array([len(cells) / (len(parts) * parts[cell[0]] * marks[cell]) for cell in cells])


def least_found(sure: Array, right: Array, weights: Array) -> float:
    """The least threshold from which on `PRECISION` is reached; above all of them where none reaches it."""
    order = np.argsort(-sure)
    precision = np.cumsum((weights * right)[order]) / np.cumsum(weights[order])
    reached = np.flatnonzero(precision >= PRECISION)
    return float(sure[order][reached[-1]] if len(reached) else np.nextafter(sure.max(), 2))


def most_absent(sure: Array, weights: Array) -> float:
    """The threshold below which `MISSED` of some present marks lie."""
    order = np.argsort(sure)
    missed = np.cumsum(weights[order]) / weights.sum()
    return float(sure[order][np.searchsorted(missed, MISSED)])


def _draw_lines(
    observations: Sequence[Observation], sure: Array, weights: Array, *, each_way: bool
) -> tuple[float, float]:
    """The least probability of all called found and the largest of all called absent.

    Args:
        observations: what was seen.
        sure: probabilities.
        weights: how much each counts.
        each_way: whether the precision must be reached in each way of looking by itself.

    Raises:
        ValueError: no threshold reaches the precision, no set has its marks found, or the lines would cross.
    """
    right, present = (np.array([getattr(one, what) for one in observations]) for what in ("right", "present"))
    ways = np.array([one.way if each_way else "any" for one in observations])
    found = max(least_found(sure[ways == way], right[ways == way], weights[ways == way]) for way in np.unique(ways))
    if found > sure.max():
        raise ValueError(f"no threshold is right in {PRECISION:.0%} of all it calls found; observe more marks")
    cells = _cells(observations)
    there, hit = (Counter(cell for cell, yes in zip(cells, of, strict=True) if yes) for of in (present, right))
    counted = present & np.array([hit[cell] >= FINDABLE * max(there[cell], 1) for cell in cells])
    if not counted.any():
        raise ValueError(f"in no set {FINDABLE:.0%} of the marks are found; this encoder cannot tell what is absent")
    absent = most_absent(sure[counted], weights[counted])
    if absent >= found:
        raise ValueError(f"called absent up to {absent:.3f} and found from {found:.3f}: nothing is left between")
    return found, absent


def _cells(observations: Sequence[Observation]) -> list[tuple[str, str, str]]:
    """Sort of encoder, way and kind of each; vit-0 and vit-1 are of one sort."""
    return [(one.encoder.partition("-")[0], one.way, one.kind) for one in observations]


def reliability(sure: Array, right: Array, weights: Array) -> tuple[Array, Array, Array, float]:
    """Of `BINS` bins of probability: mean probability, part that is right, weight; and the mean distance (ECE)."""
    index = np.minimum((sure * BINS).astype(int), BINS - 1)
    weight, said, was = (np.bincount(index, weights * of, minlength=BINS) for of in (np.ones(len(sure)), sure, right))
    there = weight > 0
    error = float(np.abs(said - was).sum() / weight.sum())
    return said[there] / weight[there], was[there] / weight[there], weight[there] / weight.sum(), error


def report(observations: Sequence[Observation], calibration: Calibration) -> str:
    """A line for each encoder and way, and one for all."""
    lines = [
        "| encoder | way | marks | right | AUROC | ECE | right of found | found of present | absent of present | "
        "absent of absent |",
        "| --- " * 10 + "|",
    ]
    ways = list(dict.fromkeys((one.encoder, one.way) for one in observations))
    for encoder, way in [*ways, ("all", "all")]:
        chosen = [one for one in observations if (one.encoder, one.way) == (encoder, way) or way == "all"]
        sure, right, present = _judged(chosen, calibration)
        weights = weigh_alike(chosen)
        found, absent = sure >= calibration.found, sure <= calibration.absent

        def part(which: Array, of: Array, weights: Array = weights) -> str:
            return f"{np.sum(weights * (which & of)) / np.sum(weights * of):.2f}" if of.any() else ""

        lines.append(
            f"| {encoder} | {way} | {len(chosen)} | {part(right, right | True)} | {auroc(sure, right):.3f} | "
            f"{reliability(sure, right, weights)[3]:.3f} | {part(right, found)} | {part(found, present)} | "
            f"{part(absent, present)} | {part(absent, ~present)} |"
        )
    return "\n".join(lines)


def draw(observations: Sequence[Observation], calibration: Calibration, file: Path) -> None:
    """Write the reliability plot: what was said against what was right, for each way."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="confidence", ylabel="part that is right", xlim=(0, 1), ylim=(0, 1), aspect=1)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    for line in (calibration.absent, calibration.found):
        axes.axvline(line, color="0.85", zorder=0)
    for way in dict.fromkeys(one.way for one in observations):
        of_way = [one for one in observations if one.way == way]
        sure, right, _ = _judged(of_way, calibration)
        said, was, weight, error = reliability(sure, right, weigh_alike(of_way))
        (curve,) = axes.plot(said, was, label=f"{way}: {len(of_way)} marks, ECE {error:.3f}")
        axes.scatter(said, was, s=400 * weight, color=curve.get_color(), alpha=0.6, linewidths=0)
    axes.legend(loc="lower right", frameon=False)
    axes.set_title(f"calibration {calibration.name!r}", fontsize=10)
    figure.savefig(file, dpi=110)


def _judged(observations: Sequence[Observation], calibration: Calibration) -> tuple[Array, Array, Array]:
    """Probability, right and present, one a mark."""
    sure = np.array([calibration.probability(one.cues) for one in observations])
    return sure, np.array([one.right for one in observations]), np.array([one.present for one in observations])


def _design(
    observations: Sequence[Observation], weights: Array
) -> tuple[Array, list[int], dict[Cue, float], dict[Cue, float]]:
    """The matrix of the regression, signs that its coefficients must have (0 for any), centre and scale of each cue."""
    values = [on_scale(one.cues) for one in observations]
    columns, signs = [np.ones(len(values))], [0]
    centres: dict[Cue, float] = {}
    scales: dict[Cue, float] = {}
    for cue in get_args(Cue):
        column = np.array([np.nan if value[cue] is None else value[cue] for value in values], dtype=float)
        known = ~np.isnan(column)
        centres[cue] = float(np.average(column[known], weights=weights[known])) if known.any() else 0.0
        away = np.where(known, column - centres[cue], 0.0)
        scales[cue] = float(np.sqrt(np.average(away[known] ** 2, weights=weights[known]))) if known.any() else 1.0
        columns.append(away / max(scales[cue], 1e-9))
        signs.append(BETTER[cue])
        if cue not in ALWAYS:
            columns.append(known.astype(float))
            signs.append(0)
    return np.stack(columns, axis=1), signs, centres, scales


def _logistic(columns: Array, signs: Sequence[int], right: Array, weights: Array) -> Array:
    """Weighted logistic regression with a ridge on all but the first column, and coefficients of the signs given."""
    share = weights / weights.sum()
    free = np.r_[0, np.ones(columns.shape[1] - 1)]

    def loss(coefficients: Array) -> tuple[float, Array]:
        odds = columns @ coefficients
        value = share @ (np.logaddexp(0, odds) - right * odds) + RIDGE * (free * coefficients**2).sum()
        slope = columns.T @ (share * (1 / (1 + np.exp(-odds)) - right)) + 2 * RIDGE * free * coefficients
        return float(value), slope

    bounds = [{-1: (None, 0), 0: (None, None), 1: (0, None)}[sign] for sign in signs]
    return minimize(loss, np.zeros(columns.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12).x


def _load(files: Sequence[Path]) -> list[Observation]:
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [Observation(**{**row, "cues": Cues(**row["cues"])}) for row in rows]


def _observe_all(options: argparse.Namespace) -> None:
    """Case by case, so that a run that was stopped has not been for nothing."""
    encoder = Remembering(open_encoder(options.encoder), most=8)
    seeds = SEEDS[options.split][options.first : options.first + options.seeds]
    drawn = (
        (case(kind, seed, options.split), n < options.centred) for n, seed in enumerate(seeds) for kind in options.kinds
    )
    real = ((one, True) for one in (photos.cases(options.split) if options.photos else []))
    with options.file.open("w", encoding="utf-8") as lines:
        for one, centred in itertools.chain(drawn, real):
            print(one.name, file=sys.stderr)
            size = PHOTO_SIZE if one.family == "photo" else options.image_size
            for seen in observe(one, encoder, name=options.encoder, image_size=size, centred=centred):
                lines.write(json.dumps(asdict(seen)) + "\n")
            lines.flush()


def main() -> None:
    """Read the options, then observe, fit or check."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.locate.calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    observing = commands.add_parser("observe")
    observing.add_argument("--encoder", default="sift")
    observing.add_argument("--split", choices=SEEDS, default="dev")
    observing.add_argument("--first", type=int, default=0, help="seeds of the split to pass over")
    observing.add_argument("--seeds", type=int, default=20, help="cases a drawn set")
    observing.add_argument("--centred", type=int, default=4, help="of the first so many also mark by mark")
    observing.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    observing.add_argument("--photos", action="store_true", help="the real photos too")
    observing.add_argument("--image-size", type=int, default=384)
    observing.add_argument("file", type=Path)
    fitting = commands.add_parser("fit")
    fitting.add_argument("--name", required=True)
    fitting.add_argument("--for", dest="encoders", nargs="*", default=[], help="names of encoders; none for any")
    fitting.add_argument("--into", type=Path, required=True, help="folder for NAME.json")
    fitting.add_argument("files", type=Path, nargs="+")
    checking = commands.add_parser("check")
    checking.add_argument("--calibration", type=Path, required=True)
    checking.add_argument("--plot", type=Path)
    checking.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "observe":
        _observe_all(options)
        return
    observations = _load(options.files)
    if options.command == "check":
        calibration = read_calibration(options.calibration)
        if options.plot is not None:
            draw(observations, calibration, options.plot)
    else:
        kinds, encoders = (
            ", ".join(dict.fromkeys(getattr(one, what) for one in observations)) for what in ("kind", "encoder")
        )
        cases = len({one.case for one in observations})
        fitted_on = f"{len(observations)} marks of {cases} development cases ({kinds}); encoders: {encoders}"
        calibration, _ = fit(observations, name=options.name, encoders=options.encoders, fitted_on=fitted_on)
        text = json.dumps(calibration.to_json(), indent=2) + "\n"
        options.into.mkdir(parents=True, exist_ok=True)
        (options.into / f"{options.name}.json").write_text(text, encoding="utf-8")
    print(report(observations, calibration))


if __name__ == "__main__":
    main()
