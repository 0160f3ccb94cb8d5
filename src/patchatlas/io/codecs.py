"""Arrays of features as file content and back: fp32, fp16 as NPY, bf16, int8 as safetensors; equal input, equal bytes.

NPY has no bf16, and a bare int8 array could be taken for features; so these two travel in safetensors files that hold
`values` and, for int8, `scale`. What does not fit a format is refused, never clipped or turned into infinity. Nothing
here unpickles.

Axes: d features; any axes before it.
"""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from safetensors.torch import save
from torch import Tensor

from patchatlas.errors import FormatError, InputError, ShapeError

StoredDtype = Literal["fp32", "fp16", "bf16", "int8"]
STORED_DTYPES: tuple[StoredDtype, ...] = get_args(StoredDtype)

Source = bytes | bytearray | memoryview | Path
"""The content of a whole file, or where the file lies."""

ARRAY_FORMAT = "patchatlas.array 1"
"""What the metadata of our safetensors files say under `format`; one key only, for several come in any order."""

INT8_STEPS = 127
"""Levels on either side of zero; -128 is not used, so that the range is symmetric and zero stays zero."""

_TORCH: dict[StoredDtype, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
}
# How the values lie in the file; NumPy has no bf16, so its bits are read as integers.
_NUMPY: dict[StoredDtype, str] = {"fp32": "<f4", "fp16": "<f2", "bf16": "<u2", "int8": "|i1"}
_IN_NPY: dict[str, StoredDtype] = {"<f4": "fp32", "<f2": "fp16"}
_IN_SAFETENSORS: dict[str, StoredDtype] = {"BF16": "bf16", "I8": "int8"}

# Our headers take 128 to 256 bytes; NumPy reads none beyond 10,000.
_HEAD = 10_240


@dataclass(frozen=True)
class ArrayHeader:
    """What a file says of its array before any value is read.

    Attributes:
        dtype: how the numbers are stored.
        shape: size along each axis.
        offset: byte of the file at which the values begin.
        scale_shape: for int8, shape of the scales, which broadcasts over the values; empty otherwise.
        scale_offset: for int8, byte at which the scales begin; 0 otherwise.
    """

    dtype: StoredDtype
    shape: tuple[int, ...]
    offset: int
    scale_shape: tuple[int, ...] = ()
    scale_offset: int = 0


def suffix(dtype: StoredDtype) -> str:
    """Ending of a file that holds this dtype: `.npy` or `.safetensors`."""
    return ".npy" if dtype in ("fp32", "fp16") else ".safetensors"


def value_bytes(shape: tuple[int, ...], dtype: StoredDtype, *, channel_axis: int = -1) -> int:
    """Bytes of the values, and for int8 of the scales, without the header of the file."""
    count = math.prod(shape) * _TORCH[dtype].itemsize
    return count + (4 * shape[channel_axis] if dtype == "int8" else 0)


def encode_array(values: Float32[Tensor, "..."], dtype: StoredDtype, *, channel_axis: int = -1) -> bytes:
    """The content of a file that holds `values`; a function of the values alone.

    int8 is symmetric with one scale a channel: scale = max |x| / 127 over the channel, stored value = round(x / scale),
    halves to even. So a channel that is large everywhere, as DINO models have (facebookresearch/dinov2#373), costs the
    others nothing. A channel of zeros has scale 0 and stays zero.

    Args:
        values: float32, on any device.
        dtype: how to store them.
        channel_axis: for int8, the axis that has a scale for each of its entries: the last for tokens (n, d), the first
            for latents (c, h, w).

    Raises:
        FormatError: NaN or infinity among the values, or a value beyond the range of `dtype`.
        ShapeError: an array without values, or int8 of one with fewer than two axes.
    """
    if values.numel() == 0:
        raise ShapeError(f"an array of shape {tuple(values.shape)} has no values to store")
    values = values.detach().cpu().contiguous()
    _require_range(values, dtype)
    if dtype == "int8":
        quantised, scale = _quantise(values, channel_axis)
        return save({"values": quantised, "scale": scale}, {"format": ARRAY_FORMAT})
    if dtype == "bf16":
        return save({"values": values.to(torch.bfloat16)}, {"format": ARRAY_FORMAT})
    array = values.to(_TORCH[dtype]).numpy().astype(_NUMPY[dtype], copy=False)
    header = io.BytesIO()
    # Version 1.0 is what every reader knows (NumPy reference, numpy.lib.format).
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return b"".join([header.getvalue(), array.data])


