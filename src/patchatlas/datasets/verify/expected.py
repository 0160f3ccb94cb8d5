"""What a stored grid must be, from stamp and bucket alone, and in which known way it went wrong if it is not.

Grids are (rows, columns), buckets (h, w).
"""

from dataclasses import dataclass

from patchatlas.datasets.recipe import Recipe
from patchatlas.datasets.verify.faults import Fault
from patchatlas.errors import FormatError
from patchatlas.geometry.buckets import Hw, bucket_name, parse_bucket, to_patches
from patchatlas.geometry.frame import Frame
from patchatlas.stamp import Stamp

PATCHES_KNOWN = (8, 14, 16, 32)
"""Patch sizes of the encoders there are, to name a mistaken one."""


@dataclass(frozen=True)
class WrongGrid:
    """A grid that is not the expected one, explained.

    Attributes:
        fault: its name.
        because: what gives the grid that was found, in words.
    """

    fault: Fault
    because: str


def recipe_of(stamp: Stamp) -> Recipe:
    """The recipe that a stamp tells of.

    Raises:
        FormatError: the stamp does not tell, or of a recipe that this version does not know.
    """
    facts = dict(stamp.facts)
    try:
        recipe = Recipe(
            buckets=tuple(parse_bucket(name) for name in str(facts["buckets"]).split(",")),
            rule=facts["bucket_rule"],  # type: ignore[arg-type]  # compared below
            decode="fast" if facts["decode"] == "pillow-draft" else "full",
            storage=facts["storage"],  # type: ignore[arg-type]  # compared below
        )
    except KeyError as error:
        raise FormatError(f"the stamp does not tell {error}") from error
    other = {name: facts.get(name) for name, value in recipe.facts().items() if facts.get(name) != value}
    if other:
        raise FormatError(f"the stamp tells of what this version does not know: {other}")
    return recipe


def grid_of(bucket: Hw, cell: Hw) -> Hw:
    """The bucket rounded half-up to whole cells."""
    size = to_patches(Frame.whole(bucket), cell).size
    return size[0] // cell[0], size[1] // cell[1]


def explain_grid(found: tuple[int, ...], bucket: Hw, cell: Hw, table: tuple[Hw, ...]) -> WrongGrid | None:
    """Why a grid is not that of the bucket; `None` if it is.

    Args:
        found: the grid, or (count,) where only the number of tokens is known.
        bucket: of the picture.
        cell: pixels to a cell.
        table: all buckets.
    """
    expected = grid_of(bucket, cell)
    if found in (expected, (expected[0] * expected[1],)):
        return None

    def matches(grid: Hw) -> bool:
        return found in (grid, (grid[0] * grid[1],))

    if found == expected[::-1]:
        return WrongGrid("transposed_grid", "rows and columns are swapped")
    bankers = tuple(round(side / edge) for side, edge in zip(bucket, cell, strict=True))
    if matches((bankers[0], bankers[1])):
        return WrongGrid("other_rounding", "that is the bucket with halves rounded to the even side")
    for side in PATCHES_KNOWN:
        if side != cell[0] and matches(grid_of(bucket, (side, side))):
            return WrongGrid("other_patch", f"that is the grid of patch {side}, the encoder has patch {cell[0]}")
    for other in table:
        if other != bucket and matches(grid_of(other, cell)):
            return WrongGrid("other_bucket", f"that is the grid of bucket {bucket_name(other)}")
    floor = tuple(side // edge for side, edge in zip(bucket, cell, strict=True))
    if matches((floor[0], floor[1])):
        return WrongGrid("other_rounding", "that is the bucket cut down to whole patches")
    return WrongGrid("wrong_grid", "no bucket, patch or rounding known gives it")
