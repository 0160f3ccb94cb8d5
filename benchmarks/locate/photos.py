"""Cases of real photos, those of Debian's opencv-doc (`make data` fetches it), with true or exactly made geometry.

Marks are the strongest corners of the source (Shi and Tomasi 1994), at least a twentieth of the long side apart:

    graf      a painted wall seen twice; truth from the homography that comes with it (20 marks)
    aloe      a rectified stereo pair; truth from its disparity map (20 marks)
    warp      a photo and a random homography of it (15 degrees, 20 % scale, 6 % jitter of the corners), with other
              gamma, cast, blur and noise, on another photo as background (8 marks)
    other     absent: the target is another photo
    outside   absent: the target is 60 % of a warp, the mark lies in the rest
    painted   absent: the mark in a warp is painted over with its own blurred surroundings

No photo is in both splits, but for the wall, which is searched in opposite directions. OpenCV counts from pixel
centres, we count from pixel corners.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks.locate.cameras import project
from benchmarks.locate.sets import Case, Fate, Split
from benchmarks.locate.skin import Array, Random
from patchatlas.arrays import ImageU8
from patchatlas.io.images import read_image
from tools import debian_data

PHOTOS: dict[Split, tuple[str, ...]] = {
    "dev": ("fruits.jpg", "baboon.jpg", "home.jpg", "butterfly.jpg", "board.jpg", "aero1.jpg"),
    "test": (
        *("messi5.jpg", "building.jpg", "starry_night.jpg", "stuff.jpg", "pca_test1.jpg", "leuvenA.jpg"),
        "rubberwhale1.png",
    ),
}
POINTS = 8
WARPS = 2
PAINTED = 4
EDGE = 16
"""Marks whose truth is nearer to the border of the target than this many pixels are left out."""

TO_OURS = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])


def cases(split: Split) -> list[Case]:
    """All cases of a split, the same in every run.

    Raises:
        FileNotFoundError: the photos have not been fetched.
    """
    folder = debian_data.folder("opencv-doc")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is absent; fetch it with: make data")
    made = [_graf(folder, backwards=split == "dev")]
    if split == "test":
        made.append(_aloe(folder))
    photos = [read_image(folder / name) for name in PHOTOS[split]]
    for k, (name, photo) in enumerate(zip(PHOTOS[split], photos, strict=True)):
        other = photos[(k + 1) % len(photos)]
        made.append(_case("other", name, photo, other, corners(photo, POINTS), "elsewhere"))
        for seed in range(WARPS):
            made += _warps(f"{name}-{seed}", photo, other, np.random.default_rng([k, seed]))
    return made


def _case(kind: str, name: str, source: ImageU8, target: ImageU8, marks: Array, truth: Array | Fate) -> Case:
    """One source, one target, and either where the marks are in it or why they are not."""
    k = len(marks)
    visible = np.full(k, not isinstance(truth, str))
    places = np.full((k, 2), np.nan) if isinstance(truth, str) else truth
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return Case(
        kind=kind,
        name=f"{kind}-{name}",
        family="photo",
        sources=(source,),
        source_points=(marks,),
        source_masks=(None,),
        uuids=tuple(f"{name}-{n}" for n in range(k)),
        target=target,
        target_mask=None,
        truth=places,
        visible=visible,
        fates=(truth,) * k if isinstance(truth, str) else ("present",) * k,
        gaps=apart.min(axis=1, initial=np.inf),
    )


def _graf(folder: Path, *, backwards: bool) -> Case:
    """The wall from the front and from the side, or the other way round."""
    storage = cv2.FileStorage(str(folder / "H1to3p.xml"), cv2.FILE_STORAGE_READ)
    homography = TO_OURS @ storage.getFirstTopLevelNode().mat() @ np.linalg.inv(TO_OURS)
    names = ["graf1.png", "graf3.png"]
    if backwards:
        homography, names = np.linalg.inv(homography), names[::-1]
    source, target = (read_image(folder / name) for name in names)
    marks = corners(source, 60)
    truth = project(homography, marks)
    kept = _inside(truth, target)
    return _case("graf", names[0], source, target, marks[kept][:20], truth[kept][:20])


def _aloe(folder: Path) -> Case:
    """The left and right picture: a pixel at x, with disparity d > 0, lies at x - d in the right one."""
    left, right = (read_image(folder / name) for name in ("aloeL.jpg", "aloeR.jpg"))
    disparity = read_image(folder / "aloeGT.png")[..., 0]
    marks = corners(left, 60)
    columns, rows = np.floor(marks).astype(int).T
    shift = disparity[rows, columns].astype(float)
    truth = marks - np.stack([shift, np.zeros_like(shift)], axis=1)
    kept = _inside(truth, right) & (shift > 0)
    return _case("aloe", "left", left, right, marks[kept][:20], truth[kept][:20])


def _warps(name: str, photo: ImageU8, other: ImageU8, random: Random) -> Iterator[Case]:
    """One warp of a photo: as it is, cut, and with single marks painted over."""
    homography = _random_homography(photo, random)
    target = _worsened(_warped(photo, homography, background=other), random)
    marks = corners(photo, 40)
    truth = project(homography, marks)
    here = _inside(truth, target)
    yield _case("warp", name, photo, target, marks[here][:POINTS], truth[here][:POINTS])

    end = round(0.6 * target.shape[1])
    gone = here & (truth[:, 0] > end + EDGE)
    yield _case("outside", name, photo, np.ascontiguousarray(target[:, :end]), marks[gone][:POINTS], "outside")
    for n in np.flatnonzero(here)[:PAINTED]:
        yield _case(
            "painted", f"{name}-{n}", photo, _painted_over(target, truth[n], random), marks[n : n + 1], "painted"
        )


def corners(picture: ImageU8, most: int) -> Array:
    """The strongest corners, best first."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    found = cv2.goodFeaturesToTrack(grey, most, 0.01, max(grey.shape) / 20, blockSize=7)
    return found[:, 0].astype(float) + TO_OURS[:2, 2]


