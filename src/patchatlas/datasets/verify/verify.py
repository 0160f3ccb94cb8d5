"""Verify a data set: manifest, sets and files, one picture at a time in threads, then what only comparison shows."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from patchatlas.datasets.build.journal import read_journal
from patchatlas.datasets.build.merge import journals_of, merge
from patchatlas.datasets.verify.contents import Looked, look
from patchatlas.datasets.verify.expected import recipe_of
from patchatlas.datasets.verify.records import compare_source, incomplete, misplaced, read_lines
from patchatlas.datasets.verify.report import Finding, Report, in_order
from patchatlas.datasets.verify.sets import known_stamps, mixed_sets, read_headers, unnamed_files
from patchatlas.datasets.verify.statistics import copies, norms_of, one_size_for_all, unusual_lengths
from patchatlas.errors import FormatError, InputError, ShapeError
from patchatlas.geometry.area import match_latents
from patchatlas.io.feature_store import FeatureStore, SetHeader
from patchatlas.io.images import MAX_PIXELS
from patchatlas.io.manifest import Record

OnProgress = Callable[[int, int], None]
"""Called with pictures done and pictures in all."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def verify(
    manifest: str | Path,
    derived_dir: str | Path,
    *,
    input_dir: str | Path | None = None,
    values: bool = True,
    latent_stride: int | None = None,
    latent_patch: int = 2,
    max_pixels: int = MAX_PIXELS,
    workers: int = 4,
    on_progress: OnProgress | None = None,
) -> Report:
    """Check all that can be checked without an encoder. Nothing is written; a build may run meanwhile.

    Holds the files of `workers` pictures at a time, and some hundred bytes a file.

    Args:
        manifest: of version 3.
        derived_dir: where the features lie.
        input_dir: where the pictures lie; with it they are compared with the manifest.
        values: read the files: hashes and numbers. Without it only sizes and headers are looked at.
        latent_stride: pixels to a latent pixel; with it, patches must meet the tokens of a latent model.
        latent_patch: latent pixels to a token.
        max_pixels: larger pictures cannot be compared; as when the features were built.
        workers: threads; the report does not depend on them.
        on_progress: see `OnProgress`.

    Raises:
        InputError: there is no such manifest or folder.
        FormatError: a line of the manifest that is no JSON object.
    """
    store = FeatureStore(derived_dir)
    if not store.derived_dir.is_dir():
        raise InputError(f"there is no folder {derived_dir}; check --derived-dir")
    lines = read_lines(Path(manifest))
    records, findings = _with_journals(lines.records, store)
    findings = [*lines.findings, *findings]
    headers, unknown = read_headers(store)
    findings += [*unknown, *mixed_sets(headers)]
    stamps = known_stamps(store, headers)
    by_set = {folder.name: header for folder, header in headers.items()}

    encoded = [record for record in records if record.status == "ok"]
    kinds = Counter(kind for record in encoded for kind in record.features)
    if kinds:
        kinds.update({header.kind: 0 for header in headers.values()})  # those that no record has
    else:
        sentence = f"None of {len(records)} pictures has features."
        findings.append(Finding(fault="nothing_to_verify", sentence=sentence))

    def check(record: Record) -> tuple[list[Finding], list[Looked]]:
        found, seen = look(record, store, values=values, name_stamp=stamps.get)
        found += _placed(record, by_set)
        found += incomplete(record, kinds, records=len(encoded))
        if input_dir is not None:
            found += compare_source(record, Path(input_dir), max_pixels=max_pixels)
        return found, seen

    looked: list[Looked] = []
    for done, (found, seen) in enumerate(_in_threads(check, encoded, workers=workers), start=1):
        findings += found
        looked += seen
        if on_progress is not None:
            on_progress(done, len(encoded))
    findings += [*one_size_for_all(looked), *unusual_lengths(looked), *copies(looked)]
    findings += unnamed_files(store, {entry.file for record in records for entry in record.features.values()})
    if latent_stride is not None:
        findings += _apart_from_latents(headers, latent_stride, latent_patch)
    return Report(
        records=lines.count,
        files=len(looked),
        bytes=sum(file.bytes for file in looked),
        findings=in_order(findings),
        norms=norms_of(looked),
    )


def _with_journals(records: Sequence[Record], store: FeatureStore) -> tuple[list[Record], list[Finding]]:
    """The records with what workers have finished since the manifest was written."""
    news, findings = [], []
    for path in journals_of(store.derived_dir):
        try:
            news += read_journal(path)
        except FormatError as error:
            name = path.relative_to(store.derived_dir).as_posix()
            text = str(error).replace(str(path), name)
            findings.append(Finding(fault="bad_journal", sentence=f"{text}.", file=name))
    return merge(records, news, store.derived_dir), findings


def _placed(record: Record, headers: Mapping[str, SetHeader]) -> list[Finding]:
    """Bucket and crop of a record against each recipe that made features of it."""
    recipes = set()
    for entry in record.features.values():
        header = headers.get(entry.file.partition("/")[0])
        if header is not None:
            try:
                recipes.add(recipe_of(header.stamp))
            except FormatError:  # said once for the whole set
                continue
    by_fault = {}
    for recipe in sorted(recipes, key=str):
        for finding in misplaced(record, recipe):
            by_fault[finding.fault] = finding
    return list(by_fault.values())


def _apart_from_latents(headers: Mapping[Path, SetHeader], stride: int, patch: int) -> Iterator[Finding]:
    """Sets of patches that neither meet the tokens of a latent model one to one nor are resampled to them."""
    resampled = {header.kind for header in headers.values() if header.kind.endswith("_latent_patches")}
    for folder, header in sorted(headers.items()):
        family, _, rest = header.kind.rpartition("_")
        if rest != "patches" or header.kind in resampled or f"{family}_latent_patches" in resampled:
            continue
        if header.spec is None:
            continue
        try:
            buckets = recipe_of(header.stamp).buckets
            cells = (header.spec.patch[0], header.spec.patch[-1])
            matches = [match_latents(b, patch=cells, latent_stride=stride, latent_patch=patch) for b in buckets]
            apart = [match.describe() for match in matches if not match.one_to_one]
        except FormatError:  # said once for the whole set
            continue
        except ShapeError as error:
            apart = [str(error)]
        if apart:
            sentence = f"{folder.name}: {apart[0]}."
            yield Finding(
                fault="latents_do_not_meet", sentence=sentence, kind=header.kind, evidence={"buckets": len(apart)}
            )


def _in_threads(work: Callable[[Item], Result], items: Sequence[Item], *, workers: int) -> Iterator[Result]:
    """Results in the order of `items`, with a few of them under way at any time."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        remaining = iter(items)
        under_way = [pool.submit(work, item) for item in islice(remaining, 2 * workers)]
        while under_way:
            yield under_way.pop(0).result()
            under_way += [pool.submit(work, item) for item in islice(remaining, 1)]
