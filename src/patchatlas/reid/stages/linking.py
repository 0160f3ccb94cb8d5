"""Fourth stage: cut impure tracks, learn from the video what a cosine means, and join tracks to identities.

Linking counts in frames that were looked at, files in the video's own: here one is turned into the other.

Axes: n tracklets, d features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.calibrate import (
    LEAST_PAIRS,
    Calibration,
    KnownPairs,
    error_rates,
    fit,
    known_pairs,
    threshold_for,
)
from patchatlas.reid.config import LinkConfig
from patchatlas.reid.embed.looks import portrait_of
from patchatlas.reid.files.embeddings import Embeddings
from patchatlas.reid.files.memory import Memory, apart_of
from patchatlas.reid.link import LinkRules, barred_pairs, link
from patchatlas.reid.portraits import Portrait, together
from patchatlas.reid.rerank import rerank
from patchatlas.reid.split import Cut, split_impure

FIRM_S = 1.0
"""Tracklets that are seen for less are no ground to learn from."""

DOUBTFUL = 0.5
"""Share of strangers above the threshold from which a person is warned."""

NEVER = float(np.nextafter(1, 2))
"""A cosine that no two looks reach."""

_HALVES = 2
"""Early and late looks of a tracklet, when neighbours are compared."""


@dataclass(frozen=True)
class _Learnt:
    """What a cosine means, as far as the video says."""

    calibration: Calibration | None
    pairs: KnownPairs
    threshold: float
    note: str | None


def join(
    tracklets: Sequence[Tracklet], embeddings: Embeddings, config: LinkConfig, *, ranks: dict[int, int], fps: float
) -> tuple[list[Tracklet], Memory]:
    """Who is who in a video.

    Args:
        tracklets: frames in the video's own count.
        embeddings: of them.
        ranks: place of each frame among those that were looked at.
        fps: frames a second that were looked at.

    Returns:
        The tracklets after cutting, by number, and what was found out about them.
    """
    numbers = {rank: number for number, rank in ranks.items()}
    portraits, rows = portraits_of([_at(one, ranks) for one in tracklets], embeddings, ranks)
    learnt = _learn(portraits, config, fps)
    cuts: list[Cut] = []
    if config.split and learnt.threshold < NEVER:
        below = config.cosine if learnt.calibration is None else learnt.calibration.cosine_at(0.5)
        if below is not None and below <= 1:
            portraits, cuts = split_impure(portraits, below=below)
            learnt = _learn(portraits, config, fps)
    tolerance = round(config.tolerance_s * fps)
    rules = LinkRules(
        tolerance=tolerance,
        same_label=config.same_label,
        top_speed=config.top_speed,
        least_worth=config.least_seen_s * fps,
        sure=config.sure,
        margin=config.margin,
    )
    notes = [] if learnt.note is None else [learnt.note]
    threshold, calibration, similarity = learnt.threshold, learnt.calibration, None
    if config.rerank:
        similarity, pairs = reranked(portraits, _firm(portraits, fps), tolerance=tolerance)
        if pairs.enough:
            calibration = fit(pairs)
            threshold = _threshold(calibration, pairs, config)
            notes.append("threshold, likeness and chance are of similarities by shared neighbours, not of cosines")
        else:
            similarity = None
            notes.append("too few tracks to compare by shared neighbours; cosines were taken")
    links = link(
        portraits,
        threshold=threshold,
        seconds_a_frame=1 / fps,
        rules=rules,
        calibration=calibration,
        similarity=similarity,
    )
    ranked = [one.tracklet for one in portraits]
    origin = {one.id: one.id for one in tracklets}
    for one in cuts:
        origin[one.new] = origin[one.tracklet]
    labels = [one.label for one in ranked]
    apart = apart_of(
        ranked,
        {
            "together": together(ranked, tolerance=tolerance),
            "label": torch.tensor([[config.same_label and a != b for b in labels] for a in labels]),
            "speed": barred_pairs(ranked, rules=rules, seconds_a_frame=1 / fps),
        },
    )
    fpir, fnir = error_rates(learnt.pairs, threshold=learnt.threshold)
    if fpir > DOUBTFUL:  # nan over none
        notes.append(
            f"likeness tells little here: of tracks seen together, {100 * fpir:.0f} % are as alike to somebody else as "
            "tracks need to be to be joined; expect wrong identities, or join less with a higher link.threshold, or "
            "with link.false_links"
        )
    memory = Memory(
        links=links,
        cuts=tuple(replace(one, frame=numbers[one.frame]) for one in cuts),
        apart=apart,
        rows={one.tracklet.id: tuple(rows[origin[one.tracklet.id], rank] for rank in one.frames) for one in portraits},
        calibration=learnt.calibration,
        fpir=fpir,
        fnir=fnir,
        notes=tuple(notes),
    )
    return sorted((_at(one, numbers) for one in ranked), key=lambda one: one.id), memory


def portraits_of(
    tracklets: Sequence[Tracklet], embeddings: Embeddings, ranks: dict[int, int]
) -> tuple[list[Portrait], dict[tuple[int, int], int]]:
    """Looks of each tracklet, and the row of each crop by track and rank of its frame."""
    rows = {(row.track, ranks[row.frame]): number for number, row in enumerate(embeddings.rows)}
    own: dict[int, list[int]] = {}
    for (track, rank), _ in sorted(rows.items()):
        own.setdefault(track, []).append(rank)
    portraits = []
    for tracklet in tracklets:
        frames = own.get(tracklet.id, [])
        index = [rows[tracklet.id, rank] for rank in frames]
        worth = {rank: embeddings.rows[row].worth for rank, row in zip(frames, index, strict=True)}
        valid = embeddings.valid[index]
        portraits.append(portrait_of(tracklet, frames, embeddings.vectors[index], valid, worth))
    return portraits, rows


def reranked(
    portraits: Sequence[Portrait], firm: Bool[Tensor, " n"], *, tolerance: int
) -> tuple[Float64[Tensor, "n n"], KnownPairs]:
    """Similarities by shared neighbours, and the pairs of which the answer is known, in the same measure.

    What shared neighbours say depends on the whole set, so both must come from one: each tracklet stands in it twice,
    by its early and its late looks. Rows of portraits without vectors are 0.
    """
    seen = [k for k, one in enumerate(portraits) if one.frames]
    similarity = torch.zeros(len(portraits), len(portraits), dtype=torch.float64)
    if len(seen) < _HALVES:
        return similarity, KnownPairs(*(torch.zeros(0, dtype=torch.float64) for _ in range(3)))
    halves = []
    for k in seen:
        count = len(portraits[k].frames)
        third = count if count < 4 else max(2, count // 3)
        halves += [portraits[k].pooled(range(third)), portraits[k].pooled(range(count - third, count))]
    looks = torch.stack(halves)
    table = rerank(_symmetric(looks @ looks.T), k1=20 * _HALVES, k2=6 * _HALVES)
    index = torch.tensor(seen)
    pooled = table.reshape(len(seen), _HALVES, len(seen), _HALVES).mean(dim=(1, 3)).fill_diagonal_(1)
    similarity[index[:, None], index[None, :]] = _symmetric(pooled)
    sure = [row for row, k in enumerate(seen) if bool(firm[k])]
    apart = together([portraits[seen[row]].tracklet for row in sure], tolerance=tolerance)
    near = pooled[sure][:, sure]
    same = [table[2 * row, 2 * row + 1] for row in sure if len(portraits[seen[row]].frames) >= 4]
    rivals = [near[row][apart[row]].max() for row in range(len(sure)) if bool(apart[row].any())]
    empty = torch.zeros(0, dtype=torch.float64)
    return similarity, KnownPairs(
        same=torch.stack(same) if same else empty,
        different=near[apart & torch.ones_like(apart).triu(diagonal=1)],
        rivals=torch.stack(rivals) if rivals else empty,
    )


def _learn(portraits: Sequence[Portrait], config: LinkConfig, fps: float) -> _Learnt:
    firm = [one for one, good in zip(portraits, _firm(portraits, fps).tolist(), strict=True) if good]
    pairs = known_pairs(firm, together([one.tracklet for one in firm], tolerance=round(config.tolerance_s * fps)))
    calibration = fit(pairs) if pairs.enough else None
    if config.cosine is not None:
        return _Learnt(calibration, pairs, config.cosine, None)
    if calibration is None:
        note = (
            f"no tracks were joined: {len(pairs.same)} tracks with four looks in a second or more and "
            f"{len(pairs.different)} pairs of such tracks seen together are too few to learn what a cosine means, "
            f"{LEAST_PAIRS} of each are needed; give link.cosine, or more looks of a track (embedding.crops_per_track; "
            "of clips, fewer embedding.clip_frames)"
        )
        return _Learnt(None, pairs, NEVER, note if len(portraits) > 1 else None)
    return _Learnt(calibration, pairs, _threshold(calibration, pairs, config), None)


def _threshold(calibration: Calibration, pairs: KnownPairs, config: LinkConfig) -> float:
    """From which likeness on tracks are joined: the stricter of p(same) and the share of false links."""
    threshold = calibration.cosine_at(config.threshold)
    if config.false_links is None:
        return threshold
    return max(threshold, threshold_for(pairs, fpir=config.false_links))


def _firm(portraits: Sequence[Portrait], fps: float) -> Bool[Tensor, " n"]:
    """Which tracklets are seen for long enough."""
    least = max(4, round(FIRM_S * fps))
    return torch.tensor([len(one.tracklet.observations) >= least for one in portraits], dtype=torch.bool)


def _at(tracklet: Tracklet, frames: dict[int, int]) -> Tracklet:
    """A tracklet with other numbers for its frames."""
    return replace(
        tracklet, observations=tuple(replace(seen, frame=frames[seen.frame]) for seen in tracklet.observations)
    )


def _symmetric(table: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    return (table + table.T) / 2
