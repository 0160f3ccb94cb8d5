"""Mark files: accepted, loaded and refused as the reference loader does, written back byte for byte."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import FormatError, InputError, LandmarkError, UsageError
from patchatlas.io.images import read_image
from patchatlas.io.landmarks import (
    Landmark,
    continuous_point,
    find_mark,
    marks_path,
    mel_point,
    read_marks,
    with_marks,
    write_marks,
)

MEL = Path(__file__).parents[1] / "data" / "mel"
EXPECTED = json.loads((MEL / "expected.json").read_text())
ACCEPTED = sorted(name for name in EXPECTED if name.startswith("accepted/"))
REJECTED = sorted(name for name in EXPECTED if name.startswith("rejected/"))
ROTOMAP = MEL / "rotomap1"

UUID = "47eaa0992cb6416d86dc283cf0480ff9"


def mark(uuid="a", x=1, y=2, canonical=True, **extra) -> Landmark:
    return Landmark(uuid, x, y, canonical, extra)


def record(landmark: Landmark) -> dict:
    return {
        **landmark.extra,
        "uuid": landmark.uuid,
        "x": landmark.x,
        "y": landmark.y,
        "is_uuid_canonical": landmark.is_uuid_canonical,
    }


def exact(value) -> str:
    """A form in which 1, 1.0, true and "1" all differ."""
    return json.dumps(value, sort_keys=True)


@pytest.fixture
def beside(tmp_path):
    """Lay mark bytes beside a picture and give the picture's path."""

    def lay(content: bytes) -> Path:
        image = tmp_path / "photo.jpg"
        image.write_bytes(b"")
        marks_path(image).write_bytes(content)
        return image

    return lay


def one(**fields) -> bytes:
    """A file with one mark: a good one, changed as said; None takes the field away."""
    entry = {"uuid": UUID, "x": 3, "y": 4, "is_uuid_canonical": True} | fields
    return json.dumps([{k: v for k, v in entry.items() if v is not None}]).encode()


def test_every_example_is_in_the_tables():
    assert (len(ACCEPTED), len(REJECTED)) == (19, 17)
    for folder, names in (("accepted", ACCEPTED), ("rejected", REJECTED)):
        assert [path.name for path in sorted((MEL / folder).iterdir())] == [Path(name).name for name in names]


@pytest.mark.parametrize("name", ACCEPTED)
def test_loads_what_the_reference_loads(name, beside):
    marks = read_marks(beside((MEL / name).read_bytes()))
    assert exact([record(m) for m in marks]) == exact(EXPECTED[name]["loaded"])


REASONS = {
    "empty_file": (FormatError, "is not JSON"),
    "entry_is_number": (FormatError, "entry 1 of .* is a number"),
    "entry_is_string": (FormatError, "entry 1 of .* is text"),
    "list_coords": (FormatError, r"entry 1 of .* x = \[3\]"),
    "nan_coords": (FormatError, "entry 1 of .* NaN or Infinity"),
    "no_uuid": (FormatError, "entry 1 of .* no 'uuid'"),
    "no_x": (FormatError, "entry 1 of .* no 'x'"),
    "no_y": (FormatError, "entry 1 of .* no 'y'"),
    "null_uuid": (LandmarkError, "entry 1 of .* uuid null"),
    "null_x": (FormatError, "entry 1 of .* x = None"),
    "old_format_no_is_uuid_canonical": (FormatError, "entry 1 of .* old file.* assume_canonical=True"),
    "one_of_two_lacks_is_uuid_canonical": (FormatError, "entry 2 of .* old file"),
    "string_float_coords": (FormatError, "entry 1 of .* x = '12.5'"),
    "top_level_null": (FormatError, "holds null, .* list of marks"),
    "top_level_number": (FormatError, "holds a number, .* list of marks"),
    "top_level_object": (FormatError, "holds an object, .* list of marks"),
    "truncated_file": (FormatError, "is not JSON"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_refuses_what_the_reference_refuses(name, beside):
    error, reason = REASONS[Path(name).name.removesuffix(".jpg.json")]
    image = beside((MEL / name).read_bytes())
    with pytest.raises(error, match=f"(?s){reason}") as caught:
        read_marks(image)
    assert str(marks_path(image)) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xef\xbb\xbf[]", "not JSON .*BOM"),
        ("[]".encode("utf-16"), "not UTF-8"),
        (b'[{"uuid": "\xff"}]', "not UTF-8 text .byte 11"),
        (b"[" * 100_000, "not JSON"),
        (b"[" + b"9" * 5000 + b"]", "not JSON"),
        (b"[true]", "entry 1 of .* is true or false"),
        (b"[[]]", "entry 1 of .* is a list"),
        (b"[null]", "entry 1 of .* is null"),
        (b'""', "holds text"),
        (one(x=float("inf")), "entry 1 of .* NaN or Infinity"),
        (one(confidence=float("nan")), "entry 1 of .* NaN or Infinity"),
        (one().replace(b'"x": 3', b'"x": 1e999'), "entry 1 of .* NaN or Infinity"),
        (one(x="9" * 5000), "no pixel number"),
        (one(x={}), "x = {}"),
    ],
)
def test_refuses_bytes_that_hold_no_marks(content, reason, beside):
    with pytest.raises(FormatError, match=f"(?s){reason}"):
        read_marks(beside(content))


