"""The picture against its tiles: is it what placing these tiles at these positions gives, and if not, what is it.

Axes: n tiles, c channels, *tile, *size of the picture, array order; positions, origin and displacements (x[, y[, z]]).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Float64
from torch import Tensor

from patchatlas.canvas.canvas import Canvas, Tiles
from patchatlas.canvas.place import place
from patchatlas.canvas.plan import CanvasPlan, plan_canvas
from patchatlas.canvas.taps import Interpolation
from patchatlas.stitch.diagnosis.box import Box
from patchatlas.stitch.diagnosis.contract import peaks
from patchatlas.stitch.diagnosis.fault import Fault
from patchatlas.stitch.diagnosis.limits import Limits
from patchatlas.stitch.diagnosis.match import correlation, displacement, find
from patchatlas.stitch.diagnosis.orientation import Orientation, orientations

# Tiles that are compared one by one with what a picture shows.
_CANDIDATES = 256

# Correlation that another explanation must have, and by how much it must beat the given one.
_EXPLAINS = 0.7
_BETTER = 0.15

# Below this the picture has nothing to do with the tiles.
_UNLIKE = 0.5

# Pixels above which a picture is not searched for another orientation: a dozen transforms of it are needed.
_SEARCHED = 2**23


@dataclass(frozen=True, eq=False)
class Picture:
    """What a stitch produced.

    Attributes:
        values: the stitched picture, of the same kind and scale as the tiles.
        coverage: 0 where no tile lies; `None` where it is lost.
        origin: object coordinate (x[, y[, z]]) of the zero corner; `None` where it is lost.
        interpolation: how tiles were placed.
        placed: number of tiles that the canvas counted; `None` where it did not.
        window: weight of each pixel of a tile, as it was placed; `None` where all counted alike or nobody knows.
    """

    values: Float[Tensor, "c *size"] | Complex[Tensor, "c *size"]
    coverage: Float[Tensor, "*size"] | None = None
    origin: tuple[float | int, ...] | None = None
    interpolation: Interpolation = "linear"
    placed: int | None = None
    window: Float[Tensor, "*tile"] | None = None

    @classmethod
    def of(cls, canvas: Canvas, *, window: Float[Tensor, "*tile"] | None = None) -> "Picture":
        """What a canvas shows whose tiles were placed with this window."""
        return cls(
            values=canvas.value().detach(),
            coverage=canvas.coverage.detach(),
            origin=tuple(float(o) for o in canvas.plan.origin[::-1]),
            interpolation=canvas.interpolation,
            placed=canvas.tile_count,
            window=window,
        )


@dataclass(frozen=True, kw_only=True)
class PictureCheck:
    """The picture against its tiles.

    Attributes:
        brightness: largest absolute value of the picture over that of the tiles.
        agreement: correlation with the tiles placed anew, where the picture's origin says; NaN where it is not known or
            nothing can be compared (a constant object, a picture of another kind than the tiles).
        compared_pixels: pixels compared.
        displacement: of the picture from where its origin puts it, pixels; `None` where not measured.
        fault: what is wrong.
    """

    brightness: float
    agreement: float
    compared_pixels: int
    displacement: tuple[float, ...] | None
    fault: Fault | None


def check_picture(
    tiles: Tiles, positions: Float64[Tensor, "n ndim"], picture: Picture, box: Box, *, limits: Limits
) -> PictureCheck:
    """Compare a picture with what its tiles give.

    Args:
        tiles: of the whole scan.
        positions: of their first corners.
        picture: what was made of them.
        box: its predicted and lit box.
        limits: thresholds.
    """
    finite = torch.isfinite(picture.values.abs()).all(dim=0)
    lit = finite & (picture.coverage > 0 if picture.coverage is not None else torch.ones_like(finite))
    values = torch.where(finite, picture.values, 0)
    brightest = float(peaks(tiles).max())
    shown = values.abs().amax(dim=0) * lit
    brightness = float(shown.max()) / brightest if brightest > 0 else 1.0

    def found(fault: Fault | None, agreement: float = float("nan"), pixels: int = 0) -> PictureCheck:
        return PictureCheck(
            brightness=brightness, agreement=agreement, compared_pixels=pixels, displacement=None, fault=fault
        )

    if brightness > limits.brightest:
        return found(_blown_up(shown, brightness, picture.coverage, lit))
    if picture.values.is_complex() != tiles.is_complex() or len(picture.values) != tiles.shape[1]:
        return found(box.fault)
    if box.shows_one_tile:
        return found(_one_tile(tiles, values, box))
    agreement, pixels, moved = float("nan"), 0, None
    if picture.origin is not None:
        inside = positions - torch.tensor(picture.origin, dtype=torch.float64)
        rows, window = _part(inside, tiles.shape[2:], values.shape[1:], limits)
        reference, mask = _placed(tiles, inside, rows, window, picture, lit)
        pixels = int(mask.sum())
        held = values[:, *window]
        agreement = correlation(reference, held, mask) if pixels else agreement
        if pixels and _constant(reference, mask):
            return found(box.fault)
        if agreement >= limits.equal:
            moved = _displacement(tiles, inside, rows, window, picture, lit, held, limits)
            fault = _displaced(moved, limits)
            return PictureCheck(
                brightness=brightness, agreement=agreement, compared_pixels=pixels, displacement=moved, fault=fault
            )
    fault = _tiled(tiles, values, limits) or _elsewhere(tiles, positions, picture, values, lit, agreement, limits)
    if fault is None and box.fault is None and agreement < _UNLIKE:
        fault = Fault("unlike", f"the picture does not follow from the tiles: correlation {agreement:.2f}")
    return found(fault, agreement, pixels)


def _blown_up(shown: Tensor, brightness: float, coverage: Tensor | None, lit: Tensor) -> Fault:
    peak = float(shown.max())
    brightest = shown > 0.1 * peak
    text = (
        f"the picture reaches {peak:.4g}, {brightness:.3g} times the brightest tile value; {int(brightest.sum())} "
        "pixels have a tenth of that or more"
    )
    if coverage is not None:
        usual = float(coverage[lit].median())
        thin = float((coverage[brightest] < usual).float().mean())
        text += f", {100 * thin:.0f} % of them where coverage is below its median of {usual:.3g}"
    return Fault("blown_up", text)


def _one_tile(tiles: Tensor, values: Tensor, box: Box) -> Fault:
    """What it is that fills the place of one tile: one of them, or all on top of each other."""
    assert box.lit is not None
    assert box.fault is not None
    ndim = len(box.lit) // 2
    content = values[
        :, *(slice(low, high) for low, high in zip(box.lit[:ndim][::-1], box.lit[ndim:][::-1], strict=True))
    ]
    everywhere = torch.ones(content.shape[1:], dtype=torch.bool)
    there = torch.ones(tiles.shape[2:], dtype=torch.bool)
    rows = torch.arange(0, len(tiles), -(-len(tiles) // _CANDIDATES))
    scores = [find(content, everywhere, tiles[row], there)[0] for row in rows]
    best = int(torch.tensor(scores).argmax())
    of_all = find(content, everywhere, tiles.mean(dim=0), there)[0]
    if max(of_all, scores[best]) < _EXPLAINS:
        return box.fault
    if scores[best] >= of_all:
        return Fault("one_tile", f"{box.fault.sentence}; it is tile {int(rows[best])} (correlation {scores[best]:.3f})")
    if tuple(values.shape[1:]) == tuple(tiles.shape[2:]):
        return Fault(
            "averaged", f"the picture has the size of one tile and is the mean of all (correlation {of_all:.3f})"
        )
    return Fault(
        "one_spot", f"{box.fault.sentence}; it is the mean of all tiles on one spot (correlation {of_all:.3f})"
    )


def _part(
    inside: Tensor, tile_size: Sequence[int], size: Sequence[int], limits: Limits
) -> tuple[Tensor, tuple[slice, ...]]:
    """A window in the middle of the scan and all tiles that touch it, few enough; the whole picture where that is."""
    pixels = torch.tensor(tuple(tile_size)).prod()
    most = max(1, limits.reference_pixels // int(pixels))
    corners = inside.flip(1)
    if len(corners) <= most:
        return torch.arange(len(corners)), tuple(slice(0, side) for side in size)
    sides = torch.tensor(tuple(tile_size), dtype=torch.float64)
    middle = corners.median(dim=0).values
    reach = (corners - middle).abs().amax(dim=1).sort().values[most - 1] - sides.max()
    end = torch.tensor(tuple(size), dtype=torch.float64)
    low = torch.minimum((middle - reach.clamp(min=4)).floor().clamp(min=0), end - 1)
    high = torch.maximum(torch.minimum((middle + reach.clamp(min=4)).ceil(), end), low + 1)
    touch = ((corners + sides + 1 > low) & (corners - 1 < high)).all(dim=1)
    if not bool(touch.any()):  # the picture's origin is far off; one tile, cropped to nothing, then says so
        touch[0] = True
    return touch.nonzero()[:, 0], tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _placed(
    tiles: Tensor, inside: Tensor, rows: Tensor, window: tuple[slice, ...], picture: Picture, lit: Tensor
) -> tuple[Tensor, Tensor]:
    """The tiles placed anew in a window of the picture, and the pixels that both have."""
    plan = CanvasPlan(tuple(part.start for part in window), tuple(part.stop - part.start for part in window))
    canvas = place(
        tiles[rows], inside[rows], plan=plan, interpolation=picture.interpolation, window=picture.window, crop=True
    )
    return canvas.value(), canvas.covered & lit[window]


def _constant(reference: Tensor, mask: Tensor) -> bool:
    held = reference[:, mask]
    power = float(held.abs().square().mean())
    return float((held - held.mean(dim=1, keepdim=True)).abs().square().mean()) <= 1e-10 * power


def _displacement(
    tiles: Tensor,
    inside: Tensor,
    rows: Tensor,
    window: tuple[slice, ...],
    picture: Picture,
    lit: Tensor,
    held: Tensor,
    limits: Limits,
) -> tuple[float, ...]:
    """How far the picture lies from where it should, (x[, y[, z]]); zeros where undoing it does not help."""
    moved = torch.zeros(inside.shape[1], dtype=torch.float64)
    before = after = 0.0
    for step in range(4):
        reference, mask = _placed(tiles, inside + moved, rows, window, picture, lit)
        after = float((reference - held)[:, mask].abs().square().mean())
        before = after if step == 0 else before
        update = displacement(held, reference, mask).flip(0)
        if step == 3 or float(update.abs().max()) < 0.01:
            break
        moved = moved + update.clamp(-1, 1)
    if not after < (1 - limits.gain) * before:
        return (0.0,) * len(moved)
    return tuple(moved.tolist())


def _displaced(moved: Sequence[float], limits: Limits) -> Fault | None:
    farthest = max(abs(one) for one in moved)
    if farthest < limits.displaced_px:
        return None
    by = "(" + ", ".join(f"{one:+.2f}" for one in moved) + ")"
    if farthest < limits.whole_px:
        return Fault("half_pixel", f"the picture lies {by} px from where its origin puts it, a part of a pixel off")
    return Fault("displaced", f"the picture lies {by} px from where its origin puts it")


def _tiled(tiles: Tensor, values: Tensor, limits: Limits) -> Fault | None:
    """Tiles laid side by side in their order, row by row or column by column (in a plane)."""
    size, side = tuple(values.shape[1:]), tuple(tiles.shape[2:])
    if len(size) != 2 or any(n % m for n, m in zip(size, side, strict=True)):
        return None
    rows, columns = size[0] // side[0], size[1] // side[1]
    if rows * columns < 2:
        return None
    blocks = values.unflatten(2, (columns, side[1])).unflatten(1, (rows, side[0])).permute(1, 3, 0, 2, 4)
    for order, laid in (("row by row", blocks), ("column by column", blocks.transpose(0, 1))):
        flat = laid.flatten(0, 1)[: len(tiles)].movedim(1, 0).flatten(2)
        first = tiles[: flat.shape[1]].movedim(1, 0).flatten(2)
        score = correlation(flat, first, torch.ones(flat.shape[1:], dtype=torch.bool))
        if score >= limits.equal:
            return Fault(
                "tiled",
                f"the picture is the tiles side by side, {rows} x {columns}, {order}, wherever their positions are "
                f"(correlation {score:.3f})",
            )
    return None


def _elsewhere(
    tiles: Tensor,
    positions: Tensor,
    picture: Picture,
    values: Tensor,
    lit: Tensor,
    agreement: float,
    limits: Limits,
) -> Fault | None:
    """The same tiles placed with other signs or axes, or at another origin."""
    if lit.numel() > _SEARCHED:
        return None
    needed = max(_EXPLAINS, agreement + _BETTER if agreement == agreement else 0.0)
    pixels = torch.tensor(tiles.shape[2:]).prod()
    most = max(1, limits.reference_pixels // int(pixels))
    middle = (positions - positions.median(dim=0).values).abs().amax(dim=1)
    rows = middle.topk(min(most, len(middle)), largest=False).indices
    best: tuple[float, Orientation, tuple[float, ...]] | None = None
    for way in orientations(positions.shape[1]):
        at = way(positions)[rows]
        plan = plan_canvas(at, tiles.shape[2:], interpolation=picture.interpolation)
        if plan.pixels > _SEARCHED:
            return None
        canvas = place(tiles[rows], at, plan=plan, interpolation=picture.interpolation, window=picture.window)
        score, found = find(canvas.value(), canvas.covered, values, lit)
        if best is None or score > best[0] + 1e-3:
            origin = picture.origin or (0.0,) * len(found)
            moved = tuple(a - (o - z) for a, o, z in zip(found[::-1], canvas.plan.origin[::-1], origin, strict=True))
            best = score, way, moved
        if way.as_given and score > limits.equal:
            break
    assert best is not None
    score, way, moved = best
    if score < needed:
        return None
    if way.as_given:
        if picture.origin is None or max(abs(one) for one in moved) < 1:
            return None
        return Fault(
            "displaced",
            f"the picture lies ({', '.join(f'{one:+g}' for one in moved)}) px from where its origin puts it "
            f"(correlation {score:.3f} there, {agreement:.2f} where it should be)",
        )
    given = "" if picture.origin is None else f", {agreement:.2f} as given"
    return Fault(
        "transposed" if way.swapped else "mirrored",
        f"the picture was made with {way.words}: tiles placed at {way.name} give it (correlation {score:.3f}{given})",
    )
