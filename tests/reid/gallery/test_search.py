"""Nearest vectors: exact in blocks against a plain product, and the FAISS graph beside it."""

import json

import numpy as np
import pytest

from patchatlas.errors import MissingExtraError, UsageError
from patchatlas.reid.gallery.search import FaissGraph, nearest


def unit(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
def test_blocks_do_not_matter(block):
    vectors, queries = unit(50), unit(4, seed=1)
    cosines, rows = nearest(queries, (vectors[at : at + block] for at in range(0, 50, block)), hits=5)
    expected = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :5]
    assert rows.tolist() == expected.tolist()
    np.testing.assert_allclose(cosines, np.take_along_axis(queries @ vectors.T, expected, 1), atol=1e-6)


def test_of_equals_the_first_and_no_more_than_there_are():
    same = np.tile(unit(1), (3, 1))
    assert nearest(same[:1], [same[:2], same[2:]], hits=2)[1].tolist() == [[0, 1]]
    assert nearest(same[:1], [same], hits=9)[1].tolist() == [[0, 1, 2]]
    assert nearest(same[:1], [], hits=2)[1].shape == (1, 0)
    with pytest.raises(UsageError, match="at least one hit"):
        nearest(same[:1], [same], hits=0)


def test_the_graph_finds_what_the_exact_search_finds(tmp_path):
    vectors, queries = unit(600), unit(20, seed=1)
    path = tmp_path / "faiss" / "a.faiss"
    _, found = FaissGraph(path, {"1": vectors[:300], "2": vectors[300:]}).nearest(queries, hits=5)
    _, expected = nearest(queries, [vectors], hits=5)
    shared = [len({*mine} & {*theirs}) for mine, theirs in zip(found.tolist(), expected.tolist(), strict=True)]
    assert sum(shared) / 100 >= 0.95


def test_the_graph_grows_is_read_again_and_made_anew_when_damaged(tmp_path):
    vectors, path = unit(200), tmp_path / "a.faiss"
    FaissGraph(path, {"1": vectors[:100]})
    before = path.read_bytes()
    FaissGraph(path, {"1": vectors[:100]})
    assert path.read_bytes() == before
    grown = FaissGraph(path, {"1": vectors[:100], "2": vectors[100:]})
    assert json.loads(path.with_suffix(".json").read_text())["segments"] == ["1", "2"]
    assert grown.nearest(vectors[150:151], hits=1)[1].tolist() == [[150]]
    path.write_bytes(path.read_bytes()[:-10])
    assert FaissGraph(path, {"3": vectors[100:]}).nearest(vectors[150:151], hits=1)[1].tolist() == [[50]]
    # Other files of vectors, such as after they were put together: anew.
    assert FaissGraph(path, {"4": vectors}).nearest(vectors[150:151], hits=1)[1].tolist() == [[150]]


def test_without_faiss_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"patchatlas\[faiss\]"):
        FaissGraph(tmp_path / "a.faiss", {"1": unit(3)})