def test_the_reference_rotomap_loads_as_there():
    for name, frame in EXPECTED["rotomap1"]["frames"].items():
        assert exact([record(m) for m in read_marks(ROTOMAP / name)]) == exact(frame["moles"])
    automark = read_marks(ROTOMAP / "image2.jpg", stem="automark")
    assert exact([record(m) for m in automark]) == exact(EXPECTED["rotomap1"]["automark_of_image2"])


@pytest.mark.parametrize("name", ["image1.jpg", "image2.jpg"])
def test_marks_lie_on_the_dark_spots_of_their_picture(name):
    pixels = read_image(ROTOMAP / name)
    for landmark in read_marks(ROTOMAP / name):
        column, row = mel_point(*landmark.point, size_hw=pixels.shape[:2])
        assert pixels[row, column].mean() < 120 < 160 < np.median(pixels)


@pytest.mark.parametrize("name", ["image1.jpg.json", "image2.jpg.json", "image3.jpg.json", "image2.jpg.automark.json"])
def test_round_trip_keeps_every_byte(name, beside, tmp_path):
    image = beside((ROTOMAP / name).read_bytes())
    write_marks(tmp_path / "again.json", read_marks(image))
    assert (tmp_path / "again.json").read_bytes() == (ROTOMAP / name).read_bytes()


def test_writer_sorts_keys_and_escapes_like_the_reference(tmp_path):
    write_marks(tmp_path / "m.json", [mark("é", 1, 2, False, zoom=1.0, note="ß", a=None)])
    assert (tmp_path / "m.json").read_bytes() == (
        b'[\n    {\n        "a": null,\n        "is_uuid_canonical": false,\n        "note": "\\u00df",\n'
        b'        "uuid": "\\u00e9",\n        "x": 1,\n        "y": 2,\n        "zoom": 1.0\n    }\n]\n'
    )


def test_extra_fields_and_odd_values_survive(beside, tmp_path):
    for name in ("unknown_extra_fields", "integer_uuid", "canonical_is_null", "canonical_is_string", "duplicate_uuid"):
        original = MEL / "accepted" / f"{name}.jpg.json"
        write_marks(tmp_path / "again.json", read_marks(beside(original.read_bytes())))
        assert (tmp_path / "again.json").read_bytes() == original.read_bytes()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
extras = st.dictionaries(st.text().filter(lambda k: k not in ("uuid", "x", "y", "is_uuid_canonical")), json_values)
any_mark = st.builds(
    Landmark, json_values.filter(lambda v: v is not None), st.integers(), st.integers(), json_values, extras
)


@given(st.lists(any_mark, max_size=4))
def test_whatever_is_written_reads_back_equal(tmp_path_factory, marks):
    image = tmp_path_factory.mktemp("marks") / "p.jpg"
    image.write_bytes(b"")
    write_marks(marks_path(image), marks)
    assert exact([record(m) for m in read_marks(image)]) == exact([record(m) for m in marks])


def test_marks_are_added_at_the_end_as_the_reference_would_write_them(tmp_path):
    path = ROTOMAP / "image2.jpg.json"
    content = path.read_bytes()
    added = with_marks(content, [mark("new", 3, 4, canonical=False, confidence=0.5)], path)
    former = json.loads(content)
    assert json.loads(added) == [
        *former,
        {"uuid": "new", "x": 3, "y": 4, "is_uuid_canonical": False, "confidence": 0.5},
    ]
    assert added.startswith(content.removesuffix(b"\n]\n"))
    assert with_marks(content, [], path) == content
    write_marks(tmp_path / "photo.jpg.json", [mark("new")])
    assert with_marks(None, [mark("new")], path) == (tmp_path / "photo.jpg.json").read_bytes()
    assert with_marks(b"{}", [mark("new")], path) == with_marks(None, [mark("new")], path)


@pytest.mark.parametrize("name", ACCEPTED)
def test_adding_marks_changes_no_value_of_those_there_are(name):
    """Not even those that are read as something else: 10.9 as 10, "12" as 12, true as 1."""
    content = (MEL / name).read_bytes()
    former = json.loads(content)
    added = json.loads(with_marks(content, [mark("new")], Path(name)))
    assert exact(added) == exact([*(former or []), record(mark("new"))])


@pytest.mark.parametrize("name", REJECTED)
def test_nothing_is_added_to_what_the_reference_refuses(name):
    with pytest.raises((FormatError, LandmarkError)):
        with_marks((MEL / name).read_bytes(), [mark("new")], Path(name))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{1, 2}]])
def test_writer_refuses_what_json_cannot_hold_and_keeps_the_old_file(value, tmp_path):
    path = tmp_path / "m.json"
    path.write_bytes(b"old")
    with pytest.raises(LandmarkError, match="mark 2"):
        write_marks(path, [mark(), mark(confidence=value)])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_needs_the_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_marks(tmp_path / "no" / "m.json", [])


