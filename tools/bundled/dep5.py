"""Read who made a file of a Debian package, and under what licence, from the package's `copyright` file.

The format is Debian's machine-readable debian/copyright 1.0 (DEP-5): paragraphs parted by empty lines, fields
`Name: value` whose further lines begin with a space. A `Files` paragraph names patterns, in which `*` stands for any
characters, slashes too, and `?` for one; the last paragraph that fits a file is the one that counts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """What a `copyright` file says of some files.

    Attributes:
        patterns: of the files, paths in the sources of the package.
        holders: who holds the copyright, in one line.
        licence: the short name of the licence.
        remark: the licence's own words in this paragraph, and its comment, in one line; may be empty.
    """

    patterns: tuple[str, ...]
    holders: str
    licence: str
    remark: str

    def fit(self, path: str) -> bool:
        """Whether they are said of this file."""
        return any(_pattern(pattern).fullmatch(path) for pattern in self.patterns)


def read_terms(text: str) -> list[Terms]:
    """All `Files` paragraphs of a `copyright` file, in their order.

    Raises:
        ValueError: the file is not in the machine-readable format.
    """
    found = []
    for fields in _paragraphs(text):
        if "files" not in fields:
            continue
        licence, _, words = fields.get("license", "").partition("\n")
        remark = " ".join([*_lines(words), *_lines(fields.get("comment", ""))])
        holders = "; ".join(_lines(fields.get("copyright", "")))
        found.append(Terms(tuple(_patterns(fields["files"])), holders, licence.strip(), remark))
    if not found:
        raise ValueError("this is no machine-readable copyright file (DEP-5): it has no paragraph with `Files:`")
    return found


def terms_of(path: str, terms: list[Terms]) -> Terms:
    """What is said of a file: the last paragraph that fits.

    Raises:
        ValueError: no paragraph fits.
    """
    for one in reversed(terms):
        if one.fit(path):
            return one
    raise ValueError(f"no paragraph of the copyright file is about {path}")


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Fields by lower-case name; lines of a value are parted by newlines."""
    for block in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t"):
                if name:
                    fields[name] += "\n" + line
            elif ":" in line and not line.startswith("#"):
                name, _, value = line.partition(":")
                name = name.lower()
                fields[name] = value
        if fields:
            yield fields


def _lines(value: str) -> list[str]:
    """The lines of a value, bare, without the dots that stand for empty ones."""
    return [line.strip() for line in value.splitlines() if line.strip() not in ("", ".")]


def _patterns(value: str) -> list[str]:
    """One a line, or several in a line; a line with a blank inside a name (as some packages have) stays one pattern."""
    patterns: list[str] = []
    for line in _lines(value):
        words = line.split()
        patterns += [line] if any("/" not in word and "*" not in word for word in words[1:]) else words
    return patterns


def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern), re.DOTALL)
