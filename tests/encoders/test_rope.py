"""Rotary positions: centres and angles by hand, any number of axes, a bounded cache that cannot go stale."""

import copy
import math
import pickle

import torch

from patchatlas.encoders.rope import CACHED_GRIDS, Rope, geometric_periods, patch_angles, patch_centres


def test_centres_by_hand():
    expected = [[-0.5, -0.75], [-0.5, -0.25], [-0.5, 0.25], [-0.5, 0.75], [0.5, -0.75], [0.5, -0.25], [0.5, 0.25]]
    torch.testing.assert_close(patch_centres((2, 4))[:7], torch.tensor(expected))


def test_angles_run_axis_after_axis():
    angles = patch_angles(torch.tensor([[0.5, -0.25]]), torch.tensor([1.0, 10.0]))
    torch.testing.assert_close(angles, 2 * math.pi * torch.tensor([[0.5, 0.05, -0.25, -0.025]]))


def test_periods_span_the_base():
    torch.testing.assert_close(geometric_periods(16, 2), torch.tensor([1.0, 100**0.25, 10.0, 100**0.75]))


def test_three_axes_share_the_head_and_leave_a_rest():
    rope = Rope(64, 3, prefix=1, base=100.0)
    assert rope.periods.shape == (10,)  # 64 // 6
    cos, sin = rope((2, 3, 4))
    assert cos.shape == sin.shape == (1 + 24, 30)
    assert cos[0].eq(1).all()  # the class token is not turned
    assert sin[0].eq(0).all()


def test_a_second_call_gives_the_same_table_object():
    rope = Rope(16, 2, prefix=0, base=100.0)
    assert rope((3, 5))[0] is rope((3, 5))[0]
    assert rope((5, 3))[0] is not rope((3, 5))[0]


def test_the_cache_is_bounded_and_drops_the_oldest():
    rope = Rope(16, 2, prefix=0, base=100.0)
    first = rope((1, 1))[0]
    for side in range(2, 2 + CACHED_GRIDS):
        rope((side, 1))
    assert len(rope._tables) == CACHED_GRIDS
    assert rope((1, 1))[0] is not first


def test_new_periods_make_new_tables():
    rope = Rope(16, 2, prefix=0, base=100.0)
    before = rope((2, 2))[0]
    for one in (copy.deepcopy(rope), pickle.loads(pickle.dumps(rope)), rope):
        assert torch.equal(one((2, 2))[0], before)
        one.load_state_dict({"periods": rope.periods * 2})
        assert not torch.equal(one((2, 2))[0], before)


def test_a_table_made_under_inference_mode_serves_training():
    rope = Rope(16, 2, prefix=0, base=100.0)
    with torch.inference_mode():
        rope((2, 2))
    weight = torch.ones(4, 8, requires_grad=True)
    (weight * rope((2, 2))[0]).sum().backward()
    assert weight.grad is not None
