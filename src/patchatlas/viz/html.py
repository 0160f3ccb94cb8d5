"""What all pages share: one file that loads nothing, light or dark as the reader's setting says."""

from collections.abc import Mapping
from html import escape

STYLE = """
:root { color-scheme: light dark; --line: #8885; --faint: light-dark(#555, #aab); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 0; }
p { max-width: 46rem; } section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.2rem; }
.pair { display: grid; gap: 1rem; margin: 1rem 0; align-items: start; }
@media (min-width: 50rem) { .pair { grid-template-columns: 1fr 1fr; } }
figure { margin: 0; } img { width: 100%; height: auto; border-radius: 6px; display: block; }
figcaption, .faint { color: var(--faint); font-size: .9rem; }
.facts { margin-top: 1rem; font-size: .9rem; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.state { font-weight: 700; border-left: .6em solid; padding-left: .4em; }
code { font-size: .9em; overflow-wrap: anywhere; }
"""


def document(body: str, *, title: str, colours: Mapping[str, tuple[int, int, int]], style: str = "") -> str:
    """A whole page.

    Args:
        body: HTML, its texts escaped.
        title: of the window; plain text.
        colours: RGB of each state.
        style: CSS of this page alone.
    """
    tones = "\n".join(f".{state} {{ border-color: rgb{colour}; }}" for state, colour in colours.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{style}{tones}
</style>
</head>
<body>
{body}
</body>
</html>
"""
