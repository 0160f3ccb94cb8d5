"""From a video to who was in it: read, detect, track, embed, link, written as an episode.

    engine = PerceptionEngine(make_config(preset="fast"))
    episode = engine.process_video("street.mp4", output="results")
    for identity, tracklets in episode.members.items(): ...

Every stage leaves a file, made in one step and marked with all that it depends on. A run that was killed goes on where
it was and ends in the same bytes.
"""

import json
import logging
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from patchatlas import __version__
from patchatlas.errors import InputError, UsageError
from patchatlas.io.disk import disk_errors
from patchatlas.io.video import Video, open_video
from patchatlas.reid.config import ReidConfig
from patchatlas.reid.detect.detector import Chosen
from patchatlas.reid.detect.loading import load_detector
from patchatlas.reid.embed.backend import Backend, load_backend
from patchatlas.reid.episode import Episode, read_episode
from patchatlas.reid.files import detections as detections_file
from patchatlas.reid.files import embeddings as embeddings_file
from patchatlas.reid.files import memory as memory_file
from patchatlas.reid.files import tracks as tracks_file
from patchatlas.reid.files.embeddings import Embeddings, read_embeddings
from patchatlas.reid.files.memory import Memory, write_memory
from patchatlas.reid.files.run import NAME as RUN
from patchatlas.reid.files.run import read_run, write_log, write_run
from patchatlas.reid.files.tracks import write_tracks
from patchatlas.reid.link import observations_of
from patchatlas.reid.motchallenge import rows_of, write_rows
from patchatlas.reid.stages.alone import alone_in
from patchatlas.reid.stages.clock import Clock, Report, silent
from patchatlas.reid.stages.detect import detect
from patchatlas.reid.stages.embed import embed, facts_of
from patchatlas.reid.stages.follow import Followed, follow
from patchatlas.reid.stages.keys import differences, file_hash, key_of
from patchatlas.reid.stages.linking import join

MOT = "mot.txt"

FILES = (
    detections_file.NAME,
    embeddings_file.ARRAY,
    embeddings_file.NAME,
    tracks_file.NAME,
    memory_file.NAME,
    MOT,
)
"""Of a finished episode, beside `run.json`; the same video and settings give the same bytes."""

_PACKAGES = ("av", "numpy", "opencv-python-headless", "scipy", "torch", "trackers")
_OF_TRANSFORMERS = ("vjepa2", "convnext")
"""Families of encoders that transformers runs."""

_OF_BOXES = ("av", "numpy", "opencv-python-headless", "torch")
"""Packages on which boxes depend; those of `_PLAIN` detectors on no others."""

_PLAIN = ("motion", "boxes", "hog")

_SPELT = ("config.detection.boxes",)
"""Settings that may be spelt in another way: the files that they name are compared by hash, under `inputs`."""

_FRESH = ("hog", "saliency")
"""Detectors that see each frame for itself."""

log = logging.getLogger(__name__)


