"""What a weights file says it holds: names, shapes and dtypes of its tensors, read without their numbers.

Tensors are given on the meta device, which has shapes and no data.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchatlas.encoders.checkpoint import read_pickled
from patchatlas.errors import WeightsError

LONGEST_HEADER = 100_000_000
"""Bytes; the safetensors library reads no longer one (its README, "Format")."""

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
}  # fmt: skip
"""Names of dtypes in safetensors headers."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What one file says it holds.

    Attributes:
        tensors: by name, on the meta device.
        metadata: of a safetensors header, empty for other files.
        expected_bytes: how long the file must be by its own header; `None` where the format does not tell.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    expected_bytes: int | None


def read_outline(file: Path) -> Outline:
    """The outline of a weights file.

    Raises:
        WeightsError: not a readable header, or a pickle that is damaged or holds code.
    """
    if file.suffix == ".safetensors":
        return _of_safetensors(file)
    tensors = {key: value.to("meta") for key, value in read_pickled(file).items()}
    # a zip archive ends in its table of contents, so one that opens is as long as it was written
    whole = file.stat().st_size if zipfile.is_zipfile(file) else None
    return Outline(tensors=tensors, metadata={}, expected_bytes=whole)


def _of_safetensors(file: Path) -> Outline:
    """Eight bytes, low first, give the length of a JSON header; data follows it without gaps (safetensors README)."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        content = handle.read(length) if length <= LONGEST_HEADER else b""
    try:
        header: dict[str, Any] = json.loads(content)
        metadata = header.pop("__metadata__", {})
        tensors = {
            key: torch.empty(facts["shape"], dtype=DTYPES[facts["dtype"]], device="meta")
            for key, facts in header.items()
        }
        ends = [int(facts["data_offsets"][1]) for facts in header.values()]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{file.name} has no readable safetensors header ({reason}): it is cut short, or it is another file, such "
            "as a web page saved under that name; download it again"
        ) from error
    return Outline(tensors=tensors, metadata=metadata, expected_bytes=8 + length + max(ends, default=0))
