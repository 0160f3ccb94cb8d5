"""Videos of people who leave and come back, made from a seed, with the truth of every frame in MOTChallenge format.

    python -m benchmarks.reid.generator OUT --seed 1 [--twins 3] [--episodes 2]

Everybody enters over the edge of the picture, walks a smooth path, leaves, is away for 40 to 160 frames and comes back
elsewhere. Who stands lower in the picture is in front. The camera pans, two pillars stand in the way, the light drifts
in time and differs from left to right, sizes change along a path. Visibility is exact: pixels of a sprite that show,
over all its pixels, those beyond the edge included.

The detector of this world sees who is visible by a quarter or more, misses 3 %, moves each side of a box by about two
pixels, and adds boxes where nobody is (10 %; a fifth of them a second box of somebody). Ground truth of those who are
less visible is marked as not scored. Twins are pairs in nearly the same clothes. Episodes are cut: other paths, light
and scenery, the same people.

One generator a video and a purpose, so that pixels never change what the detector does.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.reid import sprites
from patchatlas.arrays import ImageU8
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample
from patchatlas.reid.boxes import Detections, clean
from patchatlas.reid.motchallenge import NO_ID, MotRow, MotSequence, write_rows, write_sequence

LABEL = "person"

LEAST_VISIBLE = 0.25
"""Below this a person is neither detected nor scored."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What a set of videos is made of; every number that is not here is drawn from the seed."""

    seed: int
    people: int = 14
    twins: int = 0
    """Pairs in nearly the same clothes."""
    twin_difference: float = 0.05
    episodes: int = 1
    frames: int = 600
    size_hw: tuple[int, int] = (540, 960)
    fps: float = 10.0
    away: tuple[int, int] = (40, 160)
    visit: tuple[int, int] = (190, 330)
    pan_px: float = 60.0
    jitter_px: float = 2.0
    drop: float = 0.03
    false: float = 0.10
    light: float = 0.10
    """Share by which brightness swings in time, and from one side of the picture to the other; each channel also swings
    by a third of it on its own."""
    stamps: Path | None = None
    """Folder of pictures to draw people from, instead of bodies in clothes."""


