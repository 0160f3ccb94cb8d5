"""Which numbers of a log the page of a run draws."""

import pytest

from patchatlas.cli.pretrain_report import CURVES, _curves


@pytest.mark.parametrize(
    "name", ["match", "distil_across", "match_accuracy", "koleo_closest", "gram_drift", "foreground_r2_left"]
)
def test_a_logged_number_is_drawn(name: str) -> None:
    records = [{"step": step, "numbers": {name: 0.5 + step}} for step in range(3)]
    page = _curves(records)
    assert page.count("<polyline") == 1
    assert f"{name}: 2.5 at step 2" in page


def test_no_number_is_drawn_twice() -> None:
    names = [name for _, held in CURVES for name in held]
    assert len(names) == len(set(names))
