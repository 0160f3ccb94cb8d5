"""What the diagnosis of a stitch says: a verdict, one sentence, what to do, and the measurements behind them."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from patchatlas import __version__
from patchatlas.stitch.diagnosis.box import Box
from patchatlas.stitch.diagnosis.contract import Contract
from patchatlas.stitch.diagnosis.coverage import CoverageStats
from patchatlas.stitch.diagnosis.fault import Fault, Verdict
from patchatlas.stitch.diagnosis.limits import Limits
from patchatlas.stitch.diagnosis.orientation import OrientationCheck
from patchatlas.stitch.diagnosis.picture import PictureCheck
from patchatlas.stitch.diagnosis.spread import Spread

FORMAT = "patchatlas.stitch-report"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StitchReport:
    """The result of `diagnose`. Lengths are object pixels; positions and boxes run (x[, y[, z]]).

    Attributes:
        verdict: `ok`, or the first of `faults`.
        sentence: what is so or what is wrong, with its numbers.
        advice: what to do about it; empty where all is well.
        faults: everything found, the cause that explains most first.
        tiles: number of tiles.
        tile_size: pixels of one, array order.
        contract: D1, positions and tiles as given.
        spread: D2, how the positions lie; `None` where the contract is broken, as are all that follow.
        box: D3, the box that positions predict and the lit one; `None` without a picture.
        coverage: D4; `None` without a coverage map.
        orientation: D5 and D6, how well tiles agree where they overlap, as given, in the other axis orientations and
            shuffled; `None` where no two tiles overlap.
        picture: the picture against the tiles; `None` without a picture.
        limits: what was held to be right.
    """

    verdict: Literal["ok"] | Verdict
    sentence: str
    advice: str
    faults: tuple[Fault, ...]
    tiles: int
    tile_size: tuple[int, ...]
    contract: Contract
    spread: Spread | None
    box: Box | None
    coverage: CoverageStats | None
    orientation: OrientationCheck | None
    picture: PictureCheck | None
    limits: Limits

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return self.verdict == "ok"

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text; a number that is not finite becomes null."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "patchatlas": __version__,
            **{field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)},
        }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
