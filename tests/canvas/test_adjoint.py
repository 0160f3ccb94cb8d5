"""Place and extract are an exact adjoint pair, and their gradients are right."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from patchatlas.canvas.place import extract, place
from patchatlas.canvas.plan import plan_canvas
from tests.canvas.adjoint import assert_adjoint
from tests.canvas.scans import INTERPOLATIONS, generator, random_positions, random_tiles

pytestmark = pytest.mark.usefixtures("torch_path")


@pytest.mark.parametrize(("dtype", "bound"), [(torch.complex64, 1e-6), (torch.complex128, 1e-12)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_two_hundred_random_cases_across_every_edge(interpolation, dtype, bound):
    assert_adjoint(interpolation, dtype, bound, backend="torch")


@pytest.mark.parametrize("size", [(4,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("interpolation", ["linear", "cubic", "fourier"])
def test_gradients_of_the_value(interpolation, size):
    """Through tiles, positions, window and tile weights at once, numerator and denominator both.

    Every single derivative for one axis; a random projection of them (gradcheck's fast mode) for more.
    """
    positions = random_positions(1, n=3, ndim=len(size), spread=2.0).requires_grad_()
    tiles = random_tiles(1, n=3, channels=2, size=size).requires_grad_()
    window = (torch.rand(*size, dtype=torch.float64, generator=generator(2)) + 0.5).requires_grad_()
    weights = (torch.rand(3, dtype=torch.float64, generator=generator(3)) + 0.5).requires_grad_()
    plan = plan_canvas(positions, size, interpolation=interpolation, margin=1)

    def value(tiles, positions, window, weights):
        canvas = place(tiles, positions, interpolation=interpolation, window=window, weights=weights, plan=plan)
        return canvas.value() + 0.1 * canvas.sum

    assert gradcheck(value, (tiles, positions, window, weights), eps=1e-7, atol=2e-5, fast_mode=len(size) > 1)


@pytest.mark.parametrize("size", [(4,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("interpolation", ["linear", "cubic", "fourier"])
def test_gradients_of_extract(interpolation, size):
    positions = random_positions(4, n=3, ndim=len(size), spread=2.0).requires_grad_()
    plan = plan_canvas(positions, size, margin=1)
    values = torch.randn(1, *plan.size, dtype=torch.complex128, generator=generator(4)).requires_grad_()

    def read(values, positions):
        return extract(values, positions, size, interpolation=interpolation, plan=plan)

    assert gradcheck(read, (values, positions), eps=1e-7, atol=2e-5, fast_mode=len(size) > 1)


def test_second_gradients():
    positions = random_positions(5, n=2, spread=2.0).requires_grad_()
    tiles = random_tiles(5, n=2, channels=1, size=(2, 3), dtype=torch.float64).requires_grad_()
    plan = plan_canvas(positions, (2, 3))

    def energy(tiles, positions):
        return place(tiles, positions, interpolation="cubic", plan=plan).sum.square()

    assert gradgradcheck(energy, (tiles, positions))

    def read(positions):
        values = torch.arange(plan.pixels, dtype=torch.float64).reshape(1, *plan.size).square()
        return extract(values, positions, (2, 3), interpolation="cubic", plan=plan)

    assert gradgradcheck(read, (positions,))


def test_the_position_gradient_by_hand():
    """A tile 4 at 0.25 leaves (3, 1); moved on by dx it leaves 4 dx less on the left and 4 dx more on the right."""
    position = torch.tensor([[0.25]], dtype=torch.float64, requires_grad=True)
    left, right = place(torch.full((1, 1, 1), 4.0), position).sum[0]
    assert (left.item(), right.item()) == (3, 1)
    assert torch.autograd.grad(left, position, retain_graph=True)[0].item() == -4
    assert torch.autograd.grad(right, position)[0].item() == 4


def test_whole_positions_have_gradients_too():
    """The gradient from the right, for linear; without them whole positions are copied, with them they must not be."""
    position = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    tile = extract(torch.tensor([[1.0, 5.0, 7.0]]), position, (2,))
    assert torch.autograd.grad(tile[0, 0, 0], position)[0].item() == 4


def test_nearest_has_gradients_of_values_only():
    positions = random_positions(6, n=3, spread=2.0)
    tiles = random_tiles(6, n=3, channels=1, size=(2, 3)).requires_grad_()
    assert gradcheck(lambda tiles: place(tiles, positions, interpolation="nearest").value(), (tiles,))


def test_the_gradient_of_place_is_extract():
    """And so the gradient of a least-squares misfit is the residual, read back."""
    tiles, positions = random_tiles(7).requires_grad_(), random_positions(7)
    canvas = place(tiles, positions)
    wanted = torch.randn(canvas.sum.shape, dtype=torch.complex128, generator=generator(7))
    misfit = (canvas.sum - wanted).abs().square().sum()
    (gradient,) = torch.autograd.grad(misfit, tiles)
    residual = 2 * (canvas.sum.detach() - wanted)
    torch.testing.assert_close(gradient, extract(residual, positions, (5, 7), plan=canvas.plan), rtol=0, atol=1e-12)


def test_with_and_without_gradients_the_numbers_are_the_same():
    tiles, positions = random_tiles(8), random_positions(8)
    window = torch.rand(5, 7, dtype=torch.float64, generator=generator(8))
    for options in ({}, {"window": window}):
        plain = place(tiles, positions, **options)
        graph = place(tiles.clone().requires_grad_(), positions.clone().requires_grad_(), **options)
        assert graph.value().requires_grad
        torch.testing.assert_close(graph.sum.detach(), plain.sum, rtol=0, atol=1e-14)
        torch.testing.assert_close(graph.weight.detach(), plain.weight, rtol=0, atol=1e-14)
        torch.testing.assert_close(graph.coverage, plain.coverage, rtol=0, atol=1e-14)
        with torch.no_grad():
            quiet = place(tiles.clone().requires_grad_(), positions, **options)
        assert not quiet.value().requires_grad
    assert math.isfinite(graph.value().abs().sum().item())
