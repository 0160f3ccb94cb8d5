"""The PtychoPINN frame gives the TensorFlow original's numbers: all of tests/golden/stitch, and live where it can."""

import importlib.util
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from patchatlas.errors import InputError, ShapeError
from patchatlas.stitch.compat import reassemble

FOLDER = Path(__file__).parents[1] / "golden" / "stitch"
CASES = {case["name"]: case for case in json.loads((FOLDER / "cases.json").read_text())}
OUTPUTS = [(name, out["path"], out["M"]) for name, case in CASES.items() for out in case["outputs"]]

# Rounding of float32 (tests/golden/stitch/README.md); what we reach is 2.6e-6.
TOLERANCE = 2e-5


def inputs(name):
    with np.load(FOLDER / f"{name}.inputs.npz") as held:
        return torch.from_numpy(held["patches"]), torch.from_numpy(held["offsets_xy"])


def reference(name, path, crop):
    with np.load(FOLDER / f"{name}.{path}.npz") as held:
        return held[f"canvas_M{crop}"], held[f"ones_M{crop}"], held["com_float32"]


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


# The fixtures first: upstream, tests of this very function passed on all-zero and on symmetric arrays.


def test_there_are_cases_for_both_paths():
    assert len(CASES) == 9
    assert len(OUTPUTS) == 54
    assert {path for _, path, _ in OUTPUTS} == {"xla", "noxla"}


@pytest.mark.parametrize(("name", "path", "crop"), OUTPUTS)
def test_fixture_is_lit_and_asymmetric(name, path, crop):
    canvas, ones, _ = reference(name, path, crop)
    assert canvas.shape == ones.shape
    assert (canvas != 0).mean() > 0.1
    assert (ones > 0).mean() > 0.1
    for turns, mirrored in list(product(range(4), (False, True)))[1:]:
        other = np.rot90(canvas.T if mirrored else canvas, turns)
        assert relative(other, canvas) > 0.1  # one smooth 10 x 10 middle of a tile is the least: 0.17


@pytest.mark.parametrize("name", CASES)
def test_fixture_tiles_are_asymmetric(name):
    tiles = inputs(name)[0].numpy()
    assert np.unique(tiles.reshape(len(tiles), -1), axis=0).shape[0] == len(tiles)
    for turns, mirrored in list(product(range(4), (False, True)))[1:]:
        other = np.rot90(tiles.swapaxes(1, 2) if mirrored else tiles, turns, axes=(1, 2))
        assert min(relative(a, b) for a, b in zip(other, tiles, strict=True)) > 0.2


@pytest.mark.parametrize(("name", "path", "crop"), [out for out in OUTPUTS if CASES[out[0]]["n"] > 1])
def test_only_the_right_orientation_fits(name, path, crop):
    tiles, positions = inputs(name)
    canvas, _, _ = reference(name, path, crop)
    errors = {}
    for swap, sign_x, sign_y in product((False, True), (1, -1), (1, -1)):
        moved = (positions.flip(1) if swap else positions) * torch.tensor([sign_x, sign_y])
        errors[swap, sign_x, sign_y] = relative(reassemble(tiles, moved, crop=crop, xla=True).value.numpy(), canvas)
    right = (False, 1, 1) if path == "xla" else (False, -1, -1)
    assert errors.pop(right) < 1e-5
    assert min(errors.values()) >= 0.2


@pytest.mark.parametrize(("name", "path", "crop"), OUTPUTS)
def test_every_output_is_the_references(name, path, crop):
    tiles, positions = inputs(name)
    canvas, ones, mean = reference(name, path, crop)
    ours = reassemble(tiles, positions, crop=crop, xla=path == "xla")
    assert ours.value.shape == canvas.shape
    assert ours.value.dtype == torch.complex64
    np.testing.assert_allclose(ours.value.numpy(), canvas, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(ours.ones.numpy(), ones, atol=TOLERANCE, rtol=0)
    assert np.array_equal(ours.value.numpy() == 0, canvas == 0)
    assert ours.mean_xy == tuple(mean.tolist())
    assert ours.mirrored == (path == "noxla")


def test_a_single_tile_is_itself_and_the_other_path_loses_its_last_row_and_column():
    tiles, positions = inputs("N32_n1_single")
    middle = tiles[0, 11:21, 11:21]
    torch.testing.assert_close(reassemble(tiles, positions, crop=10).value, middle)
    without = reassemble(tiles, positions, crop=10, xla=False)
    torch.testing.assert_close(without.value[:-1, :-1], middle[:-1, :-1])
    assert without.value[-1].eq(0).all()
    assert without.value[:, -1].eq(0).all()
    assert without.ones[-1].eq(0).all()


@pytest.mark.parametrize("beyond", [1.5e-6, 1e-6, 4e-6, 1e-4, 0.5])
def test_slivers_are_the_references(beyond):
    """Tiles that barely touch a pixel: the rule written out, float32 taps of float32 positions, summed in float64."""
    tiles = torch.complex(*torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))) + 1
    positions = torch.tensor([[0, 0], [3, 2], [6, 4 + beyond]], dtype=torch.float64)
    ours = reassemble(tiles, positions, crop=4)
    total, ones = np.zeros(ours.value.shape, np.complex128), np.zeros(ours.value.shape)
    moves = positions.float() - torch.tensor(ours.mean_xy)
    for tile, (x, y) in zip(tiles.numpy(), moves.double().numpy() + ours.pad, strict=True):
        column, row = int(np.floor(x)), int(np.floor(y))
        for down, right in product((0, 1), (0, 1)):
            share = abs(1 - down - (y - row)) * abs(1 - right - (x - column))
            there = np.s_[row + down : row + down + 4, column + right : column + right + 4]
            total[there] += share * tile[2:6, 2:6]
            ones[there] += share
    np.testing.assert_allclose(ours.value.numpy(), total / (1e-9 + ones), atol=TOLERANCE, rtol=0)
    assert np.abs(ours.value.numpy()).max() < 3
    assert np.array_equal(ours.ones.numpy() > 0, ones > 0)


