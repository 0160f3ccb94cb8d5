"""Found, uncertain or absent: where a calibrated probability lies, and in words which cue speaks loudest."""

from dataclasses import dataclass
from typing import Literal

from patchatlas.matching.confidence import Calibration, Cue, Cues

State = Literal["found", "uncertain", "absent"]


@dataclass(frozen=True)
class Verdict:
    """What is made of a place.

    Attributes:
        state: `found`, `uncertain` or `absent`.
        confidence: probability that the place is right, 0..1.
        reason: why, in words and numbers.
    """

    state: State
    confidence: float
    reason: str


def judge(cues: Cues, calibration: Calibration) -> Verdict:
    """The state of a landmark, how sure that is, and why.

    Without a lead the state is `uncertain` whatever the probability: a place that was compared with nothing may be
    right, and is no evidence of absence.
    """
    confidence = calibration.probability(cues)
    if cues.lead is None:
        return Verdict("uncertain", confidence, f"{_percent(confidence)} likely right: {_nothing_led(cues)}")
    evidence = calibration.evidence(cues)
    loudest_for = max(evidence, key=lambda cue: evidence[cue])
    loudest_against = min(evidence, key=lambda cue: evidence[cue])
    speaks_for = f"above all because {_words(loudest_for, cues)}"
    speaks_against = f"{_words(loudest_against, cues)} speaks most against it"
    if confidence >= calibration.found:
        return Verdict("found", confidence, f"{_percent(confidence)} likely right, {speaks_for}")
    if confidence <= calibration.absent:
        return Verdict("absent", confidence, f"only {_percent(confidence)} likely right: that {speaks_against}")
    return Verdict("uncertain", confidence, f"{_percent(confidence)} likely right: that {speaks_against}")


def _percent(confidence: float) -> str:
    """Never rounded to certainty."""
    return f"{min(99, max(1, round(100 * confidence)))} %"


def _nothing_led(cues: Cues) -> str:
    if cues.entropy == 1:
        return "every place of the target is equally like the mark; is one of the two on an even surface?"
    return "the target has too few patches for a second place to compare with; take a larger image size"


def _words(cue: Cue, cues: Cues) -> str:
    """What a cue says."""
    lead = cues.lead or 0.0
    ahead = "it leads the next best place by" if lead >= 0 else "it is less like the mark than another place, by"
    said: dict[Cue, str] = {
        "lead": f"{ahead} {abs(lead):.2f} standard deviations of the map",
        "cycle": f"it matches back to {cues.cycle:.1f} patches from the mark",
        "entropy": f"its peak has an entropy of {cues.entropy:.2f} (0 sharp, 1 flat)",
        "views": f"{cues.views} views agree on it",
        "agreement": f"{cues.agreement or 0:.0%} of the weight of all views agrees on it",
        "residual": f"it lies {cues.residual or 0:.1f} sigma from where the other landmarks put it",
    }
    return said[cue]
