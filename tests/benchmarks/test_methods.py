"""The compared methods: none sees a truth, peers do what they are said to do, and the runner keeps rows together."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter

from benchmarks.locate.encoders import RawEncoder, Remembering, open_encoder
from benchmarks.locate.methods import (
    METHODS,
    Question,
    Setting,
    _crop,
    _woven,
    any_mole,
    chance,
    control,
    copy_coordinates,
    mel_argmax,
    mel_progressive,
    oracle,
    ours_batch,
    ours_single,
    ours_woven,
)
from benchmarks.locate.metrics import alarms
from benchmarks.locate.run import CONFIDENCE, PLACES, Run, ask_all, by, interval_table, state_table, table
from benchmarks.locate.sets import Case

SIZE = 128


def noisy(seed: int) -> np.ndarray:
    """A picture in which no place is like another, but neighbours are alike: noise, 8 px soft."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((SIZE, SIZE, 3)), (8, 8, 0))
    return ((field - field.min()) / np.ptp(field) * 255).astype(np.uint8)


def same(seed: int = 0, *, absent: int = 1, name: str = "same") -> Case:
    """The target is the source: marks (20, 40), (100, 70), (60, 60), the last of which is said to be absent."""
    points = np.array([[20.0, 40.0], [100.0, 70.0], [60.0, 60.0]])
    visible = np.array([n < 3 - absent for n in range(3)])
    return Case(
        kind="homography",
        name=name,
        family="plain",
        sources=(noisy(seed), noisy(seed + 100)),
        source_points=(points, np.full((3, 2), np.nan)),
        source_masks=(None, None),
        uuids=("a", "b", "c"),
        target=noisy(seed),
        target_mask=None,
        truth=np.where(visible[:, None], points, np.nan),
        visible=visible,
        fates=tuple("present" if seen else "painted" for seen in visible),
        gaps=np.where(visible, 30.0, np.nan),
    )


def on_centres() -> Question:
    """Asks for marks on centres of patches of 16 px, which raw pixels find again exactly."""
    points = np.array([[24.0, 40.0], [104.0, 72.0], [56.0, 56.0]])
    return replace(Question.of(same()), source_points=(points, np.full((3, 2), np.nan)))


def setting(image_size: int = SIZE) -> Setting:
    return Setting(Remembering(RawEncoder()), image_size, np.random.default_rng(0))


def places(replies: list) -> np.ndarray:
    return np.array([reply.xy for reply in replies])


def test_a_question_holds_no_truth() -> None:
    hidden = {"truth", "visible", "fates", "gaps", "name", "kind"}
    assert {field.name for field in fields(Question)} == {field.name for field in fields(Case)} - hidden - {"family"}


def test_the_ruler() -> None:
    """Patches of 16 px: (20, 40) is nearest to (24, 40), (100, 70) to (104, 72)."""
    assert_allclose(places(oracle(same(), setting()))[:2], [[24, 40], [104, 72]])
    assert {tuple(xy) for xy in places(any_mole(same(), setting())).tolist()} <= {(20.0, 40.0), (100.0, 70.0)}
    assert ((places(chance(Question.of(same()), setting())) < SIZE).all()).all()
    assert_allclose(places(copy_coordinates(Question.of(same()), setting())), same().source_points[0])


def test_copied_coordinates_are_parts_of_the_picture() -> None:
    case = same()
    wide = Question(case.sources, case.source_points, case.source_masks, case.uuids, np.zeros((64, 256, 3)), None)
    assert_allclose(places(copy_coordinates(wide, setting()))[0], [40.0, 20.0])


def test_mel_takes_the_patch_that_holds_the_mark() -> None:
    assert_allclose(places(mel_argmax(Question.of(same()), setting())), [[24, 40], [104, 72], [56, 56]])


def test_mel_looks_twice() -> None:
    found = places(mel_progressive(on_centres(), setting()))
    assert (abs(found - on_centres().source_points[0]) <= 16).all()


@pytest.mark.parametrize(
    ("middle", "start"), [((60.0, 50.0), (28, 18)), ((20.0, 50.0), (0, 18)), ((60.0, 120.0), (28, 64))]
)
def test_the_second_look_of_mel_stays_inside_the_picture(middle: tuple, start: tuple) -> None:
    """A crop of 64 px of a picture of 128 px, seen at its own scale; about the border it is moved inside."""
    frame = _crop(noisy(0), np.array(middle), setting(64), setting(128))
    assert frame.size == (64, 64)
    assert frame.to_source(torch.zeros(1, 2)).tolist() == [list(start)]


@pytest.mark.parametrize("method", [ours_single(), ours_batch(), METHODS["views"], ours_batch(peak="soft-argmax")])
def test_ours_finds_marks_in_the_same_picture(method) -> None:
    asked = on_centres()
    found = places(method(asked, setting()))
    assert (np.linalg.norm(found - asked.source_points[0], axis=1) <= 8).all()


