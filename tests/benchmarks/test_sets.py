"""The drawn cases: truth is where a mark really appears, seeds mean the same everywhere, splits stay apart."""

from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks.locate.cameras import Cylinder, Flat, View, draw, homography_between, photograph, project
from benchmarks.locate.sets import EDGE, KINDS, SIZE, Case, Kind, _body, _posed, _second_view, case, families
from benchmarks.locate.skin import (
    DENSITY,
    FAMILIES,
    GAP,
    HELD_OUT,
    Mole,
    Skin,
    draw_skin,
    noise,
    painted_over,
    place_moles,
)


def views() -> dict[str, View]:
    """One view of each kind of map."""
    random = np.random.default_rng(5)
    corner = np.array([20.0, 31.5])
    return {
        "homography": _second_view("homography", corner, random),
        "waves": _second_view("nonrigid", corner, random),
        "cylinder": _posed(_body(random), 1.0, 20, random),
    }


@pytest.mark.parametrize("name", views())
def test_a_view_undoes_itself(name: str) -> None:
    view = views()[name]
    points = np.random.default_rng(0).uniform(60, SIZE - 60, (50, 2))
    places, seen = view.to_skin(points)
    back, seen_again = view.from_skin(places)
    assert_allclose(back, points, atol=1e-9)
    assert_allclose(seen_again, seen, atol=1e-9)
    assert (seen > 0).all()


@pytest.mark.parametrize("name", views())
def test_a_dot_is_drawn_where_the_view_says(name: str) -> None:
    """The darkness of a round dot on white skin has its middle where `from_skin` puts the dot's centre."""
    view = views()[name]
    wide = 1200 if isinstance(view, Cylinder) else 660
    white = torch.ones(3, 660 * DENSITY, wide * DENSITY)
    point = np.array([150.3, 180.8])
    (place,), _ = view.to_skin(point[None])
    colours = white.numpy().astype(np.float64)
    Mole((4.0, 4.0), 0.0, ((0.0, 0.0),), 0.5, 0.0).draw(colours, np.mod(place, [wide, 660]))
    dotted = Skin(torch.from_numpy(colours.astype(np.float32)), np.zeros((0, 2)))
    plain = draw(Skin(white, np.zeros((0, 2))), view, size=SIZE, background=np.zeros(3))[0]
    dark = (plain - draw(dotted, view, size=SIZE, background=np.zeros(3))[0])[..., 0]
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    centroid = np.array([(dark * x).sum(), (dark * y).sum()]) / dark.sum()
    assert_allclose(centroid, point, atol=0.05)


def test_a_homography_between_points() -> None:
    """x' = 2 x / (x + 2), y' = 2 y / (x + 2), worked by hand at the corners of the square of side 2."""
    before = np.array([[0.0, 0.0], [2, 0], [2, 2], [0, 2]])
    after = np.array([[0.0, 0.0], [1, 0], [1, 1], [0, 2]])
    homography = homography_between(before, after)
    assert_allclose(project(homography, np.array([[1.0, 1.0]])), [[2 / 3, 2 / 3]], atol=1e-12)


def test_waves_never_fold() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        view = _second_view("nonrigid", np.zeros(2), random)
        steep = np.linalg.norm(view.waves[:, :2], axis=1) * np.linalg.norm(view.waves[:, 2:], axis=1)
        assert steep.sum() <= 0.5
        assert np.linalg.norm(view.waves[:, :2], axis=1).sum() <= 11.0 + 1e-9


@cache
def drawn(kind: Kind) -> Case:
    """A case that several tests look at."""
    return case(kind, 7, "dev")


@pytest.mark.parametrize("kind", KINDS)
def test_a_case_holds_together(kind: Kind) -> None:
    one = case(kind, 7, "dev")
    k = len(one.uuids)
    assert k >= 4
    assert len(set(one.uuids)) == k
    assert one.target.shape == (SIZE, SIZE, 3)
    assert one.target.dtype == np.uint8
    assert len(one.sources) == len(one.source_points) == len(one.source_masks)
    assert [fate == "present" for fate in one.fates] == one.visible.tolist()
    assert_array_equal(np.isnan(one.truth).any(axis=1), ~one.visible)
    assert_array_equal(np.isnan(one.gaps), ~one.visible)
    shown = one.truth[one.visible]
    assert ((shown >= EDGE) & (shown <= SIZE - EDGE)).all()
    for points in one.source_points:
        assert points.shape == (k, 2)
    assert not np.isnan(np.stack(one.source_points)).any(axis=2).all(axis=0).any(), "each mark is in a source"
    if kind in ("absent", "rotomap"):
        assert 0 < one.visible.sum() < k
    if kind == "absent":
        assert {"present", "painted", "outside"} == set(one.fates)
    if kind == "rotomap":
        x, y = np.floor(shown).astype(int).T
        assert one.target_mask is not None
        assert one.target_mask[y, x].all()
        assert not one.target_mask.all()