def decode_array(source: Source, dtype: StoredDtype) -> Float32[Tensor, "..."]:
    """The array of a file as float32, in memory of its own.

    Raises:
        InputError: there is no such file.
        FormatError: the content is cut short, has bytes to spare, is damaged, is another dtype, or would need pickle.
    """
    header = read_header(source, expect=dtype)
    array = _read(source, _NUMPY[dtype], header.shape, header.offset)
    values = torch.from_numpy(array).view(_TORCH[dtype]).to(torch.float32)
    if dtype == "int8":
        values.mul_(torch.from_numpy(_read(source, "<f4", header.scale_shape, header.scale_offset)))
    return values


def read_header(source: Source, *, expect: StoredDtype | None = None) -> ArrayHeader:
    """What a file says of its array; no value is read.

    Args:
        source: the file or its content.
        expect: refuse any other dtype.

    Raises:
        InputError: there is no such file.
        FormatError: it is neither of our two kinds of file, its length is not what its header says, or the dtype is not
            the expected one.
    """
    if isinstance(source, Path):
        if not source.is_file():
            raise InputError(f"there is no file {source}")
        name, size = str(source), source.stat().st_size
        with source.open("rb") as handle:
            head = handle.read(_HEAD)
    else:
        name, size, head = "the array", len(source), bytes(source[:_HEAD])
    try:
        header, end = _npy_header(head) if head.startswith(b"\x93NUMPY") else _safetensors_header(head)
    except FormatError as error:
        raise FormatError(f"{name} cannot be read as features: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, SyntaxError) as error:  # of damaged headers
        raise FormatError(f"{name} is damaged or no file of features: {error}; make it again") from error
    if size != end:
        raise FormatError(f"{name} has {size} bytes where its header announces {end}; make it again")
    if expect is not None and header.dtype != expect:
        raise FormatError(f"{name} holds {header.dtype} values, expected {expect}")
    return header


def _require_range(values: Tensor, dtype: StoredDtype) -> None:
    """Refuse NaN, infinity and what `dtype` cannot hold."""
    low, high = (bound.item() for bound in torch.aminmax(values))  # one pass; NaN comes through
    if not (math.isfinite(low) and math.isfinite(high)):
        nans, infinite = int(values.isnan().sum()), int(values.isinf().sum())
        raise FormatError(
            f"{nans} NaN and {infinite} infinite among {values.numel()} values are not stored; "
            "encode in fp32 and check the weights"
        )
    # int8 scales itself, and fp32 holds what it holds.
    limit = math.inf if dtype in ("fp32", "int8") else torch.finfo(_TORCH[dtype]).max
    if max(-low, high) > limit:
        raise FormatError(
            f"a value of size {max(-low, high):.6g} does not fit {dtype}, which ends at {limit:.6g}; "
            f"store as {'bf16, int8 or fp32' if dtype == 'fp16' else 'fp32'}"
        )


def _quantise(values: Tensor, channel_axis: int) -> tuple[Tensor, Tensor]:
    """int8 values, and float32 scales of a shape that broadcasts over them."""
    if values.ndim < 2:
        raise ShapeError(f"int8 needs channels with several values each, given shape {tuple(values.shape)}; take fp32")
    others = [axis for axis in range(values.ndim) if axis != channel_axis % values.ndim]
    scale = values.abs().amax(dim=others, keepdim=True) / INT8_STEPS
    quantised = (values / torch.where(scale > 0, scale, 1.0)).round_()
    return quantised.clamp_(-INT8_STEPS, INT8_STEPS).to(torch.int8), scale


def _read(source: Source, dtype: str, shape: tuple[int, ...], offset: int) -> ndarray:
    """`shape` numbers from byte `offset` on, in memory of their own."""
    count = math.prod(shape)
    if isinstance(source, Path):
        return np.fromfile(source, dtype, count, offset=offset).reshape(shape)
    return np.frombuffer(source, dtype, count, offset).reshape(shape).copy()


def _npy_header(head: bytes) -> tuple[ArrayHeader, int]:
    """The header of an NPY file and the length that the file must have."""
    handle = io.BytesIO(head)
    version = np.lib.format.read_magic(handle)
    if version != (1, 0):
        raise FormatError(f"it is NPY of version {version}; features are version 1.0")
    shape, columns_first, dtype = np.lib.format.read_array_header_1_0(handle)
    if dtype.hasobject:
        raise FormatError("it holds pickled objects, which are never loaded")
    if dtype.str not in _IN_NPY or columns_first:
        raise FormatError(
            f"it holds {'column-major ' if columns_first else ''}{dtype}; features are row-major float32 or float16"
        )
    header = ArrayHeader(_IN_NPY[dtype.str], tuple(shape), handle.tell())
    return header, header.offset + math.prod(shape) * dtype.itemsize


def _safetensors_header(head: bytes) -> tuple[ArrayHeader, int]:
    """The header of a safetensors file of ours and the length that the file must have.

    The file begins with the length of its JSON header (8 bytes, low first); offsets count from the header's end
    (safetensors README, "Format").
    """
    begin = 8 + int.from_bytes(head[:8], "little")
    if len(head) < 8 or begin > len(head):
        raise FormatError("it is neither NPY nor a small safetensors file, or it is cut short")
    tensors = json.loads(head[8:begin])
    if tensors.pop("__metadata__", {}).get("format") != ARRAY_FORMAT:
        raise FormatError(f"its metadata do not say {ARRAY_FORMAT!r}")
    dtype = _IN_SAFETENSORS[tensors["values"]["dtype"]]
    if set(tensors) != ({"values", "scale"} if dtype == "int8" else {"values"}):
        raise FormatError(
            f"it holds {', '.join(sorted(tensors))}; {dtype} has values{' and scale' * (dtype == 'int8')}"
        )
    spans = {name: _span(tensor, begin) for name, tensor in tensors.items()}
    shape, offset, end = spans["values"]
    if dtype != "int8":
        return ArrayHeader(dtype, shape, offset), end
    scale_shape, scale_offset, scale_end = spans["scale"]
    fits = len(scale_shape) == len(shape) and all(s in (1, n) for s, n in zip(scale_shape, shape, strict=True))
    if tensors["scale"]["dtype"] != "F32" or not fits:
        raise FormatError(f"its scale of shape {scale_shape} does not fit values of {shape}")
    return ArrayHeader(dtype, shape, offset, scale_shape, scale_offset), max(end, scale_end)


def _span(tensor: dict[str, Any], begin: int) -> tuple[tuple[int, ...], int, int]:
    """Shape, first byte and end of a tensor, after checking that they agree."""
    sizes = {"BF16": 2, "I8": 1, "F32": 4}
    shape, (low, high), dtype = tensor["shape"], tensor["data_offsets"], tensor["dtype"]
    if not all(type(n) is int and n >= 0 for n in (*shape, low, high)):
        raise FormatError("its header holds sizes that are no whole numbers")
    if high - low != math.prod(shape) * sizes[dtype]:
        raise FormatError(f"{high - low} bytes do not hold {shape} values of {dtype}")
    return tuple(shape), begin + low, begin + high
