"""Bucket tables other than the usual one: written down by hand, or learnt from the sizes of the pictures."""

import json
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from patchatlas.errors import FormatError, ShapeError
from patchatlas.geometry.buckets import Hw, bucket_name, parse_bucket
from patchatlas.geometry.rounding import round_to_multiple

_UNIT = 2**30  # the part of a picture that a bucket keeps is counted in 1 / _UNIT


def parse_table(text: str) -> tuple[Hw, ...]:
    """A bucket table from text: one `WxH` a line, with comments after `#`, or a JSON list of such names.

    The order counts: of two buckets that are equally near to a picture the first wins.

    Raises:
        FormatError: something that is no bucket, a bucket that occurs twice, or no bucket at all.
    """
    if text.lstrip().startswith("["):
        try:
            names = json.loads(text)
        except ValueError as error:
            raise FormatError(f"a bucket table that begins with [ is a JSON list, this is none: {error}") from error
    else:
        names = [name for line in text.splitlines() if (name := line.partition("#")[0].strip())]
    table = tuple(parse_bucket(name) if isinstance(name, str) else _no_name(name) for name in names)
    twice = [bucket_name(bucket) for n, bucket in enumerate(table) if bucket in table[:n]]
    if twice:
        raise FormatError(f"the bucket table names {', '.join(twice)} twice; remove one")
    if not table:
        raise FormatError('the bucket table is empty; write at least one bucket, such as "1024x1024"')
    return table


def format_table(table: Sequence[Hw]) -> str:
    """A table in one line, as stamps hold it: `1024x1024,1216x832`."""
    return ",".join(bucket_name(bucket) for bucket in table)


def learn_table(
    sizes_hw: Sequence[Hw], *, count: int, area: int = 1024 * 1024, multiple: int = 64, max_ratio: int = 4
) -> tuple[Hw, ...]:
    """The `count` buckets that keep most of these pictures, each picture cut to the bucket that keeps most of it.

    Candidates are all sizes of about `area` whose sides are multiples of `multiple`. The choice among them is the best
    one there is, found by dynamic programming over their ratios, in whole numbers: the same sizes give the same table
    on every machine, in whatever order they come. (A bucket of ratio b keeps the part min(r/b, b/r) of a picture of
    ratio r, which falls with the distance of log r and log b: it is a clustering of log ratios, with centres that are
    bound to the candidates.)

    Args:
        sizes_hw: rows and columns of the upright pictures.
        count: how many buckets at most; those that no picture needs are left out.
        area: pixels of a bucket, to be met as nearly as the multiple allows.
        multiple: what the sides are multiples of.
        max_ratio: the longest side of a candidate over its shortest, at most.

    Returns:
        Buckets (h, w), from the tallest to the widest.

    Raises:
        ShapeError: no sizes, or a count that is not positive.
    """
    if not sizes_hw or count < 1:
        raise ShapeError(
            f"a table of {count} buckets cannot be learnt from {len(sizes_hw)} pictures; give some of both"
        )
    candidates = _candidates(area, multiple, max_ratio)
    sizes, times = np.unique(np.array(sizes_hw, dtype=np.int64), axis=0, return_counts=True)
    kept, wider = _kept(sizes, candidates)
    chosen = _best(kept, wider, times, min(count, len(candidates)))
    used = set(np.argmax(kept[chosen], axis=0).tolist())
    return tuple(candidates[c] for n, c in enumerate(chosen) if n in used)


def _candidates(area: int, multiple: int, max_ratio: int) -> list[Hw]:
    """All (h, w) of about the area, from the tallest to the widest: the square, and the best one for each side."""
    square = round_to_multiple(math.isqrt(area), multiple)
    found = {(square, square)}
    for short in range(multiple, square, multiple):
        long = round_to_multiple(Fraction(area, short), multiple)
        if short < long <= max_ratio * short:
            found |= {(short, long), (long, short)}
    return sorted(found, key=lambda hw: Fraction(hw[1], hw[0]))


def _kept(sizes_hw: np.ndarray, candidates: Sequence[Hw]) -> tuple[np.ndarray, np.ndarray]:
    """For each candidate and picture: the part that is kept, in `_UNIT`, and whether the picture is not narrower."""
    longest = int(sizes_hw.max()) * max(max(bucket) for bucket in candidates)
    whole = sizes_hw.astype(np.int64 if longest * _UNIT < 2**63 else object)  # Python's integers have no end
    across = np.stack([whole[:, 1] * bucket[0] for bucket in candidates])
    down = np.stack([whole[:, 0] * bucket[1] for bucket in candidates])
    return np.minimum(across, down) * _UNIT // np.maximum(across, down), across >= down


def _best(kept: np.ndarray, wider: np.ndarray, times: np.ndarray, count: int) -> list[int]:
    """The `count` candidates that keep most, as ascending indices; of equal choices the first.

    A picture is served by one of the two chosen candidates that its ratio lies between, so the sum splits into terms
    between neighbours, and the best choice that ends at a candidate extends the best that ends at one before.
    """
    n = len(kept)
    between = [[_gain(np.maximum(kept[i], kept[j]), wider[i] & ~wider[j], times) for j in range(n)] for i in range(n)]
    best = [(_gain(kept[j], ~wider[j], times), [j]) for j in range(n)]
    for _ in range(count - 1):
        best = [
            max(
                ((best[i][0] + between[i][j], [*best[i][1], j]) for i in range(n) if best[i][0] >= 0 and i < j),
                key=lambda choice: choice[0],
                default=(-1, []),
            )
            for j in range(n)
        ]
    ends = [(total + _gain(kept[j], wider[j], times), chosen) for j, (total, chosen) in enumerate(best) if chosen]
    return max(ends, key=lambda choice: choice[0])[1]


def _gain(kept: np.ndarray, which: np.ndarray, times: np.ndarray) -> int:
    return int((kept * times)[which].sum())


def _no_name(value: object) -> Hw:
    raise FormatError(f'{value!r} is no bucket; write its name, such as "1216x832", width first')