def test_origin_puts_the_middle_of_a_tile_on_its_position():
    tiles = torch.zeros(2, 8, 8, dtype=torch.complex64)
    tiles[0, 4, 4] = 1  # the pixel that lies on the position (10, 20); the other tile lies at (16, 24)
    canvas = reassemble(tiles, torch.tensor([[10.0, 20.0], [16.0, 24.0]], dtype=torch.float64), crop=8)
    assert (canvas.mean_xy, canvas.pad, len(canvas.value)) == ((13.0, 22.0), 4, 16)
    row, column = np.argwhere(canvas.value.numpy() != 0)[0]
    assert (column + canvas.origin_xy[0], row + canvas.origin_xy[1]) == (10.0, 20.0)


def test_padding_is_rounded_up_to_an_even_number():
    tiles = torch.ones(2, 8, 8, dtype=torch.complex64)
    for apart, pad in ((0.0, 0), (0.5, 2), (4.0, 2), (4.5, 4), (6.0, 4), (8.0, 4)):
        positions = torch.tensor([[0.0, 0.0], [0.0, apart]], dtype=torch.float64)
        assert reassemble(tiles, positions, crop=4).pad == pad


@pytest.mark.parametrize(
    ("shape", "rows", "crop", "message"),
    [
        ((3, 8, 6), 3, 4, "not square"),
        ((3, 8, 8), 1, 4, "none are repeated"),
        ((3, 8, 8), 3, 5, "must be even"),
        ((3, 8, 8), 3, 10, "from 2 to the tile's side 8"),
        ((3, 8, 8), 3, 0, "from 2 to the tile's side 8"),
    ],
)
def test_what_does_not_fit_is_refused(shape, rows, crop, message):
    with pytest.raises(ShapeError, match=message):
        reassemble(torch.ones(shape, dtype=torch.complex64), torch.zeros(rows, 2), crop=crop)


def test_no_tiles_and_positions_that_are_not_finite_are_refused():
    tiles = torch.ones(2, 8, 8, dtype=torch.complex64)
    with pytest.raises(InputError, match="no tiles"):
        reassemble(tiles[:0], torch.zeros(0, 2), crop=4)
    with pytest.raises(InputError, match="not finite"):
        reassemble(tiles, torch.tensor([[0.0, 0.0], [float("nan"), 1.0]]), crop=4)


# Live, where the user has both programs. One process a call, for the reference fixes N and its path when first traced.
LIVE = """
import sys
import numpy as np
from ptycho import params
source, target, crop = sys.argv[1:]
held = np.load(source)
params.cfg["N"] = held["patches"].shape[1]
from ptycho.tf_helper import reassemble_position
offsets = held["offsets_xy"].reshape(-1, 1, 1, 2)
np.save(target, np.squeeze(np.asarray(reassemble_position(held["patches"][..., None], offsets, M=int(crop)))))
"""
MISSING = [name for name in ("tensorflow", "ptycho") if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"to compare live, install {' and '.join(MISSING)} (ptycho is PtychoPINN's)")
@pytest.mark.parametrize("path", ["xla", "noxla"])
@pytest.mark.parametrize("name", ["N32_n2_random_posfrac_comfrac", "N64_n37_raster_posint_comfrac"])
def test_live_original_gives_our_numbers(name, path, tmp_path):
    target = tmp_path / "canvas.npy"
    environment = {**os.environ, "USE_XLA_TRANSLATE": "1" if path == "xla" else "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", LIVE, str(FOLDER / f"{name}.inputs.npz"), str(target), "20"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=600)
    ours = reassemble(*inputs(name), crop=20, xla=path == "xla")
    np.testing.assert_allclose(np.load(target), ours.value.numpy(), atol=TOLERANCE, rtol=0)
