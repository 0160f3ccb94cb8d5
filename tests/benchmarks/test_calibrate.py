"""Fitting a calibration: a planted one comes back, lines are where they were asked for, sets count alike."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.locate import calibrate
from benchmarks.locate.calibrate import Observation, fit, least_found, most_absent, reliability, weigh_alike
from patchatlas.matching.confidence import Calibration, Cues, Term

PLANTED = Calibration(
    name="planted",
    fitted_on="",
    encoders=(),
    base=0.5,
    terms={
        "lead": Term(2.0, 1.0),
        "cycle": Term(-1.0, 0.0),
        "entropy": Term(-3.0, 0.5),
        "views": Term(1.5, 0.7, 0.5),
        "agreement": Term(2.0, 0.5, 0.5),
        "residual": Term(-1.5, 0.0, 1.0),
    },
    found=0.9,
    absent=0.1,
)


def planted(count: int, truth: Calibration = PLANTED) -> list[Observation]:
    """Marks whose places are right as often as a calibration says."""
    random = np.random.default_rng(0)
    seen = []
    for n in range(count):
        several, prior = random.random(2) < 0.5
        cues = Cues(
            lead=random.exponential(1.0),
            cycle=random.exponential(3.0),
            entropy=random.uniform(0.2, 0.9),
            views=int(random.integers(1, 5)) if several else 1,
            agreement=random.uniform(0.2, 1.0) if several else None,
            residual=random.exponential(2.0) if prior else None,
        )
        right = bool(random.random() < truth.probability(cues))
        present = right or bool(random.random() < 0.3)
        seen.append(Observation("some", "kind", "views" if several else "alone", str(n), present, right, cues))
    return seen


def test_a_planted_calibration_comes_back() -> None:
    seen = planted(8000)
    fitted, sure = fit(seen, name="again", encoders=("one",), fitted_on="marks")
    truth = np.array([PLANTED.probability(one.cues) for one in seen])
    assert np.abs(sure - truth).mean() < 0.02
    assert sure == pytest.approx([fitted.probability(one.cues) for one in seen])
    assert (fitted.name, fitted.encoders, fitted.fitted_on) == ("again", ("one",), "marks")
    found = np.array([one.right for one in seen])[sure >= fitted.found]
    assert 0.94 < found.mean() <= 1
    missed = sure[[one.present for one in seen]] <= fitted.absent
    assert 0.04 < missed.mean() < 0.06


def test_a_cue_never_speaks_against_a_place_by_being_good() -> None:
    """Where chance says it should, it says nothing."""
    odd = replace(PLANTED, terms={**PLANTED.terms, "cycle": Term(0.5, 0.0)})
    fitted, _ = fit(planted(2000, odd), name="odd", encoders=(), fitted_on="")
    assert fitted.terms["cycle"].weight == 0


def test_lines_worked_by_hand() -> None:
    """Thirty-eight of forty are 0.95; of eighty present ones, four are 0.05."""
    sure = np.linspace(1, 0.01, 100)
    right = np.arange(100) < 40
    right[20] = right[38] = False
    assert least_found(sure, right, np.ones(100)) == pytest.approx(sure[39])
    assert least_found(sure, right & False, np.ones(100)) > 1  # never
    assert most_absent(sure[:80], np.ones(80)) == pytest.approx(sure[76])
    double = np.where(np.arange(100) < 40, 2.0, 1.0)
    assert least_found(sure, right, double) == pytest.approx(sure[39])
    assert most_absent(sure[:80], double[:80]) == pytest.approx(sure[74])  # six of a hundred and twenty


def test_each_way_keeps_its_promise_and_hopeless_sets_draw_no_line() -> None:
    seen = planted(3000)
    pooled, sure = fit(seen, name="any", encoders=(), fitted_on="")
    each, _ = fit(seen, name="one", encoders=("one",), fitted_on="")
    ways, right = np.array([one.way for one in seen]), np.array([one.right for one in seen])
    assert each.found >= pooled.found
    for way in ("alone", "views"):
        assert right[(ways == way) & (sure >= each.found)].mean() >= 0.95
    hopeless = [replace(one, kind="hopeless", right=False, present=True) for one in seen[:1000] if not one.right]
    mixed, _ = fit(seen + hopeless, name="mixed", encoders=(), fitted_on="")
    missed = np.array([mixed.probability(one.cues) <= mixed.absent for one in seen if one.present])
    assert 0.03 < missed.mean() < 0.07
    with pytest.raises(ValueError, match=r"no threshold|in no set"):
        fit(hopeless, name="none", encoders=(), fitted_on="")


def test_sets_count_alike_however_many_marks_they_have() -> None:
    cues = Cues(lead=1.0, cycle=1.0, entropy=0.5)
    kinds = ["many"] * 6 + ["few"] * 2
    weights = weigh_alike([Observation("some", kind, "alone", "0", True, True, cues) for kind in kinds])
    assert weights == pytest.approx([8 / 12] * 6 + [2.0] * 2)


def test_reliability_worked_by_hand() -> None:
    sure, right = np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True])
    said, was, weight, error = reliability(sure, right, np.ones(4))
    assert said == pytest.approx([0.05, 0.975])
    assert was == pytest.approx([0.5, 1.0])
    assert weight == pytest.approx([0.5, 0.5])
    assert error == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)


def test_from_files_to_a_calibration_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "seen.jsonl"
    rows = [{**vars(one), "cues": vars(one.cues)} for one in planted(1500)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("sys.argv", ["calibrate", "fit", "--name", "own", "--into", str(tmp_path), str(file)])
    calibrate.main()
    assert "| some | alone |" in capsys.readouterr().out
    plot = tmp_path / "plot.png"
    given = ["--calibration", str(tmp_path / "own.json"), "--plot", str(plot)]
    monkeypatch.setattr("sys.argv", ["calibrate", "check", *given, str(file)])
    calibrate.main()
    assert plot.read_bytes().startswith(b"\x89PNG")
