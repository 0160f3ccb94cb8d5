"""Vectors of one kind in one gallery: those of another encoder, or made in another way, are refused in words."""

from patchatlas.encoders.catalogue import find_by_sha256
from patchatlas.errors import StampError
from patchatlas.stamp import Stamp, StampValue

_BUNDLED = "lab"
"""Family of the descriptor without weights, which people ask for as `bundled`."""

_HASH_DIGITS, _HASH_LENGTH = 8, 64
_TOLD_FIRST = ("family", "weights_sha256")


def require_kind(mine: Stamp, theirs: Stamp, *, one: str, other: str, remedy: str) -> None:
    """Refuse vectors that cannot be compared.

    Args:
        mine: how those of `one` were made.
        theirs: how those of `other` were made.
        one: in words, as `the gallery results/gallery`.
        other: in words, as `the episode tuesday`.
        remedy: what helps besides making those of `other` as those of `one`.

    Raises:
        StampError: says which encoders they are of, which facts differ, and what to do.
    """
    if mine == theirs:
        return
    ours, others = dict(mine.facts), dict(theirs.facts)
    differing = [name for name in sorted(ours.keys() | others.keys()) if ours.get(name) != others.get(name)]
    same = not any(name in differing for name in _TOLD_FIRST)
    rest = "; ".join(
        f"{name}: {_short(ours.get(name))} and {_short(others.get(name))}"
        for name in differing
        if name not in _TOLD_FIRST
    )
    first = (
        f"{one} and {other} have vectors of one encoder, {encoder_of(mine)}, made in different ways"
        if same
        else f"{one} has vectors of the encoder {encoder_of(mine)}, {other} of {encoder_of(theirs)}"
    )
    again = "those settings" if same else "that encoder"
    raise StampError(f"{first}{f' ({rest})' if rest else ''}; {remedy}, or run {other} with {again}")


def encoder_of(stamp: Stamp) -> str:
    """Family, and the name that its weights are known by or else how their hash begins."""
    facts = dict(stamp.facts)
    family, weights = str(facts.get("family")), str(facts.get("weights_sha256"))
    entry = find_by_sha256(weights)
    name = entry.name if entry is not None else f"weights {weights[:_HASH_DIGITS]}"
    return f"{'bundled' if family == _BUNDLED else family} ({name})"


def _short(value: StampValue | None) -> str:
    """A value in words; of a hash its beginning."""
    return repr(value[:_HASH_DIGITS] if isinstance(value, str) and len(value) == _HASH_LENGTH else value)
