"""Targets from the teacher: rows shared out evenly over the prototypes, over micro-batches, queue and ranks.

Axes: n rows of this call, m rows of the queue, k prototypes.

Sinkhorn and Knopp's scaling, as SwAV (Caron et al. 2020, arXiv 2006.09882) and DINOv2 (Oquab et al. 2023, arXiv
2304.07193) use it: columns to equal sums, then rows to sum 1, a fixed number of times. exp(logits / temperature)
overflows float32 above 3.5 at temperature 0.04 (facebookresearch/dinov2#583), and three rounds after the row's maximum
has been taken off give other targets, by up to 0.18, for the first round then sees rows of other mass. Logarithms of
the two scalings give the exact result and never overflow.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError, UsageError
from patchatlas.pretrain.losses.ranks import ALONE, Ranks


@torch.no_grad()
def sinkhorn(
    logits: Float[Tensor, "n k"],
    *,
    temperature: float,
    iterations: int = 3,
    row_weights: Float[Tensor, " n"] | None = None,
    queue: Float[Tensor, "m k"] | None = None,
    ranks: Ranks = ALONE,
) -> Float[Tensor, "n k"]:
    """Targets of the rows given: each sums to 1, and over all rows every prototype gets about the same.

    Rows of all micro-batches of a step belong in one call: split over several, each would share out its own few rows,
    and with fewer rows than prototypes in use that is noise. All ranks must call it, also one without rows.

    Args:
        logits: the teacher's, any float type; worked on in float32, or in float64 if given so.
        temperature: the lower, the closer targets are to one-hot.
        iterations: rounds of columns, then rows.
        row_weights: how much of the prototypes a row takes up, 0 or more; 1 if not given. A row of weight 0 gets a
            target and has no part in how others are shared out.
        queue: rows of earlier steps that take part with weight 1 and get no target back.
        ranks: the processes whose rows are shared out together.

    Raises:
        UsageError: a temperature or number of iterations that is not positive.
        ShapeError: row weights below 0.
    """
    if temperature <= 0 or iterations < 1:
        raise UsageError(f"temperature {temperature} and iterations {iterations} must be positive")
    rows = logits if logits.dtype == torch.float64 else logits.float()
    scaled = rows if queue is None else torch.cat([rows, queue.to(rows)])
    scaled = scaled / temperature
    log_mass = scaled.new_zeros(len(scaled), 1)
    if row_weights is not None:
        if bool((row_weights < 0).any()):
            raise ShapeError("row_weights must be 0 or more")
        log_mass[: len(rows)] = row_weights.to(scaled).log()[:, None]
    row_scale = scaled.new_zeros(len(scaled), 1)
    for _ in range(iterations):
        columns = torch.logsumexp(scaled - row_scale + log_mass, dim=0)
        column_scale = torch.logsumexp(ranks.gather(columns), dim=0)
        # A column without any row, where no rank has one that counts: leave it as it is.
        column_scale = torch.where(column_scale == -torch.inf, 0, column_scale)
        row_scale = torch.logsumexp(scaled - column_scale, dim=1, keepdim=True)
    return torch.exp(scaled - column_scale - row_scale)[: len(rows)]


class RowQueue:
    """The last rows that a rank has seen, oldest first: state that lives, and goes into checkpoints."""

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise UsageError(f"a queue holds 0 rows or more, given {capacity}")
        self._capacity = capacity
        self._rows: Tensor | None = None

    @property
    def rows(self) -> Tensor | None:
        """What is held, "m k" float32; None before anything was."""
        return self._rows

    @torch.no_grad()
    def push(self, logits: Float[Tensor, "n k"]) -> None:
        """Take in the rows that are finite and let the oldest go beyond the capacity.

        One row that is not would make every target NaN for as long as it is held.
        """
        if not self._capacity:
            return
        rows = logits.detach().float()
        rows = rows[rows.isfinite().all(1)]
        if not len(rows):
            return
        held = rows if self._rows is None else torch.cat([self._rows, rows])
        self._rows = held[-self._capacity :].clone()

    def state_dict(self) -> dict[str, Tensor]:
        """The rows, for a checkpoint; without any, an empty dict."""
        return {} if self._rows is None else {"rows": self._rows}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            ShapeError: more rows than the queue holds.
        """
        rows = state.get("rows")
        if rows is not None and len(rows) > self._capacity:
            raise ShapeError(f"{len(rows)} rows do not fit a queue of {self._capacity}; resume with the same queue")
        self._rows = None if rows is None else rows.clone()