class PerceptionEngine:
    """Makes episodes of videos, all under one config. The encoder is loaded once.

    Args:
        config: all settings; the defaults if not given.
    """

    def __init__(self, config: ReidConfig | None = None) -> None:
        self.config = config or ReidConfig()
        self._backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """What makes vectors; loaded when first asked for.

        Raises:
            WeightsError: weights that are absent, not whole, or of another family than the backend.
        """
        if self._backend is None:
            self._backend = load_backend(self.config.embedding)
        return self._backend

    def process_video(
        self,
        path: str | Path,
        *,
        episode: str | None = None,
        output: str | Path = "results",
        restart: bool = False,
        report: Report = silent,
    ) -> Episode:
        """Make an episode of a video, or go on with it, or read it if it is finished.

        Args:
            path: the video.
            episode: name of the episode, and of its folder; that of the video without its suffix if not given.
            output: folder of episodes; made if it is not there.
            restart: accept that the episode was begun with other settings; what they do not change is kept.
            report: told how far each stage is.

        Raises:
            UsageError: a name that is no name of a folder, or settings that do not go together.
            InputError: no such video, one that cannot be read, or an episode that was begun in another way or that
                another run is at work on.
            WeightsError: an encoder or detector that cannot be had.
            ResourceError: memory or disk; what was written is intact, and the same call goes on.
        """
        path = Path(path)
        folder = Path(output) / _name(path.stem if episode is None else episode)
        clock, began = Clock(), time.perf_counter()
        with clock.timing("open"):
            video = open_video(path)
            asked, detector = self._asked(video, folder.name)
        if _is_done(folder, asked, restart=restart):
            log.info("%s is finished already", folder)
            return read_episode(folder)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):
            if not _is_done(folder, asked, restart=restart):  # else another run has ended meanwhile
                write_run(folder, {**asked, "finished": False})
                run = _Run(video, self.config, self.backend, detector, folder, asked, clock, report)
                result = run.through()
                write_run(folder, {**asked, "finished": True, **result})
                write_log(folder, run.logged(path, time.perf_counter() - began))
            return read_episode(folder)

    def _asked(self, video: Video, name: str) -> tuple[dict[str, Any], Chosen]:
        """All that the result depends on, and the detector."""
        config, facts = self.config, video.facts
        detector = load_detector(config.detection, fps=_rate(video, config), encoder=self.backend.encoder)
        named = {"detection.boxes": config.detection.boxes}
        ways = (self.backend.clips, self.backend.regions, self.backend.crops)
        stamps = {kind: way.stamp.digest for kind, way in zip(("clips", "frame", "crops"), ways, strict=True) if way}
        asked = {
            "episode": name,
            "video": {
                "name": video.path.name,
                "sha256": file_hash(video.path),
                "size_hw": list(facts.size_hw),
                "frames": facts.frames,
                "duration_s": float(facts.duration),
                "rate": float(facts.rate),
                "variable_rate": facts.variable_rate,
                "orientation": facts.orientation,
                "container": facts.container,
                "codec": facts.codec,
            },
            "config": config.model_dump(mode="json"),
            "inputs": {setting: file_hash(file) for setting, file in named.items() if file is not None},
            "detector": detector.facts,
            "encoder": facts_of(self.backend.crops.spec),
            "stamps": stamps,
            "versions": _versions(config, self.backend),
        }
        return asked, detector


