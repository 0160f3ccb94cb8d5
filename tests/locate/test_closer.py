"""The closer look: finer places where the first look was nearly right, in crops that show both pictures alike."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.forward import activation_bytes
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import ResourceError, UsageError
from patchatlas.features import FeatureMap
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample, sample
from patchatlas.geometry.turns import turned, turns_of
from patchatlas.locate import closer
from patchatlas.locate.closer import crop_about, look_closer
from patchatlas.locate.recipe import Recipe
from patchatlas.locate.result import Finding, Peak
from patchatlas.locate.search import REACH, locate_points
from patchatlas.matching.peaks import shape_about
from patchatlas.spec import EncoderSpec
from tests.locate.test_search import clouds


@dataclass
class WideEncoder:
    """What lies about a patch, to half a patch-and-a-bit beyond, in coarse pixels and less its mean; keeps its inputs.

    The mean of `pool` pixels along each axis is one number; a token sees `beyond` pixels past its patch.
    """

    patch: tuple[int, ...] = (8, 8)
    pool: int = 4
    beyond: int = 16
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    given: list[Tensor] = field(default_factory=list)

    @property
    def spec(self) -> EncoderSpec:
        return FakeEncoder(patch=self.patch).spec

    def __call__(self, pixels: Tensor, /) -> Tokens:
        self.given.append(pixels)
        ndim = len(self.patch)
        wide = F.pad(pixels[:, :1], (self.beyond,) * 2 * ndim, mode="replicate")
        cells = (F.avg_pool2d if ndim == 2 else F.avg_pool3d)(wide, self.pool)
        for axis, p in enumerate(self.patch):
            cells = cells.unfold(2 + axis, (p + 2 * self.beyond) // self.pool, p // self.pool)  # b 1 *grid *window
        tokens = cells[:, 0].flatten(1 + ndim).flatten(1, ndim)
        return Tokens(tokens - tokens.mean(dim=2, keepdim=True))


ZOOM, JITTER, BOTH = Recipe(zoom=2.4), Recipe(jitter=2), Recipe(zoom=1.5, jitter=4)
ONLY = {"zoom": Recipe(zoom=2.4, candidates=1), "jitter": Recipe(jitter=2, candidates=1)}
SCENE = clouds(160, 200, seed=3, blob=6)
UPRIGHT, *TURNS = turns_of(("flip", "rot90"))


@pytest.fixture(autouse=True, scope="module")
def _small_crops() -> Iterator[None]:
    """Crops of 15 patches instead of 31, for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(closer.CELLS, 2, 15)
        patch.setitem(closer.CELLS, 3, 7)
        yield


def looked(
    source: Tensor,
    target: Tensor,
    marks: list[tuple[float, float]],
    recipe: Recipe,
    *,
    encoder: WideEncoder | None = None,
    frames: tuple[Frame, Frame] | None = None,
) -> tuple[list[Finding], list[Finding]]:
    """Findings before and after the closer look; pictures are encoded as they are, or in frames."""
    here, there = frames or (Frame.whole(source.shape[1:]), Frame.whole(target.shape[1:]))
    maps = encode(source, WideEncoder(), frame=here), encode(target, WideEncoder(), frame=there)
    points = torch.tensor(marks, dtype=torch.float64)
    first = locate_points(*maps, points, uuids=[str(k) for k in range(len(marks))], image_size=128)
    return first, closed(first, source, target, maps, recipe, encoder)


def closed(
    first: list[Finding],
    source: Tensor,
    target: Tensor,
    maps: tuple[FeatureMap, FeatureMap],
    recipe: Recipe,
    encoder: WideEncoder | None = None,
) -> list[Finding]:
    return look_closer(first, source, maps[0], target, maps[1], encoder or WideEncoder(), recipe)


def cut(x: float, y: float, *, rows: int = 96, columns: int = 128) -> Tensor:
    """Part of the scene that begins at (x, y), which may be between pixels."""
    return resample(SCENE, Frame.whole((160, 200)).crop((Fraction(y), Fraction(x)), (rows, columns)))


def test_a_crop_by_hand() -> None:
    """A frame of 40 x 60 that shows 80 x 120: half size. Twice as large again, source pixels are crop pixels."""
    frame = Frame.whole((80, 120)).resize((40, 60)).crop((5, 7), (32, 32))
    crop = crop_about(frame, (50.0, 30.5), zoom=Fraction(2), size=(24, 24), at=(12, 8))
    assert crop.scale == (1, 1)
    assert crop.shift == (Fraction("18.5"), 42)
    assert (crop.size, crop.source_size) == ((24, 24), (80, 120))


