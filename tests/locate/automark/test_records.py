"""Kept answers: back as they were, only while the mark file is as they know it, and never when damaged."""

import json
import logging

import pytest

from patchatlas.locate.automark.answer import Answer, as_marks
from patchatlas.locate.automark.records import Record, Records

FACTS = {"photo": "a", "references": [1, 2]}


def answer(uuid: str = "a1", **changes) -> Answer:
    given = {
        "uuid": uuid, "state": "found", "confidence": 0.123456789, "reason": "because", "proposed": True,
        "target_xy": (10.25, 20.75), "mel": (10, 20), "spread_px": 3.5, "source": "x/1.jpg", "source_xy": (1.5, 2.5),
        "turn": "upright",
        "views": 2, "rank": 0, "predicted_xy": (11.0, 21.0), "prior_px": 1.25, "prior_sigma_px": 2.0, "gap_px": 30.0,
        "identity_safe": True, **changes,
    }  # fmt: skip
    return Answer(**given)


BARE = {"predicted_xy": None, "prior_px": None, "prior_sigma_px": None, "gap_px": None, "proposed": False}
RECORD = Record(None, "after", (answer(), answer("b2", state="absent", **BARE)))


def test_records_come_back_as_they_were(tmp_path):
    records = Records(tmp_path / "results")
    assert records.read(FACTS, now=None) is None
    records.keep(FACTS, RECORD)
    assert records.read(FACTS, now=None) == RECORD
    assert records.read({**FACTS, "photo": "b"}, now=None) is None


def test_a_record_holds_while_the_mark_file_is_as_it_was_or_as_it_was_to_be(tmp_path):
    records = Records(tmp_path)
    records.keep(FACTS, RECORD)
    assert records.read(FACTS, now="after") == RECORD
    assert records.read(FACTS, now="edited since") is None


@pytest.mark.parametrize("harm", ["cut", "edit", "list", "bytes", "name"])
def test_a_damaged_record_is_not_read(tmp_path, caplog, harm):
    records = Records(tmp_path)
    records.keep(FACTS, RECORD)
    (path,) = tmp_path.iterdir()
    content = path.read_text()
    harmed = {
        "cut": content[:-20],
        "edit": content.replace("10.25", "10.26"),
        "list": "[]",
        "bytes": "\udcff",
        "name": content.replace('"spread_px"', '"spread"'),
    }[harm]
    path.write_bytes(harmed.encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING, logger="patchatlas"):
        assert records.read(FACTS, now=None) is None
    assert "made anew" in caplog.text


def test_nothing_is_kept_without_a_folder_or_leave(tmp_path):
    Records(None).keep(FACTS, RECORD)
    Records(tmp_path, write=False).keep(FACTS, RECORD)
    assert not list(tmp_path.iterdir())
    assert Records(None).read(FACTS, now=None) is None


def test_answers_are_plain_json_and_back():
    for one in RECORD.answers:
        assert Answer.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_a_proposal_is_a_mark_that_nobody_confirmed():
    (mark,) = as_marks(RECORD.answers)
    assert (mark.uuid, mark.x, mark.y, mark.is_uuid_canonical) == ("a1", 10, 20, False)
    assert mark.extra == {"confidence": 0.1235}
