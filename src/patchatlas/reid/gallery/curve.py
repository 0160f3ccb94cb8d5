"""What a cosine means, by all videos of a gallery together, and which cosines decide."""

from collections.abc import Sequence

import torch

from patchatlas.reid.calibrate import Calibration, KnownPairs, fit, known_pairs, threshold_for
from patchatlas.reid.config import LinkConfig
from patchatlas.reid.gallery.decide import Limits
from patchatlas.reid.gallery.store import Store
from patchatlas.reid.portraits import Portrait, handover_frames, together

CURVE_S = 1.0
"""Seconds that a tracklet must be seen to teach what a cosine means."""

_KINDS = {"same": "same", "different": "different", "rival": "rivals"}
"""As the table calls them, and as `KnownPairs` does."""


def learn(store: Store, episode: int, looks: Sequence[Portrait], step_s: float) -> None:
    """Keep the pairs of which the video itself says whether they are the same."""
    firm = [one for one in looks if len(one.tracklet.observations) * step_s >= CURVE_S]
    tracklets = [one.tracklet for one in firm]
    found = known_pairs(firm, together(tracklets, tolerance=handover_frames(tracklets)))
    rows = [(episode, kind, value) for kind, name in _KINDS.items() for value in getattr(found, name).tolist()]
    store.db.executemany("INSERT INTO known_pairs VALUES (?, ?, ?)", rows)


def curve_of(store: Store) -> tuple[Calibration | None, KnownPairs]:
    """What a cosine means, by all videos of the gallery."""
    pairs = KnownPairs(
        *(
            torch.tensor(
                [row[0] for row in store.rows("SELECT cosine FROM known_pairs WHERE kind = ? ORDER BY rowid", kind)],
                dtype=torch.float64,
            )
            for kind in _KINDS
        )
    )
    return (fit(pairs) if pairs.enough else None), pairs


def limits_of(curve: Calibration | None, pairs: KnownPairs, config: LinkConfig) -> tuple[Limits, list[str]]:
    """Cosines that decide, and what is to be said of them."""
    if config.cosine is not None:
        return Limits(named=config.cosine, stranger=config.cosine, margin=config.margin), []
    stranger, named = (2.0, 2.0) if curve is None else (curve.cosine_at(p) for p in (config.threshold, config.accept))
    if stranger > 1 or named > 1:
        why = "are too short to say what a cosine means" if curve is None else "do not tell the same from others"
        note = f"the videos {why}, so nobody was named; link longer ones, or give link.cosine"
        return Limits(named=2.0, stranger=-1.0 if stranger > 1 else stranger, margin=config.margin), [note]
    notes = []
    if config.false_links is not None and len(pairs.rivals):
        named = max(named, threshold_for(pairs, fpir=config.false_links))
    elif config.false_links is not None:
        notes = ["no two tracks are seen together, so link.false_links could not be kept to"]
    return Limits(named=max(named, stranger), stranger=stranger, margin=config.margin), notes
