"""A folder of pictures becomes records: size, orientation, hash and bucket of each, from headers alone."""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from patchatlas.datasets.ids import image_id
from patchatlas.datasets.placement import place
from patchatlas.errors import InputError
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS, BucketRule, Hw
from patchatlas.io.images import MAX_PIXELS, read_header
from patchatlas.io.manifest import Record, RecordError, require_unique
from patchatlas.io.reasons import PictureError

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .tif .tiff .bmp .dib .ppm .pgm .pbm .pnm "  # are read
    ".gif .heic .heif .hif .avif .jxl .jp2 .j2k .psd .dng .cr2 .cr3 .nef .arw .raf .orf .rw2".split()  # are not
)
"""Files that are taken for pictures. Those of kinds that are not read become skipped records; all others are passed
over, such as captions and marks that lie beside the pictures."""

Item = TypeVar("Item")

OnProgress = Callable[[int, int, Record], None]
"""Called after each picture, in order, with how many are done, how many there are, and its record."""


def scan_folder(
    input_dir: str | Path,
    *,
    table: tuple[Hw, ...] = MEGAPIXEL_BUCKETS,
    rule: BucketRule = "log",
    skip_dirs: Collection[str | Path] = (),
    known: Iterable[Record] = (),
    max_pixels: int = MAX_PIXELS,
    min_side: int = 1,
    workers: int = 4,
    on_progress: OnProgress | None = None,
) -> list[Record]:
    """Records of all pictures in a folder and the folders below it, sorted by path.

    Hidden files and folders (their name begins with a dot) and `skip_dirs` are passed over. A picture whose header
    cannot be read becomes a record of status `skipped`, with the reason; so does a folder that cannot be listed. Damage
    among the pixels shows only when they are read.

    Args:
        input_dir: where to look.
        table: buckets (h, w) to choose from.
        rule: how the nearest bucket is found.
        skip_dirs: folders to pass over, such as the one that features are written to.
        known: records that there are already; their pictures get no new one.
        max_pixels: larger pictures are skipped as `too_large`.
        min_side: pictures with a shorter side are skipped as `too_small`.
        workers: threads; the result does not depend on them.
        on_progress: see `OnProgress`.

    Raises:
        InputError: there is no such folder, or it cannot be listed.
    """
    root = Path(input_dir)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; check --input-dir")
    seen = {os.path.abspath(source_path(record.image_path, root)) for record in known}
    found = _walk(root, "", skip={os.path.realpath(d) for d in skip_dirs}, above=(os.path.realpath(root),))
    paths = sorted(path for path in found if os.path.abspath(root / path) not in seen)

    def read(path: str) -> Record:
        record = Record(image_path=path, image_id=image_id(path))
        if (root / path).is_dir():
            return skipped(
                record, PictureError(f"cannot list the folder {path}", reason="unreadable"), path=root / path
            )
        return read_record(record, root / path, table=table, rule=rule, max_pixels=max_pixels, min_side=min_side)

    records = list(in_order(read, paths, total=len(paths), workers=workers, on_progress=on_progress))
    require_unique(records, where=str(root))
    return records


def read_record(
    record: Record,
    path: Path,
    *,
    table: tuple[Hw, ...] = MEGAPIXEL_BUCKETS,
    rule: BucketRule = "log",
    max_pixels: int = MAX_PIXELS,
    min_side: int = 1,
) -> Record:
    """A record with all that its picture's header tells and its place in a bucket, or skipped with the reason.

    Args:
        record: what is known already; caption, features and unknown fields stay.
        path: the picture file.
        table: see `scan_folder`; so are the rest.
    """
    try:
        header = read_header(path, max_pixels=max_pixels)
        if min(header.size_hw) < min_side:
            found = " x ".join(str(n) for n in header.size_hw[::-1])
            raise PictureError(f"{path} is {found} pixels, the shorter side must have {min_side}", reason="too_small")
    except PictureError as error:
        return skipped(record, error, path=path)
    rows, columns = header.size_hw
    known = replace(
        record,
        width=columns,
        height=rows,
        sha256=header.sha256,
        exif_orientation=header.orientation,
        status="ok",
        error=None,
    )
    return place(known, table, rule=rule)


def skipped(record: Record, error: PictureError, *, path: Path) -> Record:
    """The record of a picture that cannot be used, with the reason.

    The message names the picture as the manifest does, not by the `path` that it has on this machine.
    """
    message = str(error).replace(str(path), record.image_path)
    return replace(record, status="skipped", error=RecordError(type=error.reason, message=message))


def source_path(image_path: str, input_dir: str | Path) -> Path:
    """Where the picture of a record lies: an absolute path as it is, else below the input folder, else where we are.

    The last is how earlier projects wrote it. Where neither is there, it is the one below the input folder.
    """
    below = Path(input_dir) / image_path  # an absolute image_path wins over the folder
    # os.path says False, and pathlib fails, for names that no file can have.
    return Path(image_path) if not os.path.exists(below) and os.path.exists(image_path) else below


def in_order(
    work: Callable[[Item], Record], items: Iterable[Item], *, total: int, workers: int, on_progress: OnProgress | None
) -> Iterator[Record]:
    """The results of `work` in the order of `items`, made in threads; few items are taken ahead of their turn."""
    waiting: deque[Future[Record]] = deque()
    done = 0

    def first() -> Record:
        nonlocal done
        record = waiting.popleft().result()
        done += 1
        if on_progress is not None:
            on_progress(done, total, record)
        return record

    with ThreadPoolExecutor(max_workers=workers) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 4 * workers:
                yield first()
        while waiting:
            yield first()


def _walk(folder: Path, prefix: str, *, skip: Collection[str], above: tuple[str, ...]) -> Iterator[str]:
    """Posix paths, below the first folder, of all files that are taken for pictures.

    A folder that cannot be listed is given as if it were one, so that it becomes a skipped record and no silent gap.
    Links to folders are followed, but not back into a folder that they lie in.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        if not prefix:
            raise InputError(f"cannot list the folder {folder}: {error.strerror}") from error
        yield prefix.rstrip("/")
        return
    for entry in entries:
        name = prefix + entry.name
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            if PurePosixPath(entry.name).suffix.lower() in PICTURE_SUFFIXES:
                yield name
            continue
        real = os.path.realpath(entry.path)
        if real not in skip and real not in above:
            yield from _walk(Path(entry.path), f"{name}/", skip=skip, above=(*above, real))
