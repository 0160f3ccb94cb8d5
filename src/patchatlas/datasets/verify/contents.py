"""Look into the files of one picture: size, hash, header, shape, grid, and the numbers themselves.

Axes: n tokens (patches row-major, registers, or latent pixels), d features, c h w latents.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from patchatlas.datasets.reading import cell_of
from patchatlas.datasets.verify.expected import explain_grid, grid_of, recipe_of
from patchatlas.datasets.verify.faults import Fault
from patchatlas.datasets.verify.report import Finding
from patchatlas.errors import FormatError, StampError
from patchatlas.geometry.buckets import Hw, bucket_name
from patchatlas.io.codecs import ArrayHeader, decode_array, read_header
from patchatlas.io.feature_store import FeatureStore, SetHeader
from patchatlas.io.manifest import FeatureEntry, Record
from patchatlas.stamp import Stamp

SAME = 0.03
"""Relative difference below which a stored patch is taken for a stored register or CLS. int8 costs about 0.01 (1 - cos
of 3.8e-5); registers of a network differ from its patches by about their whole length."""

MAY_BE_ZERO = ("sift", "fake")
"""Families whose tokens may be zero: SIFT has none for a flat patch."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What is remembered of a file that was looked at.

    Attributes:
        record: image_id.
        source: hash of the picture file, where the manifest has it.
        kind: kind of feature.
        file: posix path below the derived folder.
        bytes: its size.
        sha256: hash of what is in it, `None` if it was not read.
        grid: what the manifest says.
        expected: the grid that the bucket gives, `None` for CLS and registers.
        length: median length of its tokens, `None` if they were not read.
    """

    record: str
    source: str | None
    kind: str
    file: str
    bytes: int
    sha256: str | None
    grid: tuple[int, ...] | None
    expected: Hw | None
    length: float | None


def look(
    record: Record, store: FeatureStore, *, values: bool, name_stamp: Callable[[str], Stamp | None]
) -> tuple[list[Finding], list[Looked]]:
    """Check every file of a record; holds the files of one picture at a time.

    Args:
        record: one of status ok.
        store: where the files lie.
        values: read the files; without it only sizes and headers are looked at.
        name_stamp: the stamp with a digest, if a set with it is known, to say which fact differs.
    """
    findings: list[Finding] = []
    looked: list[Looked] = []
    arrays: dict[str, Tensor] = {}
    for kind, entry in sorted(record.features.items()):
        found, seen, array = _look_at(record, kind, entry, store, values=values, name_stamp=name_stamp)
        findings += found
        if seen is not None:
            looked.append(seen)
        if array is not None:
            arrays[kind] = array
    for kind, patches in arrays.items():
        family, _, rest = kind.rpartition("_")
        if rest == "patches" and patches.ndim == 2:
            findings += _mistaken_slice(
                record, kind, patches, arrays.get(f"{family}_cls"), arrays.get(f"{family}_registers")
            )
    return findings, looked


def _look_at(
    record: Record,
    kind: str,
    entry: FeatureEntry,
    store: FeatureStore,
    *,
    values: bool,
    name_stamp: Callable[[str], Stamp | None],
) -> tuple[list[Finding], Looked | None, Tensor | None]:
    def finding(fault: Fault, sentence: str, **evidence: Any) -> Finding:
        return Finding(
            fault=fault, sentence=sentence, record=record.image_id, kind=kind, file=entry.file, evidence=evidence
        )

    try:
        path = store.path(entry)
    except FormatError as error:
        return [finding("wrong_file", str(error))], None, None
    try:
        header = store.header(path.parent)
    except FormatError:  # said once for the whole set, see `sets`
        return [], None, None
    findings = []
    if header.kind != kind:
        findings.append(
            finding("wrong_file", f"The manifest has {entry.file} as {kind}, it lies in a set of {header.kind}.")
        )
    elif path.stem != record.image_id:
        findings.append(
            finding(
                "exchanged_file",
                f"The manifest has {entry.file} as that of {record.image_id}; by its name it is that of {path.stem}.",
            )
        )
    if entry.stamp != header.stamp.digest:
        findings.append(finding("mixed_stamps", _differing(entry, header, name_stamp), stamp=entry.stamp))
    expected, wrong = _grid_of(record, entry, header, finding)
    findings += wrong
    if not path.is_file():
        return [*findings, finding("missing_file", f"There is no file {entry.file}.")], None, None
    size = path.stat().st_size
    seen = Looked(
        record=record.image_id,
        source=record.sha256,
        kind=kind,
        file=entry.file,
        bytes=size,
        sha256=None,
        grid=entry.grid,
        expected=expected,
        length=None,
    )
    if size < entry.bytes:
        told = f"{entry.file} has {size} bytes, the manifest says {entry.bytes}: it was cut short."
        return [*findings, finding("truncated_file", told, bytes=size, expected=entry.bytes)], seen, None
    content = path.read_bytes() if values else None
    if content is not None:
        digest = hashlib.sha256(content).hexdigest()
        seen = Looked(**{**vars(seen), "sha256": digest})
        if digest != entry.sha256 and size == entry.bytes:
            told = (
                f"{entry.file} holds other bytes than when the manifest was written: it was overwritten or has decayed."
            )
            findings.append(finding("changed_file", told, sha256=digest, expected=entry.sha256))
    if size != entry.bytes:
        told = f"{entry.file} has {size} bytes, the manifest says {entry.bytes}: it was overwritten."
        findings.append(finding("changed_file", told, bytes=size, expected=entry.bytes))
    try:
        head = read_header(content if content is not None else path)
    except FormatError as error:
        return [*findings, finding("damaged_file", str(error).replace(str(path), entry.file))], seen, None
    misfit = _misfit(head, entry, header)
    if misfit is not None:
        explained = _explain_count(head, record, entry, header) if expected is not None and not wrong else None
        fault, because = explained or ("wrong_file", "")
        findings.append(finding(fault, f"{entry.file} {misfit}{because}.", shape=list(head.shape), dtype=head.dtype))
        return findings, seen, None
    if content is None:
        return findings, seen, None
    array = decode_array(content, head.dtype)
    bad, length = _numbers(array, kind, header, finding)
    return [*findings, *bad], Looked(**{**vars(seen), "length": length}), array if not bad else None


def _grid_of(
    record: Record, entry: FeatureEntry, header: SetHeader, finding: Callable[..., Finding]
) -> tuple[Hw | None, list[Finding]]:
    """The grid that the bucket gives, and what is wrong with that of the manifest."""
    if entry.grid is None or header.spec is None or record.aspect_bucket is None:
        return None, []
    try:
        table = recipe_of(header.stamp).buckets
    except FormatError:  # said once for the whole set
        return None, []
    cell = cell_of(header)
    expected = grid_of(record.aspect_bucket, cell)
    wrong = explain_grid(entry.grid, record.aspect_bucket, cell, table)
    if wrong is None:
        return expected, []
    sentence = (
        f"{record.image_id} has a grid of {_shape(entry.grid)} (rows x columns), its bucket "
        f"{bucket_name(record.aspect_bucket)} gives {_shape(expected)}: {wrong.because}."
    )
    return expected, [finding(wrong.fault, sentence, grid=list(entry.grid), expected=list(expected))]


def _misfit(head: ArrayHeader, entry: FeatureEntry, header: SetHeader) -> str | None:
    """What the file holds against what the manifest and its set say; `None` where all agree."""
    dims = [dim for dim in (entry.dim, None if header.spec is None else header.spec.dim) if dim is not None]
    if entry.grid is None:
        shapes = [(dims[0],), *([(header.spec.registers, dims[0])] if header.spec is not None else [])]
        fits = head.shape in shapes
    else:
        fits = head.shape in ((math.prod(entry.grid), dims[0]), (dims[0], *entry.grid))
    if fits and head.dtype == entry.dtype and len(set(dims)) == 1:
        return None
    of_set = "" if len(set(dims)) == 1 else f"; the encoder gives {dims[1]} features"
    told = f"{entry.dtype}, grid {entry.grid}, dim {entry.dim}{of_set}"
    return f"holds {head.dtype} of shape {head.shape}, the manifest says {told}"


def _explain_count(
    head: ArrayHeader, record: Record, entry: FeatureEntry, header: SetHeader
) -> tuple[Fault, str] | None:
    """Why the number of tokens in a file is another, where the manifest has the right grid."""
    assert record.aspect_bucket is not None
    found = (head.shape[0],) if len(head.shape) == 2 else head.shape[1:]
    wrong = explain_grid(found, record.aspect_bucket, cell_of(header), recipe_of(header.stamp).buckets)
    return None if wrong is None or head.dtype != entry.dtype else (wrong.fault, f": {wrong.because}")


def _numbers(
    array: Float32[Tensor, "..."], kind: str, header: SetHeader, finding: Callable[..., Finding]
) -> tuple[list[Finding], float | None]:
    """What is wrong with the numbers of a file, and the median length of its tokens."""
    tokens = array.flatten(1).T if array.ndim == 3 else array.reshape(-1, array.shape[-1])  # (n, d)
    lengths = tokens.norm(dim=1)
    if not bool(torch.isfinite(lengths.sum())):
        bad = int((~torch.isfinite(array)).sum())
        if bad:
            return [finding("not_finite", f"{bad} of {array.numel()} numbers are NaN or infinite.", count=bad)], None
    zeros = int((lengths == 0).sum())
    family = "" if header.spec is None else header.spec.family
    if zeros and family not in MAY_BE_ZERO:
        return [finding("empty_tokens", f"{zeros} of {len(tokens)} tokens are all zeros.", count=zeros)], None
    if len(tokens) > 1 and array.ndim > 1 and not kind.endswith("registers") and bool((tokens == tokens[0]).all()):
        if family not in MAY_BE_ZERO:
            return [finding("constant", f"All {len(tokens)} tokens are equal.", count=len(tokens))], None
    return [], float(lengths.quantile(0.5))


def _mistaken_slice(
    record: Record, kind: str, patches: Tensor, cls: Tensor | None, registers: Tensor | None
) -> list[Finding]:
    """Patches that begin with the CLS token or the registers, as a slice of the tokens from 0 or 1 gives."""
    if cls is not None and _same(patches[0], cls.reshape(-1)):
        sentence = (
            f"The first patch of {record.image_id} is its CLS token: every patch stands at least one place too late."
        )
        return [Finding(fault="cls_in_patches", sentence=sentence, record=record.image_id, kind=kind)]
    if registers is None or len(registers) > len(patches):
        return []
    held = sum(_same(patch, register) for patch, register in zip(patches, registers, strict=False))
    if held < len(registers):
        return []
    sentence = (
        f"The first {held} patches of {record.image_id} are its registers: every patch stands {held} places too late "
        f"and the last {held} are lost."
    )
    return [
        Finding(
            fault="registers_in_patches", sentence=sentence, record=record.image_id, kind=kind, evidence={"shift": held}
        )
    ]


def _same(one: Tensor, other: Tensor) -> bool:
    return len(one) == len(other) and bool((one - other).norm() <= SAME * other.norm())


def _differing(entry: FeatureEntry, header: SetHeader, name_stamp: Callable[[str], Stamp | None]) -> str:
    known = name_stamp(entry.stamp)
    begin = f"The manifest says stamp {entry.stamp[:8]} of {entry.file}, its set has {header.stamp.digest[:8]}"
    if known is None:
        return f"{begin}; no set here has the other, so nobody knows what differs."
    try:
        header.stamp.require(known)
    except StampError as error:
        return f"{begin}: {error}."
    return f"{begin}."


def _shape(grid: tuple[int, ...]) -> str:
    return " x ".join(map(str, grid))