def test_a_seed_says_everything() -> None:
    one, again, other = drawn("nonrigid"), case("nonrigid", 7, "dev"), case("nonrigid", 8, "dev")
    assert_array_equal(one.target, again.target)
    assert_array_equal(one.truth, again.truth)
    assert not np.array_equal(one.target, other.target)


def test_gaps_are_to_the_nearest_mole() -> None:
    one = drawn("twins")
    marked = np.linalg.norm(one.truth[:, None] - one.truth[None], axis=2)
    np.fill_diagonal(marked, np.inf)
    assert (one.gaps[one.visible] <= np.nanmin(marked[one.visible], axis=1) + 1e-9).all()
    assert one.gaps[one.visible].min() > GAP / 2
    assert np.median(one.gaps[one.visible]) < 1.3 * GAP + 8  # its twin, wherever both are in sight


def test_a_mole_is_darker_than_what_is_about_it() -> None:
    """Truth against the pixels themselves: present marks are dark in the target, those painted over are not."""
    dark: dict[str, list[float]] = {"present": [], "painted": []}
    for seed in range(3):
        random = np.random.default_rng(seed)
        skin = draw_skin("plain", (330, 330), random, moles=20)
        painted = painted_over(skin, "plain", np.arange(0, 20, 2), random, radius=18.0)
        for name, shown, which in (("present", skin, slice(None)), ("painted", painted, slice(0, None, 2))):
            centre = skin.moles_xy[which]
            ring = np.concatenate([centre + 12 * np.array([np.cos(a), np.sin(a)]) for a in np.arange(0, 6.28, 0.5)])
            about = shown.at(ring).reshape(-1, len(centre), 3).mean(axis=(0, 2))
            dark[name] += (about - shown.at(centre).mean(axis=1)).tolist()
    assert np.mean(dark["present"]) > 0.1
    assert abs(np.mean(dark["painted"])) < 0.02


@pytest.mark.parametrize("twins", [False, True])
def test_moles_keep_their_distance(twins: bool) -> None:
    placed = place_moles((330, 330), np.random.default_rng(2), count=60, twins=twins)
    away = abs(placed[:, None] - placed[None])
    distance = np.hypot(*np.moveaxis(np.minimum(away, 330 - away), -1, 0))
    np.fill_diagonal(distance, np.inf)
    assert distance.min() >= GAP
    if twins:
        assert (distance[np.arange(0, 20, 2), np.arange(1, 20, 2)] <= GAP + 8).all()


def test_noise_is_as_strong_as_asked_and_seamless() -> None:
    drawn = noise((128, 128), np.random.default_rng(0), {8: 0.5})
    assert drawn.shape == (256, 256)
    assert drawn.std() == pytest.approx(0.5, rel=0.05)
    steps = np.diff(drawn, axis=0)
    assert np.abs(drawn[0] - drawn[-1]).max() <= np.abs(steps).max() * 1.2


def test_splits_stay_apart() -> None:
    with pytest.raises(ValueError, match="not of the dev split"):
        case("homography", 10_000, "dev")
    with pytest.raises(ValueError, match="not of the test split"):
        case("homography", 0, "test")
    with pytest.raises(ValueError, match="not one of the dev split"):
        case("homography", 0, "dev", family=HELD_OUT)
    assert set(families("test")) == set(FAMILIES)
    assert set(families("dev")) == set(FAMILIES) - {HELD_OUT}
    assert case("homography", 10_003, "test").family == families("test")[10_003 % len(FAMILIES)] == HELD_OUT


def test_photographs_differ_in_light_only() -> None:
    grey = np.full((32, 32, 3), 0.5)
    plain = photograph(grey, np.random.default_rng(0), plain=True)
    assert abs(float(plain.mean()) - 127.5) < 1
    assert Flat(np.eye(3), np.zeros((0, 4)), np.zeros(0)).from_skin(np.array([[3.0, 4.0]]))[0].tolist() == [[3.0, 4.0]]
