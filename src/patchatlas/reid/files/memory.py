"""`memory.json`: who was seen when, why tracks were joined, and what a person should look at."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import Tensor

from patchatlas.errors import FormatError
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.calibrate import Calibration
from patchatlas.reid.files.jsonfile import head_of, read_json, write_json
from patchatlas.reid.link import Doubt, Links, Reason
from patchatlas.reid.split import Cut

NAME = "memory.json"
FORMAT = "patchatlas.memory"
VERSION = 1


@dataclass(frozen=True)
class Memory:
    """What linking found.

    Attributes:
        links: who is who.
        cuts: where tracks were cut.
        apart: pairs of tracks that cannot be one object, lower number first, and why: `together`, `label` or `speed`.
        rows: of `embeddings.npy`, those of each track that hold a vector.
        calibration: what a cosine means in this video, None where it was too short to say.
        fpir: share of co-visible strangers above the threshold, NaN where there are none.
        fnir: share of parts of one track below it, NaN where there are none.
        notes: what a person should know, in sentences.
    """

    links: Links
    cuts: tuple[Cut, ...]
    apart: dict[tuple[int, int], str]
    rows: dict[int, tuple[int, ...]]
    calibration: Calibration | None
    fpir: float
    fnir: float
    notes: tuple[str, ...] = ()


def write_memory(folder: Path, about: Mapping[str, Any], tracklets: Sequence[Tracklet], memory: Memory) -> None:
    """Write it in one step.

    Raises:
        ResourceError: the disk is full, or the folder may not be written.
    """
    links = memory.links
    reasons = {one.tracklet: one for one in links.reasons}
    cut_from = {cut.new: cut.tracklet for cut in memory.cuts}
    tracks = []
    for tracklet in sorted(tracklets, key=lambda one: one.id):
        number = tracklet.id
        identity = links.identities.get(number)
        state = "identity" if identity is not None else "second box" if number in links.second_boxes else "unknown"
        reason = reasons.get(number)
        tracks.append(
            {
                "track": number,
                "identity": identity,
                "state": state,
                "second_box_of": links.second_boxes.get(number),
                "cut_from": cut_from.get(number),
                "label": tracklet.label,
                **_extent([tracklet]),
                "rows": list(memory.rows.get(number, ())),
                "likeness": None if reason is None else reason.likeness,
                "chance": None if reason is None else reason.chance,
                "rival": None if reason is None else reason.rival,
                "rival_likeness": None if reason is None else reason.rival_likeness,
            }
        )
    write_json(
        folder / NAME,
        {
            **head_of(FORMAT, VERSION),
            **about,
            "identities": _identities(tracklets, memory),
            "tracks": tracks,
            "apart": [[*pair, why] for pair, why in sorted(memory.apart.items())],
            "cuts": [
                {"track": cut.tracklet, "new": cut.new, "frame": cut.frame, "likeness": cut.likeness}
                for cut in memory.cuts
            ],
            "doubts": [{"track": doubt.tracklet, **_without(asdict(doubt), "tracklet")} for doubt in links.doubts],
            "threshold": links.threshold,
            "calibration": None if memory.calibration is None else asdict(memory.calibration),
            "fpir": _number(memory.fpir),
            "fnir": _number(memory.fnir),
            "notes": list(memory.notes),
        },
    )


def read_memory(folder: Path) -> tuple[Memory, dict[str, Any]]:
    """What linking found, and the file as it is.

    Raises:
        InputError: there is no such file.
        FormatError: it is not of the format.
    """
    path = folder / NAME
    content = read_json(path, kind=FORMAT, version=VERSION)
    try:
        tracks = content["tracks"]
        links = Links(
            identities={one["track"]: one["identity"] for one in tracks if one["identity"] is not None},
            unknown=tuple(one["track"] for one in tracks if one["state"] == "unknown"),
            second_boxes={one["track"]: one["second_box_of"] for one in tracks if one["state"] == "second box"},
            reasons=tuple(
                Reason(
                    one["track"], one["identity"], one["likeness"], one["chance"], one["rival"], one["rival_likeness"]
                )
                for one in tracks
                if one["identity"] is not None
            ),
            doubts=tuple(Doubt(tracklet=one["track"], **_without(one, "track")) for one in content["doubts"]),
            threshold=content["threshold"],
        )
        curve = content["calibration"]
        memory = Memory(
            links=links,
            cuts=tuple(Cut(one["track"], one["new"], one["frame"], one["likeness"]) for one in content["cuts"]),
            apart={(one, other): why for one, other, why in content["apart"]},
            rows={one["track"]: tuple(one["rows"]) for one in tracks},
            calibration=None
            if curve is None
            else Calibration(**{**curve, "cosines": tuple(curve["cosines"]), "chances": tuple(curve["chances"])}),
            fpir=float("nan") if content["fpir"] is None else content["fpir"],
            fnir=float("nan") if content["fnir"] is None else content["fnir"],
            notes=tuple(content["notes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: {type(error).__name__} {error}; make the episode again") from error
    return memory, content


def _identities(tracklets: Sequence[Tracklet], memory: Memory) -> list[dict[str, Any]]:
    groups: dict[int, list[Tracklet]] = {}
    for tracklet in tracklets:
        if tracklet.id in memory.links.identities:
            groups.setdefault(memory.links.identities[tracklet.id], []).append(tracklet)
    found = []
    for identity, own in sorted(groups.items()):
        own.sort(key=lambda one: (one.observations[0].frame, one.id))
        longest = max(own, key=lambda one: len(one.observations))
        found.append(
            {
                "identity": identity,
                "label": longest.label,
                **_extent(own),
                "spans": [{"track": one.id, **_extent([one])} for one in own],
                "prototypes": [row for one in own for row in memory.rows.get(one.id, ())],
            }
        )
    return found


def _extent(tracklets: Sequence[Tracklet]) -> dict[str, Any]:
    """From when to when, and how often seen."""
    first = min((one.observations[0] for one in tracklets), key=lambda seen: seen.frame)
    last = max((one.observations[-1] for one in tracklets), key=lambda seen: seen.frame)
    return {
        "first_frame": first.frame,
        "last_frame": last.frame,
        "first_s": first.time_s,
        "last_s": last.time_s,
        "observations": sum(len(one.observations) for one in tracklets),
    }


def apart_of(tracklets: Sequence[Tracklet], flags: Mapping[str, Tensor]) -> dict[tuple[int, int], str]:
    """Pairs that square tables of flags bar, by the first table that does."""
    found: dict[tuple[int, int], str] = {}
    for one, other in combinations(range(len(tracklets)), 2):
        why = next((name for name, table in flags.items() if bool(table[one, other])), None)
        if why is not None:
            low, high = sorted((tracklets[one].id, tracklets[other].id))
            found[low, high] = why
    return found


def _number(value: float) -> float | None:
    return value if value == value else None  # NaN differs from itself, and JSON has no word for it


def _without(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name}
