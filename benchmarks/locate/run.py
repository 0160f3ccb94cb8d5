"""Ask every method about every case, keep the answers, and set them out in tables."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks.locate.encoders import Remembering
from benchmarks.locate.methods import Method, Question, Reply, Setting, any_mole, control, oracle, target_grid
from benchmarks.locate.metrics import Answers, bootstrap, summary
from benchmarks.locate.sets import Case
from patchatlas.encoders.protocol import Encoder
from patchatlas.locate.search import patch_side

CONTROL = "batch"
"""The method that the control is made with."""


@dataclass(frozen=True, eq=False)
class Run:
    """What all methods answered to the same marks, in the same order.

    Attributes:
        answers: by method; `oracle` and `any mole` first, `control` last.
        cost: by method, pixels encoded for a mark, in pictures at the image size.
    """

    answers: dict[str, Answers]
    cost: dict[str, float]

    def save(self, path: Path) -> None:
        """As JSON; NaN stands for absent."""
        stored = {
            name: {field.name: getattr(table, field.name).tolist() for field in fields(table)}
            for name, table in self.answers.items()
        }
        path.write_text(json.dumps({"answers": stored, "cost": self.cost}), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Run":
        """What `save` wrote."""
        stored = json.loads(path.read_text(encoding="utf-8"))
        answers = {
            name: Answers(**{column: np.array(values) for column, values in table.items()})
            for name, table in stored["answers"].items()
        }
        return cls(answers, stored["cost"])


def ask_all(
    cases: Sequence[Case],
    encoder: Encoder,
    methods: dict[str, Method],
    *,
    image_size: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Run:
    """Every method on every case, and the marks on the ruler.

    The control is `CONTROL` (where it is among the methods) with the sources of the case before, of the same kind where
    there is one.
    """
    answers: dict[str, list[Answers]] = {}
    cost: dict[str, float] = {}
    marks = 0
    for number, one in enumerate(cases):
        progress(f"{one.name} ({number + 1} of {len(cases)})")
        if not one.uuids:
            continue
        marks += len(one.uuids)
        remembering = Remembering(encoder)
        # Guesses of one method must not depend on which others run.
        settings = {
            name: Setting(remembering, image_size, np.random.default_rng([number, *name.encode()]))
            for name in ("oracle", "any mole", *methods, "control")
        }
        asked = Question.of(one)
        replies = {name: ruler(one, settings[name]) for name, ruler in (("oracle", oracle), ("any mole", any_mole))}
        for name, method in methods.items():
            before = remembering.asked
            replies[name] = method(asked, settings[name])
            side = image_size**2
            cost[name] = cost.get(name, 0.0) + (remembering.asked - before) / side
        if CONTROL in methods and (other := _other(cases, number)) is not None:
            replies["control"] = control(one, other, methods[CONTROL], settings["control"])
        for name, said in replies.items():
            answers.setdefault(name, []).append(_judged(one, said, patch_side(target_grid(asked, settings["oracle"]))))
    joined = {name: Answers.joined(parts) for name, parts in answers.items()}
    return Run(joined, {name: spent / marks for name, spent in cost.items()})


def _other(cases: Sequence[Case], number: int) -> Case | None:
    """The case before, of the same kind if possible, with marks."""
    before = [cases[number - n] for n in range(1, len(cases)) if cases[number - n].uuids]
    alike = [other for other in before if other.kind == cases[number].kind]
    return next(iter(alike + before), None)


def _judged(one: Case, said: Sequence[Reply], patch: float) -> Answers:
    """Replies held against the truth."""
    assert len(said) == len(one.uuids), f"{one.name} has {len(one.uuids)} marks, {len(said)} were answered"
    n = len(said)
    places = np.array([reply.xy for reply in said], dtype=float)
    return Answers(
        case=np.array([one.name] * n),
        kind=np.array([one.kind] * n),
        family=np.array([one.family] * n),
        fate=np.array(one.fates),
        error=np.linalg.norm(places - one.truth, axis=1),
        gap=one.gaps,
        patch=np.full(n, patch),
        confidence=np.array([reply.confidence for reply in said], dtype=float),
        state=np.array([reply.state for reply in said]),
    )


# -- tables -----------------------------------------------------------------------------------------------------------

Column = tuple[str, str, Callable[[float], str]]


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{100 * value:.1f}"


def _pixels(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _part(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


PLACES: Sequence[Column] = (
    *((f"@{n} px", f"PCK@{n}px", _percent) for n in (2, 4, 8, 16, 32)),
    *((f"@{n:g} patch", f"PCK@{n:g}patch", _percent) for n in (0.25, 0.5, 1, 2)),
    ("mean px", "mean", _pixels),
    ("median", "median", _pixels),
    ("p95", "p95", _pixels),
    ("mean if right", "mean_when_right", _pixels),
    ("safe", "identity_safe", _percent),
)
"""Columns of the table of places: heading, name in `summary`, how it is written."""

CONFIDENCE: Sequence[Column] = (
    ("AUROC", "AUROC", _part),
    ("AUROC present", "AUROC_present", _part),
    ("AURC", "AURC", _part),
    ("precision at 90 %", "precision@90", _percent),
    ("absent at 5 %", "absent_recall", _percent),
    ("ECE", "ECE", _part),
)
"""Columns of the table of confidence."""

INTERVALS = ("PCK@16px", "PCK@1patch", "mean", "identity_safe", "AUROC", "precision@90", "absent_recall")
"""Numbers that are given with their intervals."""


def table(answers: dict[str, Answers], columns: Sequence[Column], *, cost: dict[str, float] | None = None) -> str:
    """A Markdown table, one line a method."""
    lines = ["| method | " + " | ".join(heading for heading, _, _ in columns) + (" | cost |" if cost else " |")]
    lines.append("| --- |" + " --- |" * (len(columns) + bool(cost)))
    for name, one in answers.items():
        numbers = summary(one)
        cells = [write(numbers[key]) for _, key, write in columns]
        if cost:
            cells.append(f"{cost[name]:.2f}" if name in cost else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval_table(answers: dict[str, Answers], *, rounds: int = 300) -> str:
    """Numbers with 95 % intervals over cases, one line a method."""
    written = {key: write for _, key, write in (*PLACES, *CONFIDENCE)}
    lines = ["| method | " + " | ".join(INTERVALS) + " |", "| --- |" + " --- |" * len(INTERVALS)]
    for name, one in answers.items():
        numbers, between = summary(one), bootstrap(one, rounds=rounds)
        cells = []
        for key in INTERVALS:
            low, high = (written[key](value) for value in between[key])
            cells.append(f"{written[key](numbers[key])} ({low} to {high})" if low else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def state_table(answers: dict[str, Answers]) -> str:
    """How far the states can be trusted, one line a method that has them."""
    lines = ["| method | found | of these right | uncertain | absent | of these absent | present called absent |"]
    lines.append("| --- |" + " --- |" * 6)
    for name, one in answers.items():
        found, absent = one.state == "found", one.state == "absent"
        if (one.state == "").all():
            continue
        right = _percent(float(one.right[found].mean())) if found.any() else ""
        truly = _percent(float((~one.present)[absent].mean())) if absent.any() else ""
        lost = _percent(float(absent[one.present].mean())) if one.present.any() else ""
        uncertain = int((one.state == "uncertain").sum())
        lines.append(f"| {name} | {found.sum()} | {right} | {uncertain} | {absent.sum()} | {truly} | {lost} |")
    return "\n".join(lines)


def by(answers: dict[str, Answers], column: str) -> dict[str, dict[str, Answers]]:
    """The answers of each kind (or family, or fate), by its name."""
    first = next(iter(answers.values()))
    names = dict.fromkeys(getattr(first, column).tolist())
    return {name: {method: one.take(getattr(one, column) == name) for method, one in answers.items()} for name in names}
