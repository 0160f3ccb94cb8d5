"""Which device and which arithmetic: what the user asked for, or what this machine does best."""

from typing import Literal

import torch

from patchatlas.errors import UsageError

Precision = Literal["fp32", "bf16"]

TORCH_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def choose_device(device: str | torch.device) -> torch.device:
    """The device asked for; `auto` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        UsageError: no such device, or not on this machine.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device {device!r} is not known; use auto, cpu, cuda, cuda:N or mps") from error
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {device!r} is not supported; use auto, cpu, cuda, cuda:N or mps")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {device!r} is not on this machine ({torch.cuda.device_count()} CUDA devices); use auto or cpu"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' is not on this machine; use auto or cpu")
    return chosen


def choose_precision(dtype: str, device: torch.device) -> Precision:
    """The precision asked for; `auto` is bf16 where the hardware multiplies it, else fp32.

    Raises:
        UsageError: a precision that is not offered.
    """
    if dtype == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if dtype == "fp32":
        return "fp32"
    if dtype == "bf16":
        return "bf16"
    if dtype in ("fp16", "float16", "half"):
        raise UsageError(
            "fp16 is refused: DINOv3 does not support it (facebookresearch/dinov3 issue 181); use bf16 or fp32"
        )
    raise UsageError(f"dtype {dtype!r} is not known; use auto, fp32 or bf16")


def has_bf16(device: torch.device) -> bool:
    """Whether the device has matrix units or instructions for bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
