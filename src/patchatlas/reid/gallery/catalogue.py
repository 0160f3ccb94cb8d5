"""What a gallery holds, for people: identities with where they were seen, and sightings that wait for an answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from patchatlas.errors import UsageError
from patchatlas.reid.gallery.store import Store

_EPISODE_OF = (
    "SELECT name FROM tracklets JOIN sightings ON sightings.id = sighting JOIN episodes ON episodes.id = episode "
    "WHERE tracklets.id = ?"
)


@dataclass(frozen=True)
class Span:
    """One tracklet of an identity.

    Attributes:
        episode: where.
        track: its number there.
        first_s: when it begins, seconds.
        last_s: when it ends.
        observations: its boxes.
        verdict: how linking decided: known, new or unknown.
        by_hand: whether a person decided otherwise.
        likeness: cosine by which it was decided, None where there was nobody to compare with.
        chance: p(same) of that.
        why: in words.
    """

    episode: str
    track: int
    first_s: float
    last_s: float
    observations: int
    verdict: str
    by_hand: bool
    likeness: float | None
    chance: float | None
    why: str


@dataclass(frozen=True)
class Identity:
    """Somebody.

    Attributes:
        number: in the gallery; never given to somebody else.
        name: as people call them, None without.
        labels: classes of their tracklets.
        spans: by episode, in the order in which these were linked, and time.
        prototypes: tracklets kept as they are, as `EPISODE:TRACK`.
    """

    number: int
    name: str | None
    labels: tuple[str, ...]
    spans: tuple[Span, ...]
    prototypes: tuple[str, ...]

    @property
    def episodes(self) -> tuple[str, ...]:
        """Where they were seen, in order."""
        return tuple(dict.fromkeys(span.episode for span in self.spans))


@dataclass(frozen=True)
class Waiting:
    """A sighting of which linking could not say who it is.

    Attributes:
        episode: where.
        local: the identity's number there.
        tracks: its tracks that wait.
        tracklets: their numbers in the gallery.
        candidate: who it may be.
        likeness: cosine with that one.
        chance: p(same) of that.
        rival: the next best.
        why: in words.
    """

    episode: str
    local: int
    tracks: tuple[int, ...]
    tracklets: tuple[int, ...]
    candidate: int | None
    likeness: float | None
    chance: float | None
    rival: int | None
    why: str

    @property
    def name(self) -> str:
        """`EPISODE:LOCAL`."""
        return f"{self.episode}:{self.local}"


def identities_of(store: Store) -> list[Identity]:
    """Everybody who has a tracklet, by number."""
    return [identity_of(store, number) for (number,) in store.rows("SELECT DISTINCT identity FROM spans ORDER BY 1")]


def identity_of(store: Store, number: int) -> Identity:
    """One identity.

    Raises:
        UsageError: there is none of that number.
    """
    rows = store.rows(
        "SELECT episodes.name, track, first, last, boxes, verdict, decided IS NOT identity, likeness, chance, why, "
        "tracklets.label FROM tracklets JOIN sightings ON sightings.id = sighting "
        "JOIN episodes ON episodes.id = episode JOIN (SELECT tracklet, min(time_s) AS first, max(time_s) AS last, "
        "count(*) AS boxes FROM observations WHERE tracklet IN (SELECT id FROM tracklets WHERE identity = ?1) "
        "GROUP BY tracklet) ON tracklet = tracklets.id WHERE identity = ?1 ORDER BY episodes.id, first, track",
        number,
    )
    if not rows:
        raise UsageError(f"there is no identity {number}; `patchatlas reid gallery list` shows all")
    kept = store.rows(
        "SELECT episodes.name, track FROM prototypes JOIN tracklets ON tracklets.id = tracklet "
        "JOIN sightings ON sightings.id = sighting JOIN episodes ON episodes.id = episode "
        "WHERE prototypes.identity = ? ORDER BY look, place",
        number,
    )
    return Identity(
        number,
        store.value("SELECT name FROM identities WHERE id = ?", number),
        tuple(sorted({row[10] for row in rows})),
        tuple(_span(*row[:10]) for row in rows),
        tuple(f"{episode}:{track}" for episode, track in kept),
    )


def _span(
    episode: str,
    track: int,
    first_s: float,
    last_s: float,
    observations: int,
    verdict: str,
    by_hand: int,
    likeness: float | None,
    chance: float | None,
    why: str,
) -> Span:
    return Span(episode, track, first_s, last_s, observations, verdict, bool(by_hand), likeness, chance, why)


def waiting(store: Store) -> list[Waiting]:
    """Sightings without an identity, those most like somebody first."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in store.rows(
        "SELECT sightings.id, name, local, track, tracklets.id, candidate, likeness, chance, rival, why FROM tracklets "
        "JOIN sightings ON sightings.id = sighting JOIN episodes ON episodes.id = episode WHERE identity IS NULL "
        "ORDER BY likeness DESC, sightings.id, tracklets.id"
    ):
        found.setdefault(row[0], []).append(row)
    return [
        Waiting(rows[0][1], rows[0][2], tuple(row[3] for row in rows), tuple(row[4] for row in rows), *rows[0][5:])
        for rows in found.values()
    ]


def number_of(store: Store, given: str) -> int:
    """The identity that a number or a name means.

    Raises:
        UsageError: nobody is called that.
    """
    if given.isdigit():
        return int(given)
    number = store.value("SELECT id FROM identities WHERE name = ?", given)
    if number is None:
        raise UsageError(f"nobody is called {given!r}; `patchatlas reid gallery list` shows all")
    return int(number)


def tracklet_of(store: Store, given: str) -> int:
    """The tracklet that `EPISODE:TRACK` means.

    Raises:
        UsageError: there is none.
    """
    episode, _, track = given.rpartition(":")
    number = store.value(
        "SELECT tracklets.id FROM tracklets JOIN sightings ON sightings.id = sighting "
        "JOIN episodes ON episodes.id = episode WHERE name = ? AND track = ?",
        episode,
        track,
    )
    if number is None:
        raise UsageError(
            f"{given!r} is no track of the gallery; write EPISODE:TRACK as `patchatlas reid gallery show` does"
        )
    return int(number)


def tracks_of(store: Store, numbers: Iterable[int]) -> list[str]:
    """Tracklets as people know them, `EPISODE:TRACK`."""
    return [
        f"{store.value(_EPISODE_OF, number)}:{store.value('SELECT track FROM tracklets WHERE id = ?', number)}"
        for number in numbers
    ]
