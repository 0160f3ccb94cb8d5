"""Write the features of a manifest in another format.

zarr: one store, a group a bucket. safetensors: files a bucket, a tensor an image. feature-maps: one file an image, for
`FeatureMap.load`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit, progress

LISTED = 20
"""Images left out that are listed for people; JSON lists all."""


class Config(Output):
    """What `patchatlas features export` is asked to do."""

    to: Literal["zarr", "safetensors", "feature-maps"]
    """The format."""
    output: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write; for zarr it must not be there yet."""
    manifest: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MANIFEST")]
    """Manifest that `features build` wrote."""
    derived_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder with the features of the manifest; `derived` beside it without it."""
    kind: Annotated[str | None, tyro.conf.arg(metavar="KIND")] = None
    """What to export; the patches, where the manifest has one kind of them."""
    max_mb: Annotated[float, Field(gt=0)] = 1024
    """Largest safetensors file in megabytes."""
    strict: bool = False
    """Stop at the first image without this kind, instead of leaving it out."""


def run(config: Config) -> int:
    """Export, print what was written, and return 0, or 3 if images were left out.

    Raises:
        MissingExtraError: zarr is not installed.
        InputError: no such manifest or kind, a folder that is there already, or damaged features.
        StampError: features made in different ways.
        ResourceError: the disk is full, or the folder may not be written.
    """
    from patchatlas.cli.main import OK, SKIPPED
    from patchatlas.datasets.export import export_feature_maps, export_safetensors, export_zarr
    from patchatlas.datasets.reading import only_patches
    from patchatlas.io.feature_store import FeatureStore
    from patchatlas.io.manifest import read_manifest

    records = read_manifest(config.manifest)
    kind = config.kind or only_patches(records)
    store = FeatureStore(config.derived_dir or config.manifest.parent / "derived")
    with progress() as bar:
        task = bar.add_task("exporting")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        options: dict[str, Any] = {"kind": kind, "strict": config.strict, "on_progress": show}
        if config.to == "zarr":
            report = export_zarr(records, store, config.output, **options)
        elif config.to == "safetensors":
            report = export_safetensors(records, store, config.output, max_mb=config.max_mb, **options)
        else:
            report = export_feature_maps(records, store, config.output, **options)
    lines = [f"{report.images} images of {kind} as {config.to} in {config.output}, {len(report.written)} written"]
    if report.left_out:
        lines.append(f"left out {len(report.left_out)}:")
        lines += [f"  {path}: {reason}" for path, reason in report.left_out[:LISTED]]
        if len(report.left_out) > LISTED:
            lines.append(f"  and {len(report.left_out) - LISTED} more; --format json lists all")
    data = {
        "images": report.images,
        "written": [str(path) for path in report.written],
        "skipped": [{"image_path": path, "reason": reason} for path, reason in report.left_out],
    }
    emit(config, human="\n".join(lines), data=data)
    return SKIPPED if report.left_out else OK
