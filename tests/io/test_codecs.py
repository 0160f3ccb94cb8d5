"""Arrays to bytes and back: what each format keeps, what it refuses, and what damaged files say."""

import hashlib
import io
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from patchatlas.errors import FormatError, InputError, ShapeError
from patchatlas.io.codecs import (
    STORED_DTYPES,
    StoredDtype,
    decode_array,
    encode_array,
    read_header,
    suffix,
    value_bytes,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


shapes = st.lists(st.integers(1, 6), min_size=2, max_size=3).map(tuple)


@given(shape=shapes, seed=st.integers(0, 999), power=st.integers(-20, 4))
@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_what_comes_back_is_within_the_step_of_the_format(dtype, shape, seed, power):
    values = noise(*shape, seed=seed) * 2.0**power
    back = decode_array(encode_array(values, dtype), dtype)
    if dtype == "fp32":
        assert torch.equal(back, values)
    elif dtype == "fp16":
        np.testing.assert_array_equal(back.numpy(), values.numpy().astype(np.float16).astype(np.float32))
    elif dtype == "bf16":
        assert torch.all((back - values).abs() <= values.abs() * 2**-8)
    else:
        step = values.abs().amax(dim=tuple(range(values.ndim - 1))) / 127
        assert torch.all((back - values).abs() <= step / 2 * (1 + 1e-5))


@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_equal_values_are_equal_bytes_however_they_lie_in_memory(dtype):
    values = noise(6, 4)
    content = encode_array(values, dtype)
    assert content == encode_array(values.T.contiguous().T, dtype)
    assert content == encode_array(values.clone(), dtype)


@pytest.mark.parametrize(
    ("dtype", "digest"), [("fp32", "feb2d899"), ("fp16", "06eb0507"), ("bf16", "fc3646b0"), ("int8", "0c1537d1")]
)
def test_bytes_are_the_same_in_every_process_and_for_ever(dtype, digest):
    """The safetensors library shuffles metadata from run to run; a single key cannot be shuffled."""
    content = encode_array(torch.arange(12.0).reshape(4, 3), dtype)
    assert hashlib.sha256(content).hexdigest()[:8] == digest


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_npy_files_are_what_numpy_writes_and_reads(dtype):
    values = noise(5, 3)
    written = io.BytesIO()
    np.save(written, values.numpy().astype({"fp32": np.float32, "fp16": np.float16}[dtype]))
    assert encode_array(values, dtype) == written.getvalue()


@pytest.mark.parametrize(("dtype", "keys"), [("bf16", {"values"}), ("int8", {"values", "scale"})])
def test_safetensors_files_open_with_the_library(dtype, keys):
    stored = load(encode_array(noise(5, 3), dtype))
    assert set(stored) == keys
    assert stored["values"].shape == (5, 3)


def test_int8_by_hand():
    values = torch.tensor([[1.27, -254.0, 0.0], [-0.635, 127.0, 0.0]])
    stored = load(encode_array(values, "int8"))
    torch.testing.assert_close(stored["scale"], torch.tensor([[0.01, 2.0, 0.0]]))
    assert stored["values"].tolist() == [[127, -127, 0], [-64, 64, 0]]  # -63.5 and 63.5 go to the even neighbour
    torch.testing.assert_close(
        decode_array(encode_array(values, "int8"), "int8"), torch.tensor([[1.27, -254.0, 0], [-0.64, 128.0, 0]])
    )


def test_int8_scales_latents_by_their_first_axis():
    values = noise(3, 4, 5) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    content = encode_array(values, "int8", channel_axis=0)
    assert read_header(content).scale_shape == (3, 1, 1)
    error = (decode_array(content, "int8") - values).abs().amax(dim=(1, 2))
    assert torch.all(error <= values.abs().amax(dim=(1, 2)) / 254 * (1 + 1e-5))


@pytest.mark.parametrize("dtype", STORED_DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_format_takes_nan_or_infinity(dtype, bad):
    values = noise(4, 3)
    values[2, 1] = bad
    counted = "1 NaN and 0 infinite" if math.isnan(bad) else "0 NaN and 1 infinite"
    with pytest.raises(FormatError, match=counted):
        encode_array(values, dtype)


def test_fp16_ends_at_65504():
    values = torch.tensor([[65504.0, -65504.0]])
    assert torch.equal(decode_array(encode_array(values, "fp16"), "fp16"), values)
    for beyond in (65505.0, -1e6):
        with pytest.raises(FormatError, match=r"does not fit fp16, which ends at 65504; store as bf16, int8 or fp32"):
            encode_array(torch.tensor([[1.0, beyond]]), "fp16")
    for dtype in ("fp32", "bf16", "int8"):
        assert decode_array(encode_array(torch.tensor([[1.0, 1e6]]), dtype), dtype)[0, 1] == pytest.approx(
            1e6, rel=4e-3
        )


def test_bf16_ends_too():
    with pytest.raises(FormatError, match="does not fit bf16"):
        encode_array(torch.tensor([3.4028e38]), "bf16")


def test_empty_arrays_and_int8_vectors_are_refused():
    with pytest.raises(ShapeError, match="no values"):
        encode_array(torch.zeros(0, 3), "fp32")
    with pytest.raises(ShapeError, match="several values"):
        encode_array(torch.ones(3), "int8")


@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_content_and_file_are_read_alike(dtype, tmp_path):
    values = noise(7, 5)
    content = encode_array(values, dtype)
    path = tmp_path / f"a{suffix(dtype)}"
    path.write_bytes(content)
    from_bytes = decode_array(content, dtype)
    assert torch.equal(decode_array(path, dtype), from_bytes)
    assert torch.equal(decode_array(memoryview(bytearray(content)), dtype), from_bytes)
    assert read_header(path) == read_header(content)
    assert read_header(path).shape == (7, 5)
    assert len(content) - value_bytes((7, 5), dtype) in range(100, 256)  # the header


@pytest.mark.parametrize("dtype", STORED_DTYPES)
@pytest.mark.parametrize("stored", STORED_DTYPES)
def test_another_dtype_is_refused(dtype, stored):
    content = encode_array(noise(4, 3), stored)
    if dtype == stored:
        assert decode_array(content, dtype).shape == (4, 3)
    else:
        with pytest.raises(FormatError, match=f"holds {stored} values, expected {dtype}"):
            decode_array(content, dtype)


@given(cut=st.integers(0, 500), dtype=st.sampled_from(STORED_DTYPES))
def test_every_cut_is_seen(cut, dtype: StoredDtype):
    content = encode_array(noise(8, 6), dtype)
    shorter = content[: min(cut, len(content) - 1)]
    with pytest.raises(FormatError):
        decode_array(shorter, dtype)
    with pytest.raises(FormatError, match="make it again"):
        decode_array(content + b"\0" * (cut + 1), dtype)


def saved(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=allow_pickle)
    return written.getvalue()


class Explosive:
    """Unpickling it would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither NPY nor"),
        (b"\x93NUMPY", "damaged"),
        (b"\x93NUMPY\x02\x00" + b"\0" * 20, "version"),
        (pickle.dumps(Explosive()), "neither NPY nor"),
        (saved(np.array([Explosive()], dtype=object), allow_pickle=True), "pickled objects"),
        (saved(np.zeros((3, 2))), "float64"),
        (saved(np.zeros((3, 2), dtype=">f4")), ">f4"),
        (saved(np.zeros((3, 2), dtype="<i2")), "int16"),
        (saved(np.asfortranarray(np.zeros((3, 2), dtype=np.float32))), "column-major"),
        (save({"values": torch.zeros(3, 2, dtype=torch.int8)}), "metadata"),
        (save({"values": torch.zeros(3, 2, dtype=torch.int8)}, {"format": "patchatlas.array 1"}), "values and scale"),
        (save({"values": torch.zeros(3, 2)}, {"format": "patchatlas.array 1"}), "F32"),
        (
            save(
                {"values": torch.zeros(3, 2, dtype=torch.int8), "scale": torch.ones(1, 3)},
                {"format": "patchatlas.array 1"},
            ),
            "does not fit",
        ),
        ((40).to_bytes(8, "little") + b"[1, 2, 3]".ljust(40), "damaged"),
        ((40).to_bytes(8, "little") + b"{'no': json}".ljust(40), "damaged"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "neither NPY nor"),
    ],
)
def test_what_is_no_file_of_features_is_refused_and_nothing_is_unpickled(content, message, tmp_path):
    path = tmp_path / "planted.npy"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(FormatError, match=message):
            read_header(source)
        with pytest.raises(FormatError):
            decode_array(source, "fp32")
    with pytest.raises(FormatError, match=r"planted\.npy"):
        read_header(path)


@pytest.mark.parametrize("changed", ['"shape":[3,3]', '"shape":[-3,-2]', '"shape":[3,2.0]', '"shape":6'])
def test_a_safetensors_header_that_contradicts_itself_is_refused(changed):
    content = encode_array(noise(3, 2), "bf16")
    planted = content.replace(b'"shape":[3,2]', changed.encode().ljust(len(b'"shape":[3,2]')))
    length = int.from_bytes(content[:8], "little") + len(planted) - len(content)
    with pytest.raises(FormatError):
        read_header(length.to_bytes(8, "little") + planted[8:])


def test_an_absent_file_is_named():
    with pytest.raises(InputError, match=r"no file absent\.npy"):
        decode_array(Path("absent.npy"), "fp32")
