"""Drawn cases with exact truth: marks in one or more source pictures, and where they are in a target, if at all.

    from benchmarks.locate.sets import KINDS, case
    one = case("homography", seed=3, split="dev")

Everything follows from kind and seed. Development cases have seeds 0 to 999, test cases 10000 and up, and the texture
family `skin.HELD_OUT` is in test cases only. Pictures are 384 px square; marks are moles, at least 28 px apart in a
flat source.

    homography  another view of flat skin (8 degrees, 12 % scale, corners off by 4 %), in other light
    twins       the same, of a texture that repeats every 66 px, moles in nearly equal pairs 28 to 36 px apart
    nonrigid    the same with smooth waves of up to 11 px instead of moved corners
    absent      as homography, the view moved by a quarter to two fifths, and half of the marks left painted over
    rotomap     a round body: four sources of two dates, turned by about 20, -15, -50 and 50 degrees from the target of
                a third date; marks go behind the body
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from benchmarks.locate.cameras import Cylinder, Flat, draw, homography_between, photograph
from benchmarks.locate.skin import FAMILIES, HELD_OUT, Array, Random, draw_skin, painted_over
from patchatlas.arrays import ImageU8

Kind = Literal["homography", "twins", "nonrigid", "absent", "rotomap"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Split = Literal["dev", "test"]
SEEDS: dict[Split, range] = {"dev": range(1000), "test": range(10_000, 20_000)}

Fate = Literal["present", "painted", "outside", "behind", "elsewhere"]
"""What became of a mark in the target; all but the first are absent. `elsewhere`: the target shows another scene."""

SIZE = 384
PLANE = 660
"""Side of the flat skin, units; the source shows its middle."""
TILE = 66
"""Period of the repeating texture: divides `PLANE`, is no multiple of a patch."""
AROUND, ALONG = 1200, 600
"""Sides of the round body's skin, units."""
PAINT = 18.0
"""Radius of what is painted over a mole, units."""
EDGE = 8.0
"""Marks are this far inside a picture, or outside it; those between are left out."""
FACING = 0.3
"""Marks are seen at least so squarely (a cosine), or turned away; those between are left out."""


@dataclass(frozen=True, eq=False)
class Case:
    """Marks in sources, and where they are in a target.

    Attributes:
        kind: how it was made; one of `KINDS` for drawn cases.
        name: which one.
        family: texture, one of `skin.FAMILIES`, or `photo`.
        sources: s pictures.
        source_points: for each source the marks in it, (k, 2) pixels (x, y), NaN where it does not show one.
        source_masks: for each source which pixels show body, (h, w), or `None` where all do.
        uuids: k names.
        target: the picture in which they are looked for.
        target_mask: as `source_masks`.
        truth: where they are in it, (k, 2) pixels, NaN if absent.
        visible: whether they are in it, (k,).
        fates: why not, k words.
        gaps: from each truth to the nearest other mole of the target, marked or not, (k,) pixels, NaN if absent.
    """

    kind: str
    name: str
    family: str
    sources: tuple[ImageU8, ...]
    source_points: tuple[Array, ...]
    source_masks: tuple[Array | None, ...]
    uuids: tuple[str, ...]
    target: ImageU8
    target_mask: Array | None
    truth: Array
    visible: Array
    fates: tuple[Fate, ...]
    gaps: Array


def case(kind: Kind, seed: int, split: Split, *, family: str | None = None) -> Case:
    """One drawn case.

    Args:
        family: this texture; without it the families of the split take turns.

    Raises:
        ValueError: a seed of the other split, or the held-out family in development.
    """
    if seed not in SEEDS[split]:
        raise ValueError(f"seed {seed} is not of the {split} split, which has {SEEDS[split]}")
    allowed = families(split)
    family = family or allowed[seed % len(allowed)]
    if family not in allowed:
        raise ValueError(f"family {family!r} is not one of the {split} split: {', '.join(allowed)}")
    random = np.random.default_rng([KINDS.index(kind), seed])
    return _rotomap(family, seed, random) if kind == "rotomap" else _flat(kind, family, seed, random)


