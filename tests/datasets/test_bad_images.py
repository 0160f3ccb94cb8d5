"""Hundreds of awkward files: each readable one gives its exact pixels, each other one its typed reason, and no more."""

import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from patchatlas.datasets.scan import scan_folder
from patchatlas.geometry.frame import Frame
from patchatlas.io.images import read_header, read_picture
from patchatlas.io.reasons import REASONS, PictureError
from tests.datasets.bad_pictures import Case, every_case

CASES = every_case()


def test_there_are_enough_cases_of_all_kinds():
    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)
    refused = Counter(reason for case in CASES for reason in case.reasons[:1])
    assert refused.keys() == {
        "truncated",
        "damaged",
        "not_a_picture",
        "empty",
        "too_large",
        "animated",
        "unsupported_pixels",
    }
    assert sum(case.pixels is not None for case in CASES) >= 150


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_file_gives_its_pixels_or_its_reason(case: Case, tmp_path, capfd):
    path = tmp_path / case.name
    path.write_bytes(case.content)
    if case.pixels is None:
        with pytest.raises(PictureError, match=case.name) as refused:
            read_picture(path)
        assert refused.value.reason in case.reasons, str(refused.value)
    else:
        picture, header = read_picture(path), read_header(path)
        assert picture.pixels.shape == case.pixels.shape
        assert np.abs(picture.pixels.astype(int) - case.pixels).max() <= case.tolerance
        h, w = case.pixels.shape[:2]
        stored = (w, h) if case.orientation >= 5 else (h, w)
        assert picture.frame == header.frame == Frame.from_exif(stored, case.orientation)
        assert picture.orientation == header.orientation == case.orientation
        assert picture.sha256 == header.sha256
    assert capfd.readouterr() == ("", "")  # libtiff, too, writes nothing


def test_a_folder_of_them_all_is_scanned_to_the_end(tmp_path, capfd, caplog):
    for case in CASES:
        (tmp_path / case.name).write_bytes(case.content)
    records = {record.image_path: record for record in scan_folder(tmp_path, workers=3)}
    listed = {name for name in os.listdir(tmp_path) if not name.endswith(".pfm")}
    assert records.keys() == listed
    for case in CASES:
        record = records.get(case.name)
        if record is None:
            continue
        if case.pixels is not None:
            assert record.error is None
            assert (record.height, record.width) == case.pixels.shape[:2]
            assert record.exif_orientation == case.orientation
        elif record.error is not None:
            assert record.error.type in case.reasons
            assert str(tmp_path) not in record.error.message
        else:  # a good header before bad pixels: that shows when they are read
            assert set(case.reasons) & {"truncated", "damaged"}
    assert capfd.readouterr() == ("", "")
    assert {(r.name, r.levelno) for r in caplog.records} == {("patchatlas.io.images", logging.WARNING)}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _path: None, "missing"),
        (lambda path: path.mkdir(), "folder"),
        (lambda path: path.symlink_to("gone.jpg"), "missing"),
        (lambda path: path.symlink_to(path), "unreadable"),
        (lambda path: os.mkfifo(path), "missing"),
    ],
    ids=["absent", "folder", "broken link", "link to itself", "pipe"],
)
def test_what_is_no_file(make, reason, tmp_path):
    make(tmp_path / "a.jpg")
    for read in (read_picture, read_header):
        with pytest.raises(PictureError, match=r"a\.jpg") as refused:
            read(tmp_path / "a.jpg")
        assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 300 + ".jpg", "unreadable"), ("a\0.jpg", "missing"), ("file.txt/a.jpg", "missing"), ("", "folder")],
    ids=["too long", "zero byte", "below a file", "no name"],
)
def test_names_that_no_file_can_have(name, reason, tmp_path):
    (tmp_path / "file.txt").touch()
    with pytest.raises(PictureError) as refused:
        read_picture(tmp_path / name)
    assert refused.value.reason == reason


@pytest.mark.parametrize("step", ["stat", "open"])
def test_a_file_that_may_not_be_opened(step, tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"x")

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, step, refuse)
    with pytest.raises(PictureError, match=r"cannot open .*a\.jpg: Permission denied") as refused:
        read_picture(tmp_path / "a.jpg")
    assert refused.value.reason == "unreadable"


def test_a_disk_that_fails_while_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 255\nabc")

    def fail(*_args, **_options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("PIL.Image.open", fail)
    with pytest.raises(PictureError, match=r"cannot read .*: Input/output error") as refused:
        read_picture(tmp_path / "a.ppm")
    assert refused.value.reason == "unreadable"


def test_reasons_are_a_closed_list():
    assert set(REASONS) >= {reason for case in CASES for reason in case.reasons}
    assert len(set(REASONS)) == len(REASONS) == 12
