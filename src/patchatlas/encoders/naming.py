"""What a user may call an encoder, and what each name stands for on this machine.

A path; a hub id `owner/name`; a name of the catalogue, looked for on this machine only; or `bundled:NAME`.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from patchatlas.encoders import bundled, hub
from patchatlas.encoders.catalogue import CATALOGUE, Entry, find
from patchatlas.encoders.suffixes import SUFFIXES
from patchatlas.errors import WeightsError

INSTEAD = "--encoder bundled:sift or bundled:vit-tiny16 works now, and for reid --embedding-backend bundled"
"""What commands that only use an encoder can do without weights."""

WEIGHTS_FOLDER = "PATCHATLAS_WEIGHTS"
"""Environment variable: a folder that holds weights under the names of `names_on_disk`."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a name stands for: exactly one of `path`, `hub_id`, `bundled` is set.

    Attributes:
        path: an existing file or folder.
        hub_id: an id to be fetched.
        bundled: an encoder that comes with the package and has no weights; one that has them is a `path`.
        entry: the catalogue's entry, if the name is of one.
        sha256: what the file at `path` must have, where that is known for certain: for weights that come with the
            package.
    """

    path: Path | None = None
    hub_id: str | None = None
    bundled: str | None = None
    entry: Entry | None = None
    sha256: str | None = None


def resolve(name: str | Path, *, instead: str = INSTEAD) -> Resolved:
    """Say what a name stands for. Looks at the disk, never at the network.

    Args:
        name: a path, a hub id, a catalogue name or one that is bundled.
        instead: what to tell a user to do without any weights.

    Raises:
        WeightsError: a path that does not exist, a catalogue name whose weights are not here, or no name known.
    """
    text = str(name)
    if text.startswith(bundled.PREFIX):
        return _bundled(text.removeprefix(bundled.PREFIX))
    path = Path(text).expanduser()
    if path.exists():
        return Resolved(path=path, entry=find(path.name))
    if text in CATALOGUE:
        entry = CATALOGUE[text]
        found = find_locally(entry)
        if found is None:
            raise WeightsError(how_to_get(entry, instead=instead))
        return Resolved(path=found, entry=entry)
    if isinstance(name, str) and _looks_like_id(text):
        return Resolved(hub_id=text, entry=find(text))
    if isinstance(name, Path) or path.suffix in SUFFIXES or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise WeightsError(f"{text} does not exist; check the path to the weights")
    if text in bundled.names():
        raise WeightsError(f"no encoder is called {text!r}; you may mean {bundled.PREFIX}{text}")
    there = ", ".join(bundled.PREFIX + one for one in bundled.names())
    raise WeightsError(
        f"no encoder is called {text!r}. Possible are: a path to a file ({', '.join(SUFFIXES)}) or folder; a hub id "
        f"such as facebook/dinov2-base; {there}; or, for weights already on this machine: {', '.join(CATALOGUE)}"
    )


def _bundled(name: str) -> Resolved:
    if name in bundled.WITHOUT_WEIGHTS:
        return Resolved(bundled=name)
    if name in bundled.SHA256:
        return Resolved(path=bundled.weights_file(name), sha256=bundled.SHA256[name])
    there = ", ".join(bundled.PREFIX + one for one in bundled.names())
    raise WeightsError(f"{bundled.PREFIX}{name} is not bundled; there is: {there}")


def _looks_like_id(text: str) -> bool:
    owner = text.partition("/")[0]
    return (
        re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text) is not None
        and not text.endswith(SUFFIXES)
        and not Path(owner).is_dir()
    )


def names_on_disk(entry: Entry) -> list[str]:
    """Names under which the weights of an entry are looked for in the weights folder."""
    stems = [entry.name, *(one.partition("/")[2] for one in (entry.hf_id, entry.timm_id) if one)]
    files = [f"{entry.name}{suffix}" for suffix in SUFFIXES]
    return [*([entry.meta_file] if entry.meta_file else []), *files, *stems]


def find_locally(entry: Entry) -> Path | None:
    """The weights of an entry in the folder that $PATCHATLAS_WEIGHTS names, or else in the local hub cache."""
    folder = os.environ.get(WEIGHTS_FOLDER)
    if folder:
        for name in names_on_disk(entry):
            if (Path(folder) / name).exists():
                return Path(folder) / name
    for repo_id in (entry.hf_id, entry.timm_id):
        found = hub.cached(repo_id) if repo_id else None
        if found is not None:
            return found
    return None


def how_to_get(entry: Entry, *, instead: str = INSTEAD) -> str:
    """What to tell a user whose machine lacks the weights of an entry."""
    ids = []
    if entry.hf_id:
        ids.append(f"{entry.hf_id} ({'gated' if entry.gated else 'not gated'})")
    if entry.timm_id:
        ids.append(f"{entry.timm_id} (not gated)")
    sources = " or ".join(ids) or "its publisher"
    file = f" Its own file is {entry.meta_file}." if entry.meta_file else ""
    return (
        f"the weights of {entry.name} are not on this machine (looked in ${WEIGHTS_FOLDER} and the hub cache). "
        f"Get them from {sources}, licence {entry.licence}: give that id as the encoder to download it, or put the "
        f"file or folder into ${WEIGHTS_FOLDER}.{file} Without them, {instead}"
    )
