"""What is remembered: how far back, what of it, and that a checkpoint holds it."""

import math

import pytest
import torch

from patchatlas.errors import ShapeError, UsageError
from patchatlas.pretrain.monitors.window import FeatureQueue, RowWindow


def test_nothing_is_said_before_the_window_is_full() -> None:
    window = RowWindow(10)
    window.push(torch.eye(4), temperature=1.0)
    assert not window.full
    assert window.numbers() == {}
    window.push(torch.zeros(6, 4), temperature=1.0)
    assert window.full
    assert window.numbers()["marginal_entropy"] == pytest.approx(1, abs=1e-6)


def test_mode_collapse_shows_in_the_mean_before_sinkhorn() -> None:
    window = RowWindow(64)
    logits = torch.zeros(64, 8)
    logits[:, 3] = 1.0
    logits[:4, 5] = 2.0
    window.push(logits, temperature=0.05)
    numbers = window.numbers()
    share = 4 / 64
    want = -(share * math.log(share) + (1 - share) * math.log(1 - share)) / math.log(8)
    assert numbers["marginal_entropy"] == pytest.approx(want, abs=1e-4)
    assert numbers["dead_prototypes"] == pytest.approx(6 / 8)


def test_old_rows_go_and_memory_stays() -> None:
    window = RowWindow(160)
    first, second = torch.eye(4)[:1].expand(3, 4), torch.eye(4)[1:2].expand(3, 4)
    for _ in range(100):
        window.push(first, temperature=0.01)
    for _ in range(70):
        window.push(second, temperature=0.01)
    assert window.numbers()["dead_prototypes"] == 0.75
    assert len(window.state_dict()["parts"]) <= 18


def test_a_window_travels_in_a_checkpoint() -> None:
    window, again = RowWindow(8), RowWindow(8)
    window.push(torch.randn(9, 5), temperature=0.1)
    again.load_state_dict(window.state_dict())
    more = torch.randn(3, 5)
    window.push(more, temperature=0.1)
    again.push(more, temperature=0.1)
    assert window.numbers() == again.numbers()
    window.push(more[:0], temperature=0.1)
    with pytest.raises(UsageError, match="1 row or more"):
        RowWindow(0)


def test_features_are_held_up_to_a_number() -> None:
    queue = FeatureQueue(3)
    assert queue.held is None
    assert queue.state_dict() == {}
    queue.push(torch.arange(4.0)[:, None])
    queue.push(torch.tensor([[4.0]]))
    queue.push(torch.zeros(0, 1))
    assert queue.held is not None
    assert queue.held[:, 0].tolist() == [2, 3, 4]
    again = FeatureQueue(3)
    again.load_state_dict(queue.state_dict())
    assert again.held is not None
    assert torch.equal(again.held, queue.held)
    with pytest.raises(ShapeError, match="beside"):
        queue.push(torch.zeros(1, 2))
    with pytest.raises(UsageError, match="1 row or more"):
        FeatureQueue(0)
