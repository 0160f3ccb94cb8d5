"""What verifying weights gives: a list of checks, each passed, failed or skipped, with what was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at.

    Attributes:
        name: `files`, `size`, `index`, `sha256`, `layout`, `tensors`, `config`, `model`, `values` or `forward`.
        state: `skipped` where there was nothing to compare with, or an earlier failure leaves nothing to look at.
        found: what was found; in a failure, also what to do.
    """

    name: str
    state: State
    found: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was found about one name or path.

    Attributes:
        subject: as the user named it.
        path: the file or folder that it stands for, if there is one.
        sha256: of the weights, if they could be read.
        model: names in the catalogue that the weights may have, more than one where shapes cannot tell.
        checks: in the order in which they were made.
    """

    subject: str
    path: Path | None = None
    sha256: str | None = None
    model: tuple[str, ...] = ()
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.state == "fail")

    @property
    def ok(self) -> bool:
        """Whether none failed."""
        return not self.failures


def some(what: str, names: Sequence[str], *, shown: int = 4) -> str:
    """`what: a, b, c and 5 more`, empty for no names."""
    if not names:
        return ""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{what}: {', '.join(names[:shown])}{more}"
