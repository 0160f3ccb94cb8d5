"""The benchmark of training steps: what it counts as work, that its parts are the whole, and its table."""

import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.pretrain import __main__ as tables
from benchmarks.pretrain.steps import ATTENTION_ON_CPU, PARTS, Parts, measure, settings
from patchatlas.pretrain.config import PretrainConfig


def test_attention_on_a_cpu_is_counted_forwards_and_backwards() -> None:
    b, m, t, e = 2, 3, 5, 8
    q, k, v = (torch.randn(b, m, t, e, requires_grad=True) for _ in range(3))
    with FlopCounterMode(display=False, custom_mapping=ATTENTION_ON_CPU) as counter:
        torch.nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()
    product = 2 * b * m * t * t * e
    assert counter.get_total_flops() == (2 + 5) * product  # scores once more in the backward, and four gradients


def test_a_tiny_setting() -> None:
    config = settings(size="pico", crop=16, local=8, batch=2, locals_count=1, prototypes=8, device="cpu")
    numbers = measure(config, repeats=1)
    assert numbers["crops_a_second"] == pytest.approx(2 * 3 / numbers["step_s"])
    assert 0 < numbers["mfu"] < 1
    assert list(numbers["parts_s"]) == list(PARTS)
    assert all(numbers["parts_s"][part] > 0 for part in ("teacher", "student", "losses", "backward", "optimiser"))
    assert sum(map(float, tables.shares(numbers["parts_s"]))) == pytest.approx(100, abs=len(PARTS))


def test_time_is_that_of_the_part_it_is_spent_in(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 5.0, 10.0])
    monkeypatch.setattr("benchmarks.pretrain.steps.now", lambda _: next(clock))
    parts = Parts(torch.device("cpu"))
    with parts.of("whole"):
        assert parts.timed("inner", lambda x: x + 1)(1) == 2
    assert dict(parts.spent) == {"inner": 3.0, "whole": 10.0}


def test_the_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        "parameters_m": 0.5,
        "first_step_s": 9.0,
        "step_s": 0.5,
        "crops_a_second": 160.0,
        "tflop_a_step": 0.02,
        "matmul_tflops": 0.1,
        "mfu": 0.4,
        "parts_s": dict.fromkeys(PARTS, 1.0),
    }
    asked = []

    def measured(config: PretrainConfig, *, repeats: int) -> dict[str, object]:
        assert repeats == 5
        asked.append(config)
        return found

    monkeypatch.setattr(tables, "measure", measured)
    monkeypatch.setattr(sys, "argv", ["pretrain", "--sizes", "pico", "--crops", "32", "--precisions", "fp32", "bf16"])
    tables.main()
    lines = capsys.readouterr().out.splitlines()
    assert [(one.train.precision, one.train.batch, one.crops.locals.size[0]) for one in asked] == [
        ("fp32", 8, 16),
        ("bf16", 8, 16),
    ]
    assert {line.count("|") for line in lines[:4]} == {11}
    assert "| 0.50 s | 160.0 | 20 | 40 % of 100 GFLOP/s |" in lines[2]
    assert lines[-1] == "| pico, 32, bf16 | " + " | ".join(["12"] * len(PARTS)) + " |"
