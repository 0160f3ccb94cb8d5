"""Find who is in a video: detect, track, embed, link; writes an episode.

A run that was stopped, also by a kill, goes on where it was when the same command is given again. Exit code 3 when
parts of the video, boxes or crops could not be used; the result and `run.json` list them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from patchatlas.cli.console import Output, emit, progress
from patchatlas.cli.threads import one_thread

if TYPE_CHECKING:
    from patchatlas.reid.episode import Episode

Sets = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="set", metavar="SETTING=VALUE")
]  # fmt: skip

BY_CHOICE = (
    "another label",
    "low score",
    "small",
    "crowd",
    "ground truth that is not scored",
    "most of the frame moves",
    "few patches",
    "little contrast",
    "most of the frame",
)
"""Reasons for leaving out boxes that are no fault of theirs."""

LOST = 0.3
"""Share of boxes in no track from which a person is told."""


class Config(Output):
    """What `patchatlas reid run` is asked to do."""

    video: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """The video."""
    episode: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the episode, and of its folder; that of the video without it."""
    output: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("results")
    """Folder of episodes."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """YAML file with settings; flags go before it."""
    preset: Annotated[str | None, tyro.conf.arg(metavar="dinov3|dinov2|vjepa2|fast")] = None
    """Settings to begin with."""
    embedding_backend: Annotated[str | None, tyro.conf.arg(metavar="bundled|dinov2|dinov3|vjepa2|NAME|PATH")] = None
    """What makes vectors; bundled (colours, no weights) without it."""
    dinov3_weights: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER|FILE")] = None
    """DINOv3 weights; only with --embedding-backend dinov3."""
    embedding_model: Annotated[str | None, tyro.conf.arg(metavar="NAME|PATH")] = None
    """Which encoder of the backend; the base size without it."""
    device: Annotated[str | None, tyro.conf.arg(metavar="auto|cpu|cuda|cuda:N|mps")] = None
    """Where the encoder runs; the best there is without it."""
    fps: Annotated[float | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Frames looked at in a second of video; 4 without it."""
    detector: Annotated[
        str | None, tyro.conf.arg(metavar="motion|boxes|hog|saliency|hf:NAME|MODULE:FUNCTION")
    ] = None  # fmt: skip
    """How boxes are found; motion without it."""
    boxes: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Boxes that are known already: MOTChallenge .txt, COCO .json or .jsonl."""
    settings: Sets = ()
    """Any other setting, as link.threshold=0.6; see docs/formats/perception.md. May be given several times."""
    restart: bool = False
    """Make an episode anew that was begun with other settings; what they do not change is kept."""


def run(config: Config) -> int:
    """Make the episode, print what came of it, and return 0, or 3 if something could not be used.

    Raises:
        UsageError: settings that make no sense.
        InputError: a video or file that cannot be used, or an episode that was begun with other settings.
        WeightsError: an encoder or detector that cannot be had.
        ResourceError: memory or disk.
    """
    from patchatlas.cli.main import OK, SKIPPED
    from patchatlas.cli.reid_settings import settings_of

    detector = "boxes" if config.detector is None and config.boxes is not None else config.detector
    settings = settings_of(
        preset=config.preset,
        file=config.config,
        flags={
            "embedding.backend": config.embedding_backend,
            "embedding.dinov3_weights_dir": config.dinov3_weights,
            "embedding.model": config.embedding_model,
            "embedding.device": config.device,
            "detection.detector": detector,
            "detection.boxes": config.boxes,
            "fps": config.fps,
        },
        assignments=config.settings,
    )

    from patchatlas.reid.engine import PerceptionEngine

    if settings.embedding.backend == "bundled":
        one_thread()
    with shown() as report:
        episode = PerceptionEngine(settings).process_video(
            config.video, episode=config.episode, output=config.output, restart=config.restart, report=report
        )
    lost = left_out(episode)
    emit(config, human="\n".join(describe(episode, lost)), data={"folder": str(episode.folder), **episode.run})
    return SKIPPED if lost else OK


@contextmanager
def shown() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for each stage, with its frames a second."""
    began: dict[str, float] = {}
    with progress() as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                began[stage], tasks[stage] = time.perf_counter(), bar.add_task(stage, total=total)
            speed = (done - 1) / max(time.perf_counter() - began[stage], 1e-9)
            bar.update(tasks[stage], completed=done, description=f"{stage}, {speed:.1f} frames/s")

        yield report


def left_out(episode: "Episode") -> list[str]:
    """What could not be used, in lines."""
    counts = episode.run["counts"]
    lines = [f"the video is {kind}: {message}" for kind, message in episode.run["problems"].items()]
    lines += [f"{n} boxes left out: {why}" for why, n in counts["dropped"].items() if why not in BY_CHOICE]
    if counts["masked"]:
        lines.append(f"{counts['masked']} of {counts['crops']} crops could not be embedded")
    return lines


def describe(episode: "Episode", lost: list[str]) -> list[str]:
    """The result in lines for people."""
    run, memory = episode.run, episode.memory
    counts, video = run["counts"], run["video"]
    lines = [
        f"{episode.folder}: {counts['frames']} frames of {video['duration_s']:.1f} s, {counts['boxes']} boxes, "
        f"{counts['tracks']} tracks, {counts['identities']} identities",
        f"unknown: {counts['unknown']} tracks; to review: {counts['doubts']}; second boxes: {counts['second_boxes']}; "
        f"cut: {counts['cuts']}",
    ]
    if counts["short_tracks"]:
        kept = sum(len(one.observations) for one in episode.tracklets)
        lost_share = 1 - kept / max(1, counts["boxes"])
        line = f"left out: {counts['short_tracks']} tracks too short to say anything"
        if lost_share > LOST:
            line += f"; {100 * lost_share:.0f} % of all boxes are in no track, a higher --fps may keep them"
        lines.append(line)
    if (folder := episode.folder / "showcase").is_dir() and folder.stat().st_mtime < (
        episode.folder / "run.json"
    ).stat().st_mtime:
        lines.append("showcase/ is of an earlier run; make it again with `patchatlas reid showcase`")
    if memory.calibration is not None:
        lines.append(
            f"joined from a cosine of {memory.links.threshold:.3f}, learnt from {memory.calibration.same} tracks and "
            f"{memory.calibration.different} pairs seen together (calibration error {memory.calibration.ece:.3f})"
        )
    for identity, tracklets in episode.members.items():
        spans = ", ".join(f"{one.observations[0].time_s:.1f}-{one.observations[-1].time_s:.1f} s" for one in tracklets)
        lines.append(f"  {identity:>3} {tracklets[0].label}: {spans}")
    lines += [f"note: {note}" for note in run["notes"]]
    return [*lines, *(f"not used: {line}" for line in lost)]
