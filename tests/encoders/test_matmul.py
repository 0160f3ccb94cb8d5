"""The setting for float32 products: used only where the products stay float32, and never left behind."""

import pytest
import torch

from patchatlas.encoders import matmul
from patchatlas.encoders.matmul import fast_float32, onednn_is_float32

CPU = torch.device("cpu")


def setting():
    return torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture
def accepted(monkeypatch):
    monkeypatch.setattr(matmul, "onednn_is_float32", lambda: True)


@pytest.mark.usefixtures("accepted")
@pytest.mark.parametrize("before", ["none", "ieee", "tf32", "bf16"])
def test_the_setting_is_as_before_afterwards(before):
    matmul_settings = torch.backends.mkldnn.matmul
    original = setting()
    matmul_settings.fp32_precision = before
    try:
        found = setting()
        with fast_float32(CPU):
            assert setting() == "bf16"
        assert setting() == found
        with pytest.raises(ZeroDivisionError), fast_float32(CPU):
            1 / 0  # noqa: B018
        assert setting() == found
    finally:
        matmul_settings.fp32_precision = original


@pytest.mark.usefixtures("accepted")
def test_only_products_on_cpus_are_meant():
    before = setting()
    with fast_float32(torch.device("cuda")):
        assert setting() == before
    with fast_float32(CPU):
        assert torch.backends.cuda.matmul.fp32_precision != "bf16"
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_cpu_that_rounds_more_is_left_alone(monkeypatch):
    monkeypatch.setattr(matmul, "onednn_is_float32", lambda: False)
    before = setting()
    with fast_float32(CPU):
        assert setting() == before


@pytest.mark.parametrize(
    ("rounded", "accepted"),
    [
        (lambda x: x, True),
        (lambda x: x.bfloat16().float(), False),
        (lambda x: (x.view(torch.int32) & -8192).view(torch.float32), False),  # TF32 keeps 10 of 23 bits
        (lambda x: x * float("nan"), False),
    ],
)
def test_the_trial_tells_float32_from_less(monkeypatch, rounded, accepted):
    exact = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w: exact(rounded(x), rounded(w)))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    before = setting()
    monkeypatch.setattr(matmul, "_onednn", lambda: fast_float32(torch.device("meta")))  # the trial's arithmetic alone
    assert onednn_is_float32.__wrapped__() is accepted
    assert setting() == before


def test_the_real_trial_leaves_nothing_behind():
    before = setting()
    assert onednn_is_float32.__wrapped__() in (True, False)
    assert setting() == before


def test_no_onednn_no_setting(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert onednn_is_float32.__wrapped__() is False
