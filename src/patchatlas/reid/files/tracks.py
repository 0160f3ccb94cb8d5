"""`tracks.jsonl`: every box of every track, with the identity that it has been given."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from patchatlas.errors import FormatError
from patchatlas.reid.boxes import Box, Observation, Tracklet
from patchatlas.reid.files.jsonfile import head_of, read_lines, write_lines

NAME = "tracks.jsonl"
FORMAT = "patchatlas.tracks"
VERSION = 1


def write_tracks(
    folder: Path, about: Mapping[str, Any], tracklets: Sequence[Tracklet], identities: Mapping[int, int]
) -> None:
    """Write the boxes by frame and track.

    Args:
        about: `episode` and `video`, for the head.
        tracklets: of one video.
        identities: of each tracklet that has one.

    Raises:
        ResourceError: the disk is full, or the folder may not be written.
    """
    seen = sorted(
        (one for tracklet in tracklets for one in tracklet.observations), key=lambda one: (one.frame, one.track)
    )
    write_lines(
        folder / NAME,
        {**head_of(FORMAT, VERSION), **about},
        [
            {
                "frame": one.frame,
                "time_s": one.time_s,
                "track": one.track,
                "identity": identities.get(one.track),
                "box": list(one.box),
                "score": one.score,
                "label": one.label,
            }
            for one in seen
        ],
    )


def read_observations(folder: Path) -> list[Observation]:
    """The boxes, by frame and track.

    Raises:
        InputError: there is no such file.
        FormatError: it is not of the format; says which line.
    """
    path = folder / NAME
    found = []
    for number, line in enumerate(islice(read_lines(path, kind=FORMAT, version=VERSION), 1, None), start=2):
        try:
            x0, y0, x1, y1 = map(float, line["box"])
            box: Box = (x0, y0, x1, y1)
            found.append(
                Observation(
                    int(line["track"]),
                    int(line["frame"]),
                    float(line["time_s"]),
                    box,
                    float(line["score"]),
                    str(line["label"]),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path}, line {number}: {type(error).__name__} {error}") from error
    return found