@dataclass(frozen=True)
class Visit:
    """One walk through the picture.

    Attributes:
        person: who.
        first: first frame.
        frames: how many.
        path: four control points of a cubic Bezier curve, (x, y) of the feet in the plane of the world.
        scale: size at the start and at the end.
    """

    person: int
    first: int
    frames: int
    path: NDArray[np.float64]
    scale: tuple[float, float]

    def at(self, frame: int) -> tuple[NDArray[np.float64], float]:
        """Feet and scale in a frame."""
        t = (frame - self.first) / max(1, self.frames - 1)
        weights = np.array([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
        return weights @ self.path, self.scale[0] + t * (self.scale[1] - self.scale[0])


@dataclass(frozen=True)
class Placed:
    """A sprite in a frame: who, the top left pixel and the size."""

    person: int
    left: int
    top: int
    size_hw: tuple[int, int]


class Episode:
    """One video: frames on demand, truth and detections.

    Attributes:
        name: of the sequence.
        world: what it was made of.
        truth: rows of ground truth, person p as id p + 1, class 1.
        detections: one entry a frame.
    """

    def __init__(self, world: World, number: int, people: list[sprites.Sprite]) -> None:
        self.world = world
        self.name = f"reid-{world.seed:03d}-{number}"
        self._people = people
        self._rng = {part: np.random.default_rng([world.seed, number, k]) for k, part in enumerate(_PARTS)}
        self._visits = self._plan()
        self._scenery()
        self._drawn = lru_cache(maxsize=4096)(self._sprite)
        by_frame = [
            [self._truth_row(frame, placed, share) for placed, share in self._seen(frame) if share > 0]
            for frame in range(world.frames)
        ]
        self.truth = [row for rows in by_frame for row in rows]
        self._sloppy: list[tuple[int, NDArray[np.float64], float]] = []
        self.detections = [self._detect(rows) for rows in by_frame]

    @property
    def sequence(self) -> MotSequence:
        """Facts of the video."""
        return MotSequence(self.name, self.world.frames, self.world.fps, self.world.size_hw)

    def frames(self) -> Iterator[ImageU8]:
        """The pictures, drawn one after the other and not kept; the same ones at every call."""
        noise = np.random.default_rng([self.world.seed, 99])
        grain = noise.normal(0, 0.012, (4, *self.world.size_hw, 1)).astype(np.float32)
        for frame in range(self.world.frames):
            yield self._picture(frame, grain[frame % len(grain)])

    def write(self, folder: Path) -> None:
        """`gt/gt.txt`, `det/det.txt` and `seqinfo.ini`, as MOTChallenge lays them out."""
        for part in ("gt", "det"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        write_rows(folder / "gt" / "gt.txt", self.truth)
        found = [
            MotRow(frame + 1, NO_ID, tuple(box), score)
            for frame, detections in enumerate(self.detections)
            for box, score in zip(detections.boxes.tolist(), detections.scores.tolist(), strict=True)
        ]
        write_rows(folder / "det" / "det.txt", found)
        write_sequence(folder / "seqinfo.ini", self.sequence)

    # -- who walks where ----------------------------------------------------------------------------------------------

    def _plan(self) -> list[Visit]:
        rng, world = self._rng["paths"], self.world
        visits = []
        for person in range(world.people):
            # Some are on their way already, some come later.
            frame = int(rng.integers(-world.visit[0], world.away[1]))
            while frame < world.frames:
                long = int(rng.integers(*world.visit))
                visits.append(Visit(person, frame, long, self._path(rng), tuple(rng.uniform(0.7, 1.3, 2))))
                frame += long + int(rng.integers(*world.away))
        return visits

    def _path(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """From beyond one side, over two places in the picture, to beyond a side."""
        h, w = self.world.size_hw
        reach = np.array([120.0, 190.0])  # more than half a person, and the camera's pan

        def outside() -> NDArray[np.float64]:
            side = rng.integers(3)
            if side == 2:
                return np.array([rng.uniform(0, w), h + reach[1]])
            return np.array([-reach[0] if side == 0 else w + reach[0], rng.uniform(0.4 * h, 1.05 * h)])

        inside = rng.uniform([0.1 * w, 0.35 * h], [0.9 * w, 1.0 * h], (2, 2))
        return np.stack([outside(), *inside, outside()])

    def _camera(self, frame: int) -> tuple[int, int]:
        """Top left corner of the picture in the plane of the world, whole pixels."""
        turn = 2 * np.pi * frame / self.world.frames
        x, y = np.sin(turn * self._pace[0] + self._pace[2]), np.sin(turn * self._pace[1] + self._pace[3])
        return round(self.world.pan_px * x), round(0.3 * self.world.pan_px * y)

    def _placed(self, frame: int) -> list[Placed]:
        """Everybody who is about, farthest first."""
        camera, out = np.array(self._camera(frame)), []
        for visit in self._visits:
            if visit.first <= frame < visit.first + visit.frames:
                feet, scale = visit.at(frame)
                rows, columns = (max(8, round(n * scale)) for n in self._people[visit.person].shape[:2])
                x, y = feet - camera
                out.append((y, Placed(visit.person, round(x - columns / 2), round(y - rows), (rows, columns))))
        return [placed for _, placed in sorted(out, key=lambda pair: (pair[0], pair[1].person))]

    # -- what shows ---------------------------------------------------------------------------------------------------

    def _scenery(self) -> None:
        rng, (h, w) = self._rng["scenery"], self.world.size_hw
        self._pace = (*rng.choice([1, 2], 2), *rng.uniform(0, 2 * np.pi, 2))
        margin = round(self.world.pan_px) + 2
        size = (h + 2 * margin, w + 2 * margin)
        tones = rng.uniform(0.3, 0.7, (1, 9, 16)) + rng.uniform(-0.08, 0.08, (3, 9, 16))
        coarse = torch.from_numpy(tones.astype(np.float32))
        fine = torch.from_numpy(rng.uniform(-0.12, 0.12, (1, size[0] // 6, size[1] // 6)).astype(np.float32))
        ground = sum(resample(part, Frame.whole(part.shape[1:]).resize(size)) for part in (coarse, fine))
        self._ground = ground.permute(1, 2, 0).numpy()
        self._margin = margin
        # Pillars stand in front of everybody: left edge and width in the plane of the world, and a colour.
        self._pillars = [
            (round(rng.uniform(at - 0.08, at + 0.08) * w), int(rng.integers(28, 46)), sprites.colour(rng))
            for at in (0.3, 0.7)
        ]
        self._lamp = (rng.uniform(0.5, 1.5, 4), rng.uniform(0, 2 * np.pi, 4), rng.uniform(-1, 1))

    def _sprite(self, person: int, size_hw: tuple[int, int]) -> sprites.Sprite:
        source = torch.from_numpy(self._people[person]).permute(2, 0, 1)
        drawn = resample(source, Frame.whole(source.shape[1:]).resize(size_hw)).permute(1, 2, 0).numpy().copy()
        drawn[..., 3] = drawn[..., 3] >= 0.5
        return drawn

    def _owners(self, frame: int) -> tuple[list[Placed], NDArray[np.int16]]:
        """Who is about, and for each pixel who shows there: 0 nobody, k + 1 the k-th, -1 a pillar."""
        h, w = self.world.size_hw
        placed = self._placed(frame)
        owner = np.zeros((h, w), np.int16)
        for k, one in enumerate(placed):
            window, part = _window(one, h, w)
            if part is not None:
                outline = self._drawn(one.person, one.size_hw)[part][..., 3] > 0
                owner[window][outline] = k + 1
        left = self._camera(frame)[0]
        for at, wide, _ in self._pillars:
            owner[:, max(0, at - left) : max(0, at - left + wide)] = -1
        return placed, owner

    def _seen(self, frame: int) -> list[tuple[Placed, float]]:
        placed, owner = self._owners(frame)
        counts = np.bincount(owner[owner > 0], minlength=len(placed) + 1)
        whole = [int((self._drawn(one.person, one.size_hw)[..., 3] > 0).sum()) for one in placed]
        return [(one, counts[k + 1] / whole[k]) for k, one in enumerate(placed)]

    def _picture(self, frame: int, grain: NDArray[np.float32]) -> ImageU8:
        h, w = self.world.size_hw
        placed, owner = self._owners(frame)
        left, top = self._camera(frame)
        m = self._margin
        picture = self._ground[m + top : m + top + h, m + left : m + left + w].copy()
        for k, one in enumerate(placed):
            window, part = _window(one, h, w)
            if part is not None:
                mine = owner[window] == k + 1
                picture[window][mine] = self._drawn(one.person, one.size_hw)[part][..., :3][mine]
        for at, wide, tone in self._pillars:
            picture[:, max(0, at - left) : max(0, at - left + wide)] = tone
        pace, phase, slope = self._lamp
        swing = np.sin(2 * np.pi * pace * frame / self.world.frames + phase)
        in_time = 1 + self.world.light * (swing[0] + swing[1:] / 3)
        across = 1 + self.world.light * slope * np.linspace(-1, 1, w)[:, None]
        lit = picture * np.asarray(in_time * across, np.float32) + grain
        return np.asarray(np.clip(lit * 255 + 0.5, 0, 255), np.uint8)

    # -- what the detector says ---------------------------------------------------------------------------------------

    def _truth_row(self, frame: int, placed: Placed, share: float) -> MotRow:
        (h, w), (rows, columns) = self.world.size_hw, placed.size_hw
        box = (max(0, placed.left), max(0, placed.top), min(w, placed.left + columns), min(h, placed.top + rows))
        scored = float(share >= LEAST_VISIBLE)
        return MotRow(frame + 1, placed.person + 1, tuple(map(float, box)), scored, 1, round(float(share), 6))

    def _detect(self, rows: list[MotRow]) -> Detections:
        rng, world = self._rng["detector"], self.world
        boxes, scores = [], []
        true = [row for row in rows if row.confidence]
        for row in true:
            if rng.random() >= world.drop:
                boxes.append(np.array(row.box) + rng.normal(0, world.jitter_px, 4))
                scores.append(np.clip(0.55 + 0.4 * (row.visibility or 0) + rng.normal(0, 0.05), 0.05, 0.99))
        for box, score in self._false(rng, true):
            boxes.append(box + rng.normal(0, world.jitter_px, 4))
            scores.append(score)
        raw = torch.from_numpy(np.array(boxes).reshape(-1, 4))
        return clean(raw, torch.tensor(scores, dtype=torch.float64), [LABEL] * len(boxes), world.size_hw)[0]

    def _false(self, rng: np.random.Generator, true: list[MotRow]) -> list[tuple[NDArray[np.float64], float]]:
        """Boxes where nobody is. Something on the ground looks like a person for one to six frames."""
        (h, w), lasting = self.world.size_hw, 3.5
        self._sloppy = [(left - 1, box, score) for left, box, score in self._sloppy if left > 1]
        for _ in range(rng.poisson(self.world.false * len(true) / lasting)):
            score = float(rng.uniform(0.3, 0.85))
            if true and rng.random() < 0.2:
                row = true[rng.integers(len(true))]
                x0, y0, x1, y1 = row.box
                box = np.array(row.box) + rng.uniform(-0.25, 0.25) * np.array([x1 - x0, y1 - y0] * 2)
            else:
                tall = sprites.BASE_HW[0] * rng.uniform(0.7, 1.3)
                x, y = rng.uniform(0, w), rng.uniform(0.35 * h, h)
                box = np.array([x - 0.22 * tall, y - tall, x + 0.22 * tall, y])
            self._sloppy.append((int(rng.integers(1, 7)), box, score))
        return [(box, score) for _, box, score in self._sloppy]


_PARTS = ("paths", "scenery", "detector")


def make(world: World) -> list[Episode]:
    """The episodes of a world, with the same people in all of them."""
    rng = np.random.default_rng([world.seed, 7])
    if world.stamps is not None:
        people = sprites.stamps(world.stamps, world.people, rng)
    else:
        people = [sprites.person(rng) for _ in range(world.people)]
    for pair in range(world.twins):
        people[2 * pair + 1] = sprites.twin(people[2 * pair], rng, difference=world.twin_difference)
    return [Episode(world, number, people) for number in range(world.episodes)]


def _window(one: Placed, h: int, w: int) -> tuple[tuple[slice, slice], tuple[slice, slice] | None]:
    """The part of the picture that a sprite covers, and which part of the sprite that is; None where there is none."""
    rows, columns = one.size_hw
    y0, y1 = max(0, one.top), min(h, one.top + rows)
    x0, x1 = max(0, one.left), min(w, one.left + columns)
    if y0 >= y1 or x0 >= x1:
        return (slice(0, 0), slice(0, 0)), None
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - one.top, y1 - one.top), slice(x0 - one.left, x1 - one.left))


def main() -> None:
    """Write episodes as MOTChallenge folders, with their frames as PNG if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--twins", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--stamps", type=Path, help=f"folder of PNG files, such as {sprites.STAMPS}")
    parser.add_argument("--pictures", action="store_true", help="also write img1/000001.jpg and so on")
    given = parser.parse_args()
    world = World(seed=given.seed, twins=given.twins, episodes=given.episodes, stamps=given.stamps)
    for episode in make(world):
        folder = given.out / episode.name
        episode.write(folder)
        if given.pictures:
            (folder / "img1").mkdir(exist_ok=True)
            for number, picture in enumerate(episode.frames(), start=1):
                sprites.Image.fromarray(picture).save(folder / "img1" / f"{number:06d}.jpg", quality=95)
        print(f"{folder}: {len(episode.truth)} boxes, {sum(map(len, episode.detections))} detections")


if __name__ == "__main__":
    main()
