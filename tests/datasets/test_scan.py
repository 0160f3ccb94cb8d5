"""A folder becomes records: every picture once, named from its path alone, upright, whatever the threads."""

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchatlas.datasets.ids import image_id
from patchatlas.datasets.scan import scan_folder, source_path
from patchatlas.errors import InputError
from patchatlas.io.manifest import read_manifest, write_manifest
from tests.datasets.conftest import PHOTOS, SMALL_BUCKETS


def test_every_picture_is_recorded_upright_with_its_bucket(photos):
    records = scan_folder(photos, table=SMALL_BUCKETS)
    assert [r.image_path for r in records] == sorted(name for name, _ in PHOTOS)
    by_path = {r.image_path: r for r in records}
    for name, stored in PHOTOS:
        record = by_path[name]
        upright = stored[::-1] if "turned" in name else stored
        assert (record.height, record.width) == upright
        assert record.exif_orientation == (6 if "turned" in name else 1)
        assert record.sha256 == hashlib.sha256((photos / name).read_bytes()).hexdigest()
        assert record.status == "ok"
        assert record.aspect_bucket in SMALL_BUCKETS
    # 130 high and 75 wide, seen upright: portrait. Stored it would be landscape (bug 10).
    assert by_path["sub/deep/turned.jpg"].aspect_bucket == (96, 64)


def test_bug_10_a_phone_photo_is_bucketed_as_it_is_seen(tmp_path):
    for orientation in range(1, 9):
        tags = Image.Exif()
        tags[0x0112] = orientation
        Image.new("RGB", (120, 80)).save(tmp_path / f"{orientation}.jpg", exif=tags)
    buckets = [record.aspect_bucket for record in scan_folder(tmp_path)]
    assert buckets == [(832, 1216)] * 4 + [(1216, 832)] * 4


def test_bug_9_ids_are_unique_and_without_dots(tmp_path):
    names = ["a.jpg", "a.png", "a.jpeg", "A.jpg", "sub/a.jpg", "sub/a.b.jpg", "sub.a.b.jpg", "photo.v2.x.jpg", "ü.jpg"]
    names += ["-.jpg", "x y.jpg", "x_y.jpg", "sub_a.jpg", "a.jpg.png", "走.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    ids = {record.image_path: record.image_id for record in scan_folder(tmp_path)}
    assert ids.keys() == set(names)
    assert len({own.casefold() for own in ids.values()}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", own) for own in ids.values())
    assert ids["photo.v2.x.jpg"].startswith("photo_v2_x-")


def test_an_id_depends_on_the_path_alone():
    # printf a.jpg | sha256sum
    assert image_id("a.jpg") == "a-509b0d4641a7c3ba"
    assert image_id("sub/a.jpg") != image_id("a.jpg")


@given(st.lists(st.text(min_size=1).filter(lambda s: "/" not in s), min_size=1, max_size=3).map("/".join))
def test_any_path_has_an_id_that_can_name_a_file(path):
    own = image_id(path)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,97}", own)


def test_a_file_name_that_is_not_utf_8_has_a_record(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", name)
    records = scan_folder(tmp_path)
    assert records[0].image_id.startswith("caf_-")
    write_manifest(tmp_path / "m.jsonl", records)
    again = read_manifest(tmp_path / "m.jsonl")
    assert again == records
    assert source_path(again[0].image_path, tmp_path).is_file()


def test_the_result_does_not_depend_on_threads_or_the_order_of_the_disk(photos, tmp_path):
    one = scan_folder(photos, table=SMALL_BUCKETS, workers=1)
    assert scan_folder(photos, table=SMALL_BUCKETS, workers=7) == one
    for name, _ in reversed(PHOTOS):  # another order of creation
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((photos / name).read_bytes())
    assert scan_folder(tmp_path, table=SMALL_BUCKETS, workers=3) == one


def test_hidden_derived_and_other_files_are_passed_over(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(picture)
    for other in (".b.png", ".cache/c.png", "derived/d.png", "deep/derived/e.png", "notes.txt", "a.png.json", "f"):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_bytes(picture.read_bytes())
    assert [r.image_path for r in scan_folder(tmp_path, skip_dirs=[tmp_path / "derived"])] == [
        "a.png",
        "deep/derived/e.png",
    ]


def test_pictures_of_kinds_that_are_not_read_are_listed(tmp_path):
    for name in ("a.heic", "b.gif", "c.nef", "D.JPG"):
        (tmp_path / name).write_bytes(b"x" * 40)
    records = scan_folder(tmp_path)
    assert [(r.image_path, r.status, r.error and r.error.type) for r in records] == [
        (name, "skipped", "not_a_picture") for name in ("D.JPG", "a.heic", "b.gif", "c.nef")
    ]


def test_limits_are_reasons(tmp_path):
    for name, size in (("a.png", (9, 9)), ("b.png", (90, 90)), ("c.png", (9, 99))):
        Image.new("RGB", size).save(tmp_path / name)
    records = scan_folder(tmp_path, max_pixels=8000, min_side=9)
    assert [r.error and r.error.type for r in records] == [None, "too_large", None]
    records = scan_folder(tmp_path, min_side=10)
    assert [r.error and r.error.type for r in records] == ["too_small", None, "too_small"]
    assert records[2].error is not None
    assert records[2].error.message == "c.png is 9 x 99 pixels, the shorter side must have 10"


def test_links_are_followed_but_not_in_circles(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "sub" / "b.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "sub" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "twin").symlink_to(tmp_path / "sub")
    records = scan_folder(tmp_path)
    assert [(r.image_path, r.error and r.error.type) for r in records] == [
        ("a.png", None),
        ("sub/b.png", None),
        ("sub/gone.png", "missing"),
        ("twin/b.png", None),
        ("twin/gone.png", "missing"),
    ]


def test_a_folder_that_cannot_be_listed_is_no_silent_gap(tmp_path, monkeypatch):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "locked").mkdir()
    list_folder = os.scandir

    def scandir(folder):
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied")
        return list_folder(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"cannot list the folder .*locked: Permission denied"):
        scan_folder(tmp_path / "locked")
    records = scan_folder(tmp_path)
    assert [(r.image_path, r.error and r.error.type) for r in records] == [("a.png", None), ("locked", "unreadable")]


def test_known_pictures_get_no_new_record(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    records = scan_folder(tmp_path)
    absolute = replace(records[0], image_path=str(tmp_path / "a.png"))
    assert scan_folder(tmp_path, known=[absolute, records[1]]) == records[2:]


def test_progress_is_told_in_order(photos):
    told = []
    records = scan_folder(photos, workers=3, on_progress=lambda done, total, record: told.append((done, total, record)))
    assert told == [(n, len(PHOTOS), record) for n, record in enumerate(records, start=1)]


def test_where_a_picture_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").touch()
    assert source_path("a.png", data) == data / "a.png"
    assert source_path("data/a.png", data) == Path("data/a.png")  # as earlier projects wrote it
    assert source_path(str(data / "a.png"), "elsewhere") == data / "a.png"
    assert source_path("gone.png", data) == data / "gone.png"
    (tmp_path / "a.png").touch()
    assert source_path("a.png", data) == data / "a.png"
    for impossible in ("x" * 300, "a\0.png"):
        assert source_path(impossible, data) == data / impossible


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*gone; check --input-dir"):
        scan_folder(tmp_path / "gone")
    assert scan_folder(tmp_path) == []