def _inside(points: Array, picture: ImageU8) -> Array:
    """Which points lie in the picture, `EDGE` from its border."""
    far = np.array(picture.shape[1::-1]) - EDGE
    return ((points >= EDGE) & (points <= far)).all(axis=1)


def _random_homography(picture: ImageU8, random: Random) -> Array:
    """Turn and scale about the centre, then move each corner by itself."""
    width_height = np.array(picture.shape[1::-1])
    box = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * width_height
    angle, scale = np.deg2rad(random.uniform(-15, 15)), np.exp(random.uniform(-0.2, 0.2))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (box - width_height / 2) @ turn.T + width_height / 2
    moved += random.uniform(-0.06, 0.06, (4, 2)) * width_height
    return cv2.getPerspectiveTransform(box.astype(np.float32), moved.astype(np.float32))


def _warped(picture: ImageU8, homography: Array, *, background: ImageU8) -> ImageU8:
    """The picture under a homography, laid on another one."""
    size_wh = picture.shape[1::-1]
    theirs = np.linalg.inv(TO_OURS) @ homography @ TO_OURS
    drawn = cv2.warpPerspective(picture, theirs, size_wh)
    covered = cv2.warpPerspective(np.full(picture.shape[:2], 255, np.uint8), theirs, size_wh) > 127
    return np.where(covered[..., None], drawn, cv2.resize(background, size_wh))


def _worsened(picture: ImageU8, random: Random) -> ImageU8:
    """Other gamma, colour cast, blur and noise."""
    levels = (picture / 255) ** random.uniform(0.7, 1.4) * random.uniform(0.8, 1.2, 3)
    levels = cv2.GaussianBlur(levels, (0, 0), random.uniform(0.3, 1.0)) + random.normal(0, 0.02, levels.shape)
    return (levels.clip(0, 1) * 255).round().astype(np.uint8)


def _painted_over(picture: ImageU8, at: Array, random: Random) -> ImageU8:
    """A soft disc of blurred surroundings and noise over a point; its radius is 8 % of the long side."""
    radius = 0.08 * max(picture.shape)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    part = np.clip((1.2 * radius - np.hypot(columns - at[0], rows - at[1])) / (0.4 * radius), 0, 1)[..., None]
    filling = cv2.GaussianBlur(picture, (0, 0), radius) + random.normal(0, 6, picture.shape)
    return (part * filling.clip(0, 255) + (1 - part) * picture).round().astype(np.uint8)
