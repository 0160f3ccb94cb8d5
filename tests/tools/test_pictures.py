"""The pictures of the bundled encoder: nothing of the judge's, nothing whose licence does not allow it."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from patchatlas.io.images import read_image, write_image
from tests.conftest import data_folder
from tools.bundled import held_out as kept_back
from tools.bundled.held_out import NAMES, SHA256, held_out
from tools.bundled.packages import DEBIAN, REFUSED, UNKNOWN, WHEELS, Said
from tools.bundled.pictures import (
    ALLOWED,
    LONG_SIDE,
    TABLE,
    Row,
    differences,
    judge,
    place,
    read_table,
    refusal,
    write_table,
)

LISTED = read_table(TABLE)
USED = [row for row in LISTED if row.used == "yes"]


def test_something_is_used():
    assert len(USED) > 100
    assert {row.package for row in USED} == {"lomiri-wallpapers-16.04", "endless-sky-data", *WHEELS}


def test_nothing_of_the_judge_is_used():
    assert not {row.sha256 for row in USED} & set(SHA256.values())
    assert not [row.file for row in USED if row.file.rpartition("/")[2].lower().startswith(NAMES)]
    assert "opencv-doc" not in {row.package for row in LISTED}
    listed_here = {row.file: row for row in LISTED if row.package == "scikit-image"}
    for name in ("motorcycle_left.png", "motorcycle_right.png"):
        assert listed_here[name].used == "no"
        assert listed_here[name].sha256 == SHA256[name]


def test_the_hashes_of_the_judge_are_those_of_its_files():
    folder = data_folder("opencv-doc")
    for name in ("graf1.png", "graf3.png", "aloeL.jpg", "aloeR.jpg", "box.png", "box_in_scene.png"):
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == SHA256[name]


def test_every_licence_allows_it():
    assert {row.licence for row in USED} <= set(ALLOWED)
    assert not [one for one in ALLOWED if "SA" in one.split("-") or "NC" in one.split("-") or "GPL" in one]
    assert not [row for row in USED if "morgue" in row.remark]


def test_every_picture_names_its_author_and_every_refusal_its_reason():
    assert all(row.author and row.author != UNKNOWN for row in USED)
    assert all(bool(row.reason) == (row.used == "no") for row in LISTED)
    assert len({row.name for row in LISTED}) == len(LISTED)


def test_refused_packages_are_not_fetched():
    fetched = {one.package.name for one in DEBIAN} | set(WHEELS)
    assert not fetched & {one.name for one in REFUSED}
    assert all(one.reason for one in REFUSED)


@pytest.mark.parametrize(
    ("licence", "remark", "reason"),
    [
        ("CC0-1.0", "", ""),
        ("CC-BY-4.0", "", ""),
        ("public-domain", "From NASA", ""),
        ("public-domain", "Taken from morgue-file.com", "no such dedication"),
        ("CC-BY-SA-4.0", "", "share-alike"),
        ("GPL-2+", "", "share-alike"),
        ("CC-BY-NC-4.0", "", "is not one of"),
        (UNKNOWN, "", "no licence"),
    ],
)
def test_refusals(licence, remark, reason):
    found = refusal("a.jpg", "00", Said("Anna", licence, remark))
    assert reason in found if reason else found == ""


def test_the_judge_comes_first():
    free = Said("Anna", "CC0-1.0", "")
    assert "judged" in refusal("Graf1.png", "00", free)
    assert "judged" in refusal("renamed.png", SHA256["aloeL.jpg"], free)
    assert held_out("box_in_scene.png", "00")
    assert not held_out("boxwood.jpg", "00")


def test_a_small_picture_is_not_used(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((100, 500, 3), np.uint8))
    row = judge("package", "1", tmp_path / "a.png", "sub/a.png", Said("Anna", "CC0-1.0", ""))
    assert (row.used, row.name) == ("no", "package--sub--a.png")
    assert "100 px" in row.reason


def test_pictures_are_copied_or_shrunk(tmp_path):
    write_image(tmp_path / "small.png", np.full((20, 30, 3), 7, np.uint8))
    place(tmp_path / "small.png", tmp_path / "copy.png")
    assert (tmp_path / "copy.png").read_bytes() == (tmp_path / "small.png").read_bytes()
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8).repeat(16)[None, :, None], (64, 4096, 3))
    write_image(tmp_path / "large.png", np.ascontiguousarray(ramp))
    place(tmp_path / "large.png", tmp_path / "shrunk.jpg")
    shrunk = read_image(tmp_path / "shrunk.png")
    assert shrunk.shape == (32, LONG_SIDE, 3)
    assert np.array_equal(shrunk[5, 3::8, 0], np.arange(256))


def test_a_changed_package_is_told():
    one = USED[0]
    other = replace(one, sha256="00", licence="GPL-2")
    extra = replace(one, name="extra")
    assert differences([one], [one]) == []
    assert differences([other], [one]) == [f"{one.name}: other licence, sha256 than listed"]
    assert differences([one, extra], [one]) == ["extra: is not listed"]
    assert differences([one], [one, extra]) == ["extra: is listed and not in the package"]


def test_the_table_survives_a_round_trip(tmp_path):
    rows = [Row("n", "p", "1", "f", 'A, "B"', "CC0", "two\nlines", "00", "yes", "")]
    write_table(rows, tmp_path / "t.csv")
    assert read_table(tmp_path / "t.csv") == rows


def test_the_texture_family_kept_back_is_the_harness_own():
    from benchmarks.locate.skin import HELD_OUT

    assert kept_back.TEXTURE_FAMILY == HELD_OUT
