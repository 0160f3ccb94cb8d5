"""Contact sheets: self-contained, escaped, and everything in its place."""

import base64
import io
import re

import numpy as np
from PIL import Image

from patchatlas.viz.identities import (
    HEIGHT,
    MOST_CELLS,
    WIDEST,
    Comparison,
    Crop,
    Entry,
    Piece,
    Sheet,
    contents_page,
    crop_jpeg,
    sheet_page,
)

EVIL = "<script>&\"'"


def crop(caption: str = "1.0 s") -> Crop:
    return Crop(b"\xff\xd8 no real picture", caption)


def piece(number: int, *crops: Crop, when: str = "1 to 2 s") -> Piece:
    return Piece(number=number, when=when, facts="3 boxes", crops=crops)


def pair(chance: float | None = 0.75, passed: bool = True, words: str = "never together") -> Comparison:
    names = ("Track 2", "Track 1")
    return Comparison(names=names, crops=(crop(), crop()), cosine=0.9, chance=chance, rules=((passed, words),))


def sheet(**changes) -> str:
    given = {
        "number": 1, "name": "Identity 1", "colour": (1, 2, 3), "facts": [("seen", "often")],
        "pieces": (piece(1, crop()),), "joins": (), "apart": (), "tracks": (1,), "cosines": ((1.0,),), "why": "Alike.",
        **changes,
    }  # fmt: skip
    return sheet_page(Sheet(**given), title="Somebody", back="index.html")


def contents(*entries: Entry, **changes) -> str:
    given = {"facts": [("video", "v")], "unknown": [], "doubts": [], "video": None, **changes}
    return contents_page(entries, title="All", lead="Looked.", **given)


def entry(name: str = "Identity 1", face: Crop | None = None) -> Entry:
    return Entry(file="identity-001.html", name=name, colour=(9, 8, 7), face=face, cells=("0 to 1 s", "1 s", "1"))


def test_crops_keep_their_shape_and_have_one_height() -> None:
    def size(h: int, w: int) -> tuple[int, int]:
        with Image.open(io.BytesIO(crop_jpeg(np.zeros((h, w, 3), dtype=np.uint8)))) as picture:
            return picture.size

    assert size(40, 20) == (HEIGHT // 2, HEIGHT)
    assert size(400, 200) == (HEIGHT // 2, HEIGHT)
    assert size(50, 500) == (WIDEST, round(WIDEST / 10))
    assert size(1000, 2)[0] == 1


def test_pictures_are_in_the_page_and_nothing_else_is_loaded() -> None:
    made = sheet(joins=(pair(),), apart=(pair(passed=False),))
    assert made.count(f"data:image/jpeg;base64,{base64.b64encode(crop().jpeg).decode()}") == 5
    assert "http" not in made
    assert "<script" not in made


def test_a_merge_has_its_numbers_and_rules() -> None:
    made = sheet(joins=(pair(),), tracks=(1, 2), cosines=((1.0, 0.9), (0.9, 1.0)))
    why = made[made.index("Why merged") :]
    assert "cosine 0.900, p(same) 0.75" in why
    assert re.search(r'class="state passed">may be</span>\s*never together', why)
    assert why.count("<td>0.90</td>") == 2
    assert "p(same)" not in sheet(joins=(pair(None),))
    assert "nothing to merge" in sheet()


def test_what_was_kept_apart_says_so() -> None:
    made = sheet(apart=(pair(passed=False, words="seen together"),))
    assert re.search(r'class="state barred">cannot be</span>\s*seen together', made)
    assert "Kept apart" not in sheet()


def test_a_table_of_too_many_tracks_is_left_out() -> None:
    count = MOST_CELLS + 1
    table = tuple((0.5,) * count for _ in range(count))
    made = sheet(joins=(pair(),), tracks=tuple(range(count)), cosines=table)
    assert "too many for a table" in made
    assert "<td>0.50" not in made


def test_whatever_comes_from_files_is_escaped() -> None:
    one = Comparison(names=(EVIL, EVIL), crops=(crop(EVIL), crop(EVIL)), cosine=0.5, chance=None, rules=((True, EVIL),))
    pages = [
        sheet(name=EVIL, facts=[(EVIL, EVIL)], pieces=(piece(1, crop(EVIL), when=EVIL),), joins=(one,), why=EVIL),
        contents(
            entry(EVIL, crop(EVIL)),
            facts=[(EVIL, EVIL)],
            unknown=[piece(3, when=EVIL)],
            doubts=[(EVIL,) * 3],
            video=EVIL,
        ),
    ]
    for made in pages:
        assert "<script>" not in made
        assert made.count("&lt;script&gt;&amp;&quot;&#x27;") >= 8


def test_contents_name_everybody_in_order() -> None:
    made = contents(
        entry("Identity 1", crop()), entry("Identity 2"), unknown=[piece(7, crop())], doubts=[("t", "w", "a")]
    )
    assert re.findall(r">(Identity \d)</a>", made) == ["Identity 1", "Identity 2"]
    assert made.index("Identity 2") < made.index("To review") < made.index("Unknown") < made.index("Track 7")
    assert made.count("<img") == 2
    assert "<video" not in made
    assert "To review" not in contents()
    assert 'src="a.mp4"' in contents(video="a.mp4")
