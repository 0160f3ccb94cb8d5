"""Turn folders of CT volumes into a cache: each read once, brought into one form, compressed, counted and described.

Every volume is a folder of its own that appears whole or not at all, so a run that was stopped, by any means, is taken
up by the same call. What cannot be used is listed with its reason.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from patchatlas import __version__
from patchatlas.errors import MissingExtraError, ResourceError, UsageError
from patchatlas.files import lock_folder, write_text
from patchatlas.io.disk import disk_errors
from patchatlas.io.volumes.b2nd import require_blosc2
from patchatlas.io.volumes.reasons import VolumeError, printable
from patchatlas.io.volumes.sources import Fault, Source, find_volumes
from patchatlas.pretrain.cache import FORMAT, INDEX_FILE, VERSION, VolumeCache
from patchatlas.pretrain.entry import Done, Mask, make_entry, volume_id
from patchatlas.pretrain.former_index import continued, former_settings, require_own, require_same_values
from patchatlas.pretrain.given_mask import FILES, MaskFiles, MaskFunction, find_masks, require_sendable
from patchatlas.pretrain.index_report import REPORT_FILE, IndexReport, make_report
from patchatlas.pretrain.index_settings import Counting, IndexSettings
from patchatlas.pretrain.renamed import entries_in, take_over

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with how many volumes are done and how many there are."""


@dataclass(frozen=True)
class _Result:
    """What became of one source: exactly one of the two is there."""

    done: Done | None = None
    fault: Fault | None = None


def index_volumes(
    sources: Sequence[str | Path],
    out: str | Path,
    settings: IndexSettings | None = None,
    *,
    mask: str | Path | MaskFunction | None = None,
    verify: bool = False,
    workers: int = 1,
    anew: bool = False,
    on_progress: OnProgress | None = None,
) -> IndexReport:
    """Make, continue or renew a cache.

    Volumes whose files, and whose settings, are as they were are kept. If only what is counted changed, they are
    counted again from the cache; from their sources where these were resampled and there are mask files. Settings that
    would change the values of a cache that is there are refused unless it is to be made anew. Order and content of the
    result do not depend on `workers`.

    Args:
        sources: folders that are searched, or single files.
        out: folder of the cache; made if it is not there.
        settings: how; if not given as the cache was made, and by default where there is none.
        mask: what `body` counts in place of the body: a folder with a mask for each volume, of its name in the index
            but for the suffix, or a function. A volume whose mask is missing, cannot be read or lies on other voxels is
            listed with its reason. Another function (by its name) or another mask file (by its bytes) than before means
            counting again.
        verify: also read the values that are there and compare them with the hash that was kept of them; those that
            differ are made again. Without it only those are compared that are counted again.
        workers: processes; 1 works in this one. Each needs about five times the int16 bytes of its volume, seven when
            it resamples.
        anew: a cache that is there does not count: values may change, and settings that are not given are the defaults.
        on_progress: see its type.

    Raises:
        UsageError: two sources of one name, a cache or masks in a folder that is searched, settings of a body mask
            beside one that is given, a function that gives no mask or cannot be sent to other processes; `out` holds
            other files, or a cache of other values.
        InputError: a source or a folder of masks that is not there.
        ResourceError: memory or disk, or another process writes the same cache; what was finished is kept.
        MissingExtraError: a library that a volume needs is not installed.
    """
    require_blosc2()
    began = time.monotonic()
    out = Path(out)
    require_own(out)
    former = None if anew else former_settings(out)
    if settings is None:
        settings = IndexSettings() if former is None else continued(out, former, masked=mask is not None)
    if former is not None:
        require_same_values(out, former.drawing, settings.drawing)
    settings = _with_mask(settings, mask, workers)
    found, faults, ignored = _find(sources, out)
    unused: tuple[str, ...] = ()
    masks: Sequence[Mask]
    if isinstance(mask, str | Path):
        files = _find_masks(mask, sources)
        unused = files.unused(found)
        found, masks, without = _beside(found, files)
        faults += [*files.faults, *without]
    else:
        masks = [mask] * len(found)
    volumes = out / "volumes"
    with disk_errors(out):
        volumes.mkdir(parents=True, exist_ok=True)
    busy = ResourceError(f"another process is indexing into {out}; wait for it, or choose another folder")
    with disk_errors(out):
        lock = lock_folder(out, busy=busy)
    with lock:
        with disk_errors(out):
            (out / INDEX_FILE).unlink(missing_ok=True)  # until this run is through, the cache has no index
            for left in volumes.glob(".*"):
                if left.suffix in (".part", ".old") and left.is_dir():  # `replacing_folder` of a run that was killed
                    shutil.rmtree(left)
            take_over(found, volumes)
        results = []
        for result in _each(found, masks, volumes, settings, workers, verify):
            results.append(result)
            if on_progress is not None:
                on_progress(len(results), len(found))
        done = [result.done for result in results if result.done is not None]
        faults += [result.fault for result in results if result.fault is not None]
        records = tuple(one.record for one in done)
        cache = VolumeCache(out, records, settings.model_dump(mode="json"))
        with disk_errors(out):
            report = make_report(
                cache,
                done,
                faults,
                ignored=ignored,
                left_over=sorted(entries_in(volumes) - {record.id for record in records}),
                unused_masks=unused,
                seconds=time.monotonic() - began,
            )
            write_text(out / REPORT_FILE, json.dumps(report.to_json(), indent=2) + "\n")
            write_text(out / INDEX_FILE, json.dumps(_index(cache), indent=1) + "\n")
    return report


