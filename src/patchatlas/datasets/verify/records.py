"""The lines of a manifest: readable, with ids that are unique, in the bucket and at the place that the rules give."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchatlas.datasets.placement import place
from patchatlas.datasets.recipe import Recipe
from patchatlas.datasets.scan import source_path
from patchatlas.datasets.verify.faults import Fault
from patchatlas.datasets.verify.report import Finding
from patchatlas.errors import FormatError
from patchatlas.geometry.buckets import BucketRule, bucket_name, nearest_bucket
from patchatlas.io.images import read_header
from patchatlas.io.manifest import MIGRATE, ManifestRows, Record
from patchatlas.io.reasons import PictureError


@dataclass(frozen=True)
class Lines:
    """A manifest as far as it can be read.

    Attributes:
        count: lines.
        records: of the lines that are good.
        findings: of the others.
    """

    count: int
    records: list[Record]
    findings: list[Finding]


def read_lines(manifest: Path) -> Lines:
    """Read a manifest, past lines that are no records.

    Raises:
        InputError: there is no such file.
        FormatError: a line that is no JSON object.
    """
    records: list[Record] = []
    findings: list[Finding] = []
    count = 0
    for count, row in enumerate(ManifestRows(manifest), start=1):
        try:
            records.append(Record.from_json(row))
        except FormatError as error:
            name = str(row.get("image_id"))
            fault = _fault_of(name, str(error))
            sentence = f"Line {count}, {row.get('image_path')!r}: {error}."
            findings.append(Finding(fault=fault, sentence=sentence, record=name, evidence={"line": count}))
    return Lines(count, records, [*findings, *_doubled(records)])


def _fault_of(name: str, message: str) -> Fault:
    if "." in name or "/" in name:
        return "bad_id"
    return "no_bucket" if MIGRATE in message else "bad_record"


def _doubled(records: Sequence[Record]) -> Iterator[Finding]:
    """Ids and files that belong to two pictures: features of one then overwrite those of the other."""
    ids: dict[str, str] = {}
    files: dict[str, str] = {}
    for record in records:
        other = ids.setdefault(record.image_id, record.image_path)
        if other != record.image_path:
            sentence = f"{other} and {record.image_path} have the same id {record.image_id}."
            yield Finding(fault="duplicate_id", sentence=sentence, record=record.image_id)
            continue
        for kind, entry in record.features.items():
            owner = files.setdefault(entry.file, record.image_id)
            if owner != record.image_id:
                sentence = f"{entry.file} is named by {owner} and by {record.image_id}."
                for name in (owner, record.image_id):  # nobody knows whose it is
                    yield Finding(fault="shared_file", sentence=sentence, record=name, kind=kind, file=entry.file)


def misplaced(record: Record, recipe: Recipe) -> Iterator[Finding]:
    """A bucket or crop that the table and rule of the stamp do not give for a picture of this size."""
    if record.aspect_bucket is None or record.width is None or record.height is None:
        sentence = f"aspect_bucket not found for {record.image_path}, {MIGRATE}."
        yield Finding(fault="no_bucket", sentence=sentence, record=record.image_id)
        return
    size = (record.height, record.width)
    wanted = place(record, recipe.buckets, rule=recipe.rule)
    if wanted.aspect_bucket != record.aspect_bucket:
        assert wanted.aspect_bucket is not None
        has, should = bucket_name(record.aspect_bucket), bucket_name(wanted.aspect_bucket)
        other: BucketRule = "linear" if recipe.rule == "log" else "log"
        by_other = nearest_bucket(size, recipe.buckets, rule=other) == record.aspect_bucket
        sentence = (
            f"{record.image_id} ({record.width}x{record.height}) lies in bucket {has}, table and {recipe.rule} rule "
            f"give {should}{f'; {has} is what the {other} rule gives' if by_other else ''}."
        )
        evidence = {"bucket": has, "expected": should}
        yield Finding(fault="wrong_bucket", sentence=sentence, record=record.image_id, evidence=evidence)
    elif (record.resized, record.crop) != (wanted.resized, wanted.crop) or record.crop_source != wanted.crop_source:
        sentence = (
            f"{record.image_id} was scaled to {record.resized} and cut at {record.crop}, exact arithmetic gives "
            f"{wanted.resized} and {wanted.crop}."
        )
        yield Finding(fault="inexact_crop", sentence=sentence, record=record.image_id)


def compare_source(record: Record, input_dir: Path, *, max_pixels: int) -> Iterator[Finding]:
    """The picture file against what the manifest says of it: turned, changed, or gone."""
    try:
        header = read_header(source_path(record.image_path, input_dir), max_pixels=max_pixels)
    except PictureError as error:
        yield Finding(fault="source_unusable", sentence=f"{record.image_path}: {error.reason}.", record=record.image_id)
        return
    if record.sha256 is not None and header.sha256 != record.sha256:
        sentence = f"{record.image_path} has other bytes than when the manifest was made."
        yield Finding(fault="source_changed", sentence=sentence, record=record.image_id)
        return
    size = (record.height, record.width)
    if size != header.size_hw or record.exif_orientation != header.orientation:
        w, h = header.size_hw[1], header.size_hw[0]
        sentence = (
            f"{record.image_path} has EXIF orientation {header.orientation} and is {w}x{h} upright; the manifest says "
            f"orientation {record.exif_orientation} and {record.width}x{record.height}."
        )
        yield Finding(fault="not_upright", sentence=sentence, record=record.image_id)


def incomplete(record: Record, kinds: Mapping[str, int], *, records: int) -> Iterator[Finding]:
    """Kinds of feature that other pictures have, or should have, and this one has not.

    Args:
        kinds: how many pictures have each kind; those that none has, and should, are in it, too.
        records: pictures that should have all.
    """
    for kind, count in sorted(kinds.items()):
        if kind not in record.features:
            sentence = f"{record.image_id} has no {kind}, {count} of {records} pictures have."
            yield Finding(fault="missing_features", sentence=sentence, record=record.image_id, kind=kind)
