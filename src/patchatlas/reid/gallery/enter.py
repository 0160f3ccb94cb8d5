"""Put an episode into the tables of a gallery, and take it out again when it is linked anew."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.calibrate import Calibration
from patchatlas.reid.gallery.decide import Decision
from patchatlas.reid.gallery.events import replay
from patchatlas.reid.gallery.members import heirs, read_tracklets
from patchatlas.reid.gallery.store import Store
from patchatlas.reid.portraits import Portrait


@dataclass(frozen=True)
class Former:
    """What is kept of an episode while it is linked again: its tracklets, who they had been found to be, and the events
    about each of them."""

    tracklets: dict[int, Tracklet]
    decided: dict[int, int | None]
    events: dict[int, list[int]]


def take_out(store: Store, episode: int) -> Former:
    """Remove what an episode left in the gallery, but for its place in the order."""
    decided = dict(
        store.rows(
            "SELECT tracklets.id, decided FROM tracklets JOIN sightings ON sightings.id = sighting WHERE episode = ?",
            episode,
        )
    )
    tracklets = read_tracklets(store, decided)
    events: dict[int, list[int]] = defaultdict(list)
    for event, tracklet in store.rows("SELECT event, tracklet FROM event_tracklets ORDER BY event"):
        if tracklet in decided:
            events[tracklet].append(event)
            store.db.execute("DELETE FROM event_tracklets WHERE event = ? AND tracklet = ?", (event, tracklet))
    store.db.execute("DELETE FROM sightings WHERE episode = ?", (episode,))
    store.db.execute("DELETE FROM known_pairs WHERE episode = ?", (episode,))
    replay(store)
    return Former(tracklets, decided, dict(events))


def hand_on(store: Store, former: Former, added: Mapping[int, Tracklet]) -> None:
    """Move events about former tracklets to those that show the same boxes now."""
    for new, old in heirs(former.tracklets, added).items():
        for event in former.events.get(old, []):
            store.insert("event_tracklets", event=event, tracklet=new)


def put_in(
    store: Store,
    episode: int,
    groups: Mapping[int, Sequence[Portrait]],
    worth: Mapping[int, float],
    decisions: Sequence[Decision],
    whom: Sequence[int],
    curve: Calibration | None,
    former: Former,
) -> dict[int, Tracklet]:
    """Write an episode's sightings, tracklets, boxes and vectors.

    Returns:
        The tracklets, by their number in the gallery.
    """
    flat = [one for members in groups.values() for one in members]
    segment = store.add_vectors(np.stack([one.pooled().numpy() for one in flat]).astype(np.float32)) if flat else 0
    numbers = _numbers_again(store, groups, decisions, former)
    added: dict[int, Tracklet] = {}
    row = 0
    for (local, members), decision in zip(groups.items(), decisions, strict=True):
        candidate = None if decision.candidate is None else whom[decision.candidate]
        rival = None if decision.rival is None else whom[decision.rival]
        decided: int | None
        if decision.verdict == "new":
            decided = numbers.get(local) or store.insert("identities", name=None)
        else:
            decided = candidate if decision.verdict == "known" else None
        chance = None
        if curve is not None and decision.likeness is not None:
            chance = float(curve.chance(torch.tensor(decision.likeness, dtype=torch.float64)))
        sighting = store.insert(
            "sightings",
            episode=episode,
            local=local,
            verdict=decision.verdict,
            decided=decided,
            candidate=candidate,
            likeness=decision.likeness,
            chance=chance,
            rival=rival,
            margin=decision.margin,
            why=decision.why,
        )
        for one in members:
            tracklet = one.tracklet
            number = store.insert(
                "tracklets",
                sighting=sighting,
                track=tracklet.id,
                label=tracklet.label,
                seen_s=float(worth[tracklet.id]),
                segment=segment,
                row=row,
            )
            row += 1
            added[number] = tracklet
            store.db.executemany(
                "INSERT INTO observations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (number, seen.frame, seen.time_s, *seen.box, seen.score, seen.label)
                    for seen in tracklet.observations
                ],
            )
    return added


def _numbers_again(
    store: Store, groups: Mapping[int, Sequence[Portrait]], decisions: Sequence[Decision], former: Former
) -> dict[int, int]:
    """Numbers for those who are new, where the episode had been linked before: the one that most of their boxes had,
    if nobody else in the gallery has it now."""
    taken = {one for (one,) in store.rows("SELECT DISTINCT decided FROM sightings WHERE decided IS NOT NULL")}
    votes: list[tuple[int, int, int]] = []
    for (local, members), decision in zip(groups.items(), decisions, strict=True):
        if decision.verdict != "new":
            continue
        counts: dict[int, int] = defaultdict(int)
        own = {one.tracklet.id: one.tracklet for one in members}
        for new, old in heirs(former.tracklets, own).items():
            identity = former.decided[old]
            if identity is not None and identity not in taken:
                counts[identity] += len(own[new].observations)
        votes += [(-count, local, identity) for identity, count in counts.items()]
    found: dict[int, int] = {}
    for _, local, identity in sorted(votes):
        if local not in found and identity not in found.values():
            found[local] = identity
    return found
