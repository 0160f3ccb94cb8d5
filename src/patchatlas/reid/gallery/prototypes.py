"""What an identity looks like: a running mean, and the looks that it had last, of tracklets that are good enough.

The mean forgets: with every tracklet that is admitted the earlier ones count 0.9 of what they did. Beside it the last
few tracklets are kept as they are. A tracklet is admitted if it shows enough (seconds of good view) and resembles
somebody who has been admitted already, so that one wrong link does not change who an identity is.

Axes: n tracklets in the order in which they were seen, d features.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64
from numpy import ndarray

from patchatlas.errors import UsageError

FULL_WORTH_S = 2.0
"""Seconds of good view from which more of them do not make a tracklet count more; in linking within an episode it is 20
boxes, at the 10 a second that it was tuned at."""


@dataclass(frozen=True, kw_only=True)
class PrototypeRules:
    """What is kept of an identity.

    Attributes:
        keep: what the mean keeps of its past at each tracklet, 0..1.
        recent: tracklets kept as they are.
        least_seen_s: seconds of good view that a tracklet needs to be admitted; as in `LinkConfig`.

    Raises:
        UsageError: a number outside its range.
    """

    keep: float = 0.9
    recent: int = 8
    least_seen_s: float = 1.5

    def __post_init__(self) -> None:
        if not 0 <= self.keep < 1 or self.recent < 1 or self.least_seen_s < 0:
            raise UsageError(f"keep is 0 to below 1, recent 1 or more, least_seen_s 0 or more, given {self}")


@dataclass(frozen=True, eq=False)
class Prototypes:
    """What is kept.

    Attributes:
        mean: the running mean, unit length.
        recent: rows of the tracklets that are kept as they are, in order.
        admitted: which tracklets were admitted.
    """

    mean: Float64[ndarray, " d"]
    recent: tuple[int, ...]
    admitted: Bool[ndarray, " n"]


def weights_of(worth: Float[ndarray, " n"]) -> Float64[ndarray, " n"]:
    """What tracklets count by the seconds of good view that they have, above 0 to 1."""
    return np.sqrt(np.minimum(1.0, np.asarray(worth, np.float64) / FULL_WORTH_S)).clip(min=1e-6)


def prototypes_of(
    vectors: Float[ndarray, "n d"],
    worth: Float[ndarray, " n"],
    *,
    least_likeness: float,
    rules: PrototypeRules | None = None,
) -> Prototypes:
    """Go through the tracklets of one look of an identity, at least one, and keep what stands for it.

    Args:
        vectors: pooled looks, unit length, in the order in which they were seen.
        worth: seconds of good view of each.
        least_likeness: cosine with the most alike of those admitted that others need.
        rules: what is kept.
    """
    rules = rules or PrototypeRules()
    looks, worth = np.asarray(vectors, np.float64), np.asarray(worth, np.float64)
    weights = weights_of(worth)
    admitted = np.zeros(len(looks), dtype=bool)
    first = int(np.argmax(worth >= rules.least_seen_s)) if (worth >= rules.least_seen_s).any() else int(worth.argmax())
    admitted[first] = True
    mean = weights[first] * looks[first]
    for k in range(first + 1, len(looks)):
        alike = float((looks[admitted] @ looks[k]).max()) >= least_likeness
        if worth[k] >= rules.least_seen_s and alike:
            admitted[k] = True
            mean = rules.keep * mean + weights[k] * looks[k]
    recent = tuple(np.nonzero(admitted)[0][-rules.recent :].tolist())
    return Prototypes(mean / np.linalg.norm(mean), recent, admitted)
