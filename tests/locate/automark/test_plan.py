"""Plans: what is missing where, what may not be used and why, and names that do not depend on the machine."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from patchatlas.errors import FormatError, InputError, UsageError
from patchatlas.locate.automark.plan import Plan, make_plan
from tests.locate.automark.conftest import MARKS, mark, marked, photograph, write_marks

BACK = "rotomaps/parts/back/upper"


def missing(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {Path(target.name).name: target.missing for target in plan.targets}


def test_what_is_missing_where(former, latter):
    plan = make_plan(latter, [former])
    assert [one.name for one in plan.references] == [f"{BACK}/2025_01_31/1.jpg", f"{BACK}/2025_01_31/2.jpg"]
    assert [one.name for one in plan.targets] == [f"{BACK}/2026_01_31/{n}.jpg" for n in (1, 2, 10)]
    assert missing(plan) == {"1.jpg": tuple(MARKS), "2.jpg": ("c3", "d4", "e5", "f6"), "10.jpg": ()}
    second = plan.targets[1]
    assert second.confirmed == {"a1": (25, 38)}
    assert second.guessed == {"b2": (79, 32)}
    assert second.size_hw == (128, 128)
    assert second.output == latter / "2.jpg.automark.json"
    assert second.before is None
    assert plan.name == f"{BACK}/2026_01_31"
    assert plan.skipped == ()
    assert plan.notes == ()


def test_only_confirmed_marks_are_looked_for(former, latter):
    for photo in former.glob("*.jpg"):
        write_marks(
            photo,
            [
                mark("a1", 1, 2),
                mark("b2", 1, 2, canonical=False),
                mark("c3", 1, 2, canonical=None),
                mark("d4", 1, 2, canonical="false"),
                mark(17, 1, 2),
                mark("e5", 128, 2),
                mark("f6", 1, 2),
                mark("f6", 3, 4, canonical=False),
            ],
        )
    plan = make_plan(latter, [former])
    assert plan.references[0].marks == {"a1": (1, 2)}
    assert missing(plan)["1.jpg"] == ("a1",)
    notes = [one.reason for one in plan.notes if one.file.endswith("1.jpg")]
    assert len(notes) == 3
    assert sum("'e5'" in note or "'f6'" in note for note in notes) == 2
    assert notes[-1] == "uuids that are no text, so not looked for: 17"


def test_a_photo_is_not_its_own_reference(former):
    write_marks(former / "2.jpg", [])
    plan = make_plan(former, [former])
    assert missing(plan) == {"1.jpg": (), "2.jpg": tuple(MARKS)}


def test_marks_of_another_stem_count_as_there(former, latter):
    write_marks(latter / "1.jpg", [mark("a1", 5, 6, canonical=False)], stem="automark")
    plan = make_plan(latter, [former])
    assert missing(plan)["1.jpg"] == tuple(MARKS)[1:]
    assert plan.targets[0].guessed == {"a1": (5, 6)}
    assert plan.targets[0].before == (latter / "1.jpg.automark.json").read_bytes()
    assert missing(make_plan(latter, [former], stem="other"))["1.jpg"] == tuple(MARKS)


def test_merging_reads_and_writes_the_photos_own_marks(former, latter):
    write_marks(latter / "1.jpg", [mark("a1", 5, 6, canonical=False)], stem="automark")
    plan = make_plan(latter, [former], stem=None)
    assert missing(plan)["1.jpg"] == tuple(MARKS)
    assert [one.output.name for one in plan.targets] == ["1.jpg.json", "2.jpg.json", "10.jpg.json"]
    assert plan.targets[1].before == (latter / "2.jpg.json").read_bytes()


def test_marks_that_are_rightly_missing_are_not_looked_for(former, latter):
    (latter / "ignore-missing").write_text("# removed in May\nc3\n")
    plan = make_plan(latter, [former])
    assert missing(plan)["2.jpg"] == ("d4", "e5", "f6")
    assert plan.targets[0].ignored == ("c3",)


def test_what_cannot_be_used_is_listed_and_the_rest_goes_on(former, latter):
    (latter / "1.jpg").write_bytes(b"no picture")
    (latter / "2.jpg.json").write_text("[{")
    (latter / "3.jpg").mkdir()
    photograph(latter / "4.jpg")
    write_marks(latter / "4.jpg", [{"uuid": None, "x": 1, "y": 1, "is_uuid_canonical": True}])
    (former / "1.jpg").write_bytes(b"")
    plan = make_plan(latter, [former])
    assert [one.name for one in plan.targets] == [f"{BACK}/2026_01_31/10.jpg"]
    assert [one.name for one in plan.references] == [f"{BACK}/2025_01_31/2.jpg"]
    told = {one.file.removeprefix(f"{BACK}/"): one.reason for one in plan.skipped}
    assert set(told) == {
        "2025_01_31/1.jpg", "2026_01_31/1.jpg", "2026_01_31/2.jpg", "2026_01_31/3.jpg", "2026_01_31/4.jpg",
    }  # fmt: skip
    assert "empty" in told["2025_01_31/1.jpg"]
    assert told["2026_01_31/2.jpg"].startswith("2.jpg.json is not JSON")
    assert "uuid null" in told["2026_01_31/4.jpg"]
    assert not [reason for reason in told.values() if str(latter.parent) in reason]  # no path of this machine
    with pytest.raises(InputError):
        make_plan(latter, [former], strict=True)


@pytest.mark.parametrize("name", ["ignore-missing", "ignore-missing-carryforward"])
def test_a_list_of_marks_rightly_missing_that_cannot_be_read_is_no_empty_one(former, latter, name):
    (latter / name).write_bytes(b"c3\n\xff")
    for strict in (False, True):
        with pytest.raises(FormatError, match=rf"{name} cannot be read .*one uuid a line"):
            make_plan(latter, [former], strict=strict)


def test_a_reference_folder_that_cannot_be_read_is_listed(former, latter, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    plan = make_plan(latter, [empty, former])
    assert [one.file for one in plan.skipped] == ["empty"]
    with pytest.raises(InputError, match=r"no photo in .*empty has a mark"):
        make_plan(latter, [empty])


def test_folders_that_are_named_wrong_are_refused(former, latter, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        make_plan(latter, [former, tmp_path / "nowhere"])
    with pytest.raises(InputError, match="there is no folder"):
        make_plan(tmp_path / "nowhere", [former])
    with pytest.raises(InputError, match=r"holds no picture.*2025_01_31, 2026_01_31"):
        make_plan(latter.parent, [former])
    with pytest.raises(UsageError, match="given twice"):
        make_plan(latter, [former, former.parent / "." / former.name])
    with pytest.raises(UsageError, match="no reference folder"):
        make_plan(latter, [])
    for stem in ("", "meta", "a/b"):
        with pytest.raises(UsageError, match="names no set of marks"):
            make_plan(latter, [former], stem=stem)


def test_no_confirmed_mark_at_all(former, latter):
    for photo in former.glob("*.jpg"):
        write_marks(photo, marked((0, 0), canonical=False))
    with pytest.raises(InputError, match=r"confirm some first$"):
        make_plan(latter, [former])


def test_names_start_at_the_root_or_at_the_nearest_common_folder(former, latter, session, monkeypatch):
    (session / "melroot").unlink()
    plan = make_plan(latter, [former])
    assert (plan.name, plan.references[0].name) == ("2026_01_31", "2025_01_31/1.jpg")
    monkeypatch.chdir(latter)
    plan = make_plan(".", ["../2025_01_31"])
    assert (plan.name, plan.references[0].name) == ("2026_01_31", "2025_01_31/1.jpg")
    plan = make_plan(former, [former])
    assert (plan.name, plan.targets[0].name) == ("2025_01_31", "2025_01_31/1.jpg")


def test_two_roots_are_told(former, latter, tmp_path, caplog):
    other = tmp_path / "somebody else"
    shutil.copytree(former, other / "2025_01_31")
    (other / "melroot").touch()
    with caplog.at_level(logging.WARNING, logger="patchatlas"):
        plan = make_plan(latter, [other / "2025_01_31"])
    assert "same person" in caplog.text
    assert plan.references[0].name == "somebody else/2025_01_31/1.jpg"
    assert [one.reason for one in plan.notes] == [
        "lies below another melroot than the target; is it of the same person?"
    ]


def test_photos_that_lie_on_their_side_are_planned_upright(former, latter):
    photograph(latter / "1.jpg", orientation=6)
    write_marks(latter / "1.jpg", json.loads((former / "1.jpg.json").read_text()))
    assert make_plan(latter, [former]).targets[0].confirmed == MARKS
