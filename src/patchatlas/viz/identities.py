"""Contact sheets: what each identity looks like, when it was seen, why its tracks were merged and others kept apart.

The pictures are part of the pages, so every page is one file that loads nothing.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape

import numpy as np
from PIL import Image

from patchatlas.arrays import ImageU8
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.rounding import round_half_up
from patchatlas.viz.heatmap import draw_photo
from patchatlas.viz.html import document
from patchatlas.viz.marks import Colour

HEIGHT, WIDEST = 144, 216
"""Of a crop on a sheet, pixels."""

QUALITY = 85

MOST_CELLS = 24
"""Tracks of which all pairs are put in a table."""

_KEPT = (0, 190, 140)
_BARRED = (204, 140, 190)

STYLE = """
.crops { display: flex; flex-wrap: wrap; gap: .5rem; margin: .6rem 0; }
.crops img, .pairs img, .face img { width: auto; max-width: none; border-radius: 4px; }
.pairs { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); margin: 1rem 0; }
.pairs > div { border: 1px solid var(--line); border-radius: 6px; padding: .6rem; }
.two { display: flex; gap: .5rem; } ul { margin: .4rem 0 0; padding-left: 1.2rem; }
.chip { display: inline-block; width: 1em; height: 1em; border-radius: 3px; vertical-align: -.1em; }
.face img { max-height: 72px; } .cosines td, .cosines th { padding: .1rem .5rem; text-align: right; }
h3 { font-size: 1rem; margin: 1.2rem 0 0; }
"""


@dataclass(frozen=True)
class Crop:
    """One look.

    Attributes:
        jpeg: the picture, from `crop_jpeg`.
        caption: where it is from, such as its time.
    """

    jpeg: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One track of an identity.

    Attributes:
        number: of the track.
        when: in words.
        facts: further words, such as how many boxes it has.
        crops: some looks, in time order; none where nothing could be embedded.
    """

    number: int
    when: str
    facts: str
    crops: tuple[Crop, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two tracks side by side.

    Attributes:
        names: of the two.
        crops: their best looks.
        cosine: of their pooled vectors.
        chance: p(same) of that, None where that is not known.
        rules: each rule asked, in words, and whether it let the two be one.
    """

    names: tuple[str, str]
    crops: tuple[Crop, Crop]
    cosine: float
    chance: float | None
    rules: tuple[tuple[bool, str], ...]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """All about one identity.

    Attributes:
        number: of the identity.
        name: of it, such as `person 3`.
        colour: as in the video.
        facts: rows of a table, name and value.
        pieces: its tracks, in time order.
        joins: the pairs that hold it together.
        apart: pairs of one of its tracks and somebody else's that look alike and were kept apart by a rule.
        tracks: numbers of the tracks in `cosines`.
        cosines: of each pair of them.
        why: in words, how tracks are merged, with the threshold.
    """

    number: int
    name: str
    colour: Colour
    facts: Sequence[tuple[str, str]]
    pieces: tuple[Piece, ...]
    joins: tuple[Comparison, ...]
    apart: tuple[Comparison, ...]
    tracks: tuple[int, ...]
    cosines: tuple[tuple[float, ...], ...]
    why: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An identity on the page of contents.

    Attributes:
        file: of its sheet, relative to the page.
        name: of it.
        colour: as in the video.
        face: its best look, None if there is none.
        cells: when it was seen, how long, how many tracks: one a column of `COLUMNS`.
    """

    file: str
    name: str
    colour: Colour
    face: Crop | None
    cells: tuple[str, str, str]


COLUMNS = ("seen", "in all", "tracks")


def crop_jpeg(picture: ImageU8) -> bytes:
    """A crop as a JPEG `HEIGHT` pixels high, or as wide as `WIDEST` if that makes it lower; its shape is kept."""
    h, w = picture.shape[:2]
    scale = min(Fraction(HEIGHT, h), Fraction(WIDEST, w))
    drawn = draw_photo(picture, Frame.whole((h, w)).resize([max(1, round_half_up(n * scale)) for n in (h, w)]))
    kept = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(drawn)).save(kept, format="JPEG", quality=QUALITY, subsampling=0)
    return kept.getvalue()


def sheet_page(sheet: Sheet, *, title: str, back: str) -> str:
    """The page of one identity.

    Args:
        sheet: what is on it.
        title: of the window.
        back: file of the page of contents, relative to this one.
    """
    facts = "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in sheet.facts)
    parts = [
        f"<h1>{_chip(sheet.colour)} {escape(sheet.name)}</h1>",
        f'<p class="faint"><a href="{escape(back)}">all identities</a></p>',
        f'<div class="wide facts"><table>\n{facts}\n</table></div>',
        "<section><h2>Looks</h2>",
        *(_piece(piece) for piece in sheet.pieces),
        "</section>",
        f"<section><h2>Why merged</h2>\n<p>{escape(sheet.why)}</p>",
    ]
    if sheet.joins:
        parts += ['<div class="pairs">', *(_comparison(pair) for pair in sheet.joins), "</div>", _cosines(sheet)]
    else:
        parts.append("<p>There is nothing to merge: it is one track.</p>")
    parts.append("</section>")
    if sheet.apart:
        parts += [
            "<section><h2>Kept apart</h2>\n<p>Tracks of others that look most like it, and the rule by which they "
            "cannot be the same. If one of them should be, look for a track that holds two.</p>",
            '<div class="pairs">',
            *(_comparison(pair) for pair in sheet.apart),
            "</div></section>",
        ]
    return document("\n".join(parts), title=title, colours={"passed": _KEPT, "barred": _BARRED}, style=STYLE)


