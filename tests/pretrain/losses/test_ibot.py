"""The iBOT term: DINOv2's formula, foreground-only targets and the background prototype."""

import pytest
import torch

from patchatlas.errors import ShapeError, UsageError
from patchatlas.pretrain.losses.config import ForegroundConfig
from patchatlas.pretrain.losses.ibot import ibot_loss, patch_targets
from patchatlas.pretrain.losses.sinkhorn import sinkhorn
from patchatlas.pretrain.losses.weights import counted_tokens, mean_total, token_weights

V, B, N, K = 2, 4, 9, 6


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Masks with one crop unmasked, student and teacher logits of all tokens, foreground of tokens."""
    generator = torch.Generator().manual_seed(seed)
    masked = torch.rand(V, B, N, generator=generator) < 0.4
    masked[0, 2] = False
    masked[1, 0] = True
    student = torch.randn(V, B, N, K, generator=generator, dtype=torch.float64).requires_grad_()
    teacher = torch.randn(V, B, N, K, generator=generator, dtype=torch.float64) * 0.2
    share = torch.rand(V, B, N, generator=generator) * (torch.rand(V, B, N, generator=generator) < 0.6)
    return masked, student, teacher, share


def test_it_is_dinov2s_mean_over_crops_of_the_mean_over_masked_tokens() -> None:
    masked, student, teacher, share = batch()
    weights = token_weights(masked, counted_tokens(share, ForegroundConfig()))
    targets = patch_targets(teacher[masked], temperature=0.07)
    loss = ibot_loss(student[masked], targets, weights.values[masked], total=mean_total(weights.total))
    full = torch.zeros(V, B, N, K, dtype=torch.float64)
    full[masked] = sinkhorn(teacher[masked], temperature=0.07)
    summed = 0.0
    for v in range(V):
        for b in range(B):
            tokens = masked[v, b].nonzero()[:, 0].tolist()
            each = [-(full[v, b, n] * torch.log_softmax(student[v, b, n] / 0.1, -1)).sum() for n in tokens]
            summed += sum(term.item() for term in each) / max(len(tokens), 1)
    assert loss.item() == pytest.approx(summed / (V * B), abs=1e-6)


def test_background_tokens_have_no_gradient_and_no_prototypes() -> None:
    masked, student, teacher, share = batch()
    foreground = ForegroundConfig(patches="foreground")
    counted = counted_tokens(share, foreground)
    weights = token_weights(masked, counted)
    targets = patch_targets(teacher[masked], temperature=0.07, counted=counted[masked])
    ibot_loss(student[masked], targets, weights.values[masked], total=mean_total(weights.total)).backward()
    assert student.grad is not None
    assert not student.grad[~counted].any()
    assert bool((student.grad[masked & counted] != 0).all(-1).all())
    body = masked & counted
    torch.testing.assert_close(targets[counted[masked]], sinkhorn(teacher[body], temperature=0.07))


def test_the_background_prototype_is_for_background_alone() -> None:
    _, _, teacher, _ = batch()
    logits = teacher.flatten(0, 2)
    background = torch.arange(len(logits)) % 3 == 0
    targets = patch_targets(logits, temperature=0.07, background=background)
    assert torch.equal(targets[background], torch.eye(K, dtype=targets.dtype)[:1].expand(int(background.sum()), K))
    assert not targets[~background][:, 0].any()
    torch.testing.assert_close(targets[~background][:, 1:], sinkhorn(logits[~background][:, 1:], temperature=0.07))
    with pytest.raises(ShapeError, match="raise the number of prototypes"):
        patch_targets(logits[:, :1], temperature=0.07, background=background)


def test_a_queue_of_patch_rows_is_shared_out_along() -> None:
    _, _, teacher, _ = batch()
    rows = teacher.flatten(0, 2)
    queued = patch_targets(rows[20:], temperature=0.07, queue=rows[:20])
    torch.testing.assert_close(queued, patch_targets(rows, temperature=0.07)[20:])
    background = torch.zeros(len(rows), dtype=torch.bool)
    queued = patch_targets(rows[20:], temperature=0.07, queue=rows[:20], background=background[20:])
    torch.testing.assert_close(queued, patch_targets(rows, temperature=0.07, background=background)[20:])


def test_no_masked_token_at_all_is_zero() -> None:
    none = torch.zeros(0, K, requires_grad=True)
    targets = patch_targets(none, temperature=0.07)
    loss = ibot_loss(none, targets, torch.zeros(0), total=torch.tensor(1.0))
    loss.backward()
    assert loss.item() == 0
    with pytest.raises(UsageError, match="positive"):
        ibot_loss(none, targets, torch.zeros(0), total=torch.tensor(1.0), student_temp=-1.0)
