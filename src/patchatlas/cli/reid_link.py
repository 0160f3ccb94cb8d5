"""Link EPISODES to a gallery: who is whom that has been seen before, who is new, and who cannot be told.

Identities that cannot be told wait for review: `patchatlas reid gallery review`. Linking the same episodes again
changes nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from patchatlas.cli.console import Output, emit
from patchatlas.cli.reid_run import Sets
from patchatlas.cli.threads import one_thread

if TYPE_CHECKING:
    from patchatlas.reid.gallery.match import LinkReport


class Config(Output):
    """What `patchatlas reid link` is asked to do."""

    episodes: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="EPISODE")]
    """Folders that `patchatlas reid run` made, in the order of time."""
    gallery: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The gallery; made if there is none. `gallery` beside the first episode without it."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """YAML file with settings; its section `link` counts."""
    settings: Sets = ()
    """A setting, as link.accept=0.95; see docs/formats/perception.md. May be given several times."""
    index: Literal["exact", "faiss"] = "exact"
    """How candidates are found; faiss is for large galleries."""


def run(config: Config) -> int:
    """Link, report, and return 0.

    Raises:
        UsageError: no episode is named, or settings that make no sense.
        InputError: an episode or gallery that cannot be used, or vectors of different kinds.
        ResourceError: disk.
    """
    from patchatlas.cli.main import OK
    from patchatlas.cli.reid_settings import settings_of
    from patchatlas.errors import UsageError

    if not config.episodes:
        raise UsageError("name one episode or more, as results/monday")
    settings = settings_of(preset=None, file=config.config, flags={}, assignments=config.settings)

    from patchatlas.reid.gallery.match import link_episodes

    one_thread()
    gallery = config.gallery or config.episodes[0].parent / "gallery"
    report = link_episodes(gallery, config.episodes, settings.link, index=config.index)
    emit(config, human="\n".join(describe(report)), data=report.to_json())
    return OK


def describe(report: "LinkReport") -> list[str]:
    """The report in lines for people."""
    lines = [f"gallery {report.gallery}"]
    for episode in report.episodes:
        lines.append(f"{episode.episode}: {episode.state}, {len(episode.sightings)} identities")
        for one in episode.sightings:
            whom = "unknown" if one.identity is None else f"person {one.identity}"
            why = one.why
            if one.identity is None and one.candidate is not None:
                rival = "" if one.rival is None else f" or {one.rival}"
                why += f"; may be person {one.candidate}{rival}"
            lines.append(f"  {one.local:>3} -> {whom} ({one.verdict}): {why}")
        lines += [f"  note: {note}" for note in episode.notes]
    return lines
