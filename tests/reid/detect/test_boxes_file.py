"""Boxes from files: each at its frame, in our plane, and every row that is not used is counted or refused by name."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchatlas.errors import FormatError, InputError
from patchatlas.io.video import VideoFrame
from patchatlas.reid.detect.boxes_file import BoxesFile


def frame(number: int, time: Fraction | None = None, size_hw: tuple[int, int] = (48, 64)) -> VideoFrame:
    return VideoFrame(number, Fraction(number, 10) if time is None else time, np.zeros((*size_hw, 3), dtype=np.uint8))


def written(path: Path, content: str | list[Any] | dict[str, Any]) -> BoxesFile:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return BoxesFile(path)


def test_mot_frames_and_pixels_count_from_one(tmp_path: Path) -> None:
    file = written(tmp_path / "det.txt", "1,-1,1,1,10,20,0.9,-1,-1,-1\n3,-1,11,21,5,6,-1,-1,-1,-1\n")
    assert file(frame(0)).boxes.tolist() == [[0, 0, 10, 20]]
    assert len(file(frame(1))) == 0
    third = file(frame(2))
    assert (third.boxes.tolist(), third.scores.tolist(), third.labels) == ([[10, 20, 15, 26]], [1.0], ("object",))
    assert file.dropped == {}


def test_mot_ground_truth_has_classes_and_rows_that_do_not_count(tmp_path: Path) -> None:
    file = written(
        tmp_path / "gt.txt", "1,1,1,1,10,20,1,1,1\n1,2,1,1,10,20,0,8,1\n1,3,5,5,9,9,1,3,0.5\n1,4,5,5,9,9,1,77,1\n"
    )
    assert file(frame(0)).labels == ("pedestrian", "car", "class 77")
    assert file.dropped == {"ground truth that is not scored": 1}


def test_mot_scores_that_are_no_shares_are_refused(tmp_path: Path) -> None:
    """Detections of DPM run below 0 and above 1: dropping half of them would be worse than saying so."""
    with pytest.raises(FormatError, match=r"confidence 2\.5 at frame 1; scores must run 0\.\.1"):
        written(tmp_path / "det.txt", "1,-1,1,1,10,20,2.5,-1,-1,-1\n")


def test_unusable_boxes_are_counted(tmp_path: Path) -> None:
    rows = ("1,1,10,20,nan", "1,1,0,20,1", "100,1,9,20,1", "60,40,30,20,1")
    file = written(tmp_path / "det.txt", "".join(f"1,-1,{row},-1,-1,-1\n" for row in rows))
    assert file(frame(0)).boxes.tolist() == [[59, 39, 64, 48]]
    assert file.dropped == {"not a number": 1, "empty": 1, "outside the frame": 1}


def coco(**more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "frame_id": 4}, {"id": 9, "frame_id": 2}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
            {"image_id": 9, "category_id": 5, "bbox": [0, 0, 8, 8]},
            {"image_id": 9, "category_id": 1, "bbox": [0, 0, 60, 40], "iscrowd": 1},
        ],
        **more,
    }


def test_coco_boxes_go_to_the_frame_of_their_image(tmp_path: Path) -> None:
    file = written(tmp_path / "boxes.json", coco())
    found = file(frame(4))
    assert (found.boxes.tolist(), found.scores.tolist(), found.labels) == ([[1, 2, 4, 6]], [0.5], ("person",))
    assert (file(frame(2)).labels, file.dropped) == (("object",), {"crowd": 1})


def test_coco_categories_without_a_name_give_the_label_object(tmp_path: Path) -> None:
    file = written(tmp_path / "boxes.json", coco(categories=[{"id": 1}, {"id": 5, "name": "dog"}]))
    assert (file(frame(4)).labels, file(frame(2)).labels) == (("object",), ("dog",))


def test_coco_without_frame_ids_goes_by_rank_of_id(tmp_path: Path) -> None:
    file = written(tmp_path / "boxes.json", coco(images=[{"id": 9}, {"id": 7}]))
    assert [len(file(frame(number))) for number in range(3)] == [1, 1, 0]
    assert file(frame(0)).boxes.tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image_id": 1, "bbox": [0, 0, 1, 1]}], "no list `images`"),
        (coco(images=[{"id": 7, "frame_id": 1}, {"id": 9}]), "1 of 2 images have a frame_id"),
        (coco(annotations=[{"image_id": 8, "bbox": [0, 0, 1, 1]}]), "image_id 8 is not among"),
        (coco(annotations=[{"image_id": 7, "bbox": [0, 0, 1]}]), "is not COCO"),
        (coco(annotations=[{"image_id": 7}]), "is not COCO: KeyError 'bbox'"),
        (coco(annotations=[{"image_id": 7, "bbox": [0, 0, 1, 10**400]}]), "boxes.json is not COCO: OverflowError"),
        (coco(images=[{"id": 7, "frame_id": 1.5}]), "boxes.json is not COCO: ValueError frame 1.5 is not a whole"),
        (coco(images=[{"id": 7, "frame_id": float("inf")}]), "boxes.json is not COCO: ValueError frame inf is not"),
        ("{", "is not JSON"),
    ],
)
def test_coco_that_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        written(tmp_path / "boxes.json", content)


def lines(*entries: dict[str, Any]) -> str:
    return "\n".join(json.dumps(entry) for entry in entries)


def test_jsonl_by_frame(tmp_path: Path) -> None:
    text = lines(
        {"format": "patchatlas.tracks", "version": 1},
        {"frame": 2, "box": [1, 2, 3, 4], "score": 0.5, "label": "cat", "time_s": 99.0, "track": 3},
        {"frame": 2, "box": [1, 2, 5, 4]},
    )
    found = written(tmp_path / "boxes.jsonl", text)(frame(2))
    assert (found.boxes.tolist(), found.scores.tolist(), found.labels) == (
        [[1, 2, 3, 4], [1, 2, 5, 4]],
        [0.5, 1.0],
        ("cat", "object"),
    )


def test_jsonl_by_time_forgives_a_rounded_millisecond(tmp_path: Path) -> None:
    file = written(tmp_path / "boxes.jsonl", lines(*({"time_s": t, "box": [0, 0, 4, 4]} for t in (0.033, 0.1, 0.1015))))
    rate = Fraction(30000, 1001)
    assert [len(file(frame(n, n / rate))) for n in range(4)] == [0, 1, 0, 1]
    assert file.unasked() == 1


def test_boxes_of_frames_never_shown_are_counted(tmp_path: Path) -> None:
    file = written(tmp_path / "det.txt", "".join(f"{n},-1,1,1,10,20,1,-1,-1,-1\n" for n in (1, 2, 2, 900)))
    file(frame(0))
    assert file.unasked() == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"frame": 0}', "line 1 must have `box`"),
        ('\n{"box": [0, 0, 1, 1]}', "line 2 must have `box` and `frame` or `time_s`"),
        ('{"frame": 0, "box": [0, 0, 1]}', "a box has four numbers"),
        ('{"frame": 0.5, "box": [0, 0, 1, 1]}', "frame 0.5 is not a whole number"),
        ('{"frame": -1, "box": [0, 0, 1, 1]}', "frame -1 is not a whole number"),
        ('\n{"frame": 1e400, "box": [10, 10, 50, 60]}', r"boxes\.jsonl, line 2: ValueError frame inf is not a whole"),
        ('{"frame": NaN, "box": [0, 0, 1, 1]}', "line 1: ValueError frame nan is not a whole number"),
        ('{"frame": true, "box": [0, 0, 1, 1]}', "frame True is not a whole number"),
        ('{"frame": "3", "box": [0, 0, 1, 1]}', "frame '3' is not a whole number"),
        (f'{{"frame": 1{"0" * 400}, "box": [0, 0, 1, 1]}}', r"boxes\.jsonl, line 1: OverflowError"),
        (f'{{"frame": 0, "box": [0, 0, 1, 1{"0" * 400}]}}', r"boxes\.jsonl, line 1: OverflowError"),
        (f'{{"frame": 1{"0" * 5000}, "box": [0, 0, 1, 1]}}', r"boxes\.jsonl, line 1 is not JSON"),
        ('{"frame": 0, "box": [0, 0, 1, "x"]}', "line 1: ValueError"),
        ('{"frame": 0, "box": [0,', "line 1 is not JSON"),
        ('{"frame": 0, "box": [0,0,1,1]}\n{"time_s": 0, "box": [0,0,1,1]}', "use one of them"),
    ],
)
def test_jsonl_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        written(tmp_path / "boxes.jsonl", text)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in '\.csv'"):
        BoxesFile(tmp_path / "boxes.csv")
    with pytest.raises(InputError, match="there is no file of boxes"):
        BoxesFile(tmp_path / "boxes.txt")


def test_what_was_read_is_on_record(tmp_path: Path) -> None:
    facts = written(tmp_path / "det.txt", "1,-1,1,1,10,20,1,-1,-1,-1\n").facts
    assert (facts["name"], facts["file"], facts["boxes"], len(str(facts["sha256"]))) == ("boxes", "det.txt", 1, 64)
