"""Sessions: marks are put where they are, nothing that is there is changed, and every fault is told."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.sift import DenseSift, load
from patchatlas.errors import InputError, ResourceError, ShapeError, UsageError
from patchatlas.io import landmarks
from patchatlas.io.landmarks import read_marks
from patchatlas.locate.automark.plan import make_plan
from patchatlas.locate.automark.run import Session, Settings, run_session
from patchatlas.locate.placement import Together
from patchatlas.locate.placing import told_apart
from patchatlas.locate.recipe import Recipe
from patchatlas.locate.together import locate_together
from tests.disk_limit import no_file_may_grow
from tests.locate.automark.conftest import (
    MARKS,
    SHIFTS,
    mark,
    marked,
    moved,
    photograph,
    snapshot,
    write_marks,
)

RECIPE = Recipe(image_size=128)
SETTINGS = Settings(recipe=RECIPE, include_uncertain=True)
"""So that these tests do not hang on where a calibration draws its lines."""

BACK = "rotomaps/parts/back/upper"


@pytest.fixture(scope="module")
def sift() -> DenseSift:
    return load(device=torch.device("cpu"))


@pytest.fixture
def automark(former: Path, latter: Path, sift: DenseSift) -> Callable[..., Session]:
    """Plan and run."""

    def go(*, stem: str | None = "automark", cache: Path | None = None, settings: Settings = SETTINGS) -> Session:
        plan = make_plan(latter, [former], stem=stem, strict=settings.strict)
        return run_session(plan, sift, settings, cache=cache)

    return go


def proposals(photo: Path, *, stem: str | None = "automark") -> dict[str, tuple[int, int]]:
    return {str(one.uuid): (one.x, one.y) for one in read_marks(photo, stem=stem) if not one.is_uuid_canonical}


def near(found: dict[str, tuple[int, int]], truth: dict[str, tuple[int, int]], *, within: int = 2) -> bool:
    return all(max(abs(a - b) for a, b in zip(found[uuid], truth[uuid], strict=True)) <= within for uuid in found)


def test_missing_marks_are_put_where_they_are(automark, latter):
    session = automark()
    first, second, third = session.marked
    assert proposals(latter / "1.jpg").keys() == set(MARKS)
    assert near(proposals(latter / "1.jpg"), moved(SHIFTS["1.jpg"]))
    assert proposals(latter / "2.jpg").keys() == {"c3", "d4", "e5", "f6"}
    assert near(proposals(latter / "2.jpg"), moved(SHIFTS["2.jpg"]))
    assert (first.proposed, second.proposed, third.proposed) == (6, 4, 0)
    assert not (latter / "10.jpg.automark.json").exists()
    assert [answer.uuid for answer in first.answers] == sorted(MARKS)
    stored = json.loads((latter / "1.jpg.automark.json").read_text())
    assert [sorted(one) for one in stored] == [["confidence", "is_uuid_canonical", "uuid", "x", "y"]] * 6
    assert all(one["is_uuid_canonical"] is False and 0 < one["confidence"] <= 1 for one in stored)
    assert session.skipped == ()


def test_nothing_but_the_extra_mark_files_is_written(automark, session, latter):
    before = snapshot(session)
    automark()
    after = snapshot(session)
    added = {f"{latter.relative_to(session).as_posix()}/{name}.jpg.automark.json" for name in ("1", "2")}
    assert after.keys() - before.keys() == added
    assert {name: after[name] for name in before} == before


def test_merging_adds_to_the_marks_and_changes_none_of_them(automark, latter):
    odd = mark("mine", 10.9, "12", canonical=None, note={"by": "me"}, kind="non-mole")
    former = [odd, *marked(SHIFTS["2.jpg"], ["a1", "c3"])]
    write_marks(latter / "2.jpg", former)
    complete = (latter / "10.jpg.json").read_bytes()
    automark(stem=None)
    merged = json.loads((latter / "2.jpg.json").read_text())
    assert merged[:3] == json.loads(json.dumps(former))
    assert [one["uuid"] for one in merged[3:]] == ["b2", "d4", "e5", "f6"]
    assert near(proposals(latter / "2.jpg", stem=None) | {"mine": (0, 0)}, moved(SHIFTS["2.jpg"]) | {"mine": (0, 0)})
    assert (latter / "10.jpg.json").read_bytes() == complete
    assert len(read_marks(latter / "1.jpg")) == 6
    assert not list(latter.glob("*automark*"))


def test_the_same_session_again_changes_nothing_and_says_the_same(automark, session, tmp_path):
    for stem in ("automark", None):
        first = automark(stem=stem, cache=tmp_path / "cache")
        before = snapshot(session)
        second = automark(stem=stem, cache=tmp_path / "cache")
        assert snapshot(session) == before
        assert [one.answers for one in second.marked] == [one.answers for one in first.marked]
        assert [one.resumed for one in first.marked] == [False] * 3
        assert [one.resumed for one in second.marked] == [True] * 3


def test_features_from_the_cache_give_the_same_answers_as_fresh_ones(automark, tmp_path):
    settings = replace(SETTINGS, dry_run=True)
    fresh = automark(settings=settings)
    kept = automark(settings=settings, cache=tmp_path)
    for record in (tmp_path / "results").iterdir():
        record.unlink()
    from_cache = automark(settings=settings, cache=tmp_path)
    assert not from_cache.marked[0].resumed
    for session in (kept, from_cache):
        assert [one.answers for one in session.marked] == [one.answers for one in fresh.marked]


def test_what_a_person_confirmed_in_the_photo_helps_and_what_was_guessed_does_not(automark, monkeypatch):
    known: list[dict[str, tuple[float, float]]] = []

    def spied(*args: Any, **options: Any) -> Together:
        known.append(options["known"])
        return locate_together(*args, **options)

    monkeypatch.setattr("patchatlas.locate.automark.seek.locate_together", spied)
    automark()
    assert known == [{}, {"a1": (25.5, 38.5)}]


def test_a_photo_that_changed_is_looked_at_anew(automark, latter, tmp_path):
    automark(cache=tmp_path / "cache")
    (latter / "1.jpg.automark.json").unlink()
    photograph(latter / "1.jpg", (8, 8))
    session = automark(cache=tmp_path / "cache")
    assert not session.marked[0].resumed
    assert near(proposals(latter / "1.jpg"), moved((8, 8)))


def test_marks_that_moved_in_a_reference_are_looked_for_anew(automark, former, tmp_path):
    assert not automark(cache=tmp_path, settings=replace(SETTINGS, dry_run=True)).marked[0].resumed
    assert automark(cache=tmp_path, settings=replace(SETTINGS, dry_run=True)).marked[0].resumed
    write_marks(former / "1.jpg", [*marked((0, 0), ["b2", "c3", "d4", "e5", "f6"]), mark("a1", 60, 90)])
    assert not automark(cache=tmp_path, settings=replace(SETTINGS, dry_run=True)).marked[0].resumed


def test_marks_go_from_photo_to_photo_of_one_folder(latter, sift):
    session = run_session(make_plan(latter, [latter]), sift, SETTINGS)
    assert near(proposals(latter / "1.jpg"), moved(SHIFTS["1.jpg"]), within=4)  # half a patch: one reference only
    assert proposals(latter / "2.jpg").keys() == {"c3", "d4", "e5", "f6"}
    for one in session.marked:
        assert one.target.name not in {answer.source for answer in one.answers}


def test_a_person_who_edits_proposals_is_heeded(automark, latter, tmp_path):
    """One proposal confirmed and moved, one removed: the first stays as it is, the second is looked for again."""
    automark(stem=None, cache=tmp_path / "cache")
    marks = json.loads((latter / "1.jpg.json").read_text())
    marks[0] |= {"x": 1, "y": 1, "is_uuid_canonical": True}
    removed = marks.pop(3)
    write_marks(latter / "1.jpg", marks)
    session = automark(stem=None, cache=tmp_path / "cache")
    assert not session.marked[0].resumed
    assert [answer.uuid for answer in session.marked[0].answers] == [removed["uuid"]]
    after = json.loads((latter / "1.jpg.json").read_text())
    assert after[:-1] == marks
    assert after[-1]["uuid"] == removed["uuid"]


def test_a_dry_run_writes_nothing(automark, session):
    before = snapshot(session)
    done = automark(settings=replace(SETTINGS, dry_run=True))
    assert snapshot(session) == before
    assert done.marked[0].proposed == 6
    assert done.marked[0].after is not None


def test_what_is_proposed_follows_state_and_confidence(automark, latter):
    session = automark(settings=replace(SETTINGS, min_confidence=1.0))
    assert [one.proposed for one in session.marked] == [0, 0, 0]
    assert len(session.marked[0].answers) == 6
    assert not list(latter.glob("*automark*"))
    settings = Settings(recipe=RECIPE, min_confidence=0.5)
    assert settings.proposes("found", 0.5)
    assert not settings.proposes("found", 0.49)
    assert not settings.proposes("uncertain", 0.9)
    eager = Settings(recipe=RECIPE, include_uncertain=True)
    assert eager.proposes("uncertain", 0.1)
    assert not eager.proposes("absent", 0.9)


def test_settings_that_would_do_nothing_are_refused():
    with pytest.raises(UsageError, match="no probability"):
        Settings(recipe=RECIPE, min_confidence=1.5)
    with pytest.raises(UsageError, match="leave it out, or give jitter or zoom"):
        Settings(recipe=Recipe(peak="soft-argmax"))
    Settings(recipe=Recipe(peak="soft-argmax", jitter=4))
    with pytest.raises(UsageError, match="candidates 2"):
        Settings(recipe=Recipe(jitter=4, candidates=2))


def test_bad_photos_are_listed_and_the_rest_is_marked(automark, former, latter):
    whole = (latter / "1.jpg").read_bytes()
    (latter / "3.jpg").write_bytes(whole[: len(whole) // 2])
    photograph(latter / "4.jpg")
    Image.new("L", (64, 64), 255).save(latter / "4.jpg.mask.png")
    photograph(latter / "5.jpg")
    Image.new("L", (128, 128), 0).save(latter / "5.jpg.mask.png")
    content = (former / "2.jpg").read_bytes()
    (former / "2.jpg").write_bytes(content[: len(content) // 2])
    session = automark()
    told = {Path(one.file).parent.name + "/" + Path(one.file).name: one.reason for one in session.skipped}
    assert list(told) == ["2025_01_31/2.jpg", "2026_01_31/3.jpg", "2026_01_31/4.jpg", "2026_01_31/5.jpg"]
    assert "cut short" in told["2025_01_31/2.jpg"]
    assert "has 64 x 64 pixels" in told["2026_01_31/4.jpg"]
    assert "leaves no patch" in told["2026_01_31/5.jpg"]
    assert not [reason for reason in told.values() if str(latter.parent) in reason]
    assert [one.proposed for one in session.marked] == [6, 4, 0]
    with pytest.raises(InputError, match="cut short"):
        automark(settings=replace(SETTINGS, strict=True))


def test_no_usable_reference_ends_the_session(automark, former, latter):
    for photo in former.glob("*.jpg"):
        photo.write_bytes(photo.read_bytes()[:900])
    with pytest.raises(InputError, match=r"no photo with confirmed marks can be used:\n  .*1\.jpg: .*cut short"):
        automark()
    assert not list(latter.glob("*automark*"))


def test_photos_that_lie_on_their_side_are_marked_upright(automark, latter):
    photograph(latter / "1.jpg", SHIFTS["1.jpg"], orientation=6)
    automark()
    assert near(proposals(latter / "1.jpg"), moved(SHIFTS["1.jpg"]))


def test_no_proposal_lies_outside_the_mask(automark, latter):
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (0, 0, 128, 64))
    mask.save(latter / "1.jpg.mask.png")
    session = automark()
    assert session.marked[0].masked
    places = proposals(latter / "1.jpg")
    assert places
    assert all(y < 72 for _, y in places.values())  # the lower edge, and less than a patch that peaks are refined by
    (latter / "1.jpg.automark.json").unlink()
    session = automark(settings=replace(SETTINGS, masks=False))
    assert not session.marked[0].masked
    assert proposals(latter / "1.jpg").keys() == set(MARKS)


def test_marks_that_change_while_the_session_runs_are_left_alone(automark, latter, monkeypatch):
    """A person saves a mark between planning and writing."""
    edited = latter / "1.jpg.json"

    def with_marks(content: bytes | None, marks: list[landmarks.Landmark], path: Path) -> bytes:
        write_marks(latter / "1.jpg", [mark("by hand", 1, 1)])
        return landmarks.with_marks(content, marks, path)

    for stem in (None, "automark"):
        monkeypatch.setattr("patchatlas.locate.automark.run.with_marks", with_marks)
        session = automark(stem=stem)
        monkeypatch.undo()
        (told,) = [one for one in session.skipped if one.file.endswith("/1.jpg")]
        assert told.reason.startswith("1.jpg.json changed while the session ran, so nothing was written")
        assert json.loads(edited.read_text()) == [mark("by hand", 1, 1)]
        assert not (latter / "1.jpg.automark.json").exists()
        assert len(session.marked) == 2
        edited.unlink()


def test_a_photo_that_changes_while_the_session_runs_is_skipped(former, latter, sift):
    plan = make_plan(latter, [former])
    photograph(latter / "1.jpg", (1, 1))
    session = run_session(plan, sift, SETTINGS)
    assert ["1.jpg changed while the session ran; run it again"] == [one.reason for one in session.skipped]


def test_a_photo_that_changes_is_not_marked_by_what_was_kept_of_it(former, latter, sift, tmp_path):
    run_session(make_plan(latter, [former]), sift, replace(SETTINGS, dry_run=True), cache=tmp_path / "cache")
    plan = make_plan(latter, [former])
    photograph(latter / "1.jpg", (1, 1))
    session = run_session(plan, sift, SETTINGS, cache=tmp_path / "cache")
    (told,) = session.skipped
    assert told.reason == "1.jpg changed while the session ran, so nothing was written; run it again"
    assert not (latter / "1.jpg.automark.json").exists()


def test_a_closer_look_keeps_the_marks_in_place(automark, former, latter):
    write_marks(former / "1.jpg", marked((0, 0), ["c3", "d4"]))
    write_marks(former / "2.jpg", [])
    write_marks(latter / "2.jpg", marked(SHIFTS["2.jpg"]))
    plain = automark(settings=replace(SETTINGS, dry_run=True))
    closer = automark(settings=replace(SETTINGS, recipe=Recipe(image_size=128, jitter=4)))
    for before, after in zip(plain.marked[0].answers, closer.marked[0].answers, strict=True):
        assert 0 < math.dist(before.target_xy, after.target_xy) < 8
    assert proposals(latter / "1.jpg").keys() == {"c3", "d4"}
    assert near(proposals(latter / "1.jpg"), moved(SHIFTS["1.jpg"]))


def test_a_reference_that_was_taken_upside_down_serves_with_turns(automark, former, latter):
    for name, shift in {"1.jpg": (0, 0), "2.jpg": (2, 5)}.items():
        with Image.open(former / name) as picture:
            picture.transpose(Image.Transpose.ROTATE_180).save(former / name, quality=95)
        turned = [mark(uuid, 127 - x, 127 - y) for uuid, (x, y) in moved(shift).items()]
        write_marks(former / name, turned)
    plain = automark(settings=replace(SETTINGS, dry_run=True))
    assert not near({answer.uuid: answer.mel for answer in plain.marked[0].answers}, moved(SHIFTS["1.jpg"]), within=8)
    automark(settings=replace(SETTINGS, recipe=Recipe(image_size=128, turns=("rot90",))))
    assert len(proposals(latter / "1.jpg")) >= 5
    assert near(proposals(latter / "1.jpg"), moved(SHIFTS["1.jpg"]))


@pytest.mark.parametrize(("clearly", "turn"), [(1.5, "rot180"), (math.inf, "upright")])
def test_a_reference_is_turned_only_where_that_fits_clearly_better(automark, former, monkeypatch, clearly, turn):
    for name in ("1.jpg", "2.jpg"):
        with Image.open(former / name) as picture:
            picture.transpose(Image.Transpose.ROTATE_180).save(former / name, quality=95)
    monkeypatch.setattr("patchatlas.locate.turning.CLEARLY", clearly)
    session = automark(settings=replace(SETTINGS, dry_run=True, recipe=Recipe(image_size=128, turns=("rot90",))))
    assert {answer.turn for answer in session.marked[0].answers} == {turn}


def test_marks_that_a_closer_look_puts_in_one_place_stay_where_they_were(automark, monkeypatch):
    """It puts c3 and d4 half a pixel apart, and moves e5 by 1 px."""
    plain = {one.uuid: one for one in automark(settings=replace(SETTINGS, dry_run=True)).marked[0].answers}

    def closer(findings: Any, *_: Any) -> list[Any]:
        places = {"c3": (70.0, 70.0), "d4": (70.5, 70.0), "e5": (plain["e5"].target_xy[0] + 1, 90.0)}
        return [replace(f, target_xy=places.get(f.uuid, f.target_xy), spread_px=0.01) for f in findings]

    monkeypatch.setattr("patchatlas.locate.automark.seek.look_closer", closer)
    session = automark(settings=replace(SETTINGS, recipe=Recipe(image_size=128, zoom=2.0)))
    refined = {one.uuid: one for one in session.marked[0].answers}
    for uuid in ("c3", "d4"):
        assert refined[uuid].target_xy == plain[uuid].target_xy
        assert "where another mark is, so it stays" in refined[uuid].reason
    assert refined["e5"].target_xy == (plain["e5"].target_xy[0] + 1, 90.0)
    assert "a closer look moved it" in refined["e5"].reason
    for one in refined.values():
        others = [other.target_xy for other in refined.values() if other is not one and other.state != "absent"]
        assert one.gap_px == pytest.approx(min(math.dist(one.target_xy, xy) for xy in others))
        if one.predicted_xy is not None:
            assert one.prior_px == pytest.approx(math.dist(one.predicted_xy, one.target_xy))


@pytest.mark.parametrize("found", [True, False])
def test_a_mark_on_an_unconfirmed_one_is_not_safe_and_proposed_only_if_asked_for(automark, latter, monkeypatch, found):
    x, y = moved(SHIFTS["1.jpg"])["c3"]
    write_marks(latter / "1.jpg", [mark("fresh", x, y, canonical=False)])
    if found:  # whatever the calibration says
        monkeypatch.setattr("patchatlas.locate.automark.seek.told_apart", _all_found)
    for include in (True, False):
        settings = replace(SETTINGS, dry_run=True, include_uncertain=include)
        answers = {one.uuid: one for one in automark(settings=settings).marked[0].answers}
        assert answers["c3"].proposed is include
        assert not answers["c3"].identity_safe
        assert answers["c3"].gap_px == pytest.approx(math.dist(answers["c3"].target_xy, (x + 0.5, y + 0.5)))
        assert "the unconfirmed mark fresh is in that place" in answers["c3"].reason
        assert "fresh" not in answers["f6"].reason
        if found:
            assert answers["f6"].proposed


def _all_found(placements: Any, others: Any, *, patch_px: float) -> Any:
    return told_apart([replace(one, state="found") for one in placements], others, patch_px=patch_px)


def test_of_two_in_one_place_the_surer_is_proposed(automark, monkeypatch):
    def together(*args: Any, **options: Any) -> Together:
        found = locate_together(*args, **options)
        odd = {"c3": {"confidence": 0.9}, "d4": {"confidence": 0.8}}
        place = {"state": "found", "target_xy": (70.0, 70.0)}
        return replace(
            found,
            placements=tuple(replace(p, **place, **odd[p.uuid]) if p.uuid in odd else p for p in found.placements),
        )

    monkeypatch.setattr("patchatlas.locate.automark.seek.locate_together", together)
    answers = {one.uuid: one for one in automark(settings=replace(SETTINGS, dry_run=True)).marked[0].answers}
    assert (answers["c3"].proposed, answers["d4"].proposed) == (True, False)
    assert answers["d4"].reason.endswith("not proposed: c3 is in that place")
    assert not answers["c3"].identity_safe
    assert not answers["d4"].identity_safe


def test_encoders_that_no_photo_would_fit_are_refused_at_once(former, latter, sift):
    plan = make_plan(latter, [former])
    with pytest.raises(
        UsageError, match="image_size 100 is not a multiple of the patch of bundled:sift, 8 px; take 96"
    ):
        run_session(plan, sift, Settings(recipe=Recipe(image_size=100)))
    with pytest.raises(ShapeError, match="2-D encoder"):
        run_session(plan, FakeEncoder(patch=(4, 4, 4)), SETTINGS)


def test_a_full_disk_ends_the_session_and_leaves_everything_as_it_was(automark, session, tmp_path):
    before = snapshot(session)
    with no_file_may_grow(), pytest.raises(ResourceError, match="what was written before is intact"):
        automark()
    assert snapshot(session) == before
    with no_file_may_grow(), pytest.raises(ResourceError):
        automark(cache=tmp_path / "cache")
    assert snapshot(session) == before


def test_who_waits_is_told_of_every_photo(former, latter, sift):
    done: list[str] = []
    run_session(make_plan(latter, [former]), sift, SETTINGS, on_done=done.append)
    names = [f"2025_01_31/{n}.jpg" for n in (1, 2)] + [f"2026_01_31/{n}.jpg" for n in (1, 2, 10)]
    assert done == [f"{BACK}/{name}" for name in names]
