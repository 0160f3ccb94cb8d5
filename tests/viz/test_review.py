"""The review page: the most doubtful first, self-contained, and nothing in it that is not text unless it is ours."""

import base64
import io
import re

import numpy as np
from PIL import Image

from patchatlas.viz.review import SIDE, Case, close_up, overview, review_page

JPEG = b"\xff\xd8 no real picture"


def case(uuid: str, confidence: float, **changes) -> Case:
    given = {
        "photo": "b/1.jpg", "uuid": uuid, "state": "found", "confidence": confidence, "proposed": True,
        "reason": "it is alike", "source": "a/1.jpg", "facts": [("pixel", "x 1, y 2")], "pictures": (JPEG, JPEG, JPEG),
        **changes,
    }  # fmt: skip
    return Case(**given)


def page(*cases: Case, **options) -> str:
    return review_page(cases, title="Marks", lead="Looked.", **options)


def test_the_most_doubtful_come_first():
    made = page(case("sure", 0.99), case("torn", 0.5), case("hardly", 0.1), case("likely", 0.8))
    assert re.findall(r"<h2>\d\. <code>(\w+)</code>", made) == ["torn", "likely", "hardly", "sure"]
    assert re.findall(r'href="#mark-(\d)"><code>(\w+)', made) == [
        ("1", "torn"), ("2", "likely"), ("3", "hardly"), ("4", "sure"),
    ]  # fmt: skip


def test_marks_without_pictures_are_only_listed():
    made = page(case("there", 0.9), case("gone", 0.02, state="absent", proposed=False, pictures=None))
    assert made.count("<img") == 3
    assert "<summary>1 absent</summary>" in made
    assert made.index("gone") > made.index("mark-1")
    assert "<details>" not in page(case("there", 0.9))


def test_the_page_loads_nothing_and_holds_its_pictures():
    made = page(case("a", 0.9))
    assert "http" not in made
    assert made.count(f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}") == 3
    assert "<script" not in made


def test_whatever_comes_from_files_is_escaped():
    evil = "<script>&\"'"
    made = page(
        case(evil, 0.5, photo=evil, reason=evil, source=evil, facts=[(evil, evil)]),
        skipped=[(evil, evil)],
        notes=[(evil, evil)],
    )
    assert "<script>" not in made
    assert made.count("&lt;script&gt;&amp;&quot;&#x27;") >= 10


def test_skipped_photos_and_notes_have_their_place():
    made = page(skipped=[("3.jpg", "cut short")], notes=[("4.jpg", "odd")])
    assert made.index("Skipped") < made.index("cut short") < made.index("Notes") < made.index("odd")
    assert "Skipped" not in page()


def photo() -> np.ndarray:
    """Black, with one white pixel block at columns 200 to 207, rows 40 to 47."""
    pixels = np.zeros((150, 300, 3), dtype=np.uint8)
    pixels[40:48, 200:208] = 255
    return pixels


def opened(jpeg: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert picture.format == "JPEG"
        return np.asarray(picture).astype(int)


def test_a_close_up_has_its_point_in_the_middle():
    cut = opened(close_up(photo(), (204.0, 44.0)))
    assert cut.shape == (SIDE, SIDE, 3)
    bright = np.argwhere(cut.min(axis=2) > 200)
    assert np.abs(bright.mean(axis=0) - SIDE / 2).max() < 3


def test_an_overview_shows_all_of_the_photo_and_the_point():
    whole = opened(overview(photo(), (204.0, 44.0)))
    assert whole.shape == (SIDE // 2, SIDE, 3)
    green = np.argwhere((whole[..., 1] > 180) & (whole[..., 0] < 140) & (whole[..., 2] < 120))
    rows, columns = (green.min(axis=0) + green.max(axis=0)) / 2
    assert abs(rows - 44 * SIDE / 300) < 2
    assert abs(columns - 204 * SIDE / 300) < 2


def test_equal_cases_give_equal_pages():
    assert page(case("a", 0.4), case("b", 0.4)) == page(case("a", 0.4), case("b", 0.4))
