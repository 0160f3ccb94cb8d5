"""Numbers of a step, worked by hand, and what the earlier project's numbers could not see."""

import math

import pytest
import torch

from patchatlas.errors import ShapeError
from patchatlas.pretrain.losses.koleo import koleo_loss
from patchatlas.pretrain.losses.sinkhorn import sinkhorn
from patchatlas.pretrain.monitors.metrics import (
    crop_numbers,
    divergence,
    duplicate_share,
    ema_gap,
    grad_norms,
    koleo_of_closest,
    row_entropy,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_row_entropy_of_uniform_one_hot_and_half() -> None:
    assert row_entropy(torch.full((3, 8), 1 / 8)) == pytest.approx(1)
    assert row_entropy(torch.eye(8)) == 0
    assert row_entropy(torch.tensor([[0.5, 0.5, 0, 0]])) == pytest.approx(0.5)


def test_a_uniform_collapse_under_sinkhorn_shows_in_rows_and_nowhere_else() -> None:
    # Defect 11: the entropy of the batch mean is ln K by construction, and as many prototypes are used as rows.
    k = 64
    direction = noise(1, k)
    collapsed = sinkhorn(direction + 1e-4 * noise(32, k), temperature=0.07)
    healthy = sinkhorn(noise(32, k), temperature=0.07)
    for targets in (collapsed, healthy):
        mean = targets.mean(0).double()
        assert float(-(mean * mean.log()).sum()) / math.log(k) > 0.9
    assert len(set(collapsed.argmax(1).tolist())) > 16
    assert row_entropy(collapsed) > 0.999
    assert row_entropy(healthy) < 0.6


def test_cross_entropy_is_what_targets_leave_open_and_what_is_to_be_learnt() -> None:
    targets = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    logits = torch.tensor([[0.75, 0.25, 0.0, 0.0]]).clamp(min=1e-30).log()
    numbers = divergence(logits * 0.1, targets, student_temp=0.1)
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert numbers["kl"] == pytest.approx(kl, rel=1e-6)
    assert numbers["target_entropy"] == pytest.approx(math.log(2))
    assert numbers["dino_share"] == pytest.approx((kl + math.log(2)) / math.log(4))


def test_the_closest_two_of_a_view() -> None:
    # Unit tokens at 0, 90 and 180 degrees, then at 0, 60 and 180: the least distance is that of 60 degrees, 1.
    turns = torch.tensor([[0.0, math.pi / 2, math.pi], [0.0, math.pi / 3, math.pi]])
    tokens = torch.stack([turns.cos(), turns.sin()], -1) * torch.tensor([1.0, 2.0, 3.0])[:, None]
    assert koleo_of_closest(tokens) == pytest.approx(0, abs=1e-6)
    assert koleo_of_closest(tokens[:1]) == pytest.approx(-0.5 * math.log(2))
    assert math.isnan(koleo_of_closest(tokens * math.nan))
    assert koleo_of_closest(tokens[:, :1]) == -math.inf


def test_two_equal_tokens_among_many_are_seen_where_the_mean_hides_them() -> None:
    tokens = noise(2, 16, 32)
    tokens[1, 9] = 2 * tokens[1, 4]
    assert koleo_of_closest(tokens) == pytest.approx(8 * math.log(10), abs=1)
    assert float(koleo_loss(tokens[1])) < 3
    assert koleo_of_closest(noise(2, 16, 32)) < 0


def test_doubles_among_prototypes() -> None:
    prototypes = torch.eye(6)
    prototypes[4] = 3 * prototypes[1]
    prototypes[5] = prototypes[1] + 0.01 * prototypes[2]
    assert duplicate_share(prototypes) == pytest.approx(3 / 6)
    assert duplicate_share(torch.eye(6)) == 0
    assert duplicate_share(torch.cat([noise(1500, 32)] * 2)) == 1  # over several parts
    assert duplicate_share(torch.cat([noise(1500, 32)] * 2), at_most=100) == 1


def test_gap_between_student_and_teacher() -> None:
    teacher = [torch.tensor([3.0]), torch.tensor([4.0])]
    assert ema_gap([torch.tensor([3.0]), torch.tensor([3.5])], teacher) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="shorter"):
        ema_gap(teacher, teacher[:1])


def test_gradients_by_module() -> None:
    network = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 1), "frozen": torch.nn.Linear(1, 1)})
    network["head"].weight.grad = torch.tensor([[3.0, 0.0]])
    network["head"].bias.grad = torch.tensor([4.0])
    assert grad_norms(network.named_parameters()) == {"grad/head": 5.0, "grad/all": 5.0}


def test_what_the_crops_of_a_step_hold() -> None:
    numbers = crop_numbers(
        {"globals": [0.0, 0.45, 1.0, 0.55], "locals": []},
        flags=[None, "", "below_min", "overlap_relaxed"],
        overlaps=[0.3, 0.5],
        weights={"globals": [1.0, 1.0, 0.0, 0.0]},
    )
    assert numbers["globals_foreground"] == pytest.approx(0.5)
    assert numbers["globals_foreground_min"] == 0
    bins = [numbers[f"globals_foreground_bin{place}"] for place in range(10)]
    assert bins == [0.25, 0, 0, 0, 0.25, 0.25, 0, 0, 0, 0.25]
    assert numbers["below_ratio"] == 0.25
    assert numbers["flagged"] == 0.5
    assert numbers["overlap"] == pytest.approx(0.4)
    assert numbers["globals_weight_even"] == pytest.approx(0.5)
    assert "locals_foreground" not in numbers
    with pytest.raises(ShapeError, match="are empty"):
        crop_numbers({}, weights={"locals": []})
