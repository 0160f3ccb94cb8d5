"""The user's captions: merged by path or id, the rest left alone, what fits nothing reported."""

import json

import pytest

from patchatlas.datasets.captions import merge_captions
from patchatlas.errors import FormatError, InputError
from patchatlas.io.manifest import Record

RECORDS = [
    Record(image_path="a.jpg", image_id="a-1"),
    Record(image_path="sub/b.jpg", image_id="b-2", caption="old"),
    Record(image_path="c.jpg", image_id="c-3", caption="stays"),
]


@pytest.fixture
def captions(tmp_path):
    def write(*rows):
        path = tmp_path / "captions.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_captions_go_to_the_records_that_they_name(captions):
    merged = merge_captions(
        RECORDS,
        captions(
            {"image_path": "./a.jpg", "caption": "by path", "model": "x"},
            {"image_id": "b-2", "caption": "by id"},
            {"image_path": "gone.jpg", "caption": "?"},
            {"image_id": "gone", "caption": "?"},
            {"image_path": "c.jpg", "image_id": "c-3", "caption": "stays"},
        ),
    )
    assert [r.caption for r in merged.records] == ["by path", "by id", "stays"]
    assert [r.image_id for r in merged.records] == ["a-1", "b-2", "c-3"]
    assert merged.changed == 2
    assert merged.unmatched == ["gone.jpg", "gone"]


def test_a_line_may_repeat_but_not_contradict(captions):
    row = {"image_path": "a.jpg", "caption": "x"}
    assert merge_captions(RECORDS, captions(row, row)).changed == 1
    with pytest.raises(FormatError, match=r"line 2: 'a-1' has another caption on an earlier line"):
        merge_captions(RECORDS, captions(row, {"image_id": "a-1", "caption": "y"}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_path": "a.jpg"}, "line 1: a line needs a text `caption`"),
        ({"image_path": "a.jpg", "caption": None}, "needs a text `caption`"),
        ({"caption": "x"}, "an `image_path` or `image_id`"),
        ({"caption": "x", "image_id": ["a-1"]}, "an `image_path` or `image_id`"),
        ({"caption": "x", "image_id": ["a-1"], "image_path": 3}, "an `image_path` or `image_id`"),
        ({"image_path": "a.jpg", "image_id": "b-2", "caption": "x"}, "are of different records"),
    ],
)
def test_lines_that_cannot_be_merged(row, message, captions):
    with pytest.raises(FormatError, match=message):
        merge_captions(RECORDS, captions(row))


def test_a_path_that_fits_wins_where_the_id_fits_nothing(captions):
    assert merge_captions(RECORDS, captions({"image_path": "a.jpg", "image_id": "?", "caption": "x"})).changed == 1


def test_a_picture_may_be_named_by_any_path_that_leads_to_it(captions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").touch()
    for name in ("a.jpg", "data/a.jpg", str(tmp_path / "data" / "a.jpg")):
        path = captions({"image_path": name, "caption": "x"})
        assert merge_captions(RECORDS, path, input_dir="data").changed == 1
    assert merge_captions(RECORDS, path).unmatched == [name]


def test_an_odd_id_beside_a_good_path_is_passed_over(captions):
    assert merge_captions(RECORDS, captions({"image_path": "a.jpg", "image_id": ["?"], "caption": "x"})).changed == 1


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        merge_captions(RECORDS, tmp_path / "gone.jsonl")
