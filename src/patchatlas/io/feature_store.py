"""Features on disk: one folder a kind and stamp, one file an image; sets made in different ways never mix.

Layout, below the derived folder::

    {kind}@{first 8 of the stamp's digest}/_features.json       what made this set, in full
    {kind}@{first 8 of the stamp's digest}/{image_id}.npy       or .safetensors, see `patchatlas.io.codecs`
    _old/{kind}@.../                                            sets moved aside by `backup_old`

`docs/formats/feature-store-v1.md` says what every reader and writer must do.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock
from jaxtyping import Float32
from torch import Tensor

from patchatlas import __version__
from patchatlas.errors import FormatError, InputError, StampError
from patchatlas.files import write_bytes, write_text
from patchatlas.io.codecs import STORED_DTYPES, StoredDtype, decode_array, read_header, suffix
from patchatlas.io.disk import disk_errors
from patchatlas.io.manifest import FeatureEntry
from patchatlas.io.writers import Writers
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

FORMAT = "patchatlas.feature-store"
VERSION = 1
HEADER = "_features.json"
OLD = "_old"

_SET_NAME = re.compile(r"(?P<kind>[A-Za-z0-9_-]+)@(?P<short>[0-9a-f]{8})")


@dataclass(frozen=True, kw_only=True)
class SetHeader:
    """What `_features.json` says of a set.

    Attributes:
        kind: `dinov3_patches`, `dinov3_cls`, `vae_latents`, ...
        stamp: everything that changes the numbers.
        spec: the encoder, or `None` where no encoder of ours made the set.
        config: settings of the run that began the set, for people; they take no part in any comparison.
        package: version of patchatlas that began the set.
    """

    kind: str
    stamp: Stamp
    spec: EncoderSpec | None
    config: Mapping[str, Any]
    package: str

    def to_json(self) -> str:
        """Content of `_features.json`."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "package": self.package,
            "kind": self.kind,
            "stamp_sha256": self.stamp.digest,
            "stamp": json.loads(self.stamp.to_json()),
            "spec": None if self.spec is None else asdict(self.spec),
            "config": dict(self.config),
        }
        return json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "SetHeader":
        """The inverse of `to_json`.

        Raises:
            FormatError: another format, a newer version, something missing, or a digest that is not that of the stamp.
        """
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise FormatError(f"its format is {content['format']!r}, not {FORMAT!r}")
            if content["version"] != VERSION:
                raise FormatError(
                    f"it has version {content['version']}; this patchatlas ({__version__}) reads {VERSION}"
                )
            stamp = Stamp.from_json(json.dumps(content["stamp"]))
            if stamp.digest != content["stamp_sha256"]:
                raise FormatError("its stamp was changed by hand: the digest beside it is another")
            spec = content["spec"]
            return SetHeader(
                kind=content["kind"],
                stamp=stamp,
                spec=None if spec is None else EncoderSpec(**{k: _tuple(v) for k, v in spec.items()}),
                config=content["config"],
                package=content["package"],
            )
        except (json.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
            raise FormatError(f"it cannot be read: {error}") from error


@dataclass(frozen=True, kw_only=True)
class OpenedSet:
    """A set that may now be written.

    Attributes:
        folder: where it lies.
        moved: stale sets of the same kind that were moved aside, as (from, to).
        swept: temporary files of killed runs that were removed, anywhere below the derived folder.
    """

    folder: Path
    moved: tuple[tuple[Path, Path], ...]
    swept: tuple[Path, ...]


class FeatureStore:
    """The sets of features below one folder.

    Reading needs nothing; writing needs `open_set` first. `close` (or `with`) says that this process writes no more.
    Safe to use from several threads and from several processes at once.
    """

    def __init__(self, derived_dir: str | Path) -> None:
        self.derived_dir = Path(derived_dir)
        self._writers: Writers | None = None
        self._headers: dict[Path, SetHeader] = {}

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write no more; sweeps leftovers if no other process writes here."""
        if self._writers is not None:
            self._writers.leave()
            self._writers = None

    # -- sets -------------------------------------------------------------------------------------------------------

    def folder(self, kind: str, stamp: Stamp) -> Path:
        """Where a set lies, or would lie."""
        return self.derived_dir / f"{kind}@{stamp.digest[:8]}"

    def sets(self, kind: str | None = None) -> list[Path]:
        """Folders of the sets that are there, of one kind or of all, by name."""
        if not self.derived_dir.is_dir():
            return []
        found = [(p, _SET_NAME.fullmatch(p.name)) for p in self.derived_dir.iterdir() if p.is_dir()]
        return sorted(p for p, name in found if name and kind in (None, name["kind"]))

    def header(self, folder: Path) -> SetHeader:
        """What made the set in `folder`; read once and kept.

        Raises:
            FormatError: `_features.json` is absent or damaged, or speaks of another set than the folder's name.
        """
        if folder not in self._headers:
            self._headers[folder] = _read_header(folder)
        return self._headers[folder]

    def stamp_of(self, folder: Path) -> Stamp:
        """Stamp of the set in `folder`.

        Raises:
            FormatError: as `header`.
        """
        return self.header(folder).stamp

    def open_set(
        self,
        kind: str,
        stamp: Stamp,
        *,
        spec: EncoderSpec | None,
        config: Mapping[str, Any],
        backup_old: bool = False,
    ) -> OpenedSet:
        """Make a set ready to be written, or continue one.

        A derived folder holds one set of a kind, so that no reader takes the files of two encoders for one; any other
        is stale. It is refused, or moved aside; nothing is ever deleted.

        Args:
            kind: what is stored.
            stamp: how it is made.
            spec: what made it.
            config: settings worth keeping; they must not depend on the worker, so that every worker writes equal bytes.
            backup_old: move stale sets of this kind to `_old/` instead of refusing.

        Raises:
            StampError: there is a stale set; the message names the facts that differ.
            FormatError: the set that is there cannot be read.
            ResourceError: the disk is full, or the folder may not be written.
        """
        wanted = SetHeader(kind=kind, stamp=stamp, spec=spec, config=config, package=__version__)
        folder = self.folder(kind, stamp)
        if not _SET_NAME.fullmatch(f"{kind}@{stamp.digest[:8]}"):
            raise FormatError(f"{kind!r} cannot name a kind of feature; take letters, digits, _ and -")
        with disk_errors(folder):
            self.derived_dir.mkdir(parents=True, exist_ok=True)
            if self._writers is None:
                self._writers = Writers(self.derived_dir)
            with FileLock(self.derived_dir / ".sets.lock"):  # two workers that start together see one state
                moved = tuple(self._move_stale(wanted) if backup_old else self._refuse_stale(wanted))
                # A folder that holds nothing but a hidden leftover is one whose first worker was killed here.
                if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
                    self.header(folder).stamp.require(stamp, what=f"features in {folder}")
                else:
                    folder.mkdir(exist_ok=True)
                    write_text(folder / HEADER, wanted.to_json())
        return OpenedSet(folder=folder, moved=moved, swept=tuple(self._writers.swept))

    def _refuse_stale(self, wanted: SetHeader) -> list[tuple[Path, Path]]:
        for folder in self._stale(wanted):
            try:
                self.header(folder).stamp.require(wanted.stamp, what=f"features ({folder.name} and the ones asked for)")
            except (StampError, FormatError) as error:
                raise type(error)(
                    f"{error}. Or move the old set aside with --backup-old, or take another --derived-dir"
                ) from error
        return []

    def _move_stale(self, wanted: SetHeader) -> list[tuple[Path, Path]]:
        moved = []
        for folder in self._stale(wanted):
            old = self.derived_dir / OLD
            old.mkdir(exist_ok=True)
            names = itertools.chain([folder.name], (f"{folder.name}.{k}" for k in itertools.count(2)))
            target = next(old / name for name in names if not (old / name).exists())
            folder.rename(target)
            self._headers.pop(folder, None)
            moved.append((folder, target))
        return moved

    def _stale(self, wanted: SetHeader) -> list[Path]:
        return [folder for folder in self.sets(wanted.kind) if folder != self.folder(wanted.kind, wanted.stamp)]

    # -- files ------------------------------------------------------------------------------------------------------

    def write(
        self,
        kind: str,
        stamp: Stamp,
        image_id: str,
        content: bytes,
        *,
        grid: tuple[int, ...] | None,
        dim: int,
        dtype: StoredDtype,
    ) -> FeatureEntry:
        """Write the file of one image in one step, and say what was written.

        The bytes are on the disk under a temporary name before the file gets its own, so a file that is there is whole.
        That the name outlives a loss of power is left to `sync_folder` of the set, once for many files.

        Args:
            kind: as given to `open_set`.
            stamp: as given to `open_set`.
            image_id: name of the file; no dots or slashes.
            content: what `encode_array` made.
            grid: (rows, cols) of patches or latents; `None` for CLS and registers.
            dim: length of a token, or channels of latents.
            dtype: how the values are stored.

        Raises:
            FormatError: an id that cannot name a file.
            InputError: the set was not opened.
            ResourceError: the disk is full, or the folder may not be written.
        """
        if not image_id or not image_id.isprintable() or set("./\\") & set(image_id):
            raise FormatError(
                f"image id {image_id!r} cannot name a file: it must be printable, without dots and slashes"
            )
        path = self.folder(kind, stamp) / f"{image_id}{suffix(dtype)}"
        with disk_errors(path):
            write_bytes(path, content, sync_name=False)
        return FeatureEntry(
            file=path.relative_to(self.derived_dir).as_posix(),
            grid=grid,
            dim=dim,
            dtype=dtype,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            stamp=stamp.digest,
        )

    def path(self, entry: FeatureEntry) -> Path:
        """Where the file of an entry lies.

        Raises:
            FormatError: the entry leads out of the derived folder.
        """
        parts = PurePosixPath(entry.file).parts
        if len(parts) != 2 or ".." in parts or "\\" in entry.file or entry.file.startswith("/"):
            raise FormatError(
                f"the manifest names the file {entry.file!r}, which is not SET/FILE below the derived folder"
            )
        return self.derived_dir.joinpath(*parts)

    def require(self, entry: FeatureEntry) -> Path:
        """The file of an entry, after checking that it belongs to its set and has the announced size, dtype and shape.

        Raises:
            InputError: there is no such file.
            StampError: the entry was made in another way than the set it lies in.
            FormatError: size, dtype or shape are not what the entry says.
        """
        path = self.path(entry)
        set_stamp = self.stamp_of(path.parent)
        if entry.stamp != set_stamp.digest:
            raise StampError(
                f"the manifest says that {entry.file} was made under stamp {entry.stamp[:8]}, but it lies in a set of "
                f"stamp {set_stamp.digest[:8]}; build again, with --backup-old if the encoder or a setting changed"
            )
        if not path.is_file():
            raise InputError(f"there is no file {path}; build again")
        if path.stat().st_size != entry.bytes:
            raise FormatError(f"{path} has {path.stat().st_size} bytes, the manifest says {entry.bytes}; build again")
        found = read_header(path)
        if found.dtype != entry.dtype or not _shape_fits(found.shape, entry):
            raise FormatError(
                f"{path} holds {found.dtype} of shape {found.shape}, the manifest says {entry.dtype}, grid "
                f"{entry.grid}, dim {entry.dim}; build again"
            )
        return path

    def read(self, entry: FeatureEntry, *, check_hash: bool = False) -> Float32[Tensor, "..."]:
        """The features of an entry: patches (n, d), CLS (d), registers (r, d), latents (c, h, w).

        Args:
            entry: from the manifest.
            check_hash: also compare the SHA-256 of the file.

        Raises:
            InputError: there is no such file.
            StampError: the entry was made in another way than the set it lies in.
            FormatError: the file is not what the entry says.
        """
        path = self.require(entry)
        if not check_hash:
            return decode_array(path, _dtype(entry))
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != entry.sha256:
            raise FormatError(f"{path} has SHA-256 {found}, the manifest says {entry.sha256}; build again")
        return decode_array(content, _dtype(entry))


def require_own(entry: FeatureEntry, kind: str, image_id: str) -> None:
    """Refuse an entry whose file, by its name, is of another picture or kind than the record has it as.

    Raises:
        FormatError: it is.
    """
    folder, _, name = entry.file.partition("/")
    if (folder.partition("@")[0], PurePosixPath(name).stem) != (kind, image_id):
        raise FormatError(
            f"the manifest names {entry.file} as {kind} of {image_id}; a file has the names of its kind and picture; "
            "run `features verify --fix`, then build again"
        )


def _read_header(folder: Path) -> SetHeader:
    path = folder / HEADER
    if not path.is_file():
        raise FormatError(f"{folder} has no {HEADER}, so nobody knows what made its features")
    try:
        header = SetHeader.from_json(path.read_text(encoding="utf-8"))
    except (FormatError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be used: {error}") from error
    if folder.name != f"{header.kind}@{header.stamp.digest[:8]}":
        raise FormatError(f"{path} speaks of {header.kind}@{header.stamp.digest[:8]}, not of the folder it lies in")
    return header


def _shape_fits(shape: tuple[int, ...], entry: FeatureEntry) -> bool:
    """Tokens (n, d), CLS (d), registers (r, d), or channels first over a grid."""
    if entry.grid is None:
        return len(shape) in (1, 2) and shape[-1] == entry.dim
    return shape in ((math.prod(entry.grid), entry.dim), (entry.dim, *entry.grid))


def _dtype(entry: FeatureEntry) -> StoredDtype:
    """The dtype of an entry that `FeatureStore.require` has passed."""
    return next(dtype for dtype in STORED_DTYPES if dtype == entry.dtype)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
