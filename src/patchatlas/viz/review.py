"""A page on which a person checks proposed marks, the most doubtful first: where known from, where put, and why.

The pictures are part of the page, so it is one file that loads nothing.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape

import numpy as np
import torch
from PIL import Image

from patchatlas.arrays import ImageU8
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.rounding import round_half_up
from patchatlas.viz import marks
from patchatlas.viz.heatmap import draw_photo
from patchatlas.viz.html import document
from patchatlas.viz.panel import STATE_COLOURS, CloseUp

Point = tuple[float, float]

SIDE = 280
"""Of a close-up, and the long side of an overview, in pixels."""

QUALITY = 85

STYLE = """
.trio { display: grid; gap: 1rem; margin: 1rem 0; align-items: start; grid-template-columns: repeat(3, 1fr); }
.trio img { max-width: 420px; }
.kept { color: var(--faint); } summary { cursor: pointer; }
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One mark that was looked for in one photo.

    Attributes:
        photo: name of the photo.
        uuid: whose mark.
        state: `found`, `uncertain` or `absent`.
        confidence: probability that the place is right, 0..1.
        proposed: whether it went to the mark file.
        reason: why, in words.
        source: name of the photo that the mark is known from.
        facts: rows of the table, name and value.
        pictures: JPEGs of the mark in the source, of the place, and of the place in the whole photo; `None` for a mark
            that is only listed.
    """

    photo: str
    uuid: str
    state: str
    confidence: float
    proposed: bool
    reason: str
    source: str
    facts: Sequence[tuple[str, str]]
    pictures: tuple[bytes, bytes, bytes] | None

    @property
    def doubt(self) -> float:
        """Variance of a coin of this confidence: 0 where it is sure of either, 1/4 where it knows nothing."""
        return self.confidence * (1 - self.confidence)


def close_up(photo: ImageU8, xy: Point) -> bytes:
    """JPEG of the photo about a point, with crosshairs on it."""
    return _jpeg(CloseUp(photo, xy, "").draw(SIDE))


def overview(photo: ImageU8, xy: Point) -> bytes:
    """JPEG of the whole photo, with a cross on a point."""
    rows, columns = photo.shape[:2]
    long = max(rows, columns)
    size = [max(1, round_half_up(Fraction(SIDE * side, long))) for side in (rows, columns)]
    view = Frame.whole((rows, columns)).resize(size)
    picture = draw_photo(photo, view)
    x, y = view.from_source(torch.tensor([xy], dtype=torch.float64))[0].tolist()
    marks.cross(picture, (x, y), arm=14, width=3, gap=5)
    return _jpeg(picture)


def review_page(
    cases: Sequence[Case],
    *,
    title: str,
    lead: str,
    skipped: Sequence[tuple[str, str]] = (),
    notes: Sequence[tuple[str, str]] = (),
) -> str:
    """The page as HTML.

    Args:
        cases: the marks, in any order; of equally doubtful ones the order is kept.
        title: of the page.
        lead: what was done, one or two sentences.
        skipped: photos that could not be used, each with its reason.
        notes: what was passed over, each with its reason.
    """
    ordered = sorted(cases, key=lambda case: -case.doubt)
    shown = [case for case in ordered if case.pictures is not None]
    listed = [case for case in ordered if case.pictures is None]
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(lead)}</p>"]
    if shown:
        rows = "\n".join(_row(n, case) for n, case in enumerate(shown, start=1))
        parts.append(_table(["#", "mark", "photo", "state", "confidence", ""], rows))
        parts += [_section(n, case) for n, case in enumerate(shown, start=1)]
    if listed:
        rows = "\n".join(_row(None, case) for case in listed)
        table = _table(["", "mark", "photo", "state", "confidence", ""], rows)
        what = "absent" if all(case.state == "absent" for case in listed) else "absent, or without pictures"
        parts.append(f"<section><details><summary>{len(listed)} {what}</summary>\n{table}</details></section>")
    for name, troubles in (("Skipped", skipped), ("Notes", notes)):
        if troubles:
            rows = "\n".join(f"<tr><td>{escape(f)}</td><td>{escape(reason)}</td></tr>" for f, reason in troubles)
            parts.append(f"<section><h2>{name}</h2>\n{_table(['file', 'reason'], rows)}</section>")
    parts.append(
        '<section><p class="faint">This page holds parts of the photos: keep it where you keep them. '
        "Confidence is a calibrated guess about a place, no diagnosis.</p></section>"
    )
    return document("\n".join(parts), title=title, colours=STATE_COLOURS, style=STYLE)


def _row(number: int | None, case: Case) -> str:
    name = f"<code>{escape(case.uuid)}</code>"
    linked = name if number is None else f'<a href="#mark-{number}">{name}</a>'
    return (
        f'<tr><td class="number">{"" if number is None else number}</td><td>{linked}</td>'
        f"<td>{escape(case.photo)}</td>"
        f'<td><span class="state {case.state}">{case.state}</span></td><td class="number">{case.confidence:.3f}</td>'
        f"<td>{'proposed' if case.proposed else ''}</td></tr>"
    )


def _section(number: int, case: Case) -> str:
    assert case.pictures is not None, "only marks with pictures have a section"
    told = ("the mark in " + case.source, "its place in " + case.photo, "the whole of " + case.photo)
    figures = "\n".join(
        f'<figure><img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode("ascii")}" '
        f'alt="{escape(words)}, with a green cross"><figcaption>{escape(words)}</figcaption></figure>'
        for words, jpeg in zip(told, case.pictures, strict=True)
    )
    facts = "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in case.facts)
    proposed = "proposed" if case.proposed else "not proposed"
    return f"""<section id="mark-{number}">
<h2>{number}. <code>{escape(case.uuid)}</code> in {escape(case.photo)}: \
<span class="state {case.state}">{case.state}</span> {case.confidence:.3f}, {proposed}</h2>
<div class="trio">
{figures}
</div>
<p>{escape(case.reason)}</p>
<div class="wide facts"><table>
{facts}
</table></div>
</section>"""


def _table(heads: Sequence[str], rows: str) -> str:
    named = "".join(f"<th>{head}</th>" for head in heads)
    return f'<div class="wide"><table>\n<thead><tr>{named}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _jpeg(picture: ImageU8) -> bytes:
    kept = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(kept, format="JPEG", quality=QUALITY, subsampling=0)
    return kept.getvalue()
