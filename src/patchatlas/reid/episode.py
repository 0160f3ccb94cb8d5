"""An episode: one video, what was seen in it, and who that was; a folder of files with a page each in docs/formats."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from patchatlas.errors import FormatError, InputError
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.calibrate import Calibration
from patchatlas.reid.files.embeddings import Embeddings, read_embeddings
from patchatlas.reid.files.memory import Memory, read_memory
from patchatlas.reid.files.run import read_log, read_run
from patchatlas.reid.files.tracks import read_observations
from patchatlas.reid.portraits import Portrait
from patchatlas.reid.track import tracklets_of
from patchatlas.stamp import Stamp


@dataclass(frozen=True, eq=False)
class Episode:
    """A finished episode, read back from its folder.

    Attributes:
        folder: where it is.
        name: of the episode.
        run: `run.json`.
        tracklets: by number, after tracks were cut; frames in the video's own count.
        embeddings: vectors of crops.
        memory: who is who, and why.
    """

    folder: Path
    name: str
    run: dict[str, Any]
    tracklets: tuple[Tracklet, ...]
    embeddings: Embeddings
    memory: Memory

    @property
    def stamp(self) -> Stamp:
        """How the vectors were made."""
        return self.embeddings.stamp

    @property
    def calibration(self) -> Calibration | None:
        """What a cosine means in this video; None where it was too short to say."""
        return self.memory.calibration

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows and columns of the upright picture."""
        rows, columns = self.run["video"]["size_hw"]
        return rows, columns

    @property
    def identities(self) -> dict[int, int]:
        """Identity of each tracklet that has one, by the tracklet's number."""
        return self.memory.links.identities

    @cached_property
    def members(self) -> dict[int, tuple[Tracklet, ...]]:
        """Tracklets of each identity, in time order."""
        found: dict[int, list[Tracklet]] = {}
        for tracklet in sorted(self.tracklets, key=lambda one: (one.observations[0].frame, one.id)):
            if tracklet.id in self.identities:
                found.setdefault(self.identities[tracklet.id], []).append(tracklet)
        return {identity: tuple(own) for identity, own in sorted(found.items())}

    @cached_property
    def portraits(self) -> dict[int, Portrait]:
        """Looks of each tracklet, by number; row k of a portrait is row `memory.rows[number][k]` of the embeddings."""
        found = {}
        for tracklet in self.tracklets:
            rows = list(self.memory.rows.get(tracklet.id, ()))
            index = [self.embeddings.rows[row] for row in rows]
            found[tracklet.id] = Portrait(
                tracklet,
                tuple(one.frame for one in index),
                self.embeddings.vectors[rows],
                torch.tensor([one.worth for one in index], dtype=torch.float64),
            )
        return found

    @property
    def video(self) -> Path:
        """Where the video lay when the episode was made.

        Raises:
            InputError: `run.log.json` is not there.
        """
        return Path(read_log(self.folder)["video"])


def read_episode(folder: str | Path) -> Episode:
    """Read a finished episode.

    Raises:
        InputError: there is no such folder, or it holds no episode, or one that is not finished.
        FormatError: a file of it is damaged, or they do not belong together.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder} holds no episode (no run.json); make one with: patchatlas reid run")
    run = read_run(folder)
    if not run.get("finished"):
        raise InputError(f"the run of {folder} was broken off; give the same command again to finish it")
    tracklets, _ = tracklets_of(read_observations(folder))
    embeddings = read_embeddings(folder)
    memory, content = read_memory(folder)
    known = {tracklet.id for tracklet in tracklets}
    if known != {one["track"] for one in content["tracks"]} or content["episode"] != run["episode"]:
        raise FormatError(f"the files in {folder} are of different runs; make the episode again with --restart")
    return Episode(folder, run["episode"], run, tuple(tracklets), embeddings, memory)
