"""Write the features of a manifest as WebDataset shards, one folder a bucket, with an index for random access.

The same features give the same bytes, in whatever order the manifest lists them; a run after a killed one goes on where
that one stopped. Records that were skipped or lack a feature are listed, and the exit code is then 3.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit, progress

if TYPE_CHECKING:
    from patchatlas.datasets.pack import PackReport

LISTED = 20
"""Records left out that are listed for people; JSON and the index list all."""


class Config(Output):
    """What `patchatlas features pack` is asked to do."""

    manifest: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MANIFEST")]
    """Manifest that `features build` wrote."""
    derived_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder with the features of the manifest; `derived` beside it without it."""
    output_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for the shards, `shards` beside the manifest without it; finished ones in it that are whole are kept."""
    kinds: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KIND")] = ()
    """Kinds to pack, such as dinov3_patches dinov3_cls vae_latents; all that the manifest has without it."""
    max_mb: Annotated[float, Field(gt=0)] = 512
    """Largest size of a shard in megabytes; a sample that alone is larger has a shard of its own."""
    split: bool = False
    """Write one tar a kind, shard-000000.KIND.tar, with the same samples in the same order."""
    strict: bool = False
    """Stop at the first record that cannot be packed."""
    replace: bool = False
    """Write over shards in the folder that hold features made in another way, or other kinds."""


def run(config: Config) -> int:
    """Pack, print what was done, and return 0, or 3 if records were left out.

    Raises:
        UsageError: kinds that no record has.
        InputError: nothing can be packed, or features that were made in different ways.
        ResourceError: the disk is full, or another process packs into the folder.
    """
    from patchatlas.cli.main import OK, SKIPPED
    from patchatlas.datasets.pack import pack
    from patchatlas.io.manifest import read_manifest

    records = read_manifest(config.manifest)
    output = config.output_dir or config.manifest.parent / "shards"
    with progress() as bar:
        task = bar.add_task("packing", total=len(records))
        report = pack(
            records,
            config.derived_dir or config.manifest.parent / "derived",
            output,
            kinds=config.kinds or None,
            max_mb=config.max_mb,
            split=config.split,
            strict=config.strict,
            replace_other=config.replace,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    emit(config, human="\n".join(_lines(output, report)), data=_data(report))
    return SKIPPED if report.index.skipped else OK


def _lines(output: Path, report: "PackReport") -> list[str]:
    index = report.index
    files = [file for shard in index.shards for file in shard.files.values()]
    kinds = ", ".join(f"{name} ({kind.dtype})" for name, kind in sorted(index.kinds.items()))
    lines = [
        f"{index.samples} samples of {kinds} in {len(files)} shards, {sum(file.size for file in files) / 1e6:.1f} MB, "
        f"in {output}",
        f"written {len(report.written)}, kept {len(report.kept)}, removed {len(report.removed)}",
    ]
    if index.skipped:
        lines.append(f"left out {len(index.skipped)}:")
        lines += [f"  {image_id}: {reason}" for image_id, reason in index.skipped[:LISTED]]
        if len(index.skipped) > LISTED:
            lines.append(f"  and {len(index.skipped) - LISTED} more; {output / 'index.json'} lists all")
    return lines


def _data(report: "PackReport") -> dict[str, Any]:
    index = report.index
    return {
        "samples": index.samples,
        "bytes": sum(file.size for shard in index.shards for file in shard.files.values()),
        "kinds": sorted(index.kinds),
        "written": list(report.written),
        "kept": list(report.kept),
        "removed": list(report.removed),
        "skipped": [{"image_id": image_id, "reason": reason} for image_id, reason in index.skipped],
    }
