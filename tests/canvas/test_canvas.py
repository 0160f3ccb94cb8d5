"""A canvas as it grows: any order, any parts, any type and layout; and what it refuses."""

import inspect
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchatlas.canvas import canvas as canvas_module
from patchatlas.canvas import place as place_module
from patchatlas.canvas.blocks import add_blocks, add_blocks_at_once, read_blocks, read_blocks_at_once
from patchatlas.canvas.canvas import Canvas
from patchatlas.canvas.place import extract, place
from patchatlas.canvas.plan import CanvasPlan, plan_canvas
from patchatlas.canvas.windows import hann
from patchatlas.errors import InputError, ResourceError, ShapeError, UsageError
from tests.canvas.scans import INTERPOLATIONS, generator, random_positions, random_tiles

pytestmark = pytest.mark.usefixtures("torch_path")


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("window", [None, hann((5, 7)).double()])
def test_any_order_and_any_parts(interpolation, window):
    tiles, positions = random_tiles(1, n=12), random_positions(1, n=12)
    weights = torch.rand(12, dtype=torch.float64, generator=generator(1)) + 0.2
    plan = plan_canvas(positions, (5, 7), interpolation=interpolation)
    whole = place(tiles, positions, interpolation=interpolation, window=window, weights=weights, plan=plan)
    for seed in range(3):
        order = torch.randperm(12, generator=generator(seed))
        parts = Canvas(plan, channels=2, dtype=torch.complex128, interpolation=interpolation)
        for some in order.split([1, 7, 4]):
            parts.add(tiles[some], positions[some], window=window, weights=weights[some])
            assert parts.value().isfinite().all()  # looking at a canvas between does not change it
        assert parts.tile_count == 12
        torch.testing.assert_close(parts.sum, whole.sum, rtol=0, atol=1e-13)
        torch.testing.assert_close(parts.weight, whole.weight, rtol=0, atol=1e-13)
        torch.testing.assert_close(parts.value(), whole.value(), rtol=1e-9, atol=1e-12)
        assert torch.equal(parts.counts, whole.counts)


def test_the_same_call_gives_the_same_bits():
    tiles, positions = random_tiles(2, dtype=torch.complex64), random_positions(2)
    assert torch.equal(place(tiles, positions).value(), place(tiles, positions).value())


def test_chunks_change_nothing(monkeypatch):
    tiles, positions = random_tiles(3, n=11), random_positions(3, n=11)
    window, weights = hann((5, 7)), torch.rand(11, generator=generator(3))
    whole = place(tiles, positions, window=window, weights=weights)
    read = extract(whole.sum, positions, (5, 7), plan=whole.plan)
    for module in (canvas_module, place_module):
        monkeypatch.setattr(module, "CHUNK", 2500)
    assert torch.equal(extract(whole.sum, positions, (5, 7), plan=whole.plan), read)
    chunked = place(tiles, positions, window=window, weights=weights)
    assert torch.equal(chunked.sum, whole.sum)
    assert torch.equal(chunked.weight, whole.weight)
    assert torch.equal(chunked.value(), whole.value())


def test_mixed_windows_and_sizes_on_one_canvas():
    plan = CanvasPlan((0, 0), (12, 12))
    canvas = Canvas(plan, dtype=torch.float64)
    one, two, three = random_positions(4, n=3).clamp(min=0, max=5)[:, None]
    small, large = torch.full((1, 1, 3, 4), 2.0), torch.full((1, 1, 5, 6), 2.0)
    canvas.add(small, one)
    canvas.add(large, two, window=hann((5, 6)))
    canvas.add(large, three, weights=torch.tensor([0.5]))
    alone = place(small, one, plan=plan).weight + place(large, two, plan=plan, window=hann((5, 6))).weight
    wanted = alone + 0.5 * place(large, three, plan=plan).weight
    torch.testing.assert_close(canvas.weight.float(), wanted)
    torch.testing.assert_close(canvas.value()[0], torch.where(wanted > 0, 2.0, 0.0).double())


@pytest.mark.parametrize("channels", [1, 3, 40])
def test_any_layout_in_memory(channels):
    tiles, positions = random_tiles(5, channels=channels, dtype=torch.float32), random_positions(5)
    last = tiles.movedim(1, -1).contiguous().movedim(-1, 1)
    reference = place(tiles, positions, window=hann((5, 7)))
    assert torch.equal(place(last, positions, window=hann((5, 7))).value(), reference.value())
    strided = tiles.repeat_interleave(2, dim=-1)[..., ::2]
    assert torch.equal(place(strided, positions, window=hann((5, 7))).value(), reference.value())
    for channel in range(channels):
        alone = place(tiles[:, channel : channel + 1], positions, window=hann((5, 7)))
        torch.testing.assert_close(alone.value()[0], reference.value()[channel], rtol=1e-5, atol=1e-6)
    values = reference.value()
    plan = reference.plan
    read = extract(values, positions, (5, 7), plan=plan)
    assert torch.equal(extract(values.contiguous(), positions, (5, 7), plan=plan), read)