@given(
    xy=st.tuples(st.floats(0, 120), st.floats(0, 80)),
    zoom=st.fractions(Fraction(1, 4), 9, max_denominator=20),
    at=st.tuples(st.integers(0, 50), st.fractions(0, 50, max_denominator=7)),
    turn=st.sampled_from([UPRIGHT, *TURNS]),
)
@settings(max_examples=30)
def test_a_crop_has_its_point_where_it_should_and_keeps_scale_and_turn(xy, zoom, at, turn) -> None:
    frame = turned(Frame.whole((80, 120)).resize((56, 96)).crop((Fraction(1, 3), -9), (48, 48)), turn)
    crop = crop_about(frame, xy, zoom=zoom, size=(40, 64), at=at)
    point = torch.tensor([xy], dtype=torch.float64)
    expected = torch.tensor([[float(at[1]), float(at[0])]], dtype=torch.float64)
    torch.testing.assert_close(crop.from_source(point), expected, rtol=0, atol=1e-9)
    assert crop.axes == frame.axes
    assert [s * zoom for s in crop.scale] == list(frame.scale)
    assert crop.size == (40, 64)


SHIFTS = st.floats(-24, 24) | st.integers(-24, 24).map(float)
ASIDE = st.floats(-4, 4)


@given(dx=SHIFTS, dy=SHIFTS, aside=st.tuples(ASIDE, ASIDE))
@example(dx=0.0, dy=0.0, aside=(0.0, 0.0))
@example(dx=8.0, dy=-16.0, aside=(4.0, -4.0))
@example(dx=3.5, dy=12.25, aside=(-2.5, 3.0))
@settings(max_examples=8)
def test_a_planted_shift_comes_back(dx, dy, aside) -> None:
    """Whole pixels and parts, whole patches and parts; the mark is anywhere in its patch, the first look is off."""
    source, target = cut(36, 32), cut(36 + dx, 32 + dy)
    maps = encode(source, WideEncoder()), encode(target, WideEncoder())
    (first,) = locate_points(*maps, torch.tensor([[61.3, 44.9]], dtype=torch.float64), uuids=["m"], image_size=128)
    truth = (61.3 - dx, 44.9 - dy)
    first = replace(first, target_xy=(truth[0] + aside[0], truth[1] + aside[1]), runners_up=())
    for recipe, side in [(ZOOM, 8 / 2.4), (JITTER, 2), (BOTH, 4 / 1.5)]:
        (found,) = closed([first], source, target, maps, recipe)
        assert math.dist(found.target_xy, truth) < side / 3


def test_it_is_finer_than_the_first_look() -> None:
    marks = [(x, y) for x in (30.3, 88.1) for y in (33.2, 50.7, 71.4)]
    truth = torch.tensor([(x - 5.3, y + 3.7) for x, y in marks], dtype=torch.float64)
    errors = {}
    for name, recipe in {"zoom": ZOOM, "jitter": JITTER, "both": BOTH}.items():
        first, found = looked(cut(36, 32), cut(41.3, 28.3), marks, recipe)
        for key, many in {"first": first, name: found}.items():
            there = torch.tensor([f.target_xy for f in many], dtype=torch.float64)
            errors[key] = float(torch.linalg.vector_norm(there - truth, dim=1).mean())
    assert errors["first"] > 1
    assert max(errors["zoom"], errors["jitter"], errors["both"]) < errors["first"] / 4


@pytest.mark.parametrize("mark", [(0.5, 0.5), (127.5, 95.5), (0.5, 50.2), (64.7, 95.5), (3.0, 92.0)])
@pytest.mark.parametrize("recipe", [ZOOM, JITTER, BOTH], ids=["zoom", "jitter", "both"])
def test_marks_at_the_border(mark, recipe) -> None:
    picture = cut(36, 32)
    _, (found,) = looked(picture, picture, [mark], recipe)
    side = (recipe.jitter or 8) / (recipe.zoom or 1)  # at the border a peak is placed at the centre of its patch
    assert math.dist(found.target_xy, mark) < side / 2 * math.sqrt(2)
    watching = WideEncoder()
    looked(picture, picture, [mark], ZOOM, encoder=watching)
    crop = watching.given[0][0]
    assert crop.shape == (3, 120, 120)
    there = sample(picture, torch.tensor([mark], dtype=torch.float64))[0]  # the middle is a corner of crop pixels
    torch.testing.assert_close(crop[:, 59:61, 59:61].mean(dim=(1, 2)), there, rtol=0, atol=0.02)


