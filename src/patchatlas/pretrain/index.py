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

from filelock import FileLock, Timeout

from patchatlas import __version__
from patchatlas.errors import MissingExtraError, ResourceError, UsageError
from patchatlas.files import write_text
from patchatlas.io.disk import disk_errors
from patchatlas.io.volumes.b2nd import require_blosc2
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.sources import Fault, Source, find_volumes
from patchatlas.pretrain.cache import FORMAT, INDEX_FILE, VERSION, VolumeCache
from patchatlas.pretrain.entry import Done, make_entry, volume_id
from patchatlas.pretrain.index_report import REPORT_FILE, IndexReport, make_report
from patchatlas.pretrain.index_settings import IndexSettings

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
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> IndexReport:
    """Make, continue or renew a cache.

    Volumes whose files, and whose settings, are as they were are kept. If only what is counted changed, they are
    counted again from the cache. Order and content of the result do not depend on `workers`.

    Args:
        sources: folders that are searched, or single files.
        out: folder of the cache; made if it is not there.
        settings: how.
        workers: processes; 1 works in this one. Each needs about five times the int16 bytes of its volume, seven when
            it resamples.
        on_progress: see its type.

    Raises:
        UsageError: two sources of one name, or a cache that lies in a folder that is searched.
        InputError: a source that is not there.
        ResourceError: memory or disk, or another process writes the same cache; what was finished is kept.
        MissingExtraError: a library that a volume needs is not installed.
    """
    require_blosc2()
    began = time.monotonic()
    settings, out = settings or IndexSettings(), Path(out)
    found, faults, ignored = _find(sources, out)
    volumes = out / "volumes"
    with disk_errors(out):
        volumes.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        (out / INDEX_FILE).unlink(missing_ok=True)  # until this run is through, the cache has no index
        for partial_folder in volumes.glob(".*"):  # of a run that was killed
            shutil.rmtree(partial_folder)
        results = []
        for result in _each(found, volumes, settings, workers):
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
                left_over=sorted({p.name for p in volumes.iterdir()} - {record.id for record in records}),
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
        prefix = f"{path.resolve().name}/" if len(sources) > 1 else ""
        found += [replace(source, name=prefix + source.name) for source in here.sources]
        faults += [replace(fault, source=prefix + fault.source) for fault in here.faults]
        for suffix, count in here.ignored.items():
            ignored[suffix] = ignored.get(suffix, 0) + count
    names = [source.name for source in found]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise UsageError(f"two volumes are named {twice[0]}; give folders of different names, or the one above both")
    return found, faults, ignored


def _each(found: Sequence[Source], volumes: Path, settings: IndexSettings, workers: int) -> Iterator[_Result]:
    """The result of each source, in their order."""
    work = partial(_one, volumes=volumes, settings=settings)
    if workers <= 1:
        yield from map(work, found)
        return
    # Spawned, since a fork would copy locks that threads of blosc2, torch or ITK may hold.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(work, found)
        except BrokenProcessPool as error:
            raise ResourceError(
                "a worker was killed, most likely for want of memory; finished volumes are kept: run again with fewer "
                "--workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _one(source: Source, volumes: Path, settings: IndexSettings) -> _Result:
    """Work on one source; a volume that cannot be used is a result, too."""
    try:
        return _Result(done=make_entry(source, volumes / volume_id(source.name), settings))
    except VolumeError as error:
        return _Result(fault=Fault(source.name, error.reason, str(error)))
    except MissingExtraError as error:  # it does not survive the way from a worker: its constructor takes names
        raise UsageError(str(error)) from error


def _alone(out: Path) -> FileLock:
    """A lock on the cache; released when this process ends, however."""
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ResourceError(f"another process is indexing into {out}; wait for it, or choose another folder") from error
    return lock
