"""What locating a landmark gives: where it is in the target, how sure that is, and everything a picture of it needs.

Points are (x, y) in the continuous plane of the upright source or target, as their names say, and (x, y, z) in volumes;
lengths in pixels are pixels (voxels) of the picture named.
"""

from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from patchatlas import __version__
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.turns import Turn
from patchatlas.io.landmarks import mel_point
from patchatlas.locate.recipe import Recipe
from patchatlas.matching.confidence import Calibration, Cues
from patchatlas.matching.verdict import State
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

FORMAT = "patchatlas.locate"
VERSION = 2

Point = tuple[float, ...]
"""(x, y), or (x, y, z) in a volume."""


@dataclass(frozen=True)
class Peak:
    """A place in the target that looks like the landmark.

    Attributes:
        xy: where, in target pixels.
        similarity: cosine there, -1..1.
    """

    xy: Point
    similarity: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """One landmark, looked for in one target.

    Attributes:
        uuid: whose landmark it is.
        source_xy: where it is marked in the source.
        target_xy: the best place in the target, finer than a patch; never outside the target, whatever the state.
        state: `found`, `uncertain` or `absent`.
        reason: why, in words and numbers.
        confidence: probability that `target_xy` is within one patch side of the truth, 0..1.
        cues: what the confidence rests on.
        similarity: cosine of the best patch with the descriptor of the mark, -1..1.
        margin: `similarity` less that of the best patch farther off than the radius within which patches count as one
            place; 0 where the target has no patch so far off.
        cycle_px: source pixels between the mark and where the best place matches back to.
        spread_px: how wide the peak is: the root of the larger eigenvalue of `covariance`, in target pixels.
        covariance: of the peak's mass, ((xx, xy), (xy, yy)) in square pixels of the target; 3 x 3 in a volume.
        runners_up: the next best places, best first, at most four, each outside the radius of all better ones.
        similarity_map: cosine of every target patch, over the rows and columns of `grid`; padding included.
        scored: true where a patch took part; false where it shows mostly padding.
        grid: where the patches of `similarity_map` lie in the target; `grid.boxes()` gives their target pixels.
        spec: the encoder.
        stamp: how both maps were made.
        calibration: what made `confidence` and `state` of the cues.
        image_size: long side of both encoder inputs, in input pixels.
        source_size: ([z,] rows, columns) of the source.
        target_size: ([z,] rows, columns) of the target.
        turn: how the source was laid down when it was encoded.
        recipe: how it was looked for, where that was more than a search on two given maps.
    """

    uuid: str
    source_xy: Point
    target_xy: Point
    state: State
    reason: str
    confidence: float
    cues: Cues
    similarity: float
    margin: float
    cycle_px: float
    spread_px: float
    covariance: tuple[Point, ...]
    runners_up: tuple[Peak, ...]
    similarity_map: Float[Tensor, "*shape"]
    scored: Bool[Tensor, "*shape"]
    grid: PatchGrid
    spec: EncoderSpec
    stamp: Stamp
    calibration: Calibration
    image_size: int
    source_size: tuple[int, ...]
    target_size: tuple[int, ...]
    turn: Turn = "upright"
    recipe: Recipe | None = None

    @property
    def mel(self) -> tuple[int, int]:
        """Column and row that mel would store for `target_xy`; of pictures only."""
        x, y = self.target_xy
        rows, columns = self.target_size
        return mel_point(x, y, size_hw=(rows, columns))

    def to_json(self, *, source: str, target: str) -> dict[str, Any]:
        """The result as plain JSON values; see docs/formats/locate-v2.md.

        Args:
            source: name of the source picture, for the record.
            target: name of the target picture.
        """
        flat = len(self.target_size) == 2
        axes = "hw" if flat else "zhw"
        return {
            "format": FORMAT,
            "version": VERSION,
            "package": __version__,
            "uuid": self.uuid,
            "source": source,
            "target": target,
            "source_xy": list(self.source_xy),
            "target_xy": list(self.target_xy),
            **({"mel": list(self.mel)} if flat else {}),
            "state": self.state,
            "reason": self.reason,
            "confidence": self.confidence,
            "cues": asdict(self.cues),
            "similarity": self.similarity,
            "margin": self.margin,
            "cycle_px": self.cycle_px,
            "spread_px": self.spread_px,
            "covariance": [list(row) for row in self.covariance],
            "runners_up": [{"target_xy": list(peak.xy), "similarity": peak.similarity} for peak in self.runners_up],
            "encoder": asdict(self.spec),
            "sizes": {
                "image_size": self.image_size,
                f"source_{axes}": list(self.source_size),
                f"target_{axes}": list(self.target_size),
                "grid": list(self.grid.shape),
            },
            "turn": self.turn,
            "recipe": None if self.recipe is None else self.recipe.to_json(),
            "calibration": self.calibration.to_json(),
            "stamp": {"digest": self.stamp.digest, "facts": dict(self.stamp.facts)},
        }
