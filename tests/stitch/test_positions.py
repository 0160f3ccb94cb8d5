"""Stored positions become corners by each convention, with numbers worked by hand, and go back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.io.scans.scan import FACTS, Scan
from patchatlas.stitch.positions import corners, stored


def scan(positions, **facts):
    settled = {"unit": "px", "order": "xy", "sign": "plus", "anchor": "corner", "pixel_size": None, **facts}
    return Scan(path=Path("a"), sha256="", format="made", positions=np.array(positions, dtype=np.float64), **settled)


@pytest.mark.parametrize(
    ("facts", "corner"),
    [
        ({}, (10, 200)),
        ({"order": "yx"}, (200, 10)),
        ({"sign": "minus"}, (-10, -200)),
        ({"sign": "minus-x"}, (-10, 200)),
        ({"sign": "minus-y"}, (10, -200)),
        ({"anchor": "centre"}, (10 - 3, 200 - 2)),  # a tile of 5 rows and 7 columns: elements 2 and 3
        ({"anchor": "middle"}, (10 - 3.5, 200 - 2.5)),
        ({"unit": "m", "pixel_size": (2.0, 4.0)}, (5, 50)),
        ({"unit": "px", "pixel_size": (2.0, 4.0)}, (10, 200)),
        ({"origin_px": (0.5, -1.0)}, (10.5, 199)),
        # Down first: 10 down, 200 across; across 200 / 2 backwards, then the anchor, never negated itself.
        ({"order": "yx", "sign": "minus-x", "anchor": "centre", "unit": "m", "pixel_size": (2.0, 4.0)}, (-103, 0.5)),
    ],
)
def test_by_hand(facts, corner):
    assert corners(scan([[10, 200]], **facts), (5, 7)).tolist() == [list(corner)]


@given(
    facts=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in FACTS.items()}),
    pixel=st.tuples(st.floats(1e-9, 10), st.floats(1e-9, 10)),
    origin=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    seed=st.integers(0, 99),
)
def test_back_again(facts, pixel, origin, size, seed):
    unit = pixel if facts["unit"] == "m" else (1, 1)
    across, down = unit if facts["order"] == "xy" else unit[::-1]
    positions = np.random.default_rng(seed).uniform(-1000, 1000, (4, 2)) * [across, down]
    made = scan(positions, **facts, pixel_size=pixel, origin_px=origin)
    back = stored(made, corners(made, size), size)
    np.testing.assert_allclose(back / [across, down], positions / [across, down], atol=1e-8)


def test_positions_stay_float64():
    """Half a millimetre at a pixel of 10 nm, to a thousandth of a pixel: more digits than float32 has."""
    made = scan([[5e-4, 5e-4 + 1e-11]], unit="m", pixel_size=(1e-8, 1e-8))
    at = corners(made, (4, 4))
    assert at.dtype == torch.float64
    assert float(at[0, 1] - at[0, 0]) == pytest.approx(1e-3, rel=1e-3)