def families(split: Split) -> list[str]:
    """Textures of a split, in the order in which seeds take them."""
    return [name for name in FAMILIES if split == "test" or name != HELD_OUT]


def _flat(kind: Kind, family: str, seed: int, random: Random) -> Case:
    twins = kind == "twins"
    skin = draw_skin(family, (PLANE, PLANE), random, moles=44, tile=TILE if twins else None, twins=twins)
    corner = (PLANE - SIZE) / 2 + random.uniform(-4, 4, 2)
    source = Flat(_shift(corner), np.zeros((0, 4)), np.zeros(0))
    target = _second_view(kind, corner, random)
    there, _ = target.from_skin(skin.moles_xy)
    here, _ = source.from_skin(skin.moles_xy)
    marked = np.flatnonzero(_inside(here) & (_inside(there) | _outside(there)))
    fates: list[Fate] = ["present" if inside else "outside" for inside in _inside(there)[marked]]
    shown = skin
    if kind == "absent":
        left = [n for n, fate in enumerate(fates) if fate == "present"]
        painted = random.permutation(left)[: len(left) // 2]
        for n in painted:
            fates[n] = "painted"
        shown = painted_over(skin, family, marked[painted], random, radius=PAINT)
    grey = np.full(3, 0.5)  # never seen: flat skin has no end
    return _case(
        kind,
        family,
        seed,
        sources=[(photograph(draw(skin, source, size=SIZE, background=grey)[0], random), None, here[marked])],
        target=(photograph(draw(shown, target, size=SIZE, background=grey)[0], random), None),
        there=there,
        marked=marked,
        fates=fates,
    )


def _second_view(kind: Kind, corner: Array, random: Random) -> Flat:
    """Another view of the same skin: turned, scaled, moved corners or waves."""
    box = np.array([[0.0, 0.0], [1, 0], [1, 1], [0, 1]]) * SIZE
    angle, scale = np.deg2rad(random.uniform(-8, 8)), 1 + random.uniform(-0.12, 0.12)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (box - SIZE / 2) @ turn.T + SIZE / 2
    waves, phases = np.zeros((0, 4)), np.zeros(0)
    if kind == "nonrigid":
        moved += random.uniform(-6, 6, 2)
        waves, phases = _waves(random)
    else:
        moved += random.uniform(-0.04, 0.04, (4, 2)) * SIZE
    if kind == "absent":
        way = random.uniform(0, 2 * np.pi)
        moved += random.uniform(0.25, 0.4) * SIZE * np.array([np.cos(way), np.sin(way)])
    return Flat(_shift(corner) @ homography_between(moved, box), waves, phases)


def _waves(random: Random, *, count: int = 4, height: float = 11.0, steepness: float = 0.45) -> tuple[Array, Array]:
    """Waves 160 to 400 px long that move nothing by more than `height` px and nowhere fold."""
    length, way, run = random.uniform(160, 400, count), *random.uniform(0, 2 * np.pi, (2, count))
    vector = 2 * np.pi / length[:, None] * np.stack([np.cos(way), np.sin(way)], axis=1)
    step = random.uniform(0.5, 1, count)[:, None] * np.stack([np.cos(run), np.sin(run)], axis=1)
    steep = (np.linalg.norm(step, axis=1) * np.linalg.norm(vector, axis=1)).sum()
    step *= min(height / np.linalg.norm(step, axis=1).sum(), steepness / steep)
    return np.concatenate([step, vector], axis=1), random.uniform(0, 2 * np.pi, count)


def _rotomap(family: str, seed: int, random: Random) -> Case:
    skin = draw_skin(family, (ALONG, AROUND), random, moles=75)
    turn = random.uniform(0, 2 * np.pi)
    background = random.uniform(0.1, 0.5, 3)
    dates = [_body(random) for _ in range(3)]
    views = [
        _posed(dates[0], turn, 20, random),
        _posed(dates[1], turn, -15, random),
        _posed(dates[0], turn, -50, random),
        _posed(dates[1], turn, 50, random),
    ]
    last = _posed(dates[2], turn, 0, random)
    there, facing = last.from_skin(skin.moles_xy)
    present = _inside(there) & (facing >= FACING)
    behind = facing <= 0
    clear = present | behind | (_outside(there) & (facing >= FACING))
    seen = []
    for view in views:
        here, squarely = view.from_skin(skin.moles_xy)
        seen.append(np.where((_inside(here) & (squarely >= FACING))[:, None], here, np.nan))
    marked = np.flatnonzero(clear & ~np.isnan(np.stack(seen)).any(axis=2).all(axis=0))
    fates: list[Fate] = ["present" if present[n] else "behind" if behind[n] else "outside" for n in marked]
    pictures = []
    for view, here in zip(views, seen, strict=True):
        colours, body = draw(skin, view, size=SIZE, background=background)
        pictures.append((photograph(colours, random), body, here[marked]))
    colours, body = draw(skin, last, size=SIZE, background=background)
    in_sight = np.where((facing > 0)[:, None], there, np.nan)
    return _case(
        "rotomap",
        family,
        seed,
        sources=pictures,
        target=(photograph(colours, random), body),
        there=in_sight,
        marked=marked,
        fates=fates,
    )


def _body(random: Random) -> Cylinder:
    """A person before the camera on one day: how far away, how upright."""
    radius = AROUND / (2 * np.pi) * random.uniform(0.98, 1.02)
    pitch, roll = np.deg2rad(random.uniform(-6, 6, 2))
    tilt = _about(0, pitch) @ _about(2, roll)
    distance = 5 * radius * random.uniform(0.95, 1.05)
    shift = np.array([*random.uniform(-12, 12, 2), 0.0])
    centre = (SIZE / 2, SIZE / 2)
    return Cylinder(AROUND, ALONG / 2, radius, tilt, shift, distance, focal=4 * radius, centre_xy=centre)


def _posed(body: Cylinder, turn: float, degrees: float, random: Random) -> Cylinder:
    """The body turned about its own axis, to within 8 degrees."""
    yaw = turn + np.deg2rad(degrees + random.uniform(-8, 8))
    pose = body.pose @ _about(1, yaw)
    return Cylinder(body.around, body.middle, body.radius, pose, body.shift, body.distance, body.focal, body.centre_xy)


def _case(
    kind: Kind,
    family: str,
    seed: int,
    *,
    sources: list[tuple[ImageU8, Array | None, Array]],
    target: tuple[ImageU8, Array | None],
    there: Array,
    marked: Array,
    fates: list[Fate],
) -> Case:
    """A case of the marked moles; `there` are all moles of the skin as the target would show them."""
    visible = np.array([fate == "present" for fate in fates], dtype=bool)
    truth = np.where(visible[:, None], there[marked], np.nan)
    apart = np.linalg.norm(there[None] - there[marked][:, None], axis=2)
    apart[np.arange(len(marked)), marked] = np.nan
    gaps = np.full(len(marked), np.nan)
    gaps[visible] = np.nanmin(apart[visible], axis=1)
    return Case(
        kind=kind,
        name=f"{kind}-{seed}",
        family=family,
        sources=tuple(picture for picture, _, _ in sources),
        source_points=tuple(points for _, _, points in sources),
        source_masks=tuple(body for _, body, _ in sources),
        uuids=tuple(f"{kind}-{seed}-{n}" for n in range(len(marked))),
        target=target[0],
        target_mask=target[1],
        truth=truth,
        visible=visible,
        fates=tuple(fates),
        gaps=gaps,
    )


def _inside(points_xy: Array) -> Array:
    return ((points_xy >= EDGE) & (points_xy <= SIZE - EDGE)).all(axis=1)


def _outside(points_xy: Array) -> Array:
    return ((points_xy <= -EDGE) | (points_xy >= SIZE + EDGE)).any(axis=1)


def _shift(by_xy: Array) -> Array:
    return np.array([[1, 0, by_xy[0]], [0, 1, by_xy[1]], [0, 0, 1.0]])


def _about(axis: int, angle: float) -> Array:
    """Rotation about x, y or z (0, 1, 2)."""
    turn = np.eye(3)
    first, second = [n for n in range(3) if n != axis]
    turn[[first, first, second, second], [first, second, first, second]] = [
        np.cos(angle),
        -np.sin(angle),
        np.sin(angle),
        np.cos(angle),
    ]
    return turn
