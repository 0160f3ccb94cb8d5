"""The folders of a feature store: whose they are, whether sets go together, and files that no record names."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from patchatlas.datasets import fidelity
from patchatlas.datasets.verify.expected import recipe_of
from patchatlas.datasets.verify.report import Finding
from patchatlas.errors import FormatError, StampError
from patchatlas.io.feature_store import HEADER, OLD, FeatureStore, SetHeader
from patchatlas.io.writers import is_leftover
from patchatlas.stamp import Stamp

SUFFIXES = (".npy", ".safetensors")

_LATENT_GRID = ("latent_stride", "latent_patch")
"""Facts that only sets resampled to latent tokens have; their other facts must be those of the patches."""


def read_headers(store: FeatureStore) -> tuple[dict[Path, SetHeader], list[Finding]]:
    """What made each set, and the sets that nobody knows."""
    headers, findings = {}, []
    for folder in store.sets():
        try:
            headers[folder] = store.header(folder)
            recipe_of(headers[folder].stamp)
            _require_agreement(headers[folder])
        except FormatError as error:
            text = str(error).replace(f"{store.derived_dir}/", "")
            findings.append(Finding(fault="unknown_set", sentence=f"{folder.name}: {text}.", file=folder.name))
    return headers, findings


def known_stamps(store: FeatureStore, headers: Mapping[Path, SetHeader]) -> dict[str, Stamp]:
    """Stamps by digest, of the sets that are there and of those that were moved aside."""
    known = {header.stamp.digest: header.stamp for header in headers.values()}
    for path in sorted((store.derived_dir / OLD).glob(f"*/{HEADER}")):
        try:
            stamp = SetHeader.from_json(path.read_text(encoding="utf-8")).stamp
        except (FormatError, UnicodeDecodeError):  # an old set is no matter of ours
            continue
        known[stamp.digest] = stamp
    return known


def mixed_sets(headers: Mapping[Path, SetHeader]) -> Iterator[Finding]:
    """Several sets of one kind, and kinds of one encoder that were not made alike; the facts that differ are named."""
    by_kind, by_family = defaultdict(list), defaultdict(list)
    for folder, header in sorted(headers.items()):
        by_kind[header.kind].append(folder)
        by_family[header.kind.partition("_")[0]].append(folder)
    for kind, folders in by_kind.items():
        for other in folders[1:]:
            told = _differ(headers[folders[0]], headers[other])
            sentence = f"{folders[0].name} and {other.name} are both sets of {kind}: {told}."
            yield Finding(fault="two_sets", sentence=sentence, kind=kind, file=other.name)
    for folders in by_family.values():
        for other in folders[1:]:
            first = folders[0]
            if headers[first].kind == headers[other].kind:
                continue
            told = _differ(headers[first], headers[other])
            if told:
                sentence = f"{first.name} and {other.name} were not made in one forward: {told}."
                yield Finding(fault="mixed_stamps", sentence=sentence, kind=headers[other].kind, file=other.name)


def unnamed_files(store: FeatureStore, named: Collection[str]) -> Iterator[Finding]:
    """Files in the sets that no record names: leftovers of killed runs, orphans, and what does not belong there."""
    for folder in store.sets():
        for path in sorted(folder.iterdir()):
            name = f"{folder.name}/{path.name}"
            if path.name in (HEADER, fidelity.FOLDER, fidelity.REPORT) or name in named:
                continue
            if is_leftover(path.name):
                yield Finding(fault="leftover_file", sentence=f"{name} was never finished.", file=name)
            elif path.suffix in SUFFIXES and path.is_file():
                yield Finding(fault="orphan_file", sentence=f"No record names {name}.", file=name)
            else:
                yield Finding(fault="stray_file", sentence=f"{name} is no feature file.", file=name)


def _require_agreement(header: SetHeader) -> None:
    """Refuse a set whose spec, which says how to read it, is not the one that its stamp was made of."""
    if header.spec is None:
        return
    stamp = dict(header.stamp.facts)
    other = [name for name, value in Stamp.of(header.spec).facts if stamp.get(name) != value]
    if other:
        raise FormatError(f"its spec and its stamp contradict each other: {', '.join(other)}")


def _differ(one: SetHeader, other: SetHeader) -> str:
    """The facts in which two stamps differ, apart from the latent grid; empty if none."""
    plain = [
        Stamp(tuple(fact for fact in header.stamp.facts if fact[0] not in _LATENT_GRID)) for header in (one, other)
    ]
    try:
        plain[0].require(plain[1])
    except StampError as error:
        return str(error).partition("(")[2].rpartition(")")[0]
    return ""
