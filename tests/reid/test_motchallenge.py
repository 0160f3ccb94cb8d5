"""MOTChallenge text: the pixel that counts from 1, both kinds of rows, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import FormatError, InputError
from patchatlas.reid.boxes import Box, Observation
from patchatlas.reid.motchallenge import (
    NO_ID,
    MotRow,
    MotSequence,
    read_rows,
    read_sequence,
    rows_of,
    write_rows,
    write_sequence,
)


def box(*corners: float) -> Box:
    x0, y0, x1, y1 = map(float, corners)
    return x0, y0, x1, y1


TRUTH = "1,3,1,1,10,20,1,1,0.75\n2,3,912.5,484,97,109,0,7,1\n"
FOUND = "1,-1,1,1,10,20,0.5,-1,-1,-1\n"


def test_the_first_pixel_begins_at_zero(tmp_path: Path) -> None:
    (tmp_path / "gt.txt").write_text(TRUTH)
    first, second = read_rows(tmp_path / "gt.txt")
    assert first == MotRow(1, 3, box(0, 0, 10, 20), 1.0, 1, 0.75)
    assert second == MotRow(2, 3, box(911.5, 483, 1008.5, 592), 0.0, 7, 1.0)


def test_detections_have_neither_class_nor_visibility(tmp_path: Path) -> None:
    (tmp_path / "det.txt").write_text(f"\n{FOUND}\n")
    assert read_rows(tmp_path / "det.txt") == [MotRow(1, NO_ID, box(0, 0, 10, 20), 0.5)]


@pytest.mark.parametrize("text", [TRUTH, FOUND])
def test_text_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    write_rows(tmp_path / "b.txt", read_rows(tmp_path / "a.txt"))
    assert (tmp_path / "b.txt").read_text() == text


numbers = st.integers(-4000, 4000).map(lambda n: n / 8)


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 9), numbers, numbers, numbers, numbers), max_size=5))
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, values: list[tuple[float, ...]]) -> None:
    rows = [MotRow(int(f), int(i), (x0, y0, x1, y1), 0.25) for f, i, x0, y0, x1, y1 in values]
    path = tmp_path_factory.mktemp("mot") / "rows.txt"
    write_rows(path, rows)
    assert read_rows(path) == rows


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2,3,4,5", "5 fields"),
        ("1,2,3,4,5,wide,1", "could not convert"),
        ("0,2,3,4,5,6,1", "frames from 1"),
        ("1.5,2,3,4,5,6,1", "whole numbers"),
        ("1,nan,3,4,5,6,1", "whole numbers"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "bad.txt").write_text(f"1,1,1,1,5,5,1,-1,-1,-1\n{line}\n")
    with pytest.raises(FormatError, match=rf"line 2.*{said}"):
        read_rows(tmp_path / "bad.txt")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot open"):
        read_rows(tmp_path / "absent.txt")
    (tmp_path / "picture.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(FormatError, match="no UTF-8"):
        read_rows(tmp_path / "picture.txt")
    with pytest.raises(InputError, match="does not exist"):
        write_rows(tmp_path / "absent" / "gt.txt", [])


def test_tracks_become_rows_by_frame_from_one() -> None:
    seen = [Observation(2, 5, 0.5, box(0, 0, 1, 1), 0.5, "a"), Observation(1, 5, 0.5, box(1, 1, 2, 2), 0.25, "a")]
    seen.append(Observation(1, 0, 0.0, box(2, 2, 3, 3), 1.0, "a"))
    assert rows_of(seen) == [
        MotRow(1, 1, box(2, 2, 3, 3), 1.0),
        MotRow(6, 1, box(1, 1, 2, 2), 0.25),
        MotRow(6, 2, box(0, 0, 1, 1), 0.5),
    ]


def test_sequence_facts_come_back(tmp_path: Path) -> None:
    facts = MotSequence("reid-1", 600, 29.97, (540, 960))
    write_sequence(tmp_path / "seqinfo.ini", facts)
    assert read_sequence(tmp_path / "seqinfo.ini") == facts
    assert "imWidth=960\n" in (tmp_path / "seqinfo.ini").read_text()


@pytest.mark.parametrize("text", ["", "[Sequence]\nname=a\n", "[Sequence]\nname=a\nseqLength=x\n", "no section"])
def test_sequence_facts_that_are_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "seqinfo.ini").write_text(text)
    with pytest.raises(FormatError, match="it needs"):
        read_sequence(tmp_path / "seqinfo.ini")