def test_crops_are_the_frames_one_would_draw_by_hand() -> None:
    """Zoomed by 2, mark at the centre of 15 patches of 8, places in the middle likewise."""
    watching, source, target = WideEncoder(), cut(36, 32), cut(40, 30)
    (first,), _ = looked(source, target, [(61.25, 44.5)], Recipe(zoom=2.0, candidates=2), encoder=watching)
    enlarged = Frame.whole((96, 128)).resize((192, 256))

    def by_hand(picture: Tensor, xy: tuple[float, ...]) -> Tensor:
        start = [2 * Fraction(xy[1]) - 60, 2 * Fraction(xy[0]) - 60]
        return resample(picture, enlarged.crop(start, (120, 120)))

    sources, targets = watching.given
    torch.testing.assert_close(sources[0], by_hand(source, (61.25, 44.5)), rtol=0, atol=1e-5)
    for drawn, xy in zip(targets, [first.target_xy, first.runners_up[0].xy], strict=True):
        torch.testing.assert_close(drawn, by_hand(target, xy), rtol=0, atol=1e-5)


def test_both_crops_show_the_scene_at_one_scale() -> None:
    """The target has half the pixels of the source; both were seen at 128 px, and are seen alike from near by."""
    watching = WideEncoder()
    source = resample(SCENE, Frame.whole((160, 200)).resize((320, 400)).crop((64, 72), (192, 256)))
    target = cut(36, 32)
    frames = (
        fit((192, 256), long_side=128, patch=(8, 8)),
        fit((96, 128), long_side=128, patch=(8, 8)),
    )
    (first,), (found,) = looked(source, target, [(120.0, 88.0)], ONLY["zoom"], encoder=watching, frames=frames)
    assert math.dist(first.target_xy, (60, 44)) < 1
    assert math.dist(found.target_xy, (60, 44)) < 0.3
    near = slice(40, 80)
    sources, targets = watching.given
    aside = crop_shift(found.target_xy, first.target_xy)
    assert aside < 3
    assert (sources - targets)[..., near, near].abs().mean() < 0.03


