"""The manifest: the same records back, the same bytes again, unknown fields kept, and refusals that name the line."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import FormatError, InputError
from patchatlas.io.manifest import (
    FeatureEntry,
    ManifestRows,
    Record,
    RecordError,
    read_manifest,
    to_line,
    write_manifest,
)
from patchatlas.io.reasons import REASONS

SHA = "ab" * 32

ENTRY = FeatureEntry(
    file="dinov3_patches@0f0f0f0f/a-1.npy", grid=(52, 76), dim=384, dtype="fp16", bytes=99, sha256=SHA, stamp="0f" * 32
)
RECORD = Record(
    image_path="sub/a.jpg",
    image_id="a-1",
    width=4000,
    height=3000,
    aspect_bucket=(832, 1216),
    caption="a wall",
    sha256=SHA,
    exif_orientation=6,
    resized=(1216, 912),
    crop=(0, 40, 1216, 832),
    crop_source=(Fraction(0), Fraction(2500, 19), Fraction(4000), Fraction(54500, 19)),
    features={"dinov3_patches": ENTRY, "dinov3_cls": replace(ENTRY, grid=None)},
    extra={"aesthetic": 6.5, "tags": ["x", None, {"y": 1}]},
)
LINE = {
    "image_path": "sub/a.jpg",
    "image_id": "a-1",
    "width": 4000,
    "height": 3000,
    "aspect_bucket": "1216x832",
    "caption": "a wall",
    "format_version": 3,
    "sha256": SHA,
    "exif_orientation": 6,
    "resized": [1216, 912],
    "crop": [0, 40, 1216, 832],
    "crop_source": ["0", "2500/19", "4000", "54500/19"],
    "features": {
        "dinov3_cls": {
            "file": ENTRY.file,
            "grid": None,
            "dim": 384,
            "dtype": "fp16",
            "bytes": 99,
            "sha256": SHA,
            "stamp": "0f" * 32,
        },
        "dinov3_patches": {
            "file": ENTRY.file,
            "grid": [52, 76],
            "dim": 384,
            "dtype": "fp16",
            "bytes": 99,
            "sha256": SHA,
            "stamp": "0f" * 32,
        },
    },
    "status": "ok",
    "error": None,
    "aesthetic": 6.5,
    "tags": ["x", None, {"y": 1}],
}


def test_a_record_is_written_as_the_format_says():
    assert json.dumps(RECORD.to_json()) == json.dumps(LINE)  # the order of the keys, too
    assert Record.from_json(LINE) == RECORD


def test_a_record_without_a_caption_has_no_such_key():
    row = replace(RECORD, caption=None).to_json()
    assert "caption" not in row
    assert Record.from_json(row).caption is None


@pytest.mark.parametrize("reason", REASONS)
def test_a_skipped_record_says_why(reason):
    record = Record(
        image_path="a.jpg", image_id="a-1", status="skipped", error=RecordError(type=reason, message="because")
    )
    row = record.to_json()
    assert row["error"] == {"type": reason, "message": "because"}
    assert row["aspect_bucket"] is row["width"] is row["crop"] is None
    assert Record.from_json(row) == record


def test_files_come_back_and_the_same_records_are_the_same_bytes(tmp_path):
    records = [RECORD, replace(RECORD, image_path="z/ü ö\n.jpg", image_id="b", caption="Gänge — 走廊")]
    path = tmp_path / "m.jsonl"
    write_manifest(path, records)
    assert read_manifest(path) == records
    first = path.read_bytes()
    assert first.count(b"\n") == 2
    assert "走廊".encode() in first  # to be read by people
    write_manifest(path, read_manifest(path))
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_file_name_that_is_not_utf_8_comes_back(tmp_path):
    record = replace(RECORD, image_path=b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    write_manifest(tmp_path / "m.jsonl", [record])
    assert read_manifest(tmp_path / "m.jsonl") == [record]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(extra=st.dictionaries(st.text().filter(lambda key: key not in LINE), json_values, max_size=4))
def test_unknown_fields_come_back_as_they_were(extra):
    record = replace(RECORD, extra=extra)
    line = to_line(record.to_json())
    assert line.count(b"\n") == 1
    again = Record.from_json(json.loads(line))
    assert again == record
    assert list(again.extra) == list(extra)
    assert to_line(again.to_json()) == line


def test_known_fields_cannot_hide_among_the_unknown():
    with pytest.raises(FormatError, match="width must not be among the unknown"):
        replace(RECORD, extra={"width": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "a.b"}, r"image_id 'a\.b' must not be empty or hold a dot"),
        ({"image_id": ""}, "must not be empty"),
        ({"image_id": "a/b"}, "slash"),
        ({"image_id": "a\\b"}, "slash"),
        ({"image_id": "a\nb"}, "cannot be printed"),
        ({"image_path": 3}, "image_path must be text, given 3"),
        ({"width": -1}, "width must be a whole number"),
        ({"width": True}, "width must be a whole number"),
        ({"height": 3.0}, "height must be a whole number"),
        ({"aspect_bucket": "832"}, "'832' is no bucket"),
        ({"aspect_bucket": [832, 1216]}, "aspect_bucket must be text"),
        ({"caption": ["x"]}, "caption must be text"),
        ({"sha256": "AB" * 32}, "sha256 must be a SHA-256"),
        ({"sha256": "ab"}, "sha256 must be a SHA-256"),
        ({"resized": [1, 2, 3]}, r"resized must be \[w, h\]"),
        ({"crop": [1, 2, 3]}, r"crop must be \[x, y, w, h\]"),
        ({"crop": [0, 1.5, 3, 4]}, "crop must be a list of whole numbers"),
        ({"crop_source": [0, 0, 1, 1]}, "crop_source must be four fractions as text"),
        ({"crop_source": ["0", "0", "1/0", "1"]}, "crop_source must be four fractions"),
        ({"crop_source": ["0", "0", "x", "1"]}, "crop_source must be four fractions"),
        ({"features": None}, "features must be an object"),
        ({"features": {"x": 3}}, "x must be an object"),
        ({"features": {"x": {**LINE["features"]["dinov3_cls"], "dim": None}}}, "dim must be a whole number"),
        ({"status": "done"}, "status 'done' is neither"),
        ({"status": "skipped"}, "has an error if, and only if, it was skipped"),
        ({"error": {"type": "empty", "message": ""}}, "has an error if, and only if"),
        ({"error": {"type": "odd", "message": ""}, "status": "skipped"}, "error type 'odd' does not exist; .* missing"),
        ({"format_version": 2}, "format_version 2 is not 3; run with --pass-filter migrate"),
        ({"format_version": 4}, "format_version 4 is later than 3; use a later patchatlas"),
        ({"format_version": None}, "format_version None is not 3"),
    ],
)
def test_lines_that_are_not_of_the_format_are_named(change, message, tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(to_line(LINE) + to_line({**LINE, "image_path": "b", "image_id": "b", **change}))
    with pytest.raises(FormatError, match=rf"m\.jsonl, record 2: .*{message}"):
        read_manifest(path)


def test_an_old_record_without_a_bucket_says_what_to_run(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"image_path": "a.jpg", "caption": "x"}\n')
    with pytest.raises(FormatError, match=r"aspect_bucket not found for 'a\.jpg'; run with --pass-filter migrate"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 3: not JSON"),
        (b"\xff", "line 3: not JSON"),
        (b"[1]", "line 3: a line holds one JSON object, given list"),
        (b'{"x": NaN}', "NaN is no finite number; write null"),
        (b'{"x": 1e999}', "1e999 is no finite number"),
        (b"[" * 100_000, "line 3: not JSON"),
    ],
)
def test_lines_that_are_no_json_are_named(line, message, tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"x": 1}\n\n' + line + b"\n")
    rows = iter(ManifestRows(path))
    assert next(rows) == {"x": 1}
    with pytest.raises(FormatError, match=message):
        next(rows)


def test_no_id_and_no_path_occurs_twice(tmp_path):
    path = tmp_path / "m.jsonl"
    with pytest.raises(FormatError, match=r"'sub/a\.jpg' has two records"):
        write_manifest(path, [RECORD, replace(RECORD, image_id="b")])
    with pytest.raises(FormatError, match=r"'sub/a\.jpg' and 'b\.jpg' have the same image_id 'a-1'"):
        write_manifest(path, [RECORD, replace(RECORD, image_path="b.jpg")])
    assert not path.exists()
    path.write_bytes(to_line(LINE) * 2)
    with pytest.raises(FormatError, match="has two records"):
        read_manifest(path)


def test_paths_that_are_no_manifest(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*gone"):
        read_manifest(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        write_manifest(tmp_path / "gone" / "m.jsonl", [RECORD])


def test_an_empty_manifest(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [])
    assert read_manifest(tmp_path / "m.jsonl") == []
