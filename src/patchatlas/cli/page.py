"""The page that `patchatlas demo` writes: each landmark's source, heatmap and numbers, in one file that loads nothing.

Pictures are named relative to the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from patchatlas.viz.html import document


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One landmark on the page.

    Attributes:
        number: its place among the marks, from 1.
        name: what it is, in words.
        uuid: its identity.
        state: `found`, `uncertain` or `absent`.
        reason: why.
        compared: how the answer compares with the truth, in words.
        facts: rows of the table, name and value.
        source_picture: file name of the source with its mark.
        heatmap: file name of the heatmap.
        result: file name of the JSON result.
    """

    number: int
    name: str
    uuid: str
    state: str
    reason: str
    compared: str
    facts: Sequence[tuple[str, str]]
    source_picture: str
    heatmap: str
    result: str


def page(
    entries: Sequence[Entry], *, lead: str, notes: Sequence[str], colours: Mapping[str, tuple[int, int, int]]
) -> str:
    """The page as HTML.

    Args:
        entries: the landmarks, in order.
        lead: what was done, one sentence.
        notes: small print at the end, one paragraph each.
        colours: RGB of each state.
    """
    rows = "\n".join(_row(entry) for entry in entries)
    sections = "\n".join(_section(entry) for entry in entries)
    small = "\n".join(f'<p class="faint">{escape(note)}</p>' for note in notes)
    body = f"""<h1>patchatlas demo</h1>
<p>{escape(lead)}</p>
<div class="wide"><table>
<thead><tr><th class="number">#</th><th>landmark</th><th>state</th><th>against the truth</th></tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
{sections}
<section>
<h2>About the pictures</h2>
{small}
</section>"""
    return document(body, title="patchatlas demo", colours=colours)


def _row(entry: Entry) -> str:
    link = f'<a href="#landmark-{entry.number}">{escape(entry.name)}</a>'
    return (
        f'<tr><td class="number">{entry.number}</td><td>{link}</td>'
        f'<td><span class="state {entry.state}">{entry.state}</span></td><td>{escape(entry.compared)}</td></tr>'
    )


def _section(entry: Entry) -> str:
    facts = "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in entry.facts)
    name = escape(entry.name)
    return f"""<section id="landmark-{entry.number}">
<h2>{entry.number}. {name}: <span class="state {entry.state}">{entry.state}</span></h2>
<p class="faint"><code>{escape(entry.uuid)}</code></p>
<div class="pair">
<div>
<figure><img src="{escape(entry.source_picture)}" alt="The source photo with a green cross on the mark: {name}">
<figcaption>source, with the mark</figcaption></figure>
<div class="wide facts"><table>
{facts}
</table></div>
</div>
<figure><img src="{escape(entry.heatmap)}" alt="The target photo in grey, red where it looks like the mark ({name}), \
with a green cross on the best place; the state is {entry.state}">
<figcaption>target, red where it looks like the mark</figcaption></figure>
</div>
<p>{escape(entry.reason)} (<a href="{escape(entry.result)}">{escape(entry.result)}</a>)</p>
</section>"""