def test_a_picture_without_a_mark_file_has_no_marks():
    assert read_marks(ROTOMAP / "image4.jpg") == []
    assert read_marks(ROTOMAP / "image1.jpg", stem="other") == []


def test_a_missing_picture_is_refused_even_if_marks_are_there(tmp_path):
    shutil.copy(ROTOMAP / "image1.jpg.json", tmp_path / "gone.jpg.json")
    with pytest.raises(InputError, match=r"no picture .*gone\.jpg"):
        read_marks(tmp_path / "gone.jpg")


def test_a_mark_file_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "p.jpg").write_bytes(b"")
    (tmp_path / "p.jpg.json").mkdir()
    with pytest.raises(InputError, match="cannot open the mark file"):
        read_marks(tmp_path / "p.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_mark_file_that_is_a_pipe_is_refused_at_once(tmp_path):
    (tmp_path / "p.jpg").write_bytes(b"")
    os.mkfifo(tmp_path / "p.jpg.json")
    with pytest.raises(InputError, match="a pipe or device"):
        read_marks(tmp_path / "p.jpg")


def test_old_files_load_on_request_with_a_warning(beside, caplog):
    image = beside((MEL / "rejected" / "one_of_two_lacks_is_uuid_canonical.jpg.json").read_bytes())
    with caplog.at_level(logging.WARNING):
        marks = read_marks(image, assume_canonical=True)
    assert [m.is_uuid_canonical for m in marks] == [True, True]
    assert "1 mark(s)" in caplog.text


def test_assume_canonical_leaves_new_files_alone(beside, caplog):
    with caplog.at_level(logging.WARNING):
        marks = read_marks(beside(one(is_uuid_canonical=False)), assume_canonical=True)
    assert marks[0].is_uuid_canonical is False
    assert not caplog.records


def test_marks_path():
    assert marks_path("a/photo.JPG") == Path("a/photo.JPG.json")
    assert marks_path(Path("a/photo.jpg"), stem="automark") == Path("a/photo.jpg.automark.json")


@pytest.mark.parametrize("stem", ["", "meta", "../x", "a\\b"])
def test_marks_path_refuses_stems_that_name_no_marks(stem):
    with pytest.raises(UsageError, match="STEM"):
        marks_path("photo.jpg", stem=stem)


def test_find_mark_gives_the_one_with_the_uuid():
    marks = read_marks(ROTOMAP / "image1.jpg")
    assert find_mark(marks, "f5ec52ed0108447592e1bc7656670b14").point == (33.5, 51.5)


def test_find_mark_finds_a_number_by_its_digits():
    assert find_mark([mark(17, 3), mark("18", 5)], "17").x == 3


def test_an_absent_uuid_lists_those_there_are():
    with pytest.raises(LandmarkError, match=r"photo\.json has no mark .*'nope'; it has 'a', '17'; use"):
        find_mark([mark("a"), mark(17)], "nope", path="photo.json")


def test_a_long_list_is_cut():
    with pytest.raises(LandmarkError, match="'m8', 'm9' and 2 more") as caught:
        find_mark([mark(f"m{n}") for n in range(12)], "nope")
    assert "m10" not in str(caught.value)


def test_no_marks_at_all_is_said():
    with pytest.raises(LandmarkError, match="no marks"):
        find_mark([], "a")


def test_doubled_uuids_name_both_places():
    marks = [mark("a", 1, 2), mark("b", 5, 6), mark("a", 30, 40)]
    with pytest.raises(LandmarkError, match=r"2 marks .*entry 1 at \(1, 2\), entry 3 at \(30, 40\)"):
        find_mark(marks, "a")
    assert find_mark(marks, "b").x == 5


def test_a_mark_needs_an_identity_and_no_doubled_fields():
    with pytest.raises(LandmarkError, match="without a uuid"):
        mark(None)
    with pytest.raises(LandmarkError, match="repeat x"):
        Landmark("a", 1, 2, True, {"x": 3})


@pytest.mark.parametrize(
    ("point", "pixel"),
    [((0.0, 0.0), (0, 0)), ((12.999, 7.0), (12, 7)), ((95.999, 71.5), (95, 71)), ((21.5, 14.5), (21, 14))],
)
def test_mel_stores_the_pixel_under_the_point(point, pixel):
    assert mel_point(*point, size_hw=(72, 96)) == pixel


@pytest.mark.parametrize(
    "point", [(-0.001, 5.0), (5.0, -0.001), (96.0, 5.0), (5.0, 72.0), (80.0, 80.0), (float("nan"), 5.0)]
)
def test_mel_point_refuses_points_outside(point):
    with pytest.raises(LandmarkError, match="outside"):
        mel_point(*point, size_hw=(72, 96))


def test_the_point_of_a_mark_is_the_centre_of_its_pixel():
    assert continuous_point(0, 0) == (0.5, 0.5)
    assert mark(x=21, y=14).point == (21.5, 14.5)


@given(st.integers(0, 7999), st.integers(0, 5999))
def test_stored_pixels_survive_the_way_there_and_back(x, y):
    assert mel_point(*continuous_point(x, y), size_hw=(6000, 8000)) == (x, y)
