"""Small episodes with people whose looks are known vectors, for the tests of galleries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import normalize

from patchatlas.reid.boxes import Observation, Tracklet
from patchatlas.reid.embed.lab import LabEmbedder
from patchatlas.reid.episode import Episode
from patchatlas.reid.files.embeddings import Embeddings, Row
from patchatlas.reid.files.memory import Memory
from patchatlas.reid.link import Links
from patchatlas.stamp import Stamp

DIM = 24
CROPS = 6


@dataclass(frozen=True)
class Walk:
    """A track: who, from which frame, how long, at which height of the picture; and its number and local identity."""

    who: int
    first: int = 0
    frames: int = 40
    row: int | None = None
    track: int | None = None
    local: int | None = None
    noise: float = 0.03
    label: str = "person"


def face(who: int) -> torch.Tensor:
    """The looks of a person; nobody else is alike."""
    return normalize(torch.randn(DIM, generator=torch.Generator().manual_seed(1000 + who), dtype=torch.float64), dim=0)


def episode(
    name: str,
    walks: Sequence[Walk],
    *,
    source: str | None = None,
    stamp: Stamp | None = None,
    faces: Callable[[int], torch.Tensor] = face,
    step: int = 1,
) -> Episode:
    """An episode at ten frames a second; walks without numbers are tracks 1, 2, ..., each an identity of its own."""
    tracklets, rows, vectors, of_track, identities = [], [], [], {}, {}
    for place, walk in enumerate(walks, start=1):
        track, local = walk.track or place, walk.local or walk.track or place
        top = 50.0 * (walk.who if walk.row is None else walk.row)
        seen = tuple(
            Observation(
                track,
                frame,
                frame / 10,
                (2.0 * (frame - walk.first), top, 2.0 * (frame - walk.first) + 20, top + 40),
                0.9,
                walk.label,
            )
            for frame in range(walk.first, walk.first + walk.frames, step)
        )
        tracklets.append(Tracklet(track, walk.label, seen))
        generator = torch.Generator().manual_seed(100 * sum(map(ord, name)) + track)
        chosen = seen[:: max(1, len(seen) // CROPS)][:CROPS]
        of_track[track] = tuple(range(len(rows), len(rows) + len(chosen)))
        identities[track] = local
        for one in chosen:
            noise = torch.randn(DIM, generator=generator, dtype=torch.float64)
            vectors.append(normalize(faces(walk.who) + walk.noise * noise, dim=0))
            rows.append(Row(track, one.frame, one.time_s, one.box, True, 1.0, {}))
    return Episode(
        Path(name),
        name,
        {"video": {"sha256": source or name, "size_hw": [720, 960]}},
        tuple(tracklets),
        Embeddings(torch.stack(vectors).float(), tuple(rows), stamp or LabEmbedder().stamp, {}),
        Memory(Links(identities, (), {}, (), (), 0.5), (), {}, of_track, None, 0.0, 0.0),
    )


def crowd(*people: int, **options: int) -> list[Walk]:
    """Walks of some people who are all there at once."""
    return [Walk(who, **options) for who in people]