def _index(cache: VolumeCache) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "settings": cache.settings,
        "volumes": [record.to_json() for record in cache.records],
    }


def _find(sources: Sequence[str | Path], out: Path) -> tuple[list[Source], list[Fault], dict[str, int]]:
    """All volumes of all sources, named apart where there are several."""
    found: list[Source] = []
    faults: list[Fault] = []
    ignored: dict[str, int] = {}
    for path in map(Path, sources):
        if out.resolve().is_relative_to(path.resolve()):
            raise UsageError(f"the cache {out} lies in {path}, which is searched for volumes; choose a folder outside")
        here = find_volumes(path)
        prefix = f"{printable(path.resolve().name)}/" if len(sources) > 1 else ""
        found += [replace(source, name=prefix + source.name) for source in here.sources]
        faults += [replace(fault, source=prefix + fault.source) for fault in here.faults]
        for suffix, count in here.ignored.items():
            ignored[suffix] = ignored.get(suffix, 0) + count
    names = [source.name for source in found]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise UsageError(f"two volumes are named {twice[0]}; give folders of different names, or the one above both")
    return found, faults, ignored


def _with_mask(settings: IndexSettings, mask: str | Path | MaskFunction | None, workers: int) -> IndexSettings:
    """The settings with what they say of a mask that is given."""
    if settings.counting.mask is not None:
        raise UsageError(f"Counting.mask is {settings.counting.mask!r}; leave it out and give the mask itself")
    if mask is None:
        return settings
    if isinstance(mask, MaskFunction) and workers > 1:
        require_sendable(mask)
    label = mask.label() if isinstance(mask, MaskFunction) else FILES
    try:
        counting = Counting.model_validate({**settings.counting.model_dump(), "mask": label})
    except ValidationError as error:
        raise UsageError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
    return settings.model_copy(update={"counting": counting})


def _find_masks(folder: str | Path, sources: Sequence[str | Path]) -> MaskFiles:
    for path in map(Path, sources):
        if Path(folder).resolve().is_relative_to(path.resolve()):
            raise UsageError(f"the masks {folder} lie in {path}, which is searched for volumes; move them outside")
    return find_masks(folder)


def _beside(found: Sequence[Source], files: MaskFiles) -> tuple[list[Source], list[Mask], list[Fault]]:
    """The volumes that have a mask, their masks, and why the others have none."""
    kept: list[Source] = []
    masks: list[Mask] = []
    without: list[Fault] = []
    for source in found:
        try:
            masks.append(files.of(source))
            kept.append(source)
        except VolumeError as error:
            without.append(Fault(source.name, error.reason, str(error)))
    return kept, masks, without


def _each(
    found: Sequence[Source],
    masks: Sequence[Mask],
    volumes: Path,
    settings: IndexSettings,
    workers: int,
    verify: bool,
) -> Iterator[_Result]:
    """The result of each source, in their order."""
    work = partial(_one, volumes=volumes, settings=settings, verify=verify)
    if workers <= 1:
        yield from map(work, found, masks)
        return
    # Spawned, since a fork would copy locks that threads of blosc2, torch or ITK may hold.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(work, found, masks)
        except BrokenProcessPool as error:
            raise ResourceError(
                "a worker was killed, most likely for want of memory; finished volumes are kept: run again with fewer "
                "--workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _one(source: Source, mask: Mask, *, volumes: Path, settings: IndexSettings, verify: bool) -> _Result:
    """Work on one source; a volume that cannot be used is a result, too."""
    try:
        return _Result(done=make_entry(source, volumes / volume_id(source.name), settings, mask=mask, verify=verify))
    except MemoryError as error:
        raise ResourceError(
            f"there is not enough memory for {source.name} ({error}); finished volumes are kept: run again with fewer "
            f"--workers, or without it"
        ) from error
    except VolumeError as error:
        return _Result(fault=Fault(source.name, error.reason, str(error)))
    except OSError as error:
        raise ResourceError(
            f"the disk failed at {source.name} in {volumes} ({error}); finished volumes are kept: look after the disk "
            "and the permissions there, and run again"
        ) from error
    except MissingExtraError as error:  # it does not survive the way from a worker: its constructor takes names
        raise UsageError(str(error)) from error
