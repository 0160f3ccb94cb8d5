"""Cases of real photos: the truth is where the mark really is, and absent marks are gone."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.locate.photos import PHOTOS, _graf, _warps, corners
from benchmarks.locate.sets import Case
from patchatlas.io.images import read_image


def alike(case: Case) -> np.ndarray:
    """Normalised cross-correlation of 15 px squares about each mark and about its truth, in grey."""

    def square(picture: np.ndarray, at: np.ndarray) -> np.ndarray:
        column, row = np.floor(at).astype(int)
        cut = picture[row - 7 : row + 8, column - 7 : column + 8].mean(axis=2)
        return (cut - cut.mean()) / cut.std()

    pairs = zip(case.source_points[0], case.truth, strict=True)
    return np.array([(square(case.sources[0], mark) * square(case.target, at)).mean() for mark, at in pairs])


def test_marks_of_a_warp_are_where_it_says(opencv_doc: Path) -> None:
    photo, other = (read_image(opencv_doc / name) for name in ("fruits.jpg", "baboon.jpg"))
    made = list(_warps("fruits", photo, other, np.random.default_rng(0)))
    assert [case.kind for case in made] == ["warp", "outside", *["painted"] * 4]
    warp, outside, painted = made[0], made[1], made[2]
    assert np.median(alike(warp)) > 0.6
    assert warp.visible.all()
    assert set(warp.fates) == {"present"}
    apart = np.linalg.norm(warp.truth[:, None] - warp.truth[None], axis=2) + np.diag([np.inf] * len(warp.truth))
    np.testing.assert_allclose(warp.gaps, apart.min(axis=1))

    assert outside.target.shape[1] < warp.target.shape[1]
    assert np.isnan(outside.truth).all()
    assert set(outside.fates) <= {"outside"}
    assert painted.fates == ("painted",)
    column, row = np.floor(warp.truth[0]).astype(int)
    about = (slice(row - 7, row + 8), slice(column - 7, column + 8))
    assert painted.target[about].mean(axis=2).std() < 0.5 * warp.target[about].mean(axis=2).std()


@pytest.mark.parametrize("backwards", [False, True])
def test_the_wall_is_searched_both_ways(opencv_doc: Path, backwards: bool) -> None:
    """The squares differ in turn and scale by the change of view, so they are only somewhat alike."""
    case = _graf(opencv_doc, backwards=backwards)
    assert len(case.uuids) == 20
    away = case.truth + np.random.default_rng(0).uniform(20, 60, case.truth.shape)
    moved = Case(**{**case.__dict__, "truth": np.clip(away, 10, 600)})
    assert np.median(alike(case)) > np.median(alike(moved)) + 0.1


def test_corners_are_named_by_pixel_corners() -> None:
    """The corner of a white square that covers pixels 20 to 39 lies at (20, 20), between pixel centres 19 and 20."""
    picture = np.zeros((60, 60, 3), dtype=np.uint8)
    picture[20:40, 20:40] = 255
    found = corners(picture, 4)
    nearest = abs(found[:, None] - np.array([[20, 20], [20, 40], [40, 20], [40, 40]])[None]).max(axis=2).min(axis=1)
    assert (nearest <= 3.0).all()
    assert abs(found.mean(axis=0) - 30).max() < 0.01


def test_no_photo_is_in_both_splits() -> None:
    assert not set(PHOTOS["dev"]) & set(PHOTOS["test"])
