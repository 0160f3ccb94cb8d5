"""Rewrite weights of any layout that can be loaded as one patchatlas .safetensors file.

It loads to the same tokens, holds its licence, mean and std, and the hash of what it was made from, and needs no files
beside it. The same weights give the same bytes.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit


class Config(Output):
    """What `patchatlas weights convert` is asked to do."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """Weights file or folder, catalogue name, or hub id (downloaded if it is not in the cache)."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """File to write, ending in .safetensors."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """How numbers are stored; bf16 halves the linears of the blocks, for use in bf16."""
    heads: Annotated[int | None, Field(gt=0)] = None
    """Attention heads, for weights that do not tell; all released ones do, or are known."""
    overwrite: bool = False
    """Replace OUT if it is there."""


def run(config: Config) -> int:
    """Convert, and say what was written.

    Raises:
        UsageError: OUT has another suffix or is there already.
        InputError: the folder of OUT does not exist.
        WeightsError: IN is absent, not whole or not of a kind that can be converted.
    """
    from patchatlas.encoders.conversion import convert

    done = convert(config.source, config.out, dtype=config.dtype, heads=config.heads, overwrite=config.overwrite)
    header = done.header
    data = {
        "path": str(done.path),
        "sha256": done.sha256,
        "bytes": done.size_bytes,
        "dtype": config.dtype,
        "name": header.name,
        "licence": header.licence,
        "source": header.source,
        "source_sha256": header.source_sha256,
        "mean": list(header.mean),
        "std": list(header.std),
    }
    human = [
        f"written: {done.path} ({done.size_bytes:,} bytes, sha256 {done.sha256})",
        f"{header.name}, licence {header.licence}, from {header.source} (sha256 {header.source_sha256})",
    ]
    emit(config, human="\n".join(human), data=data)
    return 0