def crop_shift(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Pixels of a crop, magnified 2.4 times, between two places."""
    return 2.4 * math.dist(one, other)


@pytest.mark.parametrize("turn", ["rot90", "flip", "flip-rot270"])
def test_a_turned_source_is_looked_at_turned(turn) -> None:
    """The target is the source laid down another way, and the source map was made that way."""
    scene = cut(36, 32, rows=112, columns=112)
    frame = turned(Frame.whole((112, 112)), turn)
    target = resample(scene, frame)
    mark = (61.3, 40.9)
    truth = tuple(frame.from_source(torch.tensor([mark], dtype=torch.float64))[0].tolist())
    _, (found,) = looked(scene, target, [mark], ZOOM, frames=(frame, Frame.whole((112, 112))))
    assert math.dist(found.target_xy, truth) < 0.4 * 8 / 2.4


@given(seed=st.integers(0, 99))
@settings(max_examples=4)
def test_it_stays_near_the_places_of_the_first_look(seed) -> None:
    """Whatever the target shows: within NEAR patches, and half a patch of the closer look for the top of its peak."""
    target = clouds(96, 128, seed=100 + seed)
    for recipe in (ZOOM, JITTER):
        (first,), (found,) = looked(cut(36, 32), target, [(61.3, 44.9)], recipe)
        places = [first.target_xy, *(peak.xy for peak in first.runners_up[:2])]
        side = 8 / 2.4 if recipe.zoom else 2
        assert min(math.dist(found.target_xy, xy) for xy in places) <= closer.NEAR * 8 + side / 2 * math.sqrt(2)


def misled(
    truth: tuple[float, float], wrong: tuple[float, float], *, source_mask: Tensor | None = None
) -> tuple[Finding, Finding]:
    """A finding whose best place is wrong and whose first runner-up is right, before and after."""
    source, target = cut(36, 32), cut(44, 24)
    maps = encode(source, WideEncoder()), encode(target, WideEncoder())
    mark = torch.tensor([[truth[0] + 8, truth[1] - 8]], dtype=torch.float64)
    (first,) = locate_points(*maps, mark, uuids=["m"], image_size=128)
    cues = replace(first.cues, entropy=0.123)  # that of another place
    first = replace(
        first,
        cues=cues,
        target_xy=wrong,
        similarity=0.9,
        runners_up=(Peak((truth[0] + 2, truth[1]), 0.8), Peak((9.0, 9.0), 0.5)),
    )
    return first, look_closer([first], source, maps[0], target, maps[1], WideEncoder(), ZOOM, source_mask=source_mask)[
        0
    ]


def test_a_runner_up_may_win_and_is_judged_anew() -> None:
    truth = (60.0, 44.0)
    first, found = misled(truth, wrong=(100.0, 80.0))
    assert math.dist(found.target_xy, truth) < 0.4 * 8 / 2.4
    assert found.runners_up == (Peak((100.0, 80.0), 0.9), Peak((9.0, 9.0), 0.5))
    assert (found.similarity, found.margin) == (0.8, pytest.approx(-0.1))
    assert found.cues.lead == 0
    assert found.cycle_px < 4  # patches of 8, read between their centres
    assert found.cues.cycle == pytest.approx(found.cycle_px / 8)
    at = first.grid.cells_of(torch.tensor([found.target_xy], dtype=torch.float64))
    shape = shape_about(first.similarity_map[None], first.scored, at, reach=REACH)
    assert found.cues.entropy == pytest.approx(float(shape.entropy))
    assert found.confidence == found.calibration.probability(found.cues)
    assert found.confidence < first.confidence
    assert found.reason.startswith("a closer look prefers what the first look held for place 2; ")


def test_a_winner_matches_back_to_what_counts_of_the_source() -> None:
    corner = torch.zeros(12, 16, dtype=torch.bool)
    corner[:2, :2] = True
    _, found = misled((60.0, 44.0), wrong=(100.0, 80.0), source_mask=corner)
    assert math.dist(found.target_xy, (60, 44)) < 0.4 * 8 / 2.4
    assert found.cycle_px > math.dist((68, 36), (16, 16))


def test_the_best_place_keeps_its_verdict() -> None:
    (first,), (found,) = looked(cut(36, 32), cut(41, 28), [(65.0, 40.0)], ZOOM)
    assert (found.state, found.confidence, found.cues) == (first.state, first.confidence, first.cues)
    assert (
        found.reason
        == f"{first.reason}; a closer look moved it by {math.dist(first.target_xy, found.target_xy):.1f} px"
    )
    assert found.similarity_map is first.similarity_map
    assert 0 < found.spread_px < first.spread_px


def test_forbidden_patches_stay_forbidden() -> None:
    """The patch of the truth and all to its right may not be the answer; the first look gives one to its left."""
    source, target = cut(36, 32), cut(36, 32)
    maps = encode(source, WideEncoder()), encode(target, WideEncoder())
    allowed = torch.ones(12, 16, dtype=torch.bool)
    allowed[:, 7:] = False
    mark = torch.tensor([[58.0, 44.0]], dtype=torch.float64)
    (first,) = locate_points(*maps, mark, uuids=["m"], image_size=128, target_mask=allowed)
    first = replace(first, target_xy=(52.0, 44.0), runners_up=())
    (found,) = closed([first], source, target, maps, ZOOM)
    assert 52 - closer.NEAR * 8 < found.target_xy[0] <= 56 + 8 / 2.4 / 2
    (free,) = closed([replace(first, scored=torch.ones_like(allowed))], source, target, maps, ZOOM)
    assert math.dist(free.target_xy, (58.0, 44.0)) < 0.3


def test_the_spread_is_that_of_the_peak_however_near_its_patches() -> None:
    """The same peak, in patches 4 and 2 px apart, is as wide, also beyond where it may lie."""
    scene = clouds(96, 128, seed=3, blob=30)
    maps = (encode(scene, WideEncoder()),) * 2
    (first,) = locate_points(*maps, torch.tensor([[60.0, 44.0]], dtype=torch.float64), uuids=["m"], image_size=128)
    spreads = [closed([first], scene, scene, maps, Recipe(jitter=j, candidates=1))[0].spread_px for j in (4, 2)]
    assert spreads == pytest.approx([spreads[0]] * 2, rel=0.2)
    assert min(spreads) > 10


def test_a_place_whose_surroundings_are_all_forbidden_stays() -> None:
    picture = cut(36, 32)
    maps = (encode(picture, WideEncoder()),) * 2
    (first,) = locate_points(*maps, torch.tensor([[58.0, 44.0]], dtype=torch.float64), uuids=["m"], image_size=128)
    first = replace(first, target_xy=(70.0, 50.0), runners_up=(), scored=torch.zeros(12, 16, dtype=torch.bool))
    for recipe in (ZOOM, JITTER, BOTH):
        (found,) = closed([first], picture, picture, maps, recipe)
        assert found.target_xy == pytest.approx((70.0, 50.0))


MANY = [(x, y) for x in (20.0, 41.5, 63.3, 84.9, 101.2) for y in (21.7, 40.0, 55.5, 77.8)]


@pytest.mark.parametrize(
    ("recipe", "targets"),
    [(ZOOM, 30), (ONLY["jitter"], 16 * 10), (ONLY["zoom"], 10), (Recipe(zoom=3.0, jitter=4), 4 * 30)],
)
def test_all_crops_share_full_batches(recipe, targets) -> None:
    """10 marks: 10 crops of the source, and of the target one for each place and shift, 8 a forward."""
    watching = WideEncoder()
    looked(cut(36, 32), cut(40, 30), MANY[::2], recipe, encoder=watching)
    sizes = [len(batch) for batch in watching.given]
    assert sizes == [8, 2, *[8] * (targets // 8), *[targets % 8] * (targets % 8 > 0)]


@pytest.mark.parametrize("recipe", [ZOOM, JITTER])
def test_many_are_each_as_if_alone(recipe) -> None:
    source, target = cut(36, 32), cut(40.5, 30)
    _, together = looked(source, target, MANY[::6], recipe)
    for mark, found in zip(MANY[::6], together, strict=True):
        _, (alone,) = looked(source, target, [mark], recipe)
        assert found.target_xy == pytest.approx(alone.target_xy, abs=1e-2)
        assert (found.state, found.source_xy) == (alone.state, alone.source_xy)
        assert found.spread_px == pytest.approx(alone.spread_px, rel=1e-2)


def test_the_memory_of_the_recipe_is_kept() -> None:
    watching = WideEncoder()
    three = activation_bytes((15, 15), WideEncoder().spec, inputs=3)
    looked(cut(36, 32), cut(40, 30), MANY[:4], replace(ZOOM, max_memory=three), encoder=watching)
    assert [len(batch) for batch in watching.given] == [3, 1, 3, 3, 3, 3]
    with pytest.raises(ResourceError, match=r"encoding \(120, 120\) pixels at once"):
        looked(cut(36, 32), cut(40, 30), MANY[:4], replace(ZOOM, max_memory=10_000))


def test_a_jitter_that_does_not_part_the_patch_is_refused() -> None:
    with pytest.raises(UsageError, match="jitter 3 does not part the patch"):
        looked(cut(36, 32), cut(40, 30), MANY[:1], Recipe(jitter=3))


def test_soft_argmax_places_the_peak_too() -> None:
    recipes = [replace(ZOOM, peak=peak) for peak in ("parabola", "soft-argmax")]
    found = [looked(cut(36, 32), cut(40.5, 30), [(61.3, 44.9)], recipe)[1][0] for recipe in recipes]
    assert found[0].target_xy != found[1].target_xy
    for one in found:
        assert math.dist(one.target_xy, (56.8, 46.9)) < 1


def test_without_zoom_or_jitter_nothing_changes() -> None:
    first, found = looked(cut(36, 32), cut(40, 30), MANY[:2], Recipe())
    assert all(one is other for one, other in zip(first, found, strict=True))
    assert closed([], cut(36, 32), cut(40, 30), (encode(cut(36, 32), WideEncoder()),) * 2, ZOOM) == []


def test_in_volumes() -> None:
    volume, cubes = clouds(48, 56, 64, seed=5, blob=4), WideEncoder((4, 4, 4), pool=2, beyond=4)
    cut_out = [volume[:, z : z + 40, y : y + 44, x : x + 48].contiguous() for z, y, x in ((0, 0, 0), (3, 5, 6))]
    maps = [encode(one, cubes) for one in cut_out]
    mark = torch.tensor([[30.4, 25.1, 21.9]], dtype=torch.float64)
    (first,) = locate_points(*maps, mark, uuids=["m"], image_size=48)
    truth = (24.4, 20.1, 18.9)
    first = replace(first, target_xy=(26.0, 21.0, 17.5), runners_up=())
    for recipe in (Recipe(zoom=2.0), Recipe(jitter=2)):
        (found,) = look_closer([first], cut_out[0], maps[0], cut_out[1], maps[1], cubes, recipe)
        assert math.dist(found.target_xy, truth) < 0.5 * 2 < math.dist(first.target_xy, truth)
