"""Calibrated confidence: sums worked by hand, cues that may be missing, files that are damaged."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import FormatError, InputError
from patchatlas.matching.confidence import (
    Calibration,
    Cues,
    Term,
    calibration_for,
    on_scale,
    read_calibration,
)

PLAIN = Cues(lead=0.0, cycle=0.75, entropy=0.5)  # on scale: 0, log(1) = 0, 0.5

CALIBRATION = Calibration(
    name="hand",
    fitted_on="nothing",
    encoders=("somebody's",),
    base=0.5,
    terms={
        "lead": Term(1.0, 0.0),
        "cycle": Term(-2.0, 0.0),
        "entropy": Term(-4.0, 0.25),
        "views": Term(1.0, 0.0, 0.0),
        "agreement": Term(3.0, 0.5, 0.125),
        "residual": Term(-1.0, 0.0, 2.0),
    },
    found=0.9,
    absent=0.1,
)


def odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.mark.parametrize(
    ("cues", "expected"),
    [
        (PLAIN, 0.5 - 4 * 0.25),
        (replace(PLAIN, lead=1.0), 0.5 + math.log(5) - 1),
        (replace(PLAIN, lead=-1.0), 0.5 - math.log(5) - 1),
        (replace(PLAIN, lead=None), 0.5 - 1),  # nothing was led
        (replace(PLAIN, cycle=1.75), 0.5 - 2 * math.log(2) - 1),
        (replace(PLAIN, cycle=1e9), 0.5 - 2 * math.log(16.25) - 1),  # off is off
        (replace(PLAIN, residual=0.5), 0.5 - 1 + 2),
        (replace(PLAIN, residual=1.5), 0.5 - 1 + 2 - math.log(2)),
        (replace(PLAIN, views=4, agreement=0.75), 0.5 - 1 + math.log(4) + 0.125 + 3 * 0.25),
    ],
)
def test_the_log_odds_are_a_sum_over_the_cues_that_are_known(cues: Cues, expected: float) -> None:
    assert odds(CALIBRATION.probability(cues)) == pytest.approx(expected)


def test_evidence_is_what_the_sum_is_made_of() -> None:
    cues = replace(PLAIN, lead=1.0, residual=1.5)
    assert CALIBRATION.evidence(cues) == pytest.approx(
        {"lead": math.log(5), "cycle": 0.0, "entropy": -1.0, "residual": 2 - math.log(2)}
    )


def test_no_odds_overflow() -> None:
    assert replace(CALIBRATION, base=1e6).probability(PLAIN) == pytest.approx(1)
    assert replace(CALIBRATION, base=-1e6).probability(PLAIN) == pytest.approx(0)


def test_a_calibration_comes_back_from_json() -> None:
    assert Calibration.from_json(json.loads(json.dumps(CALIBRATION.to_json()))) == CALIBRATION
    assert Calibration.from_json({**CALIBRATION.to_json(), "later": 1}) == CALIBRATION


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "patchatlas.locate"}, "'patchatlas.locate', version 1; a calibration is"),
        ({"version": 2}, "version 2; a calibration is"),
        ({"base": None}, "damaged"),
        ({"terms": {"lead": {"weight": 1.0}}}, "damaged"),
        ({"terms": {"lead": 3}}, "damaged"),
        ({"terms": {"colour": {"weight": 1.0, "centre": 0.0, "known": 0.0}}}, "weighs colour"),
        ({"base": float("nan")}, "finite"),
        ({"found": 0.1, "absent": 0.1}, "absent < found"),
        ({"found": 1.5}, "absent < found"),
    ],
)
def test_what_is_no_calibration_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        Calibration.from_json({**CALIBRATION.to_json(), **change})


def test_a_file_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    with pytest.raises(InputError, match=r"no calibration .*own\.json"):
        read_calibration(file)
    file.write_text(json.dumps(CALIBRATION.to_json()))
    assert read_calibration(file) == CALIBRATION
    for damaged, said in (("{", "is not JSON"), ("[]", "no JSON object")):
        file.write_text(damaged)
        with pytest.raises(FormatError, match=said):
            read_calibration(file)


def test_each_encoder_has_its_calibration_and_others_share_one() -> None:
    spec = FakeEncoder(patch=(8, 8)).spec
    assert calibration_for(replace(spec, name="bundled:sift")).name == "sift"
    vit = replace(spec, name="bundled:vit-tiny16", layer=11, depth=12)
    assert calibration_for(vit).name == "vit-tiny16"
    assert calibration_for(replace(vit, layer=5)).name == "default"
    assert calibration_for(replace(vit, layers=(5, 11))).name == "default"
    assert calibration_for(spec).name == "default"


@pytest.mark.parametrize("name", ["bundled:sift", "anything"])
def test_what_is_shipped_is_sane(name: str) -> None:
    """The better each cue, the surer; every cue is weighed."""
    calibration = calibration_for(replace(FakeEncoder(patch=(8, 8)).spec, name=name))
    assert set(calibration.terms) == set(on_scale(PLAIN))
    middling = Cues(lead=0.5, cycle=2.0, entropy=0.6, views=2, agreement=0.6, residual=2.0)
    sure = calibration.probability(middling)
    for better in ({"lead": 1.0}, {"cycle": 0.5}, {"views": 3}, {"agreement": 0.9}, {"residual": 0.5}):
        assert calibration.probability(replace(middling, **better)) >= sure
    clear = Cues(lead=3.0, cycle=0.1, entropy=0.3)
    hopeless = Cues(lead=0.02, cycle=40.0, entropy=0.95)
    assert calibration.probability(clear) >= calibration.found
    assert calibration.probability(hopeless) <= calibration.absent