class _Run:
    """One pass through the stages."""

    def __init__(
        self,
        video: Video,
        config: ReidConfig,
        backend: Backend,
        detector: Chosen,
        folder: Path,
        asked: Mapping[str, Any],
        clock: Clock,
        report: Report,
    ) -> None:
        self._video, self._config, self._backend, self._detector = video, config, backend, detector
        self._folder, self._asked, self._clock, self._report = folder, asked, clock, report
        self._about = {"episode": asked["episode"], "video": asked["video"]}
        self._logged: dict[str, Any] = {}

    def through(self) -> dict[str, Any]:
        """All stages; what `run.json` says of their result."""
        config, folder, clock = self._config, self._folder, self._clock
        fps = _rate(self._video, config)
        name = config.detection.detector
        versions = self._asked["versions"]
        key = key_of(
            package=__version__,
            versions={one: versions[one] for one in versions if one in _OF_BOXES or name not in _PLAIN},
            video=self._asked["video"],
            fps=config.fps,
            detection=config.detection.model_dump(mode="json", exclude={"boxes"}),  # its hash is among the inputs
            detector=self._detector.facts,
            inputs=self._asked["inputs"],
        )
        detect(
            self._video,
            self._detector,
            fps=config.fps,
            folder=folder,
            about=self._about,
            key=key,
            learns=name not in _FRESH and not name.startswith("hf:"),
            clock=clock,
            report=self._report,
        )
        followed = follow(folder, config.tracking, fps=fps, size_hw=self._video.facts.size_hw, clock=clock)
        hits = embed(
            self._video,
            followed,
            self._backend,
            config.embedding,
            fps=config.fps,
            folder=folder,
            about=self._about,
            key=key_of(boxes=key, versions=versions, tracking=config.tracking.model_dump(mode="json")),
            clock=clock,
            report=self._report,
        )
        embeddings = read_embeddings(folder)
        with clock.timing("link"):
            tracklets, memory = join(followed.tracklets, embeddings, config.link, ranks=followed.ranks, fps=fps)
        identities = memory.links.identities
        write_tracks(folder, self._about, tracklets, identities)
        write_memory(folder, {**self._about, "stamp": embeddings.stamp.digest}, tracklets, memory)
        with disk_errors(folder / MOT):
            write_rows(folder / MOT, rows_of(observations_of(tracklets, identities)))
        self._logged = {"frames": len(followed.ranks), "crops": len(embeddings.rows), "known_to_cache": hits}
        return self._result(followed, embeddings, memory)

    def _result(self, followed: Followed, embeddings: Embeddings, memory: Memory) -> dict[str, Any]:
        head = detections_file.read_head(self._folder)
        links = memory.links
        notes = list(memory.notes)
        if not followed.boxes:
            notes.append("nothing was found in any frame that was looked at")
        if head["not_shown"]:
            notes.append(f"{head['not_shown']} boxes of the file lie at frames that were not looked at")
        if embeddings.about["masked"]:
            notes.append(f"{embeddings.about['masked']} crops could not be embedded; they count for nothing")
        return {
            "stamp": {"facts": dict(embeddings.stamp.facts), "digest": embeddings.stamp.digest},
            "counts": {
                "frames": len(followed.ranks),
                "boxes": followed.boxes,
                "dropped": head["dropped"],
                "tracks": len(followed.tracklets),
                "short_tracks": followed.short,
                "crops": len(embeddings.rows),
                "masked": embeddings.about["masked"],
                "identities": len(set(links.identities.values())),
                "unknown": len(links.unknown),
                "second_boxes": len(links.second_boxes),
                "cuts": len(memory.cuts),
                "doubts": len(links.doubts),
            },
            "problems": head["problems"],
            "notes": notes,
            "files": {name: file_hash(self._folder / name) for name in FILES},
        }

    def logged(self, path: Path, seconds: float) -> dict[str, Any]:
        """What `run.log.json` says."""
        clock = self._clock
        return {
            "video": str(path.absolute()),
            "seconds": seconds,
            "seconds_by_work": dict(sorted(clock.seconds.items())),
            "cpu_seconds_by_work": dict(sorted(clock.cpu_seconds.items())),
            **self._logged,
        }


def _rate(video: Video, config: ReidConfig) -> float:
    """Frames that are looked at in a second: a video may have fewer than were asked for."""
    return min(config.fps, float(video.facts.rate))


def _name(name: str) -> str:
    if not name or name in (".", "..") or any(sign in name for sign in "/\\:\0") or name.startswith("."):
        raise UsageError(f"an episode is named like a folder, without / \\ : and no dot in front, given {name!r}")
    return name


def _is_done(folder: Path, asked: Mapping[str, Any], *, restart: bool) -> bool:
    """Whether an episode is there, finished and whole.

    Raises:
        InputError: it was begun in another way, and `restart` does not allow that.
    """
    if not (folder / RUN).is_file():
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise InputError(f"{folder} is a folder with other files in it; choose another name for the episode")
        return False
    before = read_run(folder)
    now = json.loads(json.dumps({"package": __version__, **asked}))  # as it is read back
    changed = differences({name: before.get(name) for name in now}, now, but=_SPELT)
    if changed and not restart:
        raise InputError(
            f"{folder} was made in another way:\n  "
            + "\n  ".join(changed)
            + "\ngive the same settings, another name for the episode, or --restart to make it anew (what they do not "
            "change is kept)"
        )
    if changed or not before.get("finished"):
        return False
    return all((folder / name).is_file() and file_hash(folder / name) == before["files"][name] for name in FILES)


def _versions(config: ReidConfig, backend: Backend) -> dict[str, str]:
    """Of the packages that have a part in the result: one that is installed for something else changes nothing."""
    foreign = backend.crops.spec.family in _OF_TRANSFORMERS or config.detection.detector.startswith("hf:")
    found = {}
    for name in (*_PACKAGES, "transformers") if foreign else _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # an extra that is not installed
    return found
