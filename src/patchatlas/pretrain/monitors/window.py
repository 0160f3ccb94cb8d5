"""What is remembered of past steps: softmax over many rows, and features of foreground, background and class tokens.

Axes: n rows of a step, k prototypes, m rows held, v global views, b samples, d features. Both are state that lives, and
go into checkpoints. Held on the device that the rows come from.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError, UsageError

_PARTS = 16
"""A window moves on by this part of its rows, so that it holds few tables of K numbers."""


class RowWindow:
    """Sums over the last rows of teacher logits, before Sinkhorn: what prototypes the network itself prefers."""

    def __init__(self, rows: int) -> None:
        if rows < 1:
            raise UsageError(f"a window holds 1 row or more, given {rows}")
        self._capacity = rows
        self._parts: list[_Part] = []

    @property
    def full(self) -> bool:
        """Whether enough rows have been seen for its numbers to mean something."""
        return sum(part.rows for part in self._parts) >= self._capacity

    @torch.no_grad()
    def push(self, logits: Float[Tensor, "n k"], *, temperature: float) -> None:
        """Add rows; the oldest go, a sixteenth of the window at a time."""
        if not len(logits):
            return
        probs = torch.softmax(logits.float() / temperature, dim=-1).sum(0, dtype=torch.float64)
        hits = logits.argmax(-1).bincount(minlength=logits.shape[1])
        if self._parts and self._parts[-1].rows < self._capacity / _PARTS:
            self._parts[-1] = self._parts[-1].plus(len(logits), probs, hits)
        else:
            self._parts.append(_Part(len(logits), probs, hits))
        while sum(part.rows for part in self._parts[1:]) >= self._capacity:
            del self._parts[0]

    def numbers(self) -> dict[str, float]:
        """`marginal_entropy`, of the mean softmax over ln K; `dead_prototypes`, share that no row was nearest to.

        Empty until the window is full.
        """
        if not self.full:
            return {}
        mean = torch.stack([part.probs for part in self._parts]).sum(0)
        mean = mean / mean.sum()
        hits = torch.stack([part.hits for part in self._parts]).sum(0)
        entropy = torch.special.entr(mean).sum() / torch.log(torch.tensor(float(len(mean)), dtype=torch.float64))
        return {"marginal_entropy": float(entropy), "dead_prototypes": float((hits == 0).double().mean())}

    def state_dict(self) -> dict[str, Any]:
        """All that is held."""
        return {"parts": [(part.rows, part.probs, part.hits) for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self._parts = [_Part(rows, probs, hits) for rows, probs, hits in state["parts"]]


@dataclass(frozen=True)
class _Part:
    rows: int
    probs: Tensor
    hits: Tensor

    def plus(self, rows: int, probs: Tensor, hits: Tensor) -> "_Part":
        return _Part(self.rows + rows, self.probs + probs, self.hits + hits)


class FeatureQueue:
    """The last features of one kind, oldest first, float32."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise UsageError(f"a queue holds 1 row or more, given {capacity}")
        self._capacity = capacity
        self._held: Tensor | None = None

    @property
    def held(self) -> Tensor | None:
        """Rows of any shape, "m ..."; None before there were any."""
        return self._held

    @torch.no_grad()
    def push(self, rows: Float[Tensor, "n *any"]) -> None:
        """Take in rows and let the oldest go.

        Raises:
            ShapeError: rows of another shape than those held.
        """
        if not len(rows):
            return
        rows = rows.detach().float()
        if self._held is not None and self._held.shape[1:] != rows.shape[1:]:
            raise ShapeError(f"rows of shape {tuple(rows.shape[1:])} beside {tuple(self._held.shape[1:])}")
        self._held = (rows if self._held is None else torch.cat([self._held, rows]))[-self._capacity :].clone()

    def state_dict(self) -> dict[str, Tensor]:
        """All that is held."""
        return {} if self._held is None else {"held": self._held}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what `state_dict` gave."""
        self._held = state.get("held")
