"""Link episodes to a gallery: who of an episode is whom that has been seen before, who is new, and who cannot be told.

Each episode is one transaction. An episode that is linked again with other tracks or settings takes its own place anew:
people keep their numbers, and what was said about them by hand is applied again. An episode that has not changed is
left alone.

Axes: n tracklets, g of the episode, i of the gallery.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy import ndarray

from patchatlas.errors import InputError, UsageError
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.calibrate import error_rates
from patchatlas.reid.config import LinkConfig
from patchatlas.reid.episode import Episode, read_episode
from patchatlas.reid.gallery.curve import curve_of, learn, limits_of
from patchatlas.reid.gallery.decide import Decision, Limits, Verdict, decide
from patchatlas.reid.gallery.enter import Former, hand_on, put_in, take_out
from patchatlas.reid.gallery.events import replay
from patchatlas.reid.gallery.kinds import require_kind
from patchatlas.reid.gallery.looks import GATE, SEEN, composite, composites, shortlist
from patchatlas.reid.gallery.members import barred_between, of_source, read_tracklets
from patchatlas.reid.gallery.search import Index
from patchatlas.reid.gallery.store import Store, facts, open_gallery
from patchatlas.reid.link import LinkRules, barred_pairs, good_boxes
from patchatlas.reid.portraits import Portrait, handover_frames, looked_every


@dataclass(frozen=True)
class Sighting:
    """One identity of an episode, and who that is in the gallery.

    Attributes:
        local: its number in the episode.
        tracks: its tracks there.
        verdict: known, new or unknown, as linking decided.
        identity: number in the gallery, also by what people said since; None while it is unknown.
        candidate: whom it resembles most, of those that it can be.
        likeness: cosine with that one.
        chance: p(same) of that; None where too little is known to say.
        rival: the next best.
        margin: cosine by which the next best way to give out all of the episode is worse.
        why: in words.
    """

    local: int
    tracks: tuple[int, ...]
    verdict: Verdict
    identity: int | None
    candidate: int | None
    likeness: float | None
    chance: float | None
    rival: int | None
    margin: float | None
    why: str


@dataclass(frozen=True)
class Linked:
    """What became of an episode.

    Attributes:
        episode: its name.
        state: linked, linked again, or unchanged since it was.
        sightings: by their number in the episode.
        left_out: tracklets that have no identity in the episode; they are not in the gallery.
        limits: cosines that decided; None for an unchanged episode.
        ece: expected calibration error of what a cosine means, None where too little is known.
        fpir: share of strangers that, by what the videos themselves say, would be named; NaN where none is known.
        fnir: share of parts of one track that would not be.
        notes: what a person should know, in sentences.
    """

    episode: str
    state: Literal["linked", "linked again", "unchanged"]
    sightings: tuple[Sighting, ...]
    left_out: int
    limits: Limits | None = None
    ece: float | None = None
    fpir: float | None = None
    fnir: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LinkReport:
    """What became of all episodes.

    Attributes:
        gallery: where it is.
        episodes: in the order in which they were linked.
    """

    gallery: Path
    episodes: tuple[Linked, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        content = asdict(self)
        content["gallery"] = str(self.gallery)
        for one in content["episodes"]:
            for name in ("fpir", "fnir"):
                one[name] = None if one[name] is None or one[name] != one[name] else one[name]
        return content


def link_episodes(
    gallery_path: str | Path,
    episodes: Sequence[str | Path],
    config: LinkConfig | None = None,
    *,
    index: Index = "exact",
) -> LinkReport:
    """Link episodes to a gallery, in the order given; the gallery is made if there is none.

    Args:
        gallery_path: folder of the gallery.
        episodes: folders of finished episodes.
        config: `accept` is the p(same) from which somebody is named, `margin` the cosine by which nobody else may come
            as near; below `threshold` with everybody, they are new.
        index: how candidates are found: `exact`, or `faiss` for large galleries.

    Raises:
        InputError, FormatError: an episode or the gallery cannot be read.
        StampError: vectors that were made in another way than those of the gallery; says what differs.
        UsageError: two episodes of one name, or one whose name the gallery knows from another video.
        ResourceError: the disk is full, or somebody else is writing; what was linked before stays.
    """
    read = [read_episode(folder) for folder in episodes]
    return link_read(gallery_path, read, config, index=index)


def link_read(
    gallery_path: str | Path,
    episodes: Sequence[Episode],
    config: LinkConfig | None = None,
    *,
    index: Index = "exact",
) -> LinkReport:
    """As `link_episodes`, for episodes that have been read.

    Raises:
        StampError, UsageError, FormatError, ResourceError: as there.
    """
    config, folder = config or LinkConfig(), Path(gallery_path)
    if not episodes:
        raise UsageError("there is no episode to link; name at least one")
    names = [episode.name for episode in episodes]
    if len(set(names)) != len(names):
        raise UsageError(f"two of the episodes {', '.join(names)} have the same name; an episode is known by it")
    first = episodes[0].stamp
    for episode in episodes[1:]:
        require_kind(
            first,
            episode.stamp,
            one=f"the episode {names[0]}",
            other=f"the episode {episode.name}",
            remedy="link them apart, each kind with a --gallery of its own",
        )
    with open_gallery(folder, create=True) as store:
        for episode in episodes:
            if store.stamp is not None:
                require_kind(
                    store.stamp,
                    episode.stamp,
                    one=f"the gallery {folder}",
                    other=f"the episode {episode.name}",
                    remedy="give --gallery OTHER",
                )
            known = store.value("SELECT source FROM episodes WHERE name = ?", episode.name)
            if known is not None and known != _source(episode):
                raise UsageError(
                    f"the gallery {folder} knows an episode {episode.name!r} of another video; run this one under "
                    "another name"
                )
        return LinkReport(folder, tuple(_link(store, episode, config, index) for episode in episodes))


def _link(store: Store, episode: Episode, config: LinkConfig, index: Index) -> Linked:
    looks = [one for number, one in sorted(episode.portraits.items()) if one.frames]
    digest = _digest(episode, looks, config)
    before = store.rows("SELECT id, digest FROM episodes WHERE name = ?", episode.name)
    left_out = len(episode.tracklets) - sum(one.tracklet.id in episode.identities for one in looks)
    if before and before[0][1] == digest:
        return Linked(episode.name, "unchanged", sightings_of(store, episode.name), left_out)
    with store.writing():
        store.take_stamp(episode.stamp, episode.embeddings.vectors.shape[1])
        former = take_out(store, before[0][0]) if before else Former({}, {}, {})
        number = before[0][0] if before else 0
        if before:
            store.db.execute("UPDATE episodes SET digest = ? WHERE id = ?", (digest, number))
        else:
            number = store.insert(
                "episodes",
                name=episode.name,
                source=_source(episode),
                digest=digest,
                stamp=episode.stamp.digest,
            )
        step = looked_every(episode.tracklets)
        learn(store, number, looks, step)
        curve, pairs = curve_of(store)
        limits, notes = limits_of(curve, pairs, config)
        for key, value in ((GATE, limits.stranger), (SEEN, config.least_seen_s)):
            store.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, repr(float(value))))
        worth = dict(zip([one.tracklet.id for one in looks], good_boxes(looks) * step if looks else (), strict=True))
        groups: dict[int, list[Portrait]] = defaultdict(list)
        for one in looks:
            if one.tracklet.id in episode.identities:
                groups[episode.identities[one.tracklet.id]].append(one)
        groups = dict(sorted(groups.items()))
        decisions, whom = _decide(store, _source(episode), groups, worth, limits, config, index)
        added = put_in(store, number, groups, worth, decisions, whom, curve, former)
        hand_on(store, former, added)
        counts = {verdict: sum(one.verdict == verdict for one in decisions) for verdict in ("known", "new", "unknown")}
        store.insert("events", kind="link", content=facts({"episode": episode.name, **counts}))
        blocked = replay(store)
        notes += [f"event {event} has no effect any more: {why}" for event, why in blocked.items()]
    fpir, fnir = error_rates(pairs, threshold=limits.named)
    return Linked(
        episode.name,
        "linked again" if before else "linked",
        sightings_of(store, episode.name),
        left_out,
        limits,
        None if curve is None else curve.ece,
        fpir,
        fnir,
        tuple(notes),
    )


def sightings_of(store: Store, episode: str) -> tuple[Sighting, ...]:
    """Who of an episode is whom, as the gallery has it now."""
    found = []
    for number, local, *said in store.rows(
        "SELECT sightings.id, local, verdict, candidate, likeness, chance, rival, margin, why FROM sightings "
        "JOIN episodes ON episodes.id = episode WHERE name = ? ORDER BY local",
        episode,
    ):
        rows = store.rows("SELECT track, identity FROM tracklets WHERE sighting = ? ORDER BY id", number)
        verdict, candidate, likeness, chance, rival, margin, why = said
        tracks = tuple(row[0] for row in rows)
        # People may have split it; then it is what most of its tracklets are.
        identities = [row[1] for row in rows]
        identity = max(identities, key=lambda one: (identities.count(one), one is not None))
        found.append(Sighting(local, tracks, verdict, identity, candidate, likeness, chance, rival, margin, why))
    return tuple(found)


def _decide(
    store: Store,
    source: str,
    groups: Mapping[int, Sequence[Portrait]],
    worth: Mapping[int, float],
    limits: Limits,
    config: LinkConfig,
    index: Index,
) -> tuple[list[Decision], list[int]]:
    """Decisions on the groups of an episode, in their order, and the identities that they name by place."""
    flat = [one for members in groups.values() for one in members]
    tolerance = handover_frames([one.tracklet for one in flat], config.tolerance_s)
    rules = LinkRules(tolerance=tolerance, same_label=config.same_label, top_speed=config.top_speed)
    owner = np.array([k for k, members in enumerate(groups.values()) for _ in members], dtype=int)
    pooled = [one.pooled().numpy() for one in flat]
    whom = shortlist(store, pooled, index=index)
    tracklets = [one.tracklet for one in flat]
    seconds = _seconds_a_frame(tracklets)
    queries = [
        composite(np.stack([pooled[k] for k in own]), np.array([worth[tracklets[k].id] for k in own]))
        for own in (np.nonzero(owner == group)[0].tolist() for group in range(len(groups)))
    ]
    likeness = np.full((len(groups), len(whom)), -np.inf)
    if queries and whom:
        looks, whose = composites(store, whom)
        for place, column in zip(whose, looks @ np.stack(queries).T, strict=True):
            likeness[:, place] = np.maximum(likeness[:, place], column)
    apart = np.zeros((len(groups),) * 2, dtype=bool)
    if flat:
        pairs = barred_pairs(tracklets, rules=rules, seconds_a_frame=seconds).numpy()
        np.logical_or.at(apart, (owner[:, None], owner[None, :]), pairs)
    np.fill_diagonal(apart, False)
    return decide(
        likeness, _barred(store, source, tracklets, owner, apart.shape[0], whom, rules), apart, limits=limits
    ), whom


def _barred(
    store: Store,
    source: str,
    tracklets: Sequence[Tracklet],
    owner: ndarray,
    groups: int,
    whom: Sequence[int],
    rules: LinkRules,
) -> ndarray:
    """Which groups cannot be which identities: of another class, or seen together in the same video before."""
    barred = np.zeros((groups, len(whom)), dtype=bool)
    place = {identity: k for k, identity in enumerate(whom)}
    if rules.same_label:
        labels: dict[int, set[str]] = defaultdict(set)
        for identity, label in store.rows("SELECT DISTINCT identity, label FROM tracklets WHERE identity > 0"):
            labels[identity].add(label)
        for tracklet, group in zip(tracklets, owner.tolist(), strict=True):
            for identity, k in place.items():
                barred[group, k] |= labels[identity] != {tracklet.label}
    there = {number: place[identity] for number, identity in of_source(store, source).items() if identity in place}
    old = read_tracklets(store, there)
    table = barred_between(
        tracklets, list(old.values()), rules=rules, seconds_a_frame=_seconds_a_frame([*tracklets, *old.values()])
    )
    for row, column in zip(*(side.tolist() for side in np.nonzero(table)), strict=True):
        barred[owner[row], there[list(old)[column]]] = True
    return barred


def _digest(episode: Episode, looks: Sequence[Portrait], config: LinkConfig) -> str:
    """All that linking depends on."""
    digest = hashlib.sha256(facts(config.model_dump(mode="json")).encode())
    digest.update(repr((episode.name, sorted(episode.identities.items()), episode.stamp.digest)).encode())
    for one in looks:
        digest.update(repr((one.tracklet, one.frames, one.weights.tolist())).encode())
        digest.update(np.ascontiguousarray(one.vectors.numpy()).tobytes())
    return digest.hexdigest()


def _source(episode: Episode) -> str:
    """What names the video: tracks of one source are seen by one camera, on one clock."""
    digest = episode.run["video"]["sha256"]
    if not isinstance(digest, str):
        raise InputError(f"run.json of {episode.name} does not name its video; make the episode again")
    return digest


def _seconds_a_frame(tracklets: Sequence[Tracklet]) -> float:
    """Time from one frame number to the next, over all tracks."""
    first, last = (
        pick((seen for one in tracklets for seen in (one.observations[0], one.observations[-1])), key=lambda s: s.frame)
        if tracklets
        else None
        for pick in (min, max)
    )
    if first is None or last is None or first.frame == last.frame:
        return 0.0
    return (last.time_s - first.time_s) / (last.frame - first.frame)
