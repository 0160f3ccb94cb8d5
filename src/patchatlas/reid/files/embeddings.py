"""`embeddings.npy` and `embeddings.json`: vectors of crops, what each is of, and how they were made.

Axes: n rows, d features.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from patchatlas.errors import FormatError, InputError
from patchatlas.files import write_bytes
from patchatlas.io.disk import disk_errors
from patchatlas.reid.boxes import Box
from patchatlas.reid.files.jsonfile import head_of, read_json, write_json
from patchatlas.stamp import Stamp

NAME = "embeddings.json"
ARRAY = "embeddings.npy"
FORMAT = "patchatlas.reid-embeddings"
VERSION = 1


@dataclass(frozen=True)
class Row:
    """What a vector is of.

    Attributes:
        track: number of the track, before tracks were cut.
        frame: in the video's own count; of a clip the one in the middle.
        time_s: when that is shown.
        box: in that frame.
        valid: whether it could be embedded.
        worth: what it counts, above 0.
        quality: why, each 0..1: `confidence`, `area`, `border`, `visibility`, `sharpness`,
            `steadiness`.
    """

    track: int
    frame: int
    time_s: float
    box: Box
    valid: bool
    worth: float
    quality: dict[str, float]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of an episode.

    Attributes:
        vectors: unit length; NaN in rows that are not valid.
        rows: one a vector, by track and frame.
        stamp: how they were made; vectors of different stamps are not compared.
        about: the file, without `rows`.
    """

    vectors: Float32[Tensor, "n d"]
    rows: tuple[Row, ...]
    stamp: Stamp
    about: dict[str, Any]

    @property
    def valid(self) -> Bool[Tensor, " n"]:
        """Which rows hold a vector."""
        return torch.tensor([row.valid for row in self.rows], dtype=torch.bool)


def write_embeddings(
    folder: Path, about: Mapping[str, Any], vectors: Float32[Tensor, "n d"], rows: Sequence[Row], stamp: Stamp
) -> None:
    """Write the array, then the index, each in one step: an index that fits its array says that both are whole.

    Args:
        about: further facts for the index.

    Raises:
        ResourceError: the disk is full, or the folder may not be written.
    """
    stream = io.BytesIO()
    np.save(stream, vectors.numpy(), allow_pickle=False)
    content = stream.getvalue()
    with disk_errors(folder / ARRAY):
        write_bytes(folder / ARRAY, content)
    write_json(
        folder / NAME,
        {
            **head_of(FORMAT, VERSION),
            **about,
            "array": ARRAY,
            "sha256": sha256(content).hexdigest(),
            "shape": list(vectors.shape),
            "masked": sum(not row.valid for row in rows),
            "stamp": {"facts": dict(stamp.facts), "digest": stamp.digest},
            "rows": [{"row": number, **asdict(row), "box": list(row.box)} for number, row in enumerate(rows)],
        },
    )


def read_embeddings(folder: Path) -> Embeddings:
    """The vectors and what they are of.

    Raises:
        InputError: a file is absent.
        FormatError: a file is not of the format, or the two do not belong together.
    """
    path = folder / NAME
    about = read_json(path, kind=FORMAT, version=VERSION)
    try:
        content = (folder / ARRAY).read_bytes()
    except OSError as error:
        raise InputError(f"cannot open {folder / ARRAY}: {error.strerror}") from error
    if sha256(content).hexdigest() != about.get("sha256"):
        raise FormatError(f"{folder / ARRAY} is not the array that {path} tells of; make the episode again")
    vectors = torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))
    try:
        rows = tuple(
            Row(
                track=row["track"],
                frame=row["frame"],
                time_s=row["time_s"],
                box=_box(row["box"]),
                valid=row["valid"],
                worth=row["worth"],
                quality=row["quality"],
            )
            for row in about.pop("rows")
        )
        facts = about["stamp"]["facts"].items()
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: {type(error).__name__} {error}") from error
    if vectors.ndim != 2 or len(vectors) != len(rows):
        raise FormatError(f"{path} tells of {len(rows)} rows, {ARRAY} has the shape {tuple(vectors.shape)}")
    stamp = Stamp(tuple(sorted((name, tuple(v) if isinstance(v, list) else v) for name, v in facts)))
    return Embeddings(vectors, rows, stamp, about)


def _box(numbers: Sequence[float]) -> Box:
    x0, y0, x1, y1 = numbers
    return x0, y0, x1, y1
