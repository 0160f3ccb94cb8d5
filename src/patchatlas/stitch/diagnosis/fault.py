"""One thing that is wrong with a stitch, by name, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal[
    "misshaped",
    "not_finite",
    "one_spot",
    "same_tile",
    "recycled",
    "mirrored",
    "transposed",
    "shuffled",
    "strays",
    "loose",
    "one_tile",
    "averaged",
    "tiled",
    "blown_up",
    "dropped",
    "displaced",
    "half_pixel",
    "unlike",
]
"""What can be wrong.

Of the input: `misshaped` (positions that are not one (x, y) a tile), `not_finite`, `one_spot` (all tiles at one place),
`same_tile` (all tiles alike), `recycled` (positions used again for other tiles), `mirrored` (a sign flipped),
`transposed` (axes swapped), `shuffled` (positions belong to other tiles), `strays` (a few of them do), `loose` (tiles
agree only in part).

Of the picture: `one_tile` (it shows one), `averaged` (it is the mean of all), `tiled` (tiles side by side in order),
`blown_up` (brighter than any tile), `dropped` (tiles are missing), `displaced`, `half_pixel`, `unlike` (it is not
made of these tiles). `one_spot`, `mirrored` and `transposed` are found in both.
"""

ADVICE: dict[Verdict, str] = {
    "misshaped": "Give one (x, y) a tile, shape (n, 2), in the order of the tiles; nothing is repeated or broadcast.",
    "not_finite": "Leave such tiles out, with their positions.",
    "one_spot": "Check the unit (metres read as pixels look like this) and that each tile gets its own position.",
    "same_tile": "Look at the step that makes the tiles: one tile was repeated, or a network gives one answer to all.",
    "recycled": "Look for an index taken modulo the number of positions, or a reshape of grouped positions.",
    "mirrored": "Change the sign of the positions, in one place (`--sign`): compensating minus signs elsewhere "
    "hide it.",
    "transposed": "Exchange the columns of the positions (`--order`): one side stores (row, column), the other reads "
    "(x, y).",
    "shuffled": "Look for a sort, a random sampling or a group order that tiles went through and positions did not; a "
    "wrong pixel size (`refine` cannot mend it) looks like this, too.",
    "strays": "Look at these tiles; leave them out or refine their positions.",
    "loose": "Refine the positions, or look at the tiles: they may be noisy or differ in phase or scale.",
    "one_tile": "Look for a sum over the wrong axis, or an index [0] on a stack of tiles that were never merged.",
    "averaged": "Look for an error that is caught and replaced by the mean of the tiles.",
    "tiled": "Look for a reshape that lays tiles side by side: channels first read as channels last does this.",
    "blown_up": "Divide the sum by the sum of the same weights that multiplied the tiles, over the whole tile.",
    "dropped": "Plan the canvas from all positions, and look for a bounds test that skips tiles near the border.",
    "displaced": "Keep the origin with the picture; a mean of positions taken from one part of a scan does this.",
    "half_pixel": "Look for N / 2 against (N - 1) / 2, align_corners, or floor instead of round.",
    "unlike": "Check that picture, tiles and positions belong to one run.",
}


@dataclass(frozen=True)
class Fault:
    """A verdict with its evidence.

    Attributes:
        verdict: its name.
        sentence: the evidence, with numbers.
    """

    verdict: Verdict
    sentence: str

    @property
    def advice(self) -> str:
        """What to do."""
        return ADVICE[self.verdict]
