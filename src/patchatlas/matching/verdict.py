"""Found, uncertain or absent: a plain rule over two cues that have no scale of their own, with the reason in words.

The cues are the cycle, how far from the mark the best place matches back to, measured in patches, and the lead over the
runner-up, measured in standard deviations of the similarity map. Cosines themselves are not used: what is high for one
encoder is low for another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from patchatlas.errors import UsageError

State = Literal["found", "uncertain", "absent"]

_EVEN = 1e-6  # float32 cosines of equal vectors differ by some 1e-7


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where the rule draws its lines.

    Chosen with `bundled:sift` on the development pairs of benchmarks/locate_pairs.py; docs/locate.md has the outcome on
    pairs that were not used for it. Among N independent normal values the best leads the second by about
    1 / sqrt(2 ln N) standard deviations, 0.25 for some thousand patches; a clear lead is about twice that.

    Attributes:
        cycle_found: longest cycle of a landmark that is found, in patches of the source.
        cycle_absent: shortest cycle of one that is absent, in patches of the source.
        lead: least lead that is clear, in standard deviations of the map.

    Raises:
        UsageError: not 0 < cycle_found <= cycle_absent, or a negative lead.
    """

    cycle_found: float = 1.0
    cycle_absent: float = 3.0
    lead: float = 0.55

    def __post_init__(self) -> None:
        if not (0 < self.cycle_found <= self.cycle_absent and self.lead >= 0):
            raise UsageError(f"{self} cannot be used; it needs 0 < cycle_found <= cycle_absent and 0 <= lead")


def decide(
    *, cycle_px: float, patch_px: float, margin: float | None, deviation: float, limits: Limits | None = None
) -> tuple[State, str]:
    """The state of a landmark and why: found if both cues say so, absent if both speak against it, else uncertain.

    Args:
        cycle_px: distance from the mark to where the best place matches back to, in source pixels.
        patch_px: side of a patch in source pixels.
        margin: similarity of the best place less that of the runner-up; `None` where the map is too small to have one.
        deviation: standard deviation of the similarity map; where it is 0 (but for rounding) no place differs
            from another.
        limits: the lines; the defaults if none are given.
    """
    limits = limits or Limits()
    if deviation <= _EVEN:
        return "uncertain", "every place of the target is equally like the mark; is one of the two on an even surface?"
    if margin is None:
        return (
            "uncertain",
            "the target has too few patches for a second place to compare with; take a larger image size",
        )
    near, far = limits.cycle_found * patch_px, limits.cycle_absent * patch_px
    lead = margin / deviation
    clear = lead >= limits.lead
    back = f"the best place matches back to {cycle_px:.1f} px from the mark"
    ahead = f"{lead:.2f} standard deviations of the map"
    if cycle_px <= near and clear:
        return "found", f"{back} (limit {near:.1f}) and leads by {ahead} (limit {limits.lead:g})"
    if cycle_px >= far and not clear:
        return "absent", f"{back} (limit {far:.1f}) and leads by only {ahead} (limit {limits.lead:g})"
    if not clear:
        return "uncertain", f"another place is nearly as good, only {ahead} behind (limit {limits.lead:g}); {back}"
    return "uncertain", f"{back} (found within {near:.1f}), though it leads by {ahead} (limit {limits.lead:g})"


def decide_together(agreeing: Sequence[State], *, views: int, support: float) -> tuple[State, str]:
    """The state of a landmark that several views voted on, and why.

    Found if at least half of the weight agrees, and either three views do, or two of which one is found by itself: two
    votes fall within the same 4 patches by chance in about 1 of 60 targets of some 3000 patches. Absent if no two views
    agree and none is more than absent by itself. Else uncertain.

    Args:
        agreeing: states of the views that agree, each by itself; one that agrees with none counts as agreeing with
            itself.
        views: how many voted; at least two.
        support: part of all weight that agrees.
    """
    many = len(agreeing)
    said = f"{many} of {views} views agree ({support:.0%} of the weight)"
    if many < 2:
        if agreeing[0] == "absent":
            return "absent", f"no two of {views} views agree, and the best of them says absent"
        return "uncertain", f"no two of {views} views agree"
    if support >= 0.5 and (many >= 3 or "found" in agreeing):
        return "found", said
    return "uncertain", f"{said}, which is {'less than half' if support < 0.5 else 'too few, none of them sure'}"
