"""Show what `patchatlas reid run` found in a video: an annotated video and a contact sheet for each identity.

Frames have a box in the colour of whoever is in it and below them a strip of when each identity is seen. The sheets say
why tracks were merged and which were kept apart. All goes to one folder; begin with its index.html.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from patchatlas.cli.console import Output, emit, progress
from patchatlas.errors import InputError, UsageError

if TYPE_CHECKING:
    from patchatlas.io.video import Video
    from patchatlas.reid.episode import Episode

MARK, FORMAT, VERSION = "showcase.json", "patchatlas.reid-showcase", 1
"""The file by which a folder is known to be a showcase, and may be replaced."""

VIDEO = "annotated.mp4"
INDEX = "index.html"


class Config(Output):
    """What `patchatlas reid showcase` is asked to do."""

    episode: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="EPISODE")]
    """Folder of a finished episode."""
    video: Annotated[Path | None, tyro.conf.arg(metavar="VIDEO")] = None
    """Where the video is now, if it was moved; its content must be the same."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Write here; EPISODE/showcase without it. A showcase that is there already is replaced."""
    smooth: bool = False
    """Show every frame of the video, with boxes moved in straight lines between the frames that were looked at."""
    sheets_only: bool = False
    """Leave out the annotated video."""


def run(config: Config) -> int:
    """Draw, write, tell where, and return 0.

    Raises:
        UsageError: a folder that is not a showcase stands in the way, or options that contradict each other.
        InputError: no finished episode, or not its video.
        ResourceError: the disk is full, or the folder may not be written.
    """
    import json

    from patchatlas import __version__
    from patchatlas.cli.main import OK
    from patchatlas.cli.reid_pictures import Cuts, look_through, write_annotated
    from patchatlas.cli.reid_sheets import contents, sheets
    from patchatlas.files import replacing_folder, write_text
    from patchatlas.io.disk import disk_errors
    from patchatlas.reid.episode import read_episode

    if config.smooth and config.sheets_only:
        raise UsageError("--smooth is about the annotated video, which --sheets-only leaves out; give one of them")
    episode = read_episode(config.episode)
    output = config.output or config.episode / "showcase"
    _require_replaceable(output)
    video = _the_video(config, episode)
    cuts = Cuts(episode)
    with disk_errors(output), replacing_folder(output) as folder:
        with progress() as bar:
            if config.sheets_only:
                shown = 0
                look_through(episode, video, cuts, bar=bar)
            else:
                shown = write_annotated(folder / VIDEO, episode, video, cuts, smooth=config.smooth, bar=bar)
        pages = sheets(episode, cuts, back=INDEX)
        for name, page in pages.items():
            write_text(folder / name, page)
        write_text(folder / INDEX, contents(episode, cuts, video=None if config.sheets_only else VIDEO))
        about = {"format": FORMAT, "version": VERSION, "package": __version__, "episode": episode.name}
        files = [INDEX, *([] if config.sheets_only else [VIDEO]), *pages]
        write_text(folder / MARK, json.dumps({**about, "files": files}, indent=1) + "\n")
    told = f"{output / INDEX}: {len(pages)} identities"
    if not config.sheets_only:
        told += f"\n{output / VIDEO}: {shown} frames"
    data = {"episode": episode.name, "output": str(output), "identities": len(pages), "frames": shown, "files": files}
    emit(config, human=told, data=data)
    return OK


def _require_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that holds something else, and to begin where nothing could be written."""
    if not folder.absolute().parent.is_dir():
        raise InputError(f"cannot write {folder}: the folder {folder.parent} does not exist; create it first")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UsageError(
            f"--output {folder} holds other things than a showcase, which would be lost; name another folder"
        )


def _the_video(config: Config, episode: "Episode") -> "Video":
    from patchatlas.io.video import open_video

    path = config.video or episode.video
    if not path.is_file():
        raise InputError(f"the video of the episode is not at {path}; say where it is now with --video")
    if _sha256(path) != episode.run["video"]["sha256"]:
        raise InputError(
            f"{path} is not the video that the episode was made from ({episode.run['video']['name']}): their contents "
            "differ; name the right one with --video"
        )
    return open_video(path)


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
