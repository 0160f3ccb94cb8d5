"""Mean and standard deviation of stored features per channel, and of their norms, over the pictures of a manifest.

With --shard, take a part and write it; with --merge, add such parts up. The order of the pictures does not matter.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from patchatlas.cli.console import Output, emit, progress
from patchatlas.errors import UsageError

if TYPE_CHECKING:
    from patchatlas.datasets.stats import Statistics


class Config(Output):
    """What `patchatlas features stats` is asked to do."""

    manifest: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="MANIFEST")] = None
    """Manifest that `features build` wrote; none with --merge."""
    derived_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder with the features of the manifest; `derived` beside it without it."""
    kind: Annotated[str | None, tyro.conf.arg(metavar="KIND")] = None
    """What to take the statistics of; the patches, where the manifest has one kind of them."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """File to write, .json or .safetensors; the loader normalises with it."""
    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None
    """Take every N-th picture only, beginning with picture I, counted from 0."""
    merge: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH")] = ()
    """Add up files that earlier runs wrote, instead of reading features."""


def run(config: Config) -> int:
    """Take or merge statistics, write and print them.

    Raises:
        UsageError: --shard or a manifest with --merge, neither manifest nor --merge, or a shard that does not exist.
        InputError: no such manifest, kind or file.
        StampError: features made in different ways.
        ResourceError: the file cannot be written.
    """
    from patchatlas.cli.main import OK
    from patchatlas.datasets.build.sharding import parse_shard
    from patchatlas.datasets.reading import only_patches
    from patchatlas.datasets.stats import Statistics, dataset_statistics, merge_statistics
    from patchatlas.io.feature_store import FeatureStore
    from patchatlas.io.manifest import read_manifest

    if config.merge and config.shard is not None:
        raise UsageError("--shard takes a part, --merge adds parts up; give one of them")
    if (config.manifest is None) == (not config.merge):
        raise UsageError("give either a MANIFEST to take statistics of, or --merge with files to add up")
    if config.output is not None and config.output.suffix not in (".json", ".safetensors"):
        raise UsageError(f"--output {config.output.name} must end in .json or .safetensors")
    if config.merge:
        found = merge_statistics([Statistics.load(path) for path in config.merge])
    else:
        assert config.manifest is not None, "checked above"
        shard = parse_shard(config.shard or "0/1")
        everything = [record for record in read_manifest(config.manifest) if record.status == "ok"]
        kind = config.kind or only_patches(everything)
        records = shard.of(everything)
        with progress() as bar:
            task = bar.add_task("reading", total=len(records))
            found = dataset_statistics(
                records,
                FeatureStore(config.derived_dir or config.manifest.parent / "derived"),
                kind,
                on_progress=lambda done: bar.update(task, completed=done),
            )
    if config.output is not None:
        found.save(config.output)
    emit(config, human="\n".join(_lines(config, found)), data=found.to_json())
    return OK


def _lines(config: Config, found: "Statistics") -> list[str]:
    std, mean = found.channels.std, found.channels.mean
    loudest = int((mean.abs() + std).argmax())
    lines = [
        f"{found.kind}: {found.images} images, {found.channels.count} tokens of {len(mean)} channels, "
        f"stamp {found.stamp.digest[:8]}",
        f"norm of a token: mean {found.norms.mean.item():.6g}, std {found.norms.std.item():.4g}, "
        f"min {found.norm_min:.6g}, max {found.norm_max:.6g}",
        f"std of a channel: min {std.min().item():.4g}, median {std.median().item():.4g}, max {std.max().item():.4g}",
        f"loudest channel: {loudest}, mean {mean[loudest].item():.6g}, std {std[loudest].item():.4g}",
    ]
    return [*lines, f"written to {config.output}"] if config.output is not None else lines
