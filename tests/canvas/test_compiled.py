"""The compiled path against the torch path and the NumPy oracles: every size, edge, type and number of threads."""

import importlib.util
import inspect
import itertools
import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.canvas import compiled
from patchatlas.canvas.canvas import Canvas
from patchatlas.canvas.place import extract, place
from patchatlas.canvas.plan import CanvasPlan, plan_canvas
from patchatlas.canvas.windows import hann
from patchatlas.errors import InputError, MissingExtraError, UsageError
from tests.canvas import oracle
from tests.canvas.adjoint import assert_adjoint
from tests.canvas.scans import generator, random_positions, random_tiles

TYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


@pytest.fixture
def threads():
    """Sets torch's number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def rounding(dtype: torch.dtype) -> float:
    return 40 * torch.finfo(dtype).eps


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
@pytest.mark.parametrize("size", [(6,), (5, 7), (3, 4, 5)])
@pytest.mark.parametrize("dtype", TYPES)
def test_it_agrees_with_the_oracle(size, interpolation, dtype):
    tiles = random_tiles(1, n=6, size=size, dtype=dtype)
    positions = random_positions(1, n=6, ndim=len(size))
    canvas = place(tiles, positions, interpolation=interpolation, backend="numba")
    slow = oracle.place_by_matrix(tiles, positions, canvas.plan, interpolation)
    torch.testing.assert_close(canvas.sum, slow.to(dtype), atol=rounding(dtype), rtol=rounding(dtype))

    values = torch.randn(2, *canvas.plan.size, dtype=dtype, generator=generator(2))
    read = extract(values, positions, size, plan=canvas.plan, interpolation=interpolation, backend="numba")
    double = values.to(torch.complex128 if dtype.is_complex else torch.float64)
    slow = oracle.extract_by_matrix(double, positions, size, canvas.plan, interpolation)
    torch.testing.assert_close(read, slow.to(dtype), atol=rounding(dtype), rtol=rounding(dtype))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.complex64, 1e-6), (torch.complex128, 1e-12)])
@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_reading_is_the_adjoint_of_adding(interpolation, dtype, bound):
    assert_adjoint(interpolation, dtype, bound, backend="numba")


@given(
    size=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    seed=st.integers(0, 999),
    n=st.integers(1, 7),
    channels=st.integers(1, 3),
    dtype=st.sampled_from(TYPES),
    interpolation=st.sampled_from(["nearest", "linear"]),
    steps=st.lists(st.sampled_from([1.0, 0.5, 0.01]), min_size=3, max_size=3),
    window=st.booleans(),
    weights=st.booleans(),
    crop=st.booleans(),
)
def test_it_agrees_with_torch(size, seed, n, channels, dtype, interpolation, steps, window, weights, crop):
    tiles = random_tiles(seed, n=n, channels=channels, size=size, dtype=dtype)
    # Positions in steps of a pixel, a half or a hundredth along each axis, so that shifts are whole, mixed and odd.
    step = torch.tensor(steps[: len(size)], dtype=torch.float64)
    positions = (random_positions(seed, n=n, ndim=len(size)) / step).round() * step
    plan = plan_canvas(positions, size, interpolation=interpolation)
    if crop:
        smaller = tuple(max(1, side - 4) for side in plan.size)
        plan = CanvasPlan(tuple(first + 2 for first in plan.origin), smaller)
    options = {
        "interpolation": interpolation,
        "plan": plan,
        "crop": crop,
        "window": hann(size) if window else None,
        "weights": torch.rand(n, generator=generator(seed)) + 0.1 if weights else None,
    }
    fast = place(tiles, positions, backend="numba", **options)
    slow = place(tiles, positions, backend="torch", **options)
    close = {"atol": rounding(dtype), "rtol": rounding(dtype)}
    torch.testing.assert_close(fast.sum, slow.sum, **close)
    torch.testing.assert_close(fast.weight, slow.weight, **close)

    values = torch.randn(channels, *plan.size, dtype=dtype, generator=generator(seed))
    about = {"plan": plan, "interpolation": interpolation, "crop": crop}
    fast_tiles = extract(values, positions, size, backend="numba", **about)
    slow_tiles = extract(values, positions, size, backend="torch", **about)
    torch.testing.assert_close(fast_tiles, slow_tiles, **close)


def test_whole_positions_from_top_to_bottom_give_the_bits_of_torch():
    positions = random_positions(4, n=20).round()
    positions = positions[(positions[:, 1] * 1000 + positions[:, 0]).argsort(stable=True)]
    tiles = random_tiles(4, n=20, dtype=torch.complex64)
    window = hann((5, 7))
    fast, slow = (place(tiles, positions, window=window, backend=backend) for backend in ("numba", "torch"))
    assert torch.equal(fast.sum, slow.sum)
    assert torch.equal(fast.weight, slow.weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), complex(1, float("-inf"))])
@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("kind", ["plain", "large canvas", "window", "weight 0", "crop", "gradients"])
def test_tiles_that_are_not_finite_are_refused(kind, backend, bad):
    """On every path, whether or not the tile would have counted."""
    tiles, positions = random_tiles(4, n=20, dtype=torch.complex64), random_positions(4, n=20)
    tiles[3, 1, 2, 2] = bad
    options = {"backend": backend}
    if kind == "large canvas":
        options["plan"] = CanvasPlan((-9, -9), (99, 99))
    elif kind == "window":
        options["window"] = hann((5, 7))
    elif kind == "weight 0":
        options["weights"] = (torch.arange(20) != 3).float()
    elif kind == "crop":
        options |= {"plan": CanvasPlan((90, 90), (5, 5)), "crop": True}
    elif kind == "gradients":
        tiles.requires_grad_()
        options["backend"] = "auto"
    with pytest.raises(InputError, match="1 of 20 tiles hold a NaN or an infinity, the first is row 3"):
        place(tiles, positions, **options)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_canvas_that_took_such_tiles_says_so_ever_after(backend):
    plan = CanvasPlan((0, 0), (3, 3))
    canvas = Canvas(plan, dtype=torch.float32, backend=backend)
    with pytest.raises(InputError, match="the first is row 0"):
        canvas.add(torch.full((9, 1, 2, 2), float("nan")), torch.zeros(9, 2))
    for use in (canvas.value, lambda: canvas.sum, lambda: canvas.add(torch.ones(1, 1, 2, 2), torch.zeros(1, 2))):
        with pytest.raises(UsageError, match="took tiles that are not finite"):
            use()


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_large_numbers_are_no_infinities(backend):
    tiles = torch.full((2, 1, 2, 2), 3e38) * torch.tensor([1, 1e-30]).reshape(2, 1, 1, 1)
    canvas = place(tiles, torch.tensor([[0.0, 0.0], [4.0, 0.0]]), backend=backend)
    assert torch.equal(canvas.value()[0, :, :2], tiles[0, 0])
    half = torch.full((900, 1, 2, 2), 6e4, dtype=torch.float16)  # their sum is none of half precision
    assert place(half, torch.zeros(900, 2), backend=backend).value().max() == 6e4


@pytest.mark.parametrize("windowed", [False, True])
def test_threads_do_not_change_the_bits(threads, windowed):
    n, size = 400, (40, 40)
    tiles = random_tiles(5, n=n, channels=1, size=size, dtype=torch.complex64)
    positions = torch.rand(n, 2, dtype=torch.float64, generator=generator(5)) * torch.tensor([90.0, 300.0])
    window = hann(size) if windowed else None
    results = []
    for count in (1, 2, 3):
        threads(count)
        canvas = place(tiles, positions, window=window, backend="numba")
        results.append((canvas.sum, canvas.weight, extract(canvas.sum, positions - 0.0, size, plan=canvas.plan)))
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            assert torch.equal(one, same)


def test_bands_hold_every_row_once_and_share_the_tiles():
    middles = torch.cat([torch.arange(10), torch.full((90,), 500)]).numpy()
    bands = compiled._bands(middles, 1000, 4)
    assert bands[0][0] == 0
    assert bands[-1][1] == 1000
    assert all(one[1] == following[0] for one, following in itertools.pairwise(bands))
    assert compiled._bands(torch.arange(100).numpy(), 100, 2) == [(0, 50), (50, 100)]


def test_half_precision_and_strided_tiles_are_summed_in_float32():
    tiles = random_tiles(6, dtype=torch.float32).to(torch.bfloat16)
    positions = random_positions(6)
    canvas = place(tiles, positions, backend="numba")
    torch.testing.assert_close(canvas.sum, place(tiles.float(), positions, backend="torch").sum)

    tiles = random_tiles(6, size=(7, 5), dtype=torch.complex64).mT.conj()
    canvas = place(tiles, positions, backend="numba")
    torch.testing.assert_close(canvas.sum, place(tiles, positions, backend="torch").sum)


def test_streaming_adds_up():
    tiles, positions = random_tiles(7, n=9), random_positions(7, n=9)
    window = hann((5, 7))
    whole = place(tiles, positions, window=window, backend="torch")
    canvas = Canvas(whole.plan, channels=2, dtype=torch.complex128, backend="numba")
    for some in (slice(0, 4), slice(4, 5), slice(5, 9)):
        canvas.add(tiles[some], positions[some], window=window)
    torch.testing.assert_close(canvas.value(), whole.value())


def test_auto_takes_torch_where_numba_cannot_and_says_so(caplog):
    tiles, positions = random_tiles(8), random_positions(8)
    with caplog.at_level(logging.DEBUG, logger="patchatlas.canvas.compiled"):
        place(tiles, positions)
        assert caplog.messages[-1] == "canvas backend: numba"
        place(tiles, positions, interpolation="cubic")
        assert "torch, not numba: it shifts by nearest and linear, not by cubic" in caplog.messages[-1]
        place(tiles.requires_grad_(), positions).sum.abs().sum().backward()
        assert "no gradients" in caplog.messages[-1]
    assert tiles.grad is not None
    with torch.no_grad():
        place(tiles, positions, weights=torch.ones(5, requires_grad=True), backend="numba")


def test_numba_by_name_refuses_what_it_cannot_do(monkeypatch):
    tiles, positions = random_tiles(9), random_positions(9)
    with pytest.raises(UsageError, match="not by fourier; take backend auto or torch"):
        place(tiles, positions, interpolation="fourier", backend="numba")
    with pytest.raises(UsageError, match="no gradients"):
        extract(torch.zeros(1, 30, 30), positions.abs().requires_grad_(), (5, 7), backend="numba")
    with pytest.raises(UsageError, match="not auto, torch or numba"):
        inspect.unwrap(compiled.use_compiled)(
            "c", device=torch.device("cpu"), interpolation="linear", differentiable=False
        )
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"patchatlas\[numba\]"):
        place(tiles, positions, backend="numba")
    assert place(tiles, positions).sum.abs().sum() > 0


def test_sums_and_means_do_not_depend_on_threads(threads, monkeypatch):
    monkeypatch.setattr(compiled, "_WORTH_THREADS", 1)
    tiles, positions = random_tiles(10, n=9), random_positions(10, n=9, spread=30.0)
    results = []
    for count in (1, 2, 5):
        threads(count)
        canvas = place(tiles, positions, backend="numba")
        results.append((canvas.weight, canvas.value(fill=1 - 2j)))
    assert (results[0][1] == 1 - 2j).any()
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            assert torch.equal(one, same)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [1, 3, 40])
def test_the_mean_is_that_of_torch(dtype, channels):
    """To the bit, with holes, over the sum or beside it."""
    tiles, positions = random_tiles(11, channels=channels, dtype=dtype), random_positions(11, spread=30.0)
    fill = 1 - 2j if dtype.is_complex else 7.0
    fast = place(tiles, positions, fill=fill, backend="numba")
    slow = Canvas(fast.plan, channels=channels, dtype=dtype, fill=fill, backend="torch")
    slow._sum, slow._weight = fast._sum, fast._weight
    mean = slow.value()
    assert (fast.coverage == 0).any()
    assert torch.equal(fast.value(), mean)
    assert torch.equal(fast.value(consume=True), mean)
