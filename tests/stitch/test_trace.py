"""The trace writes a line at each boundary when asked, and does nothing at all when not."""

import hashlib
import json
import tracemalloc

import numpy as np
import pytest
import torch

from patchatlas.errors import FormatError, InputError
from patchatlas.stitch import trace as traces
from patchatlas.stitch.trace import VARIABLE, FileTrace, Trace, describe, read_trace, start_trace


def test_off_by_default_and_free(monkeypatch):
    trace = start_trace(environment={})
    assert type(trace) is Trace
    monkeypatch.setattr(traces, "describe", lambda _: pytest.fail("an idle trace looked at an array"))
    trace("tiles", torch.ones(3, 1, 4, 4), origin=[1, 2])


def test_argument_before_environment(tmp_path, monkeypatch):
    by_argument, by_variable = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    assert start_trace(by_argument, environment={VARIABLE: str(by_variable)}).path == by_argument
    assert start_trace(environment={VARIABLE: str(by_variable)}).path == by_variable
    monkeypatch.setenv(VARIABLE, str(by_variable))
    assert start_trace().path == by_variable
    monkeypatch.delenv(VARIABLE)
    assert type(start_trace()) is Trace


def test_a_line_for_each_stage(tmp_path):
    path = tmp_path / "trace.jsonl"
    positions = np.array([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0], [np.nan, 5.0]])
    trace = start_trace(path)
    trace("positions", positions, order="xy")
    assert len(read_trace(path)) == 1  # there at once, not when the run ends
    trace("tiles", torch.tensor([[3 + 4j, 0], [1j, 2]]))
    start_trace(path)("canvas", torch.zeros(1, 2, 2))
    first, second, third = read_trace(path)
    assert first == {
        "stage": "positions",
        "shape": [4, 2],
        "dtype": "float64",
        "min": 0.0,
        "max": 5.0,
        "mean": 12 / 7,
        "std": pytest.approx(np.std([0, 1, 2, 3, 0, 1, 5])),
        "not_finite": 1,
        "unique_rows": 3,
        "sha256": hashlib.sha256(positions.astype("<f8").tobytes()).hexdigest(),
        "order": "xy",
    }
    assert (second["stage"], second["dtype"], second["min"], second["max"]) == ("tiles", "complex64", 0.0, 5.0)
    assert second["unique_rows"] == 2
    assert (third["stage"], third["unique_rows"]) == ("canvas", 1)


@pytest.mark.parametrize(
    "array",
    [np.arange(6, dtype=">i4").reshape(2, 3), np.asfortranarray(np.arange(6, dtype="<i4").reshape(2, 3))],
)
def test_hash_is_of_the_numbers_not_of_their_storage(array):
    assert describe(array)["sha256"] == describe(np.arange(6, dtype=np.int32).reshape(2, 3))["sha256"]
    assert describe(array)["sha256"] != describe(np.arange(6, dtype=np.int32).reshape(2, 3) + 1)["sha256"]


def test_arrays_of_every_kind_are_described():
    assert describe(torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True))["dtype"] == "bfloat16"
    assert describe(torch.ones(2, dtype=torch.complex64).conj())["max"] == 1.0
    assert describe(np.zeros((0, 2))) == {
        **{"shape": [0, 2], "dtype": "float64", "min": None, "max": None, "mean": None, "std": None},
        **{"not_finite": 0, "unique_rows": 0, "sha256": hashlib.sha256(b"").hexdigest()},
    }
    json.dumps(describe(np.array([np.inf, np.nan])), allow_nan=False)


@pytest.mark.parametrize("shape", [(5000, 3), (3, 5000), (40, 2, 9, 11), (7000,), ()])
@pytest.mark.parametrize("kind", [np.float64, np.complex64, np.int32, bool])
def test_portions_change_nothing(monkeypatch, shape, kind):
    numbers = np.random.default_rng(0).normal(3, 2, shape)
    array = np.asarray(np.round(numbers).astype(kind))
    if array.ndim and kind == np.float64:
        array.reshape(-1)[::7] = np.nan
        array.reshape(-1)[5] = -np.inf
    whole = describe(array)
    monkeypatch.setattr(traces, "PORTION", 100)
    assert describe(array) == {**whole, **{key: pytest.approx(whole[key], rel=1e-12) for key in ("mean", "std")}}
    values = np.abs(array) if kind == np.complex64 else array
    values = values[np.isfinite(values)].astype(float)
    assert whole["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert whole["std"] == pytest.approx(values.std(), rel=1e-6)


def test_a_mapped_file_is_read_in_portions(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4000, 1, 32, 32), np.complex64))  # 33 MB
    tiles = torch.from_numpy(np.load(tmp_path / "a.npy", mmap_mode="c"))
    tracemalloc.start()
    try:
        told = describe(tiles)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told["unique_rows"] == 1
    assert peak < 12 << 20


def test_a_place_that_cannot_be_written_is_refused_before_the_run(tmp_path):
    with pytest.raises(InputError, match="cannot write the trace"):
        FileTrace(tmp_path / "absent" / "trace.jsonl")


@pytest.mark.parametrize(
    ("text", "message"), [('{"stage": "a"}\n{"stage": "b', "line 2 is no JSON"), ("[1]", "no stage")]
)
def test_broken_traces_are_refused(tmp_path, text, message):
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_trace(path)
