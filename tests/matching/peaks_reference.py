"""Peaks of one map at a time, cell by cell: slow, and plain enough to be read as the definition."""

import itertools
import math

import numpy as np

Cell = tuple[int, ...]


def find_peaks(similarity: np.ndarray, scored: np.ndarray, *, radius: float, count: int) -> list[Cell]:
    """At most `count` cells, best first, each farther than `radius` from all before it."""
    cells = sorted((c for c in np.ndindex(similarity.shape) if scored[c]), key=lambda c: (-similarity[c], c))
    found: list[Cell] = []
    for cell in cells:
        if len(found) < count and all(math.dist(cell, other) > radius for other in found):
            found.append(cell)
    return found


def refine(similarity: np.ndarray, scored: np.ndarray, cell: Cell) -> tuple[float, ...]:
    """The top of the parabola along each axis, x first."""
    at = [i + 0.5 for i in cell]
    for axis, i in enumerate(cell):
        low, high = ((*cell[:axis], i + step, *cell[axis + 1 :]) for step in (-1, 1))
        if i == 0 or i == similarity.shape[axis] - 1 or not (scored[low] and scored[high]):
            continue
        a, b, c = float(similarity[low]), float(similarity[cell]), float(similarity[high])
        if max(a, c) <= b and a - 2 * b + c < 0:
            at[axis] += (a - c) / (2 * (a - 2 * b + c))
    return tuple(reversed(at))


def shape_about(
    similarity: np.ndarray, scored: np.ndarray, at: tuple[float, ...], *, reach: int
) -> tuple[np.ndarray, float]:
    """Second moments about `at`, x first, and entropy of what stands above half height."""
    own = [int(a) for a in reversed(at)]
    spans = [range(max(0, i - reach), min(n, i + reach + 1)) for i, n in zip(own, similarity.shape, strict=True)]
    near = [c for c in itertools.product(*spans) if scored[c]]
    half = (max(similarity[c] for c in near) + similarity[scored].mean()) / 2
    mass = {c: max(0.0, float(similarity[c]) - half) for c in near}
    if not any(mass.values()):
        mass = dict.fromkeys(near, 1.0)
    total = sum(mass.values())
    entropy = -sum(m / total * math.log(m / total) for m in mass.values() if m) / math.log(max(2, len(near)))
    moments = np.eye(len(at)) / 12
    for cell, m in mass.items():
        away = np.array([i + 0.5 for i in reversed(cell)]) - at
        moments += m / total * np.outer(away, away)
    return moments, entropy
