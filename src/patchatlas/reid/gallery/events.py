"""What people said about identities: kept as a log, and applied again, in order, to whatever linking decides.

Who a tracklet is, is what linking decided, changed by the events that are not undone. So undoing one of them, in
whatever order, or linking an episode again, needs nothing but to go through the log once more. Events about tracklets
follow them: when an episode is linked again they are moved to the new tracklets that show the same boxes.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from patchatlas.errors import UsageError
from patchatlas.reid.gallery.catalogue import tracks_of
from patchatlas.reid.gallery.looks import refresh
from patchatlas.reid.gallery.store import Store, facts

_BY_PEOPLE = ("merge", "split", "assign", "rename")

_FRAMES_OF = (
    "SELECT source, frame FROM observations JOIN tracklets ON tracklets.id = tracklet "
    "JOIN sightings ON sightings.id = sighting JOIN episodes ON episodes.id = episode WHERE tracklet = ?"
)


@dataclass(frozen=True)
class Event:
    """An entry of the log.

    Attributes:
        number: from 1.
        kind: link, merge, split, assign, rename or undo.
        content: what was said.
        undone_by: number of the event that undid it, None if it holds.
        blocked: why it has no effect any more, None if it has.
    """

    number: int
    kind: str
    content: dict[str, Any]
    undone_by: int | None
    blocked: str | None


def log_of(store: Store) -> list[Event]:
    """All events, oldest first."""
    rows = store.rows("SELECT id, kind, content, undone_by, blocked FROM events ORDER BY id")
    return [Event(number, kind, json.loads(content), by, blocked) for number, kind, content, by, blocked in rows]


def merge(store: Store, keep: int, gone: int) -> int:
    """Say that two identities are one person, who goes on under the first number.

    Returns:
        The number of the event.

    Raises:
        UsageError: one of them does not exist, they are the same, or they are seen together.
    """
    if keep == gone:
        raise UsageError(f"{keep} and {gone} are the same identity; name two")
    ones, others = members(store, keep), members(store, gone)
    _refuse_together(store, ones, others, f"{keep} and {gone}")
    return _said(store, "merge", {"keep": keep, "gone": gone}, ())


def split(store: Store, identity: int, tracklets: Sequence[int]) -> tuple[int, int]:
    """Say that some tracklets of an identity, by number in the gallery, are somebody else, who is new.

    Returns:
        The number of the event, and that of the new identity.

    Raises:
        UsageError: a tracklet is not of the identity, or none would be left.
    """
    own = members(store, identity)
    strangers = sorted(set(tracklets) - set(own))
    if strangers or not tracklets:
        wrong = ", ".join(tracks_of(store, strangers))
        given = f"{wrong} is not of identity {identity}" if strangers else "no track was named"
        raise UsageError(f"{given}, which has {', '.join(tracks_of(store, own))}; name some of those")
    if set(tracklets) == set(own):
        raise UsageError(f"those are all tracks of {identity}; leave at least one, or rename it")
    new = store.insert("identities", name=None)
    return _said(store, "split", {"from": identity, "to": new, "tracks": tracks_of(store, tracklets)}, tracklets), new


def assign(store: Store, tracklets: Sequence[int], identity: int | None) -> tuple[int, int]:
    """Say who some tracklets are: an identity of the gallery, or somebody new.

    Returns:
        The number of the event, and that of the identity.

    Raises:
        UsageError: there is no such identity, or they are seen together with it.
    """
    if identity is None:
        identity = store.insert("identities", name=None)
    else:
        others = [number for number in members(store, identity) if number not in tracklets]
        _refuse_together(store, tracklets, others, f"the tracklets and {identity}")
    return _said(store, "assign", {"to": identity, "tracks": tracks_of(store, tracklets)}, tracklets), identity


def rename(store: Store, identity: int, name: str | None) -> int:
    """Give an identity a name, or take it away.

    Raises:
        UsageError: there is no such identity, the name is a number or empty, or another one has it.
    """
    members(store, identity)
    if name is not None:
        if not name.strip() or name != name.strip() or name.isdigit() or not name.isprintable():
            raise UsageError(f"{name!r} is no name: it may not be empty or a number, nor begin or end with a space")
        holder = store.value("SELECT id FROM identities WHERE name = ? AND id != ?", name, identity)
        if holder is not None:
            raise UsageError(f"identity {holder} is called {name!r} already; choose another name, or merge the two")
    return _said(store, "rename", {"identity": identity, "name": name}, ())


def undo(store: Store, number: int | None = None) -> Event:
    """Take back an event, the last one if none is named. An undoing can be undone.

    Returns:
        What was taken back.

    Raises:
        UsageError: there is no such event, it is undone already, or it is a link.
    """
    log = {event.number: event for event in log_of(store)}
    if number is None:
        open_ones = [event.number for event in log.values() if event.kind in _BY_PEOPLE and event.undone_by is None]
        if not open_ones:
            raise UsageError("there is nothing to undo: nobody has changed anything that still holds")
        number = open_ones[-1]
    if number not in log:
        raise UsageError(f"there is no event {number}; `patchatlas reid gallery list --events` shows all")
    event = log[number]
    if event.kind == "link":
        raise UsageError(f"event {number} linked an episode and is not undone; split, merge or assign instead")
    if event.undone_by is not None:
        raise UsageError(f"event {number} was undone by event {event.undone_by}; undo that one to have it back")
    new = store.insert("events", kind="undo", content=facts({"event": number}))
    store.db.execute("UPDATE events SET undone_by = ? WHERE id = ?", (new, number))
    if event.kind == "undo":
        store.db.execute("UPDATE events SET undone_by = NULL WHERE id = ?", (event.content["event"],))
    blocked = replay(store)
    if event.kind == "undo" and event.content["event"] in blocked:
        raise UsageError(f"event {event.content['event']} cannot be had back: {blocked[event.content['event']]}")
    return event


def replay(store: Store) -> dict[int, str]:
    """Go through the log, and write who every tracklet is and what everybody is called and looks like.

    Returns:
        Why, for events that have no effect any more.
    """
    before = dict(store.rows("SELECT id, identity FROM tracklets"))
    now: dict[int, int | None] = dict(
        store.rows("SELECT tracklets.id, decided FROM tracklets JOIN sightings ON sightings.id = sighting")
    )
    about: dict[int, list[int]] = {}
    for number, tracklet in store.rows("SELECT event, tracklet FROM event_tracklets ORDER BY event, tracklet"):
        about.setdefault(number, []).append(tracklet)
    names: dict[int, str | None] = {}
    blocked: dict[int, str] = {}
    for event in log_of(store):
        if event.kind not in _BY_PEOPLE or event.undone_by is not None:
            continue
        why = _apply(store, event, about.get(event.number, []), now, names)
        if why is not None:
            blocked[event.number] = why
    store.db.execute("UPDATE events SET blocked = NULL WHERE blocked IS NOT NULL")
    store.db.executemany("UPDATE events SET blocked = ? WHERE id = ?", [(why, n) for n, why in blocked.items()])
    changed = [(identity, number) for number, identity in now.items() if before[number] != identity]
    store.db.executemany("UPDATE tracklets SET identity = ? WHERE id = ?", changed)
    store.db.execute("UPDATE identities SET name = NULL WHERE name IS NOT NULL")
    store.db.executemany(
        "UPDATE identities SET name = ? WHERE id = ?",
        [(name, identity) for identity, name in names.items() if name is not None],
    )
    refresh(store)
    return blocked


def members(store: Store, identity: int) -> list[int]:
    """Numbers of the tracklets of an identity.

    Raises:
        UsageError: nobody is that.
    """
    own = [number for (number,) in store.rows("SELECT id FROM tracklets WHERE identity = ? ORDER BY id", identity)]
    if not own:
        raise UsageError(f"there is no identity {identity}; `patchatlas reid gallery list` shows all")
    return own


def _said(store: Store, kind: str, content: dict[str, Any], tracklets: Iterable[int]) -> int:
    number = store.insert("events", kind=kind, content=facts(content))
    for tracklet in tracklets:
        store.insert("event_tracklets", event=number, tracklet=tracklet)
    replay(store)
    return number


def _apply(
    store: Store, event: Event, about: Sequence[int], now: dict[int, int | None], names: dict[int, str | None]
) -> str | None:
    """Change who is who by one event; why not, if it cannot be."""
    if event.kind == "rename":
        identity, name = event.content["identity"], event.content["name"]
        holder = next((other for other, held in names.items() if held == name and other != identity), None)
        if name is not None and holder is not None:
            return f"identity {holder} is called {name!r} already"
        names[identity] = name
        return None
    if event.kind == "merge":
        to, gone = event.content["keep"], event.content["gone"]
        moving = [number for number, identity in now.items() if identity == gone]
        if not moving:
            return f"nobody is {gone} any more"
        if names.get(to) is None:
            names[to] = names.get(gone)
        names[gone] = None
    else:
        to, moving = event.content["to"], list(about)
        if not moving:
            return "its tracklets are gone: the episode was linked again, and nothing shows the same boxes"
    there = [number for number, identity in now.items() if identity == to and number not in set(moving)]
    clash = _clash(store, moving, there)
    if clash:
        return f"tracks {' and '.join(tracks_of(store, clash[0]))} are seen together, so they are two people"
    for number in moving:
        now[number] = to
    return None


def _clash(store: Store, ones: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs that are seen together. Few are ever in the same frames, and what compares boxes takes seconds to load."""
    frames = [{seen for number in side for seen in store.rows(_FRAMES_OF, number)} for side in (ones, others)]
    if frames[0].isdisjoint(frames[1]):
        return []
    from patchatlas.reid.gallery.members import seen_together

    return seen_together(store, ones, others)


def _refuse_together(store: Store, ones: Sequence[int], others: Sequence[int], who: str) -> None:
    clash = _clash(store, ones, others)
    if clash:
        first, second = tracks_of(store, clash[0])
        more = f" (and {len(clash) - 1} more pairs)" if len(clash) > 1 else ""
        raise UsageError(
            f"{who} cannot be one person: tracks {first} and {second} are seen together{more}; split off what is wrong "
            "first"
        )
