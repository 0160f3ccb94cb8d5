"""How likely a found place is right: cues that have no unit of an encoder or picture, weighed by a fitted calibration.

A place is right if it lies within one patch side of the truth. Cosines are no cue: what is high for one encoder is low
for another. A calibration is a logistic regression, fitted by `benchmarks/locate/calibrate.py` and stored as JSON.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, get_args

from patchatlas.errors import FormatError, InputError
from patchatlas.spec import EncoderSpec

FORMAT = "patchatlas.confidence"
VERSION = 1

Cue = Literal["lead", "cycle", "entropy", "agreement", "views", "residual"]


@dataclass(frozen=True, kw_only=True)
class Cues:
    """What speaks for or against one place.

    Attributes:
        lead: similarity of the place less that of the best place elsewhere, in standard deviations of the map; below
            zero where something other than likeness chose the place. `None` where there is nothing to lead: too few
            patches for a second place, or every place is equally like the mark.
            Negative for a place that was taken although another looks better.
        cycle: distance from the mark to where the place matches back to, in patches of the source; of several views
            the median of those that agree, and so for `lead` and `entropy`.
        entropy: of the peak's neighbourhood: 0 one patch stands out, 1 all are alike.
        views: how many views agree on the place; 1 for a single view.
        agreement: part of the weight of all views that agrees, 0..1; `None` for a single view.
        residual: distance from where the other landmarks put it, in standard deviations of that prediction; `None`
            without a prediction.
    """

    lead: float | None
    cycle: float
    entropy: float
    views: int = 1
    agreement: float | None = None
    residual: float | None = None


@dataclass(frozen=True)
class Term:
    """What one cue adds to the log-odds: `known + weight * (value - centre)`, or nothing where the cue is missing.

    Attributes:
        weight: per unit of the cue on its own scale, see `on_scale`.
        centre: mean of the cue on its scale where the calibration was fitted.
        known: for a cue that may be missing, what it adds at its centre.
    """

    weight: float
    centre: float
    known: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Turns cues into the probability that the place is right, and says where to draw the lines.

    Attributes:
        name: of the calibration.
        fitted_on: on what, in words.
        encoders: names of the encoders it was fitted for; empty if it is for any.
        base: log-odds where every cue is at its centre and none that may be missing is known.
        terms: one a cue.
        found: least probability of a landmark that is called found.
        absent: largest probability of one that is called absent.
    """

    name: str
    fitted_on: str
    encoders: tuple[str, ...]
    base: float
    terms: Mapping[Cue, Term]
    found: float
    absent: float

    def evidence(self, cues: Cues) -> dict[Cue, float]:
        """What each cue that is known adds to the log-odds, against an average one."""
        values = on_scale(cues)
        return {
            cue: term.known + term.weight * (value - term.centre)
            for cue, term in self.terms.items()
            if (value := values[cue]) is not None
        }

    def probability(self, cues: Cues) -> float:
        """Probability that the place is right, 0..1."""
        odds = self.base + sum(self.evidence(cues).values())
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, odds))))  # beyond, float64 overflows

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Calibration":
        """Read back what `to_json` gave; keys that are not known are passed over.

        Raises:
            FormatError: not a calibration, of another version, or damaged.
        """
        if stored.get("format") != FORMAT or stored.get("version") != VERSION:
            raise FormatError(
                f"this is {stored.get('format')!r}, version {stored.get('version')!r}; "
                f"a calibration is {FORMAT!r}, version {VERSION}"
            )
        try:
            terms = {cue: Term(**{k: float(v) for k, v in term.items()}) for cue, term in stored["terms"].items()}
            if foreign := sorted(terms.keys() - set(get_args(Cue))):
                raise FormatError(f"this calibration weighs {', '.join(foreign)}, of which this version knows nothing")
            read = cls(
                name=str(stored["name"]),
                fitted_on=str(stored["fitted_on"]),
                encoders=tuple(map(str, stored["encoders"])),
                base=float(stored["base"]),
                terms=terms,
                found=float(stored["found"]),
                absent=float(stored["absent"]),
            )
        except FormatError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"this calibration is damaged: {error!r}; fit it again") from error
        numbers = [read.base, *(n for term in read.terms.values() for n in (term.weight, term.centre, term.known))]
        if not all(map(math.isfinite, numbers)) or not 0 <= read.absent < read.found <= 1:
            raise FormatError(
                f"the calibration {read.name!r} cannot be used: it needs finite numbers and 0 <= absent < found <= 1, "
                f"given {read.absent} and {read.found}; fit it again"
            )
        return read


def on_scale(cues: Cues) -> dict[Cue, float | None]:
    """The cues on scales on which a logistic regression is straight enough; `None` where one is missing.

    A missing lead counts as none at all: nothing was led.
    """
    several, lead = cues.agreement is not None, cues.lead or 0.0
    return {
        "lead": math.copysign(math.log1p(4 * abs(lead)), lead),  # the best of thousands of noise values leads by 1/4
        "cycle": math.log(0.25 + min(cues.cycle, 16.0)),
        "entropy": cues.entropy,
        "views": math.log(cues.views) if several else None,
        "agreement": cues.agreement,
        "residual": None if cues.residual is None else math.log(0.5 + min(cues.residual, 16.0)),
    }


def read_calibration(path: Path | Traversable) -> Calibration:
    """A calibration from its JSON file.

    Raises:
        InputError: there is no such file.
        FormatError: it is not a calibration, of another version, or damaged.
    """
    if not path.is_file():
        raise InputError(f"there is no calibration {path}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}") from error
    if not isinstance(stored, dict):
        raise FormatError(f"{path} holds no JSON object")
    return Calibration.from_json(stored)


def calibration_for(spec: EncoderSpec) -> Calibration:
    """The calibration that was fitted for an encoder; `default` where none was, or where its tokens are not those that
    it was fitted on: of another block than the last, or of several."""
    shipped = _shipped()
    if spec.layers or spec.layer != spec.depth - 1:
        return shipped["default"]
    return next((one for one in shipped.values() if spec.name in one.encoders), shipped["default"])


@cache
def _shipped() -> dict[str, Calibration]:
    """The calibrations in the package, by name."""
    folder = resources.files("patchatlas.matching") / "calibrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return {one.name: one for one in map(read_calibration, files)}
