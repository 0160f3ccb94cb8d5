"""How well `locate` finds marks, and knows when it has not: pairs of real photos with known truth, present and absent.

    python benchmarks/locate_pairs.py [--encoder bundled:sift] [--image-size 896] [--split held-out] [--points 8]

The photos are those of Debian's opencv-doc (`make data` fetches it). Marks are the strongest corners of the source
(Shi and Tomasi 1994), at least a twentieth of the long side apart. Kinds of pairs:

    graf      a painted wall seen twice; truth from the homography that comes with it (20 marks)
    aloe      a rectified stereo pair; truth from its disparity map (20 marks)
    warp      a photo and a random homography of it (15 degrees, 20 % scale, 6 % jitter of the corners), with other
              gamma, cast, blur and noise, on another photo as background
    other     absent: the target is another photo
    outside   absent: the target is 60 % of a warp, the mark lies in the rest
    painted   absent: the mark in a warp is painted over with its own blurred surroundings

Found answers count as right within two patches. The thresholds of `matching.verdict.Limits` were chosen on the
development split; its photos and directions do not occur in the held-out split.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from patchatlas.arrays import ImageU8
from patchatlas.dense import encode
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Encoder
from patchatlas.geometry.buckets import fit
from patchatlas.io.images import read_image
from patchatlas.locate.pair import centred_frame
from patchatlas.locate.search import locate_points

sys.path.insert(0, str(Path(__file__).parents[1]))
from tools import debian_data

PHOTOS = {
    "development": ("fruits.jpg", "baboon.jpg", "home.jpg", "butterfly.jpg", "board.jpg", "aero1.jpg"),
    "held-out": (
        *("messi5.jpg", "building.jpg", "starry_night.jpg", "stuff.jpg", "pca_test1.jpg", "leuvenA.jpg"),
        "rubberwhale1.png",
    ),
}
WARPS = 2
PAINTED = 4
EDGE = 16
"""Marks whose truth is nearer to the border of the target than this many pixels are left out."""

# OpenCV counts from pixel centres, we count from pixel corners; this takes its points to ours.
TO_OURS = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])


@dataclass(frozen=True)
class Pair:
    """Marks in a source, and where they are (or were) in a target.

    Attributes:
        kind: see the top of the file.
        name: which photos.
        source: the source.
        target: the target.
        points: marks, source pixels, (p, 2).
        truth: the same in target pixels, or `None` if they are absent.
    """

    kind: str
    name: str
    source: ImageU8
    target: ImageU8
    points: np.ndarray
    truth: np.ndarray | None


@dataclass(frozen=True)
class Answer:
    """One mark, looked for.

    Attributes:
        kind: of the pair.
        state: what was answered.
        present: whether the mark is in the target.
        error: distance to the truth in target pixels, NaN if absent.
        patch: side of a patch in target pixels.
    """

    kind: str
    state: str
    present: bool
    error: float
    patch: float

    @property
    def right(self) -> bool:
        """Whether the place is right: within two patches of the truth."""
        return self.present and self.error <= 2 * self.patch


def pairs(folder: Path, split: str, *, points: int) -> Iterator[Pair]:
    """All pairs of a split, the same in every run."""
    yield graf(folder, backwards=split == "development")
    if split == "held-out":
        yield aloe(folder)
    photos = [read_image(folder / name) for name in PHOTOS[split]]
    for k, (name, photo) in enumerate(zip(PHOTOS[split], photos, strict=True)):
        other = photos[(k + 1) % len(photos)]
        yield Pair("other", name, photo, other, corners(photo, points), None)
        for seed in range(WARPS):
            yield from warps(name, photo, other, np.random.default_rng([k, seed]), points=points)


def graf(folder: Path, *, backwards: bool) -> Pair:
    """The wall from the front and from the side, or the other way round."""
    storage = cv2.FileStorage(str(folder / "H1to3p.xml"), cv2.FILE_STORAGE_READ)
    homography = TO_OURS @ storage.getFirstTopLevelNode().mat() @ np.linalg.inv(TO_OURS)
    names = ["graf1.png", "graf3.png"]
    if backwards:
        homography, names = np.linalg.inv(homography), names[::-1]
    source, target = (read_image(folder / name) for name in names)
    marks = corners(source, 60)
    truth = mapped(homography, marks)
    kept = inside(truth, target)
    return Pair("graf", " -> ".join(names), source, target, marks[kept][:20], truth[kept][:20])


def aloe(folder: Path) -> Pair:
    """The left and right picture: a pixel at x, with disparity d > 0, lies at x - d in the right one."""
    left, right = (read_image(folder / name) for name in ("aloeL.jpg", "aloeR.jpg"))
    disparity = read_image(folder / "aloeGT.png")[..., 0]
    marks = corners(left, 60)
    columns, rows = np.floor(marks).astype(int).T
    shift = disparity[rows, columns].astype(float)
    truth = marks - np.stack([shift, np.zeros_like(shift)], axis=1)
    kept = inside(truth, right) & (shift > 0)
    return Pair("aloe", "aloeL -> aloeR", left, right, marks[kept][:20], truth[kept][:20])


def warps(name: str, photo: ImageU8, other: ImageU8, random: np.random.Generator, *, points: int) -> Iterator[Pair]:
    """One warp of a photo: as it is, cut, and with single marks painted over."""
    homography = random_homography(photo, random)
    target = worsened(warped(photo, homography, background=other), random)
    marks = corners(photo, 40)
    truth = mapped(homography, marks)
    here = inside(truth, target)
    yield Pair("warp", name, photo, target, marks[here][:points], truth[here][:points])

    end = round(0.6 * target.shape[1])
    cut_away = here & (truth[:, 0] > end + EDGE)
    yield Pair("outside", name, photo, np.ascontiguousarray(target[:, :end]), marks[cut_away][:points], None)
    for index in np.flatnonzero(here)[:PAINTED]:
        yield Pair("painted", name, photo, painted_over(target, truth[index], random), marks[index : index + 1], None)


def corners(picture: ImageU8, most: int) -> np.ndarray:
    """The strongest corners, best first."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    found = cv2.goodFeaturesToTrack(grey, most, 0.01, max(grey.shape) / 20, blockSize=7)
    return found[:, 0].astype(float) + TO_OURS[:2, 2]


