"""The people of all episodes: list and show them, put right who is who, and answer what linking could not say.

A gallery is made and filled by `patchatlas reid link`. What is said here by hand is remembered, and applied again when
an episode is linked anew; any of it can be undone.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from patchatlas.cli.console import Output, emit
from patchatlas.errors import UsageError

if TYPE_CHECKING:
    from patchatlas.reid.gallery.catalogue import Identity, Waiting
    from patchatlas.reid.gallery.store import Store

Who = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IDENTITY")]


class _Gallery(Output):
    gallery: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("results/gallery")
    """Folder of the gallery."""


class List(_Gallery):
    """Everybody, and where they were seen."""

    events: bool = False
    """List what was linked, merged, split, renamed and undone instead, with the numbers that undo takes."""


class Show(_Gallery):
    """One identity: when it was seen, and why it was taken for that."""

    identity: Who
    """Number or name."""


class Merge(_Gallery):
    """Say that two identities are one person. The first goes on."""

    keep: Who
    """Number or name of the one that goes on."""
    gone: Who
    """Number or name of the one that becomes it."""


class Split(_Gallery):
    """Say that some tracks of an identity are somebody else, who gets a new number."""

    identity: Who
    """Number or name."""
    tracks: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="EPISODE:TRACK")]
    """Tracks, as `show` names them."""


class Rename(_Gallery):
    """Give an identity a name."""

    identity: Who
    """Number or name."""
    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="NAME")] = None
    """The name; without one the identity loses the name that it has."""


class Undo(_Gallery):
    """Take back what was said by hand: the last of it, or any event. An undoing can be undone."""

    event: Annotated[tyro.conf.Positional[int | None], tyro.conf.arg(metavar="EVENT")] = None
    """Number of the event, as `list --events` shows it; the last if not given."""


class Review(_Gallery):
    """List sightings of which linking could not say who they are, or answer one."""

    sighting: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="EPISODE:IDENTITY")] = None
    """Which to answer, as the list names it."""
    accept: bool = False
    """It is the candidate."""
    be: Annotated[str | None, tyro.conf.arg(metavar="IDENTITY")] = None
    """It is this identity of the gallery."""
    new: bool = False
    """It is somebody new."""


Config = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Merge, tyro.conf.subcommand("merge")]
    | Annotated[Split, tyro.conf.subcommand("split")]
    | Annotated[Rename, tyro.conf.subcommand("rename")]
    | Annotated[Undo, tyro.conf.subcommand("undo")]
    | Annotated[Review, tyro.conf.subcommand("review")]
)
"""What `patchatlas reid gallery` is asked to do."""


def run(config: _Gallery) -> int:
    """Do it, tell, and return 0.

    Raises:
        UsageError: no such identity, track, event or sighting, or something that cannot be.
        InputError, FormatError: there is no gallery, or it is damaged.
        ResourceError: the gallery cannot be written.
    """
    from patchatlas.reid.gallery.store import open_gallery

    with open_gallery(config.gallery) as store:
        if isinstance(config, List):
            human, data = _events(store) if config.events else _list(store)
        elif isinstance(config, Show):
            human, data = _show(store, config.identity)
        elif isinstance(config, Review) and config.sighting is None:
            if config.accept or config.be is not None or config.new:
                raise UsageError("say which sighting is meant: patchatlas reid gallery review EPISODE:IDENTITY ...")
            human, data = _review(store)
        else:
            with store.writing():
                human, data = _change(store, config)
    emit(config, human=human, data=data)
    return 0


def _change(store: "Store", config: _Gallery) -> tuple[str, dict[str, Any]]:
    from patchatlas.reid.gallery import events
    from patchatlas.reid.gallery.catalogue import number_of, tracklet_of

    if isinstance(config, Merge):
        keep, gone = number_of(store, config.keep), number_of(store, config.gone)
        event = events.merge(store, keep, gone)
        return f"{gone} is now {keep} (event {event})", {"event": event, "keep": keep, "gone": gone}
    if isinstance(config, Split):
        identity = number_of(store, config.identity)
        tracklets = [tracklet_of(store, track) for track in config.tracks]
        event, new = events.split(store, identity, tracklets)
        human = f"{', '.join(config.tracks)} of {identity} is now {new} (event {event})"
        return human, {"event": event, "from": identity, "to": new, "tracks": list(config.tracks)}
    if isinstance(config, Rename):
        identity = number_of(store, config.identity)
        event = events.rename(store, identity, config.name)
        told = f"{identity} is called {config.name}" if config.name is not None else f"{identity} has no name"
        return f"{told} (event {event})", {"event": event, "identity": identity, "name": config.name}
    if isinstance(config, Undo):
        undone = events.undo(store, config.event)
        told = f"event {undone.number} ({_told(undone.kind, undone.content)}) is undone"
        return told, {"undone": undone.number, "kind": undone.kind, "content": undone.content}
    assert isinstance(config, Review)
    return _answer(store, config)


def _answer(store: "Store", config: Review) -> tuple[str, dict[str, Any]]:
    from patchatlas.reid.gallery import events
    from patchatlas.reid.gallery.catalogue import number_of, waiting

    asked = {one.name: one for one in waiting(store)}
    if config.sighting not in asked:
        raise UsageError(f"{config.sighting} does not wait for an answer; these do: {', '.join(asked) or 'none'}")
    one = asked[config.sighting]
    if config.accept + (config.be is not None) + config.new != 1:
        raise UsageError(f"say who {one.name} is: give one of --accept, --be IDENTITY and --new")
    if config.accept and one.candidate is None:
        raise UsageError(f"{one.name} has no candidate; give --be IDENTITY or --new")
    who = number_of(store, config.be) if config.be is not None else one.candidate if config.accept else None
    event, identity = events.assign(store, one.tracklets, who)
    human = f"{one.name} is {'somebody new, ' if config.new else ''}{identity} (event {event})"
    return human, {"event": event, "sighting": one.name, "identity": identity}


def _list(store: "Store") -> tuple[str, dict[str, Any]]:
    from patchatlas.reid.gallery.catalogue import identities_of, waiting

    everybody, asked = identities_of(store), waiting(store)
    lines = [f"{'number':>6}  {'name':12} {'class':10} {'tracks':>6} {'boxes':>6}  episodes"]
    for one in everybody:
        boxes = sum(span.observations for span in one.spans)
        name, labels = one.name or "-", ",".join(one.labels)
        lines.append(f"{one.number:6}  {name:12} {labels:10} {len(one.spans):6} {boxes:6}  {', '.join(one.episodes)}")
    episodes = store.value("SELECT count(*) FROM episodes")
    lines.append(f"{len(everybody)} identities in {episodes} episodes, {len(asked)} sightings to review")
    stamp = store.stamp
    return "\n".join(lines), {
        "gallery": str(store.folder),
        "episodes": [name for (name,) in store.rows("SELECT name FROM episodes ORDER BY id")],
        "stamp": None if stamp is None else stamp.digest,
        "identities": [_identity(one) for one in everybody],
        "to_review": [_waiting(one) for one in asked],
    }


def _show(store: "Store", given: str) -> tuple[str, dict[str, Any]]:
    from patchatlas.reid.gallery.catalogue import identity_of, number_of

    one = identity_of(store, number_of(store, given))
    lines = [f"identity {one.number}" + (f", {one.name}" if one.name else "") + f" ({', '.join(one.labels)})"]
    for span in one.spans:
        sure = "" if span.likeness is None else f", cosine {span.likeness:.3f}"
        sure += "" if span.chance is None else f", p(same) {span.chance:.2f}"
        why = "said by hand" if span.by_hand else f"{span.verdict}: {span.why}{sure}"
        lines.append(
            f"  {f'{span.episode}:{span.track}':20} {span.first_s:8.2f} - {span.last_s:8.2f} s  "
            f"{span.observations:5} boxes  {why}"
        )
    lines.append(f"  looks like {', '.join(one.prototypes)}")
    return "\n".join(lines), _identity(one)


def _events(store: "Store") -> tuple[str, dict[str, Any]]:
    from patchatlas.reid.gallery.events import log_of

    log = log_of(store)
    lines = []
    for event in log:
        undone = f", undone by {event.undone_by}" if event.undone_by is not None else ""
        blocked = f", without effect: {event.blocked}" if event.blocked is not None else ""
        lines.append(f"{event.number:5}  {_told(event.kind, event.content)}{undone}{blocked}")
    return "\n".join(lines) or "nothing has happened", {"events": [asdict(event) for event in log]}


def _review(store: "Store") -> tuple[str, dict[str, Any]]:
    from patchatlas.reid.gallery.catalogue import waiting

    asked = waiting(store)
    lines = []
    for one in asked:
        rival = "" if one.rival is None else f" or {one.rival}"
        sure = "" if one.likeness is None else f", cosine {one.likeness:.3f}"
        sure += "" if one.chance is None else f", p(same) {one.chance:.2f}"
        candidate = "nobody" if one.candidate is None else f"{one.candidate}{rival}"
        tracks = ", ".join(map(str, one.tracks))
        lines.append(f"{one.name:20} tracks {tracks}: may be {candidate}{sure}; {one.why}")
    return "\n".join(lines) or "nothing to review", {"to_review": [_waiting(one) for one in asked]}


def _identity(one: "Identity") -> dict[str, Any]:
    return {**asdict(one), "labels": list(one.labels), "episodes": list(one.episodes)}


def _waiting(one: "Waiting") -> dict[str, Any]:
    return {"sighting": one.name, **asdict(one)}


def _told(kind: str, content: dict[str, Any]) -> str:
    """An event in words."""
    if kind == "link":
        counts = ", ".join(f"{content[verdict]} {verdict}" for verdict in ("known", "new", "unknown"))
        return f"linked {content['episode']}: {counts}"
    if kind == "merge":
        return f"merged {content['gone']} into {content['keep']}"
    if kind == "split":
        return f"split {', '.join(content['tracks'])} from {content['from']}, as {content['to']}"
    if kind == "assign":
        return f"said that {', '.join(content['tracks'])} is {content['to']}"
    if kind == "rename":
        return f"called {content['identity']} {content['name'] or 'nothing'}"
    return f"undid event {content['event']}"
