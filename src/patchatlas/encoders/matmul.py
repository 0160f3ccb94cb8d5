"""Faster float32 matrix products on CPUs, switched on only where they prove to be float32.

torch multiplies float32 matrices with MKL. Told that bfloat16 would do, it takes oneDNN instead, which is faster on
AMD CPUs (1.0 to 1.1 times on the one of docs/benchmarks.md, twice on a newer one) and was right to float32 there. On
CPUs with matrix units for bfloat16 (AMX) it may use them, and is then no longer float32.
So a product is tried once a process, and the setting is used only if that product was right to float32.

The setting is torch's, for CPU matrix products of the whole process, and is in force while the encoder runs only.
Another thread that multiplies float32 on the CPU at that moment gets the same products, equally exact; one that asks
torch.get_float32_matmul_precision() at that moment gets an error from torch, which calls this a mix of two settings.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

TOLERANCE = 1e-5
"""Largest error of a product against float64, over the largest entry. float32 gives about 1e-6 here, bfloat16 3e-3."""


@contextmanager
def fast_float32(device: torch.device) -> Iterator[None]:
    """Within, float32 matrix products on `device` are as fast as they are without ceasing to be float32."""
    if device.type == "cpu" and onednn_is_float32():
        with _onednn():
            yield
    else:
        yield


@cache
def onednn_is_float32() -> bool:
    """Whether float32 matrix products through oneDNN are right to `TOLERANCE` on this CPU; tried once a process."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(256, 1024, generator=generator)
    right = torch.randn(512, 1024, generator=generator)
    with torch.no_grad(), _onednn():
        given = torch.nn.functional.linear(left, right).double()
    exact = left.double() @ right.double().T
    error = ((given - exact).abs().max() / exact.abs().max()).item()
    return math.isfinite(error) and error <= TOLERANCE


@contextmanager
def _onednn() -> Iterator[None]:
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
