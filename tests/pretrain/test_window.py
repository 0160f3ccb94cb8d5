"""Windows: none may begin above the foreground threshold (defect 3 of the earlier project)."""

from pathlib import Path

import numpy as np
import pytest

from patchatlas.errors import UsageError
from patchatlas.pretrain.window import WINDOWS, check_window, normalise


def test_the_window_of_the_earlier_project_is_refused_with_the_reason():
    with pytest.raises(UsageError, match=r"begins above the foreground threshold of -500 HU.*same as air"):
        check_window((500.0, 3000.0), -500.0)


def test_a_bone_window_goes_with_a_bone_threshold_only():
    check_window((500.0, 3000.0), 500.0)
    with pytest.raises(UsageError):
        check_window((500.0, 3000.0), 499.0)


@pytest.mark.parametrize("window", [(100.0, 100.0), (300.0, -300.0), (-1000.0, np.inf), (np.nan, 0.0)])
def test_empty_windows_are_refused(window):
    with pytest.raises(UsageError, match="is empty"):
        check_window(window, 1000.0)


def test_named_windows_are_windows():
    for window in WINDOWS.values():
        check_window(window, 100.0)
    check_window(WINDOWS["ct"], -500.0)
    assert WINDOWS["ct"] == (-1000.0, 1000.0)


def test_normalised_values():
    hu = np.array([-1024, -1000, 0, 500, 1000, 3000], np.int16)
    shares = normalise(hu, (-1000.0, 1000.0))
    np.testing.assert_allclose(shares, [0, 0, 0.5, 0.75, 1, 1], atol=1e-7)
    assert shares.dtype == np.float32


def test_all_presets_are_on_the_page_of_crops() -> None:
    page = (Path(__file__).parents[2] / "docs" / "pretrain-crops.md").read_text()
    for name, (low, high) in WINDOWS.items():
        assert f"| `{name}` | {low:g} | {high:g} |" in page
