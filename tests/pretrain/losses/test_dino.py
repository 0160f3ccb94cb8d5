"""The DINO term: a loop over pairs, Meta's formula, gradients of crops that weigh nothing, micro-batches."""

import math

import pytest
import torch

from patchatlas.errors import UsageError
from patchatlas.pretrain.losses.config import DinoConfig, ForegroundConfig
from patchatlas.pretrain.losses.dino import dino_loss, pair_entropies
from patchatlas.pretrain.losses.sinkhorn import sinkhorn
from patchatlas.pretrain.losses.weights import PairWeights, mean_total, pair_weights

G, L, B, K, TEMP = 2, 3, 5, 7, 0.1


def batch(*, teachers: int = G, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student logits, targets, ratios of globals and of locals."""
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(G + L, B, K, generator=generator, dtype=torch.float64).requires_grad_()
    logits = torch.randn(teachers, B, K, generator=generator, dtype=torch.float64) * 0.1
    targets = sinkhorn(logits.flatten(0, 1), temperature=0.05).reshape(teachers, B, K)
    ratios = torch.rand(G + L, B, generator=generator)
    return student, targets, ratios[:G], ratios[G:]


@pytest.mark.parametrize("weighting", ["none", "pair", "mean"])
@pytest.mark.parametrize("hierarchical", [False, True])
def test_it_is_the_loop_over_pairs(weighting: str, hierarchical: bool) -> None:
    foreground = ForegroundConfig(weighting=weighting, hierarchical=hierarchical, hierarchical_below=0.5)
    student, targets, globals_, locals_ = batch(teachers=G + L if hierarchical else G)
    weights = pair_weights(globals_, locals_, dino=DinoConfig(local_scale=0.7), foreground=foreground)
    loss = dino_loss(student, targets, weights, student_temp=TEMP)
    summed = 0.0
    for s in range(G + L):
        for t in range(len(targets)):
            for b in range(B):
                log_probs = [x / TEMP for x in student[s, b].tolist()]
                level = math.log(sum(math.exp(x) for x in log_probs))
                entropy = -sum(p * (x - level) for p, x in zip(targets[t, b].tolist(), log_probs, strict=True))
                summed += float(weights.values[s, t, b]) * entropy
    assert loss.item() == pytest.approx(summed / float(weights.total), abs=1e-6)
    assert summed > 1


def test_with_all_weights_one_it_is_metas_sum_of_a_global_and_a_local_term() -> None:
    student, targets, globals_, locals_ = batch()
    weights = pair_weights(globals_, locals_, dino=DinoConfig(), foreground=ForegroundConfig())
    entropies = torch.stack(
        [
            torch.stack([-(targets[t] * torch.log_softmax(student[s] / TEMP, -1)).sum(-1).mean() for t in range(G)])
            for s in range(G + L)
        ]
    )
    n_global, n_local = G * (G - 1), L * G
    global_term = (entropies[:G].sum() - entropies[:G].diagonal().sum()) / n_global  # the diagonal is left out
    local_term = entropies[G:].sum() / n_local
    meta = (n_global * global_term + n_local * local_term) / (n_global + n_local)
    assert dino_loss(student, targets, weights, student_temp=TEMP).item() == pytest.approx(meta.item(), abs=1e-9)


def test_a_crop_that_weighs_nothing_has_a_gradient_of_exactly_zero() -> None:
    student, targets, globals_, locals_ = batch()
    globals_[0, 1] = locals_[2, 3] = 0.02
    weights = pair_weights(
        globals_, locals_, dino=DinoConfig(), foreground=ForegroundConfig(weighting="pair", ramp=(0.05, 0.4))
    )
    dino_loss(student, targets, weights).backward()
    assert student.grad is not None
    assert torch.equal(student.grad[0, 1], torch.zeros(K, dtype=torch.float64))
    assert torch.equal(student.grad[G + 2, 3], torch.zeros(K, dtype=torch.float64))
    assert bool((student.grad[1, 0] != 0).any())


def test_a_batch_of_air_gives_zero_and_no_nan() -> None:
    student, targets, globals_, locals_ = batch()
    weights = pair_weights(globals_ * 0, locals_ * 0, dino=DinoConfig(), foreground=ForegroundConfig(weighting="pair"))
    loss = dino_loss(student, targets, weights)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_micro_batches_of_unequal_weight_make_the_loss_of_the_whole() -> None:
    # The mean of two means would count a crop of a poor micro-batch more than one of a rich one.
    student, targets, globals_, locals_ = batch()
    foreground = ForegroundConfig(weighting="pair")

    def of(part: slice) -> PairWeights:
        return pair_weights(globals_[:, part], locals_[:, part], dino=DinoConfig(), foreground=foreground)

    parts = [slice(0, 1), slice(1, B)]
    total = mean_total(*(of(part).total for part in parts))
    split = torch.stack([dino_loss(student[:, part], targets[:, part], of(part), total=total) for part in parts]).sum()
    whole = dino_loss(student, targets, of(slice(None)))
    assert split.item() == pytest.approx(whole.item(), abs=1e-6)


def test_half_precision_is_worked_on_in_float32_and_targets_take_no_gradient() -> None:
    student = torch.randn(2, 3, 4, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.full((2, 3, 4), 0.25, requires_grad=True)
    entropies = pair_entropies(student, targets, student_temp=0.1)
    assert entropies.dtype == torch.float32
    entropies.sum().backward()
    assert targets.grad is None
    with pytest.raises(UsageError, match="positive"):
        pair_entropies(student, targets, student_temp=0.0)
