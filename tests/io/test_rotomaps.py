"""Folders of photos: what counts as a picture, in which order, and where the root is."""

import os
from pathlib import Path

import pytest

from patchatlas.errors import FormatError, InputError
from patchatlas.io.rotomaps import find_root, ignored_missing, natural, read_rotomap

ROTOMAP = Path(__file__).parents[1] / "data" / "mel" / "rotomap1"


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_the_example_of_mel():
    read = read_rotomap(ROTOMAP)
    assert [path.name for path in read.pictures] == ["image1.jpg", "image2.jpg", "image3.jpg", "image4.jpg"]
    assert ignored_missing(ROTOMAP) == {"59ba1b0d5c904158a909406c2e416788"}


def test_pictures_come_in_natural_order_and_nothing_else_does(tmp_path):
    sidecars = ("2.jpg.json", "2.jpg.automark.json", "2.jpg.mask.png", "2.jpg.meta.json", "lesions.json")
    touch(tmp_path, "10.jpg", "2.JPG", "1.jpeg", "10b.jpg", "._2.jpg", "notes.txt", "3.png", *sidecars)
    assert [path.name for path in read_rotomap(tmp_path).pictures] == ["1.jpeg", "2.JPG", "10.jpg", "10b.jpg"]


@pytest.mark.parametrize(
    "ordered",
    [["2.jpg", "10.jpg"], ["a2b3", "a2b20", "a10b1"], ["1.jpg", "01.jpg"][::-1], ["A1", "a2"], ["", "1"], ["7", "x"]],
)
def test_natural_order(ordered):
    assert sorted(reversed(ordered), key=natural) == ordered


def test_a_folder_without_pictures_names_those_in_it(tmp_path):
    touch(tmp_path / "2026_01_31", "1.jpg")
    touch(tmp_path / "2025_01_31", "1.jpg")
    touch(tmp_path / ".hidden", "1.jpg")
    with pytest.raises(InputError, match=r"holds no picture .* in it: 2025_01_31, 2026_01_31$"):
        read_rotomap(tmp_path)
    with pytest.raises(InputError, match=r"holds no picture \(\.jpg, \.jpeg\)$"):
        read_rotomap(touch(tmp_path / "empty"))


def test_no_folder_a_file_and_one_that_may_not_be_read(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="there is no folder"):
        read_rotomap(tmp_path / "nowhere")
    touch(tmp_path, "1.jpg")
    with pytest.raises(InputError, match="is a file"):
        read_rotomap(tmp_path / "1.jpg")

    def refused(_: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(InputError, match=r"cannot read the folder .*: Permission denied"):
        read_rotomap(tmp_path)


def test_both_lists_of_marks_that_need_not_be_there(tmp_path):
    assert ignored_missing(tmp_path) == frozenset()
    (tmp_path / "ignore-missing").write_text("# gone\n\n  a  \nb\n")
    (tmp_path / "ignore-missing-carryforward").write_text("c")
    (tmp_path / "ignore-new").write_text("d\n")
    assert ignored_missing(tmp_path) == {"a", "b", "c"}
    (tmp_path / "ignore-missing").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="ignore-missing cannot be read"):
        ignored_missing(tmp_path)


def test_the_root_is_the_nearest_folder_with_the_marker(tmp_path):
    part = touch(tmp_path / "rotomaps" / "parts" / "back" / "2026_01_31")
    assert find_root(part) is None
    touch(tmp_path, "melroot")
    assert find_root(part) == tmp_path.resolve()
    touch(part, "melroot")
    assert find_root(part) == part.resolve()
