"""Pairs of held-out pictures with a known place for every point: what the encoders are asked about.

    graf        a painted wall from the front and 40 degrees from the side; the homography comes with it
    aloe        a rectified stereo pair; the disparity comes with it
    motorcycle  another (Middlebury 2014, in scikit-image's wheel), likewise
    box         a book, and the same in a scene, about half as large and turned; the book is set on grey of the scene's
                size, so that both are drawn at one scale. No truth comes with it: a homography of sparse SIFT matches
                (ratio 0.8, RANSAC at 3 px), kept only with 40 inliers or more. It leans towards SIFT
    rotate30, rotate90, zoom1.6   four photos each, turned or enlarged about their middle, ground in grey

All but the motorcycle is from Debian's opencv-doc, of which nothing was used for training. Points are drawn evenly from
a seed, at least `MARGIN` of the long side inside both pictures. OpenCV counts from pixel centres, we from corners.

Axes: k points.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.locate.cameras import project
from benchmarks.locate.photos import TO_OURS
from patchatlas.arrays import ImageU8
from patchatlas.errors import InputError
from patchatlas.io.images import read_image
from tools import debian_data
from tools.bundled.pictures import fetch_wheel

Array = np.ndarray

POINTS = 600
MARGIN = 0.03
"""Of the long side."""
PHOTOS = ("home.jpg", "messi5.jpg", "board.jpg", "fruits.jpg")
VIEWS = {"rotate30": (30.0, 1.0), "rotate90": (90.0, 1.0), "zoom1.6": (0.0, 1.6)}
"""Degrees and enlargement."""
GROUND = (114, 114, 114)
INLIERS = 40


@dataclass(frozen=True, eq=False)
class Pair:
    """Two pictures and where points of the first are in the second.

    Attributes:
        kind: as in the head of this file.
        source: the first.
        target: the second.
        points: in the first, (k, 2) pixels (x, y).
        truth: in the second, (k, 2).
    """

    kind: str
    source: ImageU8
    target: ImageU8
    points: Array
    truth: Array


def pairs() -> list[Pair]:
    """All pairs, the same in every run.

    Raises:
        FileNotFoundError: opencv-doc has not been fetched.
        FetchError: the wheel of scikit-image cannot be had.
    """
    folder = debian_data.folder("opencv-doc")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is absent; fetch it with: make data")
    return [graf(folder), aloe(folder), motorcycle(fetch_wheel("scikit-image")), box(folder), *views(folder)]


def kept(kind: str, source: ImageU8, target: ImageU8, points: Array, truth: Array) -> Pair:
    """A pair of the points that lie inside both pictures and have a truth."""
    inside = _inside(points, source) & _inside(truth, target)
    return Pair(kind, source, target, points[inside], truth[inside])


def drawn(picture: ImageU8, *, seed: int) -> Array:
    """Points all over a picture, (POINTS, 2)."""
    return np.random.default_rng(seed).uniform(0, picture.shape[1::-1], (POINTS, 2))


def shifted(kind: str, left: ImageU8, right: ImageU8, disparity: Array, *, seed: int) -> Pair:
    """A rectified pair: what is at x in the left picture, with disparity d > 0, is at x - d in the right one."""
    points = drawn(left, seed=seed)
    columns, rows = np.floor(points).astype(int).T
    shift = disparity[rows, columns].astype(float)
    shift[~(np.isfinite(shift) & (shift > 0))] = np.nan
    return kept(kind, left, right, points, points - np.stack([shift, 0 * shift], axis=1))


def graf(folder: Path) -> Pair:
    """The wall, with the homography that comes with it."""
    storage = cv2.FileStorage(str(folder / "H1to3p.xml"), cv2.FILE_STORAGE_READ)
    homography = TO_OURS @ storage.getFirstTopLevelNode().mat() @ np.linalg.inv(TO_OURS)
    source, target = (read_image(folder / name) for name in ("graf1.png", "graf3.png"))
    points = drawn(source, seed=0)
    return kept("graf", source, target, points, project(homography, points))


def aloe(folder: Path) -> Pair:
    """The plant; disparities in whole pixels, 0 where there is none."""
    left, right = (read_image(folder / name) for name in ("aloeL.jpg", "aloeR.jpg"))
    return shifted("aloe", left, right, read_image(folder / "aloeGT.png")[..., 0], seed=1)


def motorcycle(folder: Path) -> Pair:
    """The motorcycle; disparities in parts of a pixel, not finite where there is none."""
    left, right = (read_image(folder / f"motorcycle_{side}.png") for side in ("left", "right"))
    with np.load(folder / "motorcycle_disp.npz") as stored:
        disparity = stored[stored.files[0]]
    return shifted("motorcycle", left, right, disparity, seed=2)


def box(folder: Path) -> Pair:
    """The book and the scene; the homography is found, not given."""
    book, target = (read_image(folder / name) for name in ("box.png", "box_in_scene.png"))
    source = np.full_like(target, GROUND)
    source[: book.shape[0], : book.shape[1]] = book
    sift = cv2.SIFT_create()
    (here, own), (there, other) = (
        sift.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None) for picture in (source, target)
    )
    near = cv2.BFMatcher().knnMatch(own, other, k=2)
    good = [first for first, second in near if first.distance < 0.8 * second.distance]
    before = np.array([here[match.queryIdx].pt for match in good])
    after = np.array([there[match.trainIdx].pt for match in good])
    homography, inliers = cv2.findHomography(before, after, cv2.RANSAC, 3.0)
    if inliers.sum() < INLIERS:
        raise InputError(f"box and box_in_scene agree in {inliers.sum()} matches, at least {INLIERS} are needed")
    points = drawn(book, seed=3)
    return kept("box", source, target, points, project(TO_OURS @ homography @ np.linalg.inv(TO_OURS), points))


def views(folder: Path) -> Iterator[Pair]:
    """Photos turned and enlarged."""
    for kind, (degrees, enlargement) in VIEWS.items():
        for seed, name in enumerate(PHOTOS):
            yield turned(kind, read_image(folder / name), degrees, enlargement, seed=4 + seed)


def turned(kind: str, picture: ImageU8, degrees: float, enlargement: float, *, seed: int) -> Pair:
    """A picture, and the same turned and enlarged about its middle, in a frame of the same size."""
    width, height = picture.shape[1::-1]
    ours = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), degrees, enlargement), [0, 0, 1]])
    theirs = np.linalg.inv(TO_OURS) @ ours @ TO_OURS
    shown = cv2.warpAffine(picture, theirs[:2], (width, height), flags=cv2.INTER_CUBIC, borderValue=GROUND)
    points = drawn(picture, seed=seed)
    return kept(kind, picture, shown, points, project(ours, points))


def _inside(points: Array, picture: ImageU8) -> Array:
    """Which points lie inside; none that is NaN does."""
    size = np.array(picture.shape[1::-1])
    far = MARGIN * size.max()
    return ((points >= far) & (points <= size - far)).all(axis=1)
