"""The term of a distilled encoder, by hand."""

import pytest
import torch

from patchatlas.pretrain.losses.distil import distil_loss


def test_one_minus_the_cosine_of_each_token_by_hand():
    student = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]]], requires_grad=True)
    target = torch.tensor([[[6.0, 8.0], [0.0, 5.0], [0.0, -1.0]]], requires_grad=True)
    weights = torch.tensor([[True, True, True]])
    loss = distil_loss(student, target, weights=weights, total=torch.tensor(3.0))
    assert float(loss.detach()) == pytest.approx((0 + 1 + 2) / 3)
    loss.backward()
    assert target.grad is None
    assert student.grad is not None
    torch.testing.assert_close(student.grad[0, 1], torch.tensor([0.0, -1 / 3]))


def test_tokens_without_weight_count_nothing_and_the_sum_is_divided_by_the_total():
    student = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    target = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])
    assert float(distil_loss(student, target, weights=torch.tensor([[0.5, 0.0]]), total=torch.tensor(4.0))) == 0.125


def test_bfloat16_tokens_are_compared_in_float32():
    student = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = distil_loss(student, student.float(), weights=torch.ones(2, 5), total=torch.tensor(10.0))
    assert loss.dtype == torch.float32
    assert abs(float(loss)) < 1e-6