def contents_page(
    entries: Sequence[Entry],
    *,
    title: str,
    lead: str,
    facts: Sequence[tuple[str, str]],
    unknown: Sequence[Piece],
    doubts: Sequence[tuple[str, str, str]],
    video: str | None,
) -> str:
    """The page that names all identities.

    Args:
        entries: in their order.
        title: of the page.
        lead: what was done, one or two sentences.
        facts: rows of a table, name and value.
        unknown: tracks without an identity.
        doubts: for a person to look at: which track, what may be wrong, and the numbers.
        video: file of the annotated video, relative to the page.
    """
    told = "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts)
    rows = "\n".join(_entry(entry) for entry in entries)
    heads = "".join(f"<th>{head}</th>" for head in ("identity", "", *COLUMNS))
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(lead)}</p>"]
    if video is not None:
        parts.append(
            f'<p><video src="{escape(video)}" controls preload="metadata" style="max-width: 100%"></video></p>'
        )
    parts += [
        f'<div class="wide facts"><table>\n{told}\n</table></div>',
        f'<section><h2>Identities</h2>\n<div class="wide"><table>\n<tr>{heads}</tr>\n{rows}\n</table></div></section>',
    ]
    if doubts:
        lines = "\n".join(
            f'<tr id="doubt-{n}">' + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for n, row in enumerate(doubts, start=1)
        )
        parts.append(
            f'<section><h2>To review</h2>\n<div class="wide"><table>\n<tr><th>track</th><th>what</th><th>how alike</th>'
            f"</tr>\n{lines}\n</table></div></section>"
        )
    if unknown:
        parts += [
            "<section><h2>Unknown</h2>\n<p>Tracks without an identity: seen too briefly or too badly to stand for "
            "somebody, and not enough like anybody.</p>",
            *(_piece(piece) for piece in unknown),
            "</section>",
        ]
    parts.append(
        '<section><p class="faint">These pages hold parts of the video: keep them where you keep it. An identity is '
        "a guess from looks and times, no proof.</p></section>"
    )
    return document("\n".join(parts), title=title, colours={}, style=STYLE)


def _entry(entry: Entry) -> str:
    face = "" if entry.face is None else _img(entry.face, f"{entry.name}, {entry.face.caption}")
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in entry.cells)
    link = f'<a href="{escape(entry.file)}">{escape(entry.name)}</a>'
    return f'<tr><td>{_chip(entry.colour)} {link}</td><td class="face">{face}</td>{cells}</tr>'


def _piece(piece: Piece) -> str:
    crops = "\n".join(_figure(crop, f"track {piece.number}, {crop.caption}") for crop in piece.crops)
    return (
        f'<h3 id="track-{piece.number}">Track {piece.number}, {escape(piece.when)}</h3>'
        f'<span class="faint">{escape(piece.facts)}</span>\n<div class="crops">\n{crops}\n</div>'
    )


def _comparison(pair: Comparison) -> str:
    figures = "\n".join(
        _figure(crop, f"{name}, {crop.caption}", head=name) for name, crop in zip(pair.names, pair.crops, strict=True)
    )
    chance = "" if pair.chance is None else f", p(same) {pair.chance:.2f}"
    rules = "\n".join(
        f'<li><span class="state {"passed" if passed else "barred"}">{"may be" if passed else "cannot be"}</span> '
        f"{escape(words)}</li>"
        for passed, words in pair.rules
    )
    told = f"<b>cosine {pair.cosine:.3f}{chance}</b>"
    return f'<div><div class="two">\n{figures}\n</div>\n{told}\n<ul>\n{rules}\n</ul></div>'


def _cosines(sheet: Sheet) -> str:
    if len(sheet.tracks) > MOST_CELLS:
        return f"<p>{len(sheet.tracks)} tracks: too many for a table of all pairs.</p>"
    heads = "".join(f'<th><a href="#track-{number}">{number}</a></th>' for number in sheet.tracks)
    rows = "\n".join(
        f'<tr><th><a href="#track-{number}">{number}</a></th>'
        + "".join(f"<td>{'' if a == b else f'{cosine:.2f}'}</td>" for b, cosine in enumerate(row))
        + "</tr>"
        for a, (number, row) in enumerate(zip(sheet.tracks, sheet.cosines, strict=True))
    )
    return (
        "<h3>Cosine of each pair of its tracks</h3>\n"
        f'<div class="wide cosines"><table>\n<tr><th></th>{heads}</tr>\n{rows}\n</table></div>'
    )


def _figure(crop: Crop, alt: str, *, head: str = "") -> str:
    caption = f"<b>{escape(head)}</b> {escape(crop.caption)}" if head else escape(crop.caption)
    return f"<figure>{_img(crop, alt)}<figcaption>{caption}</figcaption></figure>"


def _img(crop: Crop, alt: str) -> str:
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(crop.jpeg).decode("ascii")}" alt="{escape(alt)}">'


def _chip(colour: Colour) -> str:
    return f'<span class="chip" style="background: rgb{colour}"></span>'
