"""Which stored vectors are most like those asked for: exact, block by block, or with a FAISS graph for large galleries.

Both only choose whom to compare with; how alike they are is computed anew, in float64.

Axes: q queries, n vectors, m vectors of a block, k hits, d features.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from patchatlas.errors import MissingExtraError, UsageError
from patchatlas.files import replacing, write_text
from patchatlas.io.disk import disk_errors

Index = Literal["exact", "faiss"]

BLOCK_ROWS = 8192
"""Vectors compared at a time; 25 MB at 768 features."""

NEIGHBOURS, EFFORT = 32, 128
"""Links a node, and nodes looked at while building and searching the graph (Malkov and Yashunin, arXiv 1603.09320,
section 4.1: 5 to 48 links; more effort finds more)."""


def nearest(
    queries: Float32[ndarray, "q d"], blocks: Iterable[Float32[ndarray, "_m d"]], *, hits: int
) -> tuple[Float32[ndarray, "q k"], Int64[ndarray, "q k"]]:
    """The rows with the highest cosine to each query, best first; of equals the first row.

    Args:
        queries: unit length.
        blocks: the vectors, unit length, in order.
        hits: how many; fewer where there are fewer vectors.

    Returns:
        Cosines and rows.
    """
    if hits < 1:
        raise UsageError(f"at least one hit must be asked for, given {hits}")
    cosines = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    begin = 0
    for block in blocks:
        cosines = np.concatenate([cosines, queries @ block.T], axis=1)
        rows = np.concatenate(
            [rows, np.broadcast_to(np.arange(begin, begin + len(block)), (len(queries), len(block)))], 1
        )
        begin += len(block)
        best = np.lexsort((rows, -cosines), axis=1)[:, :hits]
        cosines, rows = np.take_along_axis(cosines, best, 1), np.take_along_axis(rows, best, 1)
    return cosines, rows


class FaissGraph:
    """A navigable small world graph of all vectors, kept in a file beside them (HNSW, arXiv 1603.09320).

    It only grows: vectors that no longer count are for the caller to pass over. The file is a cache; it is made anew
    where it is absent or of other vectors.

    Args:
        path: of the file, `.faiss`; its list of vectors lies beside it as `.json`.
        segments: name and vectors of each file of vectors, in order.

    Raises:
        MissingExtraError: faiss is not installed.
        ResourceError: the file cannot be written.
    """

    def __init__(self, path: Path, segments: dict[str, ndarray]) -> None:
        try:
            import faiss
        except ImportError as error:
            raise MissingExtraError("faiss-cpu", extra="faiss", needed_for="a gallery with index faiss") from error
        names = list(segments)
        held = _listed(path)
        if held and held == names[: len(held)]:
            self._graph: Any = faiss.read_index(str(path))  # a class that the wrapper makes up at run time
        else:
            held = []
            dim = next(iter(segments.values())).shape[1]
            self._graph = faiss.IndexHNSWFlat(dim, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            self._graph.hnsw.efConstruction = EFFORT
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # with more, the graph differs from run to run
        try:
            for name in names[len(held) :]:
                self._graph.add(np.ascontiguousarray(segments[name]))
        finally:
            faiss.omp_set_num_threads(threads)
        if held != names:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
                with replacing(path) as temporary:
                    faiss.write_index(self._graph, str(temporary))
                write_text(path.with_suffix(".json"), json.dumps({"sha256": _digest(path), "segments": names}) + "\n")

    def nearest(
        self, queries: Float32[ndarray, "q d"], *, hits: int
    ) -> tuple[Float32[ndarray, "q k"], Int64[ndarray, "q k"]]:
        """As the function `nearest`, but a few of the nearest may be missed; rows count through all segments."""
        self._graph.hnsw.efSearch = max(EFFORT, 2 * hits)
        cosines, rows = self._graph.search(np.ascontiguousarray(queries), min(hits, self._graph.ntotal))
        return cosines, rows


def _listed(path: Path) -> list[str]:
    """The files whose vectors a graph holds, none where the graph is absent or damaged."""
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return list(content["segments"]) if content["sha256"] == _digest(path) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