def test_a_woven_map_fills_the_picture_evenly() -> None:
    """Patches of 16 px, 4 px apart: centres at 2, 6, ... 126; that at (10, 6) sees columns 2 to 17 of rows -2 to 13."""
    woven = _woven(noisy(0), setting(), 4)
    assert woven.grid.shape == (32, 32)
    assert woven.grid.centres()[[0, 34, -1]].tolist() == [[2.0, 2.0], [10.0, 6.0], [126.0, 126.0]]
    shown = np.pad(noisy(0), ((2, 0), (0, 0), (0, 0)), mode="edge")[:16, 2:18]
    alone = RawEncoder()(torch.from_numpy(shown).permute(2, 0, 1)[None] / 255).patches[0, 0]
    assert_allclose(woven.tokens[34], alone, atol=1e-6)


def test_a_woven_target_finds_marks_beside_patch_centres() -> None:
    found = places(ours_woven(parts=4)(Question.of(same()), setting()))
    assert (np.linalg.norm(found - same().source_points[0], axis=1) <= 3).all()  # less than a stride


def test_masks_reach_every_method() -> None:
    """The left half of the target is masked out: nothing of ours answers there."""
    case = same()
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[:, SIZE // 2 :] = True
    masked = Question(case.sources, case.source_points, case.source_masks, case.uuids, case.target, mask)
    for method in (ours_single(), ours_batch(), METHODS["views"], ours_woven(parts=2)):
        assert (places(method(masked, setting()))[:, 0] >= SIZE / 2).all()
    similar = places(mel_argmax(masked, setting()))
    assert_allclose(similar[1], [104, 72])  # what is left of the picture looks as it did
    assert not np.allclose(similar[0], [24, 40])


def test_the_control_asks_for_marks_of_another_scene() -> None:
    other = same(seed=5)
    asked: list[Question] = []

    def method(question: Question, _: Setting) -> list:
        asked.append(question)
        return copy_coordinates(question, setting())[:2]

    said = control(same(), other, method, setting())
    assert asked[0].sources is other.sources
    np.testing.assert_array_equal(asked[0].target, same().target)
    assert said == [said[0], said[1], said[0]]


def test_the_same_pixels_are_encoded_once() -> None:
    calls: list[int] = []

    class Counting(RawEncoder):
        def __call__(self, pixels):
            calls.append(len(pixels))
            return super().__call__(pixels)

    remembering = Remembering(Counting(), most=2)
    pictures = torch.rand(3, 1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    first = remembering(pictures[0])
    assert remembering(pictures[0].clone()) is first
    assert calls == [1]
    assert remembering.asked == 2 * 32 * 48
    remembering(pictures[1]), remembering(pictures[2])  # the oldest goes
    remembering(pictures[0])
    assert len(calls) == 4


def test_a_run_keeps_rows_together(tmp_path: Path) -> None:
    cases = [same(0, name="first"), same(1, absent=0, name="second")]
    methods = {name: METHODS[name] for name in ("chance", "mel argmax", "batch")}
    run = ask_all(cases, RawEncoder(), methods, image_size=SIZE)
    assert list(run.answers) == ["oracle", "any mole", "chance", "mel argmax", "batch", "control"]
    for one in run.answers.values():
        assert one.case.tolist() == ["first"] * 3 + ["second"] * 3
        assert one.present.tolist() == [True, True, False, True, True, True]
        assert one.patch.tolist() == [16.0] * 6
    assert_allclose(run.answers["mel argmax"].error[:2], [4.0, np.hypot(4, 2)])
    assert run.answers["control"].error[0] > 16  # noise of the other case is not here
    assert alarms(run.answers, centres=["mel argmax"]) == []
    assert run.cost["mel argmax"] == pytest.approx(4 / 3)  # the target, and a source for each of 3 marks

    run.save(tmp_path / "run.json")
    again = Run.load(tmp_path / "run.json")
    assert table(again.answers, PLACES, cost=again.cost) == table(run.answers, PLACES, cost=run.cost)
    assert len(table(run.answers, CONFIDENCE).splitlines()) == 2 + 6
    assert [line.split(" |")[0] for line in state_table(run.answers).splitlines()[2:]] == ["| batch", "| control"]
    assert "| batch | 100.0 (100.0 to 100.0) |" in interval_table(run.answers, rounds=10)
    assert list(by(run.answers, "fate")) == ["present", "painted"]


def test_encoders_have_names() -> None:
    assert open_encoder("raw").spec.patch == (16, 16)
    assert open_encoder("vit-1").spec.weights_sha256 != open_encoder("vit-2").spec.weights_sha256
    tokens = open_encoder("raw")(torch.full((1, 3, 32, 32), 0.7)).patches
    assert tokens.shape == (1, 4, 768)
    assert_allclose(tokens, 0.0, atol=1e-6)  # an even patch says nothing
