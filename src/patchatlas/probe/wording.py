"""The verdicts of the probe in words: what was seen, and what to do."""

from patchatlas.probe.report import Verdict
from patchatlas.probe.verdict import Finding

ADVICE: dict[Verdict, str] = {
    "aligned": "Nothing to do.",
    "shifted": (
        "Slice the patch tokens after CLS and all registers, tokens[:, 1 + registers:], with the number of registers "
        "read from the model; features stored with this encoder must be made again."
    ),
    "transposed": (
        "Look for height and width swapped: in the size given to the resize, in a transpose of the pixels, or where "
        "tokens are flattened; tokens must run row by row."
    ),
    "mirrored": "Look for a flip in the preprocessing (augmentation, a file read bottom-up) or a reversed token axis.",
    "cropped": (
        "Take the resize and centre crop out of the preprocessing (image processors do both by default) and give the "
        "encoder pixels whose sides are multiples of its patch."
    ),
    "padded": "Take padding and shrinking out of the preprocessing; pad before the encoder, with a Frame that knows.",
    "offset": (
        "Look for a pad or a roll inside, a stride that is not the patch, or a resize that puts pixel centres on whole "
        "numbers (align_corners=True, or cv2.remap without the half pixel)."
    ),
    "unclear": (
        "Probe with more pictures and another seed. Misses that stay at the same tokens point at artefact tokens: use "
        "a network with registers, or an earlier layer."
    ),
    "scrambled": (
        "Check that the tokens are patch tokens of this input, in row-major order, and that the weights were loaded; "
        "try an earlier layer."
    ),
}

_SIDES = {2: ("up-down", "left-right"), 3: ("front-back", "up-down", "left-right")}
_NAMES = {2: ("rows", "columns"), 3: ("planes", "rows", "columns")}


def explain(
    finding: Finding,
    *,
    grid: tuple[int, ...],
    patch: tuple[int, ...],
    hits: str,
    silent: int,
    offset: tuple[float, ...] | None,
    seen: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> str:
    """One or two sentences with the numbers of the finding.

    Args:
        hits: hits and cells in words, as `90 of 96 cells`.
        silent: cells that no token answers.
        offset: displacement at the middle of the grid, in cells.
        seen: pixels that the grid sees, low and high corner.
    """
    sides, names = _SIDES[len(grid)], _NAMES[len(grid)]
    flips = " and ".join(sides[axis] for axis in finding.flips)
    unseen = f" No token answers {silent} cells." if silent else ""
    match finding.verdict:
        case "aligned":
            return f"The token that changes most is that of the perturbed patch in {hits}, with no common displacement."
        case "shifted":
            assert finding.shift is not None
            way = "late" if finding.shift > 0 else "early"
            ends = "those pushed out come back at the other end" if finding.cyclic else "those pushed out are lost"
            places = f"{abs(finding.shift)} token{'' if abs(finding.shift) == 1 else 's'}"
            return f"Patches stand {places} too {way} in the flat list, running over the row ends; {ends}."
        case "transposed":
            order = ", ".join(names[axis] for axis in finding.axes)
            also = f", and are mirrored {flips}" if flips else ""
            return f"The axes of the tokens, {', '.join(names)}, follow the {order} of the input{also}." + unseen
        case "mirrored":
            return f"The tokens are mirrored {flips}." + unseen
        case "cropped":
            assert seen is not None
            corners = " to ".join(_numbers(corner) for corner in seen)
            return (
                f"The grid sees only pixels {corners} along {', '.join(names)}, enlarged by {_slopes(finding)}."
                + unseen
            )
        case "padded":
            return f"The input is seen shrunk, by {_slopes(finding)} along {', '.join(names)}, with padding around it."
        case "offset":
            assert offset is not None
            pixels = tuple(part * side for part, side in zip(offset, patch, strict=True))
            text = (
                f"Tokens answer patches that lie {_numbers(tuple(-part for part in offset))} patches along "
                f"{', '.join(names)} from their own (about {_numbers(tuple(-part for part in pixels), 1)} pixels)."
            )
            whole_rows = offset[0] > 0.5 and all(abs(part) < 0.1 for part in (offset[0] % 1, *offset[1:]))
            if whole_rows:
                text += f" {round(offset[0]) * _row(grid)} registers read as patches would look the same on this grid."
            return text + unseen
        case "unclear":
            return f"The token of the perturbed patch changes most in only {hits}; the misses follow no rule." + unseen
        case "scrambled":
            return (
                f"The token of the perturbed patch changes most in only {hits}, and no rule fits the others." + unseen
            )


def _row(grid: tuple[int, ...]) -> int:
    tokens = 1
    for sides in grid[1:]:
        tokens *= sides
    return tokens


def _slopes(finding: Finding) -> str:
    assert finding.fit is not None
    return _numbers(finding.fit.slope)


def _numbers(values: tuple[float, ...], digits: int = 2) -> str:
    return "(" + ", ".join(f"{round(value, digits) + 0.0:.{digits}f}".rstrip("0").rstrip(".") for value in values) + ")"
