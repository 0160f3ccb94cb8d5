"""Verify a weights file or folder: one check after the other, each with what was found, all problems at once.

Names, shapes and sizes come from headers; numbers are read only to look for NaN and for the forward pass at the end.
"""

import re
from pathlib import Path

from patchatlas.encoders import hub
from patchatlas.encoders.catalogue import find_by_sha256
from patchatlas.encoders.naming import resolve
from patchatlas.encoders.released import models_of_shape
from patchatlas.encoders.verification.files import check_files, check_index, check_sha256, check_sizes, check_values
from patchatlas.encoders.verification.network import (
    check_config,
    check_forward,
    check_model,
    check_network,
    read_config,
)
from patchatlas.encoders.verification.report import Check, Report
from patchatlas.errors import UsageError, WeightsError


def verify(
    name_or_path: str | Path, *, sha256: str | None = None, heads: int | None = None, forward: bool = True
) -> Report:
    """Verify weights, named as for `load_encoder`. A hub id that is not in the cache is downloaded.

    Args:
        sha256: hash that the weights must have, or its first 8 digits or more; of several shards, see
            `checkpoint.digest`.
        heads: attention heads, for checkpoints that do not tell.
        forward: load the encoder, in float32 on the CPU, and run it on a small input.

    Raises:
        UsageError: `sha256` is not a hash.
    """
    wanted = None if sha256 is None else _hex(sha256)
    subject = str(name_or_path)
    try:
        where = resolve(name_or_path)
        if where.bundled is not None:
            return Report(subject=subject, checks=_of_bundled(subject, forward=forward))
        path = where.path if where.path is not None else hub.fetch(str(where.hub_id))
        wanted = wanted or where.sha256
    except WeightsError as error:
        return Report(subject=subject, checks=(Check(name="files", state="fail", found=str(error)),))
    files, files_check = check_files(path)
    outlines, size_check = check_sizes(files)
    digest, sha256_check = check_sha256(files, path, where.entry, wanted, whole=files_check.state == "pass")
    entry = where.entry or (find_by_sha256(digest) if digest else None)
    fields, json_problem = read_config(path)
    network, network_checks = check_network(outlines, fields, heads=heads)
    candidates = models_of_shape(network) if network else []
    checks = [
        files_check,
        size_check,
        *check_index(path, outlines),
        sha256_check,
        *network_checks,
        check_config(fields, json_problem, network),
        check_model(network, candidates, entry, fields),
        check_values([file for file in files if file in outlines], size_check),
    ]
    failed = any(check.state == "fail" for check in checks)
    checks.append(check_forward(name_or_path, heads=heads, asked=forward, failed=failed))
    model = (entry.name,) if entry else tuple(candidate.name for candidate in candidates)
    return Report(subject=subject, path=path, sha256=digest, model=model, checks=tuple(checks))


def _hex(sha256: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise UsageError(f"{sha256!r} is no SHA-256; give its 64 hexadecimal digits, or the first 8 or more")
    return sha256.lower()


def _of_bundled(name: str, *, forward: bool) -> tuple[Check, ...]:
    files = Check(name="files", state="skipped", found=f"{name} needs none")
    return files, check_forward(name, heads=None, asked=forward, failed=False)
