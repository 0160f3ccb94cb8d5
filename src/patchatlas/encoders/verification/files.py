"""Checks of weights files as files: present, as long as their headers say, indexed, of the right hash, and finite."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from patchatlas.encoders import checkpoint
from patchatlas.encoders.catalogue import Entry, find_by_sha256
from patchatlas.encoders.suffixes import IN_FOLDERS
from patchatlas.encoders.verification.outline import Outline, read_outline
from patchatlas.encoders.verification.report import Check, some
from patchatlas.errors import WeightsError

JSON_FILES = ("config.json", "preprocessor_config.json")


def check_files(path: Path) -> tuple[list[Path], Check]:
    """The files with tensors. If some are absent, those that are present are still looked at."""
    try:
        files = list(checkpoint.weight_files(path))
    except WeightsError as error:
        shards = [file for name in IN_FOLDERS for file in path.glob(f"{Path(name).stem}-*-of-*{Path(name).suffix}")]
        return sorted(shards), Check(name="files", state="fail", found=str(error))
    beside = [name for name in JSON_FILES if path.is_dir() and (path / name).exists()]
    listed = ", ".join([*(f"{file.name} ({file.stat().st_size:,} bytes)" for file in files), *beside])
    return files, Check(name="files", state="pass", found=listed)


def check_sizes(files: Sequence[Path]) -> tuple[dict[Path, Outline], Check]:
    """Each file's header, and its length against it."""
    outlines: dict[Path, Outline] = {}
    problems = []
    for file in files:
        try:
            outlines[file] = read_outline(file)
        except WeightsError as error:
            problems.append(str(error))
            continue
        expected, actual = outlines[file].expected_bytes, file.stat().st_size
        if expected is not None and actual != expected:
            problems.append(
                f"{file.name} has {actual:,} bytes, its header says {expected:,}: the download was cut short or "
                "something was added; download it again"
            )
    if problems:
        return outlines, Check(name="size", state="fail", found="; ".join(problems))
    if not files:
        return outlines, Check(name="size", state="skipped", found="there are no files")
    if any(outline.expected_bytes is None for outline in outlines.values()):
        return outlines, Check(name="size", state="skipped", found="the file is readable; its format tells no size")
    count = sum(len(outline.tensors) for outline in outlines.values())
    return outlines, Check(name="size", state="pass", found=f"as the headers say, {count} tensors")


def check_index(path: Path, outlines: Mapping[Path, Outline]) -> Iterator[Check]:
    """Whether each tensor is in the shard that the index names; nothing where there is no index."""
    for name in IN_FOLDERS:
        if not path.is_dir() or not (path / f"{name}.index.json").exists():
            continue
        try:
            index = checkpoint.read_json(path, f"{name}.index.json")
        except WeightsError as error:
            yield Check(name="index", state="fail", found=str(error))
            continue
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict):
            continue  # `files` has said so
        held = {(key, file.name) for file, outline in outlines.items() for key in outline.tensors}
        absent = sorted(key for key, shard in weight_map.items() if (key, shard) not in held)
        extra = sorted(key for key, shard in held if weight_map.get(key) != shard)
        if absent or extra:
            found = "; ".join(filter(None, (some("not in their shard", absent), some("not in the index", extra))))
            yield Check(name="index", state="fail", found=f"{found}; download index and shards again")
        else:
            yield Check(name="index", state="pass", found=f"{len(weight_map)} tensors, each in its shard")


def check_sha256(
    files: Sequence[Path], path: Path, entry: Entry | None, wanted: str | None, *, whole: bool
) -> tuple[str | None, Check]:
    """The hash, against the one asked for and against the one that the publisher's file name holds."""
    if not whole:
        return None, Check(name="sha256", state="skipped", found="not all files are here")
    digest = checkpoint.digest(files)
    published = entry.sha256_start if entry and path.name == entry.meta_file else None
    expected = {"asked for": wanted, "in the publisher's file name": published}
    given = {which: start for which, start in expected.items() if start is not None}
    wrong = [f"{start} {which}" for which, start in given.items() if not digest.startswith(start)]
    if wrong:
        found = f"{digest}, not {' or '.join(wrong)}: the file was altered or is another one; download it again"
        return digest, Check(name="sha256", state="fail", found=found)
    if given:
        return digest, Check(name="sha256", state="pass", found=f"{digest}, as {' and '.join(given)}")
    known = find_by_sha256(digest)
    if known:
        return digest, Check(name="sha256", state="pass", found=f"{digest}, as {known.meta_file}")
    return digest, Check(name="sha256", state="skipped", found=f"{digest}; nothing to compare with, see --sha256")


def check_values(files: Sequence[Path], size_check: Check) -> Check:
    """Whether every number is finite; one tensor at a time is read."""
    if not files or size_check.state == "fail":
        return Check(name="values", state="skipped", found="the files are not whole")
    broken, count = [], 0
    for file in files:
        try:
            for key, tensor in _tensors(file):
                count += 1
                if not torch.isfinite(tensor).all():
                    broken.append(key)
        except SafetensorError as error:
            return Check(name="values", state="fail", found=f"{file.name} cannot be read ({error}); download it again")
    if broken:
        found = f"{some('NaN or infinite numbers in', broken)}; training broke, or the file was never filled"
        return Check(name="values", state="fail", found=found)
    return Check(name="values", state="pass", found=f"all finite in {count} tensors")


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():
                yield key, opened.get_tensor(key)
    else:
        yield from checkpoint.read_pickled(file).items()