@pytest.mark.parametrize(
    ("given_as", "summed_as"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.complex64, torch.complex64),
        (torch.complex128, torch.complex128),
    ],
)
def test_sums_are_float32_at_least(given_as, summed_as):
    tiles, positions = random_tiles(6, dtype=torch.complex128).real.to(given_as), random_positions(6)
    canvas = place(tiles, positions)
    assert canvas.sum.dtype == canvas.value().dtype == summed_as
    assert canvas.weight.dtype == canvas.coverage.dtype == summed_as.to_real()
    wanted = place(tiles.to(torch.complex128), positions).sum
    torch.testing.assert_close(canvas.sum.to(torch.complex128), wanted, rtol=1e-5, atol=1e-5)
    assert extract(canvas.sum, positions, (5, 7), plan=canvas.plan).dtype == summed_as


def test_three_hundred_tiles_on_one_spot_are_counted():
    canvas = place(torch.ones(300, 1, 2, 2), torch.zeros(300, 2))
    assert canvas.counts.tolist() == [[300, 300], [300, 300]]
    assert canvas.value().tolist() == [[[1, 1], [1, 1]]]


def test_consuming_writes_over_the_sum():
    tiles, positions = random_tiles(7), random_positions(7)
    kept, consumed = place(tiles, positions), place(tiles, positions)
    memory = consumed.sum.data_ptr()
    values = consumed.value(consume=True)
    assert values.data_ptr() == memory
    assert torch.equal(values, kept.value())
    assert torch.equal(consumed.coverage, kept.coverage)
    for use in (consumed.value, lambda: consumed.add(tiles, positions), lambda: consumed.sum):
        with pytest.raises(UsageError, match="consumed"):
            use()


def test_an_empty_canvas_shows_the_fill():
    canvas = Canvas(CanvasPlan((3, 4), (2, 3)), channels=2, fill=1 - 2j, interpolation="cubic")
    assert (canvas.value() == 1 - 2j).all()
    assert canvas.value().shape == (2, 2, 3)
    assert not canvas.covered.any()
    assert canvas.lit_box is None


# Symmetries, for scans of any kind


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(INTERPOLATIONS), st.integers(1, 3))
def test_axes_and_shifts_go_along(seed, interpolation, ndim):
    """Swap the axes of tiles and the coordinates of positions, or move all by whole pixels: so does the canvas."""
    size = (4, 2, 5)[:ndim]
    tiles, positions = random_tiles(seed, n=3, size=size), random_positions(seed, n=3, ndim=ndim)
    canvas = place(tiles, positions, interpolation=interpolation)
    for axes in itertools.permutations(range(ndim)):
        turned = place(
            tiles.permute(0, 1, *(2 + a for a in axes)),
            positions[:, [ndim - 1 - a for a in reversed(axes)]],
            interpolation=interpolation,
        )
        torch.testing.assert_close(turned.sum, canvas.sum.permute(0, *(1 + a for a in axes)), rtol=0, atol=1e-13)
    shift = torch.tensor([7.0, -5.0, 3.0])[:ndim]
    moved = place(tiles, positions + shift, interpolation=interpolation)
    torch.testing.assert_close(moved.sum, canvas.sum, rtol=0, atol=1e-11)
    assert moved.plan.origin == tuple(o + int(s) for o, s in zip(canvas.plan.origin, shift.flip(0), strict=True))


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_linear_loses_and_invents_nothing(seed, ndim):
    """The canvas holds as much as the tiles, with the same centre of mass."""
    size = (4, 2, 5)[:ndim]
    tiles = torch.rand(3, 1, *size, dtype=torch.float64, generator=generator(seed))
    positions = random_positions(seed, n=3, ndim=ndim)
    canvas = place(tiles, positions)
    torch.testing.assert_close(canvas.sum.sum(), tiles.sum(), rtol=1e-12, atol=0)
    for axis in range(ndim):
        along = torch.arange(size[axis]).reshape(-1, *[1] * (ndim - 1 - axis)) + positions[:, ndim - 1 - axis].reshape(
            -1, *[1] * (ndim + 1)
        )
        pixels = torch.arange(canvas.plan.size[axis]) + canvas.plan.origin[axis]
        found = (canvas.sum[0] * pixels.reshape(-1, *[1] * (ndim - 1 - axis))).sum()
        torch.testing.assert_close(found, (tiles * along).sum(), rtol=1e-9, atol=1e-9)


# Blocks


@pytest.mark.parametrize("size", [(3,), (3, 2), (2, 3, 2)])
def test_blocks_at_once_are_blocks_one_by_one(size):
    """The way of accelerators, which CPUs do not take, gives the same."""
    draw = generator(9)
    canvas = torch.randn(5, 7, 6, generator=draw)[tuple([slice(None)] * len(size) + [0] * (3 - len(size)))]
    canvas = canvas[..., None].repeat_interleave(2, dim=-1).contiguous()
    starts = torch.randint(-4, 8, (30, len(size)), generator=draw)
    blocks = torch.randn(30, *size, 2, generator=draw)
    assert torch.equal(read_blocks_at_once(canvas, size, starts), read_blocks(canvas, size, starts))
    other = canvas.clone()
    add_blocks(canvas, blocks, starts)
    add_blocks_at_once(other, blocks, starts)
    torch.testing.assert_close(canvas, other)