def mapped(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points under a homography."""
    raised = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ homography.T
    return raised[:, :2] / raised[:, 2:]


def inside(points: np.ndarray, picture: ImageU8) -> np.ndarray:
    """Which points lie in the picture, `EDGE` from its border."""
    far = np.array(picture.shape[1::-1]) - EDGE
    return ((points >= EDGE) & (points <= far)).all(axis=1)


def random_homography(picture: ImageU8, random: np.random.Generator) -> np.ndarray:
    """Turn and scale about the centre, then move each corner by itself."""
    width_height = np.array(picture.shape[1::-1])
    box = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * width_height
    angle, scale = np.deg2rad(random.uniform(-15, 15)), np.exp(random.uniform(-0.2, 0.2))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (box - width_height / 2) @ turn.T + width_height / 2
    moved += random.uniform(-0.06, 0.06, (4, 2)) * width_height
    return cv2.getPerspectiveTransform(box.astype(np.float32), moved.astype(np.float32))


def warped(picture: ImageU8, homography: np.ndarray, *, background: ImageU8) -> ImageU8:
    """The picture under a homography, laid on another one."""
    size_wh = picture.shape[1::-1]
    theirs = np.linalg.inv(TO_OURS) @ homography @ TO_OURS
    drawn = cv2.warpPerspective(picture, theirs, size_wh)
    covered = cv2.warpPerspective(np.full(picture.shape[:2], 255, np.uint8), theirs, size_wh) > 127
    return np.where(covered[..., None], drawn, cv2.resize(background, size_wh))


def worsened(picture: ImageU8, random: np.random.Generator) -> ImageU8:
    """Other gamma, colour cast, blur and noise."""
    levels = (picture / 255) ** random.uniform(0.7, 1.4) * random.uniform(0.8, 1.2, 3)
    levels = cv2.GaussianBlur(levels, (0, 0), random.uniform(0.3, 1.0)) + random.normal(0, 0.02, levels.shape)
    return (levels.clip(0, 1) * 255).round().astype(np.uint8)


def painted_over(picture: ImageU8, at: np.ndarray, random: np.random.Generator) -> ImageU8:
    """A soft disc of blurred surroundings and noise over a point; its radius is 8 % of the long side."""
    radius = 0.08 * max(picture.shape)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    part = np.clip((1.2 * radius - np.hypot(columns - at[0], rows - at[1])) / (0.4 * radius), 0, 1)[..., None]
    filling = cv2.GaussianBlur(picture, (0, 0), radius) + random.normal(0, 6, picture.shape)
    return (part * filling.clip(0, 255) + (1 - part) * picture).round().astype(np.uint8)


def ask(pair: Pair, encoder: Encoder, *, image_size: int) -> list[Answer]:
    """Look for every mark of a pair; the target is encoded once."""
    patch = encoder.spec.patch
    target_map = encode(pair.target, encoder, frame=fit(pair.target.shape[:2], long_side=image_size, patch=patch))
    answers = []
    for index, (x, y) in enumerate(pair.points.tolist()):
        frame = centred_frame(pair.source.shape[:2], (x, y), image_size=image_size, patch=patch)
        source_map = encode(pair.source, encoder, frame=frame)
        point = torch.tensor([[x, y]], dtype=torch.float64)
        (finding,) = locate_points(source_map, target_map, point, uuids=[str(index)], image_size=image_size)
        present = pair.truth is not None
        error = float(np.hypot(*(finding.target_xy - pair.truth[index]))) if present else float("nan")
        side = float(target_map.grid.frame.scale[1]) * patch[1]
        answers.append(Answer(pair.kind, finding.state, present, error, side))
        if pair.kind == "graf":
            print(f"  {pair.name}  ({x:5.1f}, {y:5.1f})  error {error:6.1f} px  {finding.state}: {finding.reason}")
    return answers


def report(answers: list[Answer]) -> None:
    """One line a kind, then how far the states can be trusted."""
    print("kind       n  found uncertain absent  PCK@8  @16   @32   mean px  median px")
    for kind in dict.fromkeys(answer.kind for answer in answers):
        of_kind = [answer for answer in answers if answer.kind == kind]
        states = Counter(answer.state for answer in of_kind)
        line = f"{kind:8s} {len(of_kind):3d}  {states['found']:5d} {states['uncertain']:9d} {states['absent']:6d}"
        if of_kind[0].present:
            errors = np.array([answer.error for answer in of_kind])
            hits = "  ".join(f"{np.mean(errors <= limit):.2f}" for limit in (8, 16, 32))
            line += f"   {hits}   {errors.mean():7.1f}  {np.median(errors):9.1f}"
        print(line)
    share("found and right, of all found", [a.right for a in answers if a.state == "found"])
    share("found and right, of all present", [a.state == "found" and a.right for a in answers if a.present])
    share("truly absent, of all called absent", [not a.present for a in answers if a.state == "absent"])
    share("called absent, of all truly absent", [a.state == "absent" for a in answers if not a.present])
    share("called found, of all truly absent", [a.state == "found" for a in answers if not a.present])


def share(what: str, which: list[bool]) -> None:
    """Print the part that is true."""
    print(f"{what}: {sum(which)}/{len(which)}" + (f" = {np.mean(which):.3f}" if which else ""))


def main() -> None:
    """Read the options, ask, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="bundled:sift")
    parser.add_argument("--image-size", type=int, default=896)
    parser.add_argument("--split", choices=PHOTOS, default="held-out")
    parser.add_argument("--points", type=int, default=8, help="marks a pair")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    encoder = load_encoder(options.encoder, device=options.device)
    folder = debian_data.folder("opencv-doc")
    answers: list[Answer] = []
    for pair in pairs(folder, options.split, points=options.points):
        answers += ask(pair, encoder, image_size=options.image_size)
    report(answers)


if __name__ == "__main__":
    main()
