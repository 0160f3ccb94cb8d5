"""Sinkhorn in the log domain, against the plain formula in float64, over micro-batches, queues and air."""

import numpy as np
import pytest
import torch

from patchatlas.errors import ShapeError, UsageError
from patchatlas.pretrain.losses.sinkhorn import RowQueue, sinkhorn


def drawn(n: int, k: int, *, seed: int = 0, scale: float = 0.1) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * scale


def reference(logits: torch.Tensor, *, temperature: float, iterations: int, masses: object = None) -> np.ndarray:
    """The formula as the papers write it: exponentials, columns to sum 1/k, rows to their mass."""
    q = np.exp(logits.double().numpy() / temperature)
    n, k = q.shape
    mass = np.ones(n) if masses is None else np.asarray(masses, dtype=float)
    q *= mass[:, None]
    for _ in range(iterations):
        q /= k * q.sum(0, keepdims=True)
        q *= (mass / mass.sum() / q.sum(1))[:, None]
    return q / q.sum(1, keepdims=True)


@pytest.mark.parametrize(("n", "k", "iterations"), [(8, 5, 1), (8, 5, 3), (3, 20, 3), (1, 4, 2), (64, 32, 10)])
def test_it_is_the_formula_of_the_papers(n: int, k: int, iterations: int) -> None:
    logits = drawn(n, k)
    want = reference(logits, temperature=0.05, iterations=iterations)
    single = sinkhorn(logits, temperature=0.05, iterations=iterations)
    double = sinkhorn(logits.double(), temperature=0.05, iterations=iterations)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), want, atol=2e-6)
    np.testing.assert_allclose(double.numpy(), want, atol=1e-13)


def test_rows_sum_to_one_and_columns_become_equal() -> None:
    targets = sinkhorn(drawn(200, 10), temperature=0.1, iterations=50)
    torch.testing.assert_close(targets.sum(1), torch.ones(200))
    torch.testing.assert_close(targets.sum(0), torch.full((10,), 20.0), rtol=1e-4, atol=1e-4)


def test_logits_that_overflow_an_exponential_do_not_matter() -> None:
    logits = drawn(16, 8, scale=1.0)
    logits[:, 0] += 200  # exp(200 / 0.04) is infinite even in float64; a constant column is scaled away
    plain = logits.clone()
    plain[:, 0] -= 200
    targets = sinkhorn(logits, temperature=0.04)
    assert bool(targets.isfinite().all())
    torch.testing.assert_close(targets, sinkhorn(plain, temperature=0.04), atol=1e-2, rtol=0)


def test_the_maximum_of_a_row_taken_off_is_another_answer() -> None:
    # facebookresearch/dinov2#583 calls it the same; after three rounds it is not, so the log domain is needed.
    logits = drawn(8, 16, scale=0.3)
    logits += torch.linspace(-0.5, 0.5, 8)[:, None]
    ours = sinkhorn(logits, temperature=0.04)
    other = reference(logits - logits.amax(1, keepdim=True), temperature=0.04, iterations=3)
    np.testing.assert_allclose(ours.numpy(), reference(logits, temperature=0.04, iterations=3), atol=1e-5)
    assert float(np.abs(ours.numpy() - other).max()) > 0.01


def test_a_queue_is_rows_of_the_same_batch() -> None:
    logits = drawn(24, 6)
    together = sinkhorn(logits, temperature=0.05)
    queued = sinkhorn(logits[16:], temperature=0.05, queue=logits[:16])
    torch.testing.assert_close(queued, together[16:])
    alone = sinkhorn(logits[16:], temperature=0.05)
    assert float((alone - queued).abs().max()) > 0.05


def test_identical_air_takes_prototypes_from_the_body_unless_it_weighs_nothing() -> None:
    body, air = drawn(30, 20, scale=0.2), drawn(1, 20, seed=1, scale=0.2).expand(70, 20)
    logits = torch.cat([body, air])
    weights = torch.cat([torch.ones(30), torch.zeros(70)])
    shared = sinkhorn(logits, temperature=0.05)
    kept = sinkhorn(logits, temperature=0.05, row_weights=weights)
    assert int((shared[30:].sum(0) > shared[:30].sum(0)).sum()) > 8  # most prototypes are more air than body
    torch.testing.assert_close(kept[:30], sinkhorn(body, temperature=0.05))


def test_weights_are_masses_of_rows() -> None:
    logits, masses = drawn(7, 5), torch.tensor([1, 0.5, 2, 1, 0.25, 1, 3])
    want = reference(logits, temperature=0.05, iterations=3, masses=masses.numpy())
    np.testing.assert_allclose(sinkhorn(logits, temperature=0.05, row_weights=masses).numpy(), want, atol=2e-6)


def test_no_row_that_counts_gives_finite_targets_and_no_rows_none() -> None:
    assert bool(sinkhorn(drawn(3, 4), temperature=0.1, row_weights=torch.zeros(3)).isfinite().all())
    assert sinkhorn(drawn(0, 4), temperature=0.1).shape == (0, 4)


def test_no_gradient_flows_into_targets() -> None:
    assert not sinkhorn(drawn(4, 4).requires_grad_(), temperature=0.1).requires_grad


@pytest.mark.parametrize("setting", [{"temperature": 0.0}, {"temperature": 0.1, "iterations": 0}])
def test_settings_that_make_no_sense_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must be positive"):
        sinkhorn(drawn(2, 2), **setting)


def test_weights_below_zero_are_refused() -> None:
    with pytest.raises(ShapeError, match="0 or more"):
        sinkhorn(drawn(2, 2), temperature=0.1, row_weights=torch.tensor([1.0, -1.0]))


def test_a_queue_holds_the_last_rows_and_travels_in_a_checkpoint() -> None:
    queue = RowQueue(5)
    assert queue.rows is None
    assert queue.state_dict() == {}
    rows = torch.arange(16.0).reshape(8, 2)
    for part in rows.split(3):
        queue.push(part)
    assert queue.rows is not None
    torch.testing.assert_close(queue.rows, rows[3:])
    again = RowQueue(5)
    again.load_state_dict(queue.state_dict())
    queue.push(rows[:1])
    again.push(rows[:1])
    assert queue.rows is not None
    assert again.rows is not None
    assert torch.equal(queue.rows, again.rows)
    with pytest.raises(ShapeError, match="do not fit"):
        RowQueue(2).load_state_dict(queue.state_dict())


def test_a_queue_takes_in_finite_rows_only() -> None:
    queue = RowQueue(4)
    rows = drawn(3, 2)
    rows[1, 0] = torch.nan
    queue.push(rows)
    assert queue.rows is not None
    assert torch.equal(queue.rows, rows[[0, 2]])
    queue.push(torch.full((4, 2), torch.inf))
    assert torch.equal(queue.rows, rows[[0, 2]])
    assert bool(sinkhorn(drawn(3, 2), temperature=0.1, queue=queue.rows).isfinite().all())


def test_a_queue_without_room_stays_empty() -> None:
    queue = RowQueue(0)
    queue.push(drawn(3, 2))
    assert queue.rows is None
    with pytest.raises(UsageError, match="0 rows or more"):
        RowQueue(-1)