# Refusals


@pytest.mark.parametrize(
    ("tiles", "positions", "options", "error", "message"),
    [
        (torch.ones(2, 1, 3, 3), torch.zeros(1, 2), {}, ShapeError, "2 tiles need as many positions, given 1"),
        (torch.ones(1, 1, 3, 3), torch.zeros(2, 2), {}, ShapeError, "1 tiles need as many positions, given 2"),
        (torch.ones(4, 1, 3, 3), torch.zeros(4, 3), {}, ShapeError, r"one \(x, y\) a tile"),
        (torch.ones(0, 1, 3, 3), torch.zeros(0, 2), {}, InputError, "no positions"),
        (torch.ones(1, 2, 3, 3), torch.zeros(1, 2), {}, ShapeError, "2 channels do not fit a canvas of 1"),
        (torch.ones(1, 3, 3), torch.zeros(1, 1), {}, ShapeError, "2-D canvas"),
        (torch.ones(1, 1, 9, 3), torch.zeros(1, 2), {}, ShapeError, "1 of 1 tiles reach outside"),
        (torch.ones(1, 1, 3, 3), torch.full((1, 2), 6.5), {}, ShapeError, r"spans \(6, 6\) to \(10, 10\)"),
        (torch.ones(1, 1, 3, 3), torch.full((1, 2), math.nan), {}, InputError, "not finite"),
        (torch.ones(1, 1, 3, 3), torch.zeros(1, 2), {"window": torch.ones(3, 4)}, ShapeError, "window of"),
        (torch.ones(1, 1, 3, 3), torch.zeros(1, 2), {"window": -torch.ones(3, 3)}, InputError, "not negative"),
        (torch.ones(1, 1, 3, 3), torch.zeros(1, 2), {"window": torch.zeros(3, 3)}, InputError, "0 everywhere"),
        (torch.ones(1, 1, 3, 3) / 0, torch.zeros(1, 2), {}, InputError, "NaN or an infinity"),
        (torch.ones(1, 1, 3, 3), torch.zeros(1, 2), {"weights": torch.ones(2)}, ShapeError, "weights of"),
        (torch.ones(1, 1, 3, 3), torch.zeros(1, 2), {"weights": torch.ones(1) / 0}, InputError, "finite"),
        (torch.ones(1, 1, 3, 3) + 1j, torch.zeros(1, 2), {}, InputError, "complex dtype"),
    ],
)
def test_refusals(tiles, positions, options, error, message):
    canvas = Canvas(CanvasPlan((0, 0), (8, 8)), dtype=torch.float32)
    with pytest.raises(error, match=message):
        canvas.add(tiles, positions, **options)
    assert canvas.tile_count == 0
    assert not canvas.sum.any()
    assert not canvas.coverage.any()


def test_tiles_count_only_when_they_are_added(monkeypatch):
    canvas = Canvas(CanvasPlan((0, 0), (8, 8)), dtype=torch.float32)
    monkeypatch.setattr(canvas, "_add_numbers", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        canvas.add(torch.ones(1, 1, 3, 3), torch.zeros(1, 2))
    assert canvas.tile_count == 0
    assert not canvas.coverage.any()


def test_refusals_of_other_kinds():
    plan = CanvasPlan((0, 0), (8, 8))
    with pytest.raises(UsageError, match="not in torch"):
        Canvas(plan, dtype=torch.bfloat16)
    with pytest.raises(ShapeError, match="0 channels"):
        Canvas(plan, channels=0)
    with pytest.raises(UsageError, match="is complex"):
        Canvas(plan, dtype=torch.float32, fill=1j)
    with pytest.raises(UsageError, match="is complex"):
        Canvas(plan, dtype=torch.float32).value(fill=1j)
    with pytest.raises(UsageError, match="'bilinear' is not nearest, linear, cubic or fourier"):
        inspect.unwrap(Canvas.__init__)(object.__new__(Canvas), plan, interpolation="bilinear")
    with pytest.raises(ResourceError, match="are the positions in pixels"):
        Canvas(CanvasPlan((0, 0), (2**30, 2**30)))
    with pytest.raises(ShapeError, match="do not fit"):
        extract(torch.ones(1, 8, 8), torch.zeros(1, 2), (3, 3), plan=CanvasPlan((0, 0), (8, 9)))
    with pytest.raises(ShapeError, match="do not fit"):
        extract(torch.ones(1, 8, 8), torch.zeros(1, 1), (3,))
    with pytest.raises(ShapeError, match="reach outside"):
        extract(torch.ones(1, 8, 8), torch.full((1, 2), 5.5), (3, 3))
