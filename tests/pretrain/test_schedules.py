"""Schedules by hand, counted in updates."""

import pytest

from patchatlas.pretrain.schedules import Schedule, Schedules
from patchatlas.pretrain.settings import OptimConfig


def test_a_rise_then_half_a_cosine():
    schedule = Schedule(1.0, 0.0, 13, warmup=4)
    assert [schedule(step) for step in (0, 2, 4, 8, 12)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert schedule(100) == pytest.approx(0)


def test_a_line():
    schedule = Schedule(0.04, 0.07, 4, shape="linear")
    assert [schedule(step) for step in range(5)] == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])


def test_the_rule_counts_all_samples_of_a_step():
    """Defect 10 of the earlier project: a batch of 4 with 32 micro-batches was scaled as if it were 4."""
    config = OptimConfig(lr=1.0, lr_rule="sqrt_1024", warmup=0)
    assert Schedules.of(config, steps=10, samples=4 * 32).lr(0) == pytest.approx((128 / 1024) ** 0.5)
    assert Schedules.of(OptimConfig(lr=1.0, warmup=0), steps=10, samples=128).lr(0) == 1


def test_temperature_ends_its_rise_where_it_says():
    config = OptimConfig(teacher_temp=0.04, teacher_temp_end=0.08, teacher_temp_warmup=4)
    temperature = Schedules.of(config, steps=100, samples=8).teacher_temp
    assert [temperature(step) for step in (0, 2, 4, 50)] == pytest.approx([0.04, 0.06, 0.08, 0.08])
    at_once = OptimConfig(teacher_temp_end=0.07, teacher_temp_warmup=0)
    assert Schedules.of(at_once, steps=100, samples=8).teacher_temp(1) == pytest.approx(0.07)
    still = Schedules.of(OptimConfig(), steps=100, samples=8).teacher_temp
    assert {still(step) for step in (0, 1, 50, 99)} == {0.04}
