"""Dense features of a folder of pictures: patches, CLS and registers, or latents, in aspect buckets, with a manifest.

A run that was stopped, also by a kill, goes on where it ended when the same command is given again.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit
from patchatlas.cli.console import progress as live_progress
from patchatlas.errors import InputError, UsageError

if TYPE_CHECKING:
    from patchatlas.datasets.build.report import Progress, Report
    from patchatlas.datasets.build.settings import Settings
    from patchatlas.geometry.buckets import Hw

log = logging.getLogger(__name__)

LEARN = "learn:"

TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Environment variable that torchrun sets (PyTorch manual, "torchrun", Environment Variables)."""

LISTED = 20
"""Skipped pictures that are listed for people; --format json and the manifest have them all."""

Pass = Literal["migrate", "dinov3", "dinov2", "encoder", "latents"]


class Config(Output):
    """What `patchatlas features build` is asked to do."""

    input_dir: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of pictures; the folders in it count too."""
    output_jsonl: Annotated[Path, tyro.conf.arg(metavar="FILE", aliases=["--output"])]
    """Manifest to make or continue."""
    pass_filter: Annotated[tuple[Pass, ...], tyro.conf.arg(aliases=["--pass"], metavar="PASS [PASS ...]")] = ("dinov3",)
    """What to make, in this order. migrate: only fill in the manifest, and upgrade that of an earlier version. dinov3,
    dinov2: patches, CLS and registers. encoder: the same of any --encoder. latents: of the autoencoder."""
    encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME|PATH")] = None
    """Weights file or folder, hub id or catalogue name; without it dinov3-vitl16 for dinov3, dinov2-vitl14-reg for
    dinov2, if their weights are on this machine."""
    derived_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for the features; `derived` beside the manifest without it."""
    dtype: Literal["fp32", "fp16", "bf16", "int8"] = "fp16"
    """How patches and latents are stored; int8 has a scale for each channel. CLS and registers are always fp32."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the hardware has it."""
    layer: int | None = None
    """Block whose tokens are stored, from 0, or from the end if negative; the last one without it."""
    buckets: Annotated[str, tyro.conf.arg(metavar="default|FILE|learn:N")] = "default"
    """Bucket table: the seven of about one megapixel; a file with one WxH a line; N learnt from the pictures once."""
    bucket_rule: Literal["log", "linear"] = "log"
    """How the nearest bucket is found: by log ratio, or by ratio as earlier projects did."""
    decode: Literal["full", "fast"] = "full"
    """fast reads JPEGs at 1/2, 1/4 or 1/8 of their size where that covers the bucket; part of the stamp."""
    max_pixels: Annotated[int | None, Field(gt=0)] = None
    """Larger pictures are skipped."""
    captions: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSONL file of captions, by image_path or image_id, to put into the manifest."""
    latent_encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME|PATH")] = None
    """Autoencoder of the pass latents: a folder in the layout of diffusers, or a hub id."""
    latent_precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of the autoencoder."""
    latent_raw: bool = False
    """Store latents as the autoencoder gives them, not shifted and scaled as its config says."""
    latent_stride: Annotated[int | None, Field(gt=0)] = None
    """Pixels to a latent pixel: where patches and latent tokens do not meet one to one, patches resampled by area to
    the grid of latent tokens are stored besides."""
    latent_patch: Annotated[int, Field(gt=0)] = 2
    """Latent pixels to a latent token, with --latent-stride."""
    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None
    """Work on part I of N, counted from 0; without it what torchrun or SLURM say, else everything."""
    executor: Literal["local", "ray"] = "local"
    """Where to work: here, or on the Ray cluster that this machine belongs to (one is started if there is none)."""
    workers: Annotated[int | None, Field(gt=0)] = None
    """Threads that read pictures, one a core without it; with Ray those of all actors together."""
    token_budget: Annotated[int | None, Field(gt=0)] = None
    """Patches of a batch; what suits the device without it."""
    limit: Annotated[int | None, Field(gt=0)] = None
    """Stop after so many new pictures in each pass."""
    strict: bool = False
    """Stop at the first picture that cannot be used, instead of skipping it."""
    backup_old: bool = False
    """Move features that were made in another way to _old in --derived-dir, instead of refusing to mix them."""


def run(config: Config) -> int:
    """Build, report, and return 0, or 3 if pictures were skipped (0 under torchrun, which would end the others).

    Raises:
        UsageError: options that make no sense together.
        InputError: a folder, manifest or table that cannot be used, or features made in another way.
        WeightsError: an encoder that cannot be had.
        ResourceError: memory or disk.
    """
    from patchatlas.cli.main import OK, SKIPPED
    from patchatlas.datasets.build.run import build

    settings = _settings(config)
    with _bar() as on_progress:
        report = build(settings, executor=config.executor, on_progress=on_progress)
    emit(config, human=describe(report), data=report.to_json())
    if report.skipped and TORCHRUN in os.environ:
        log.warning("ending with exit code 0 in spite of skipped pictures: on any other torchrun ends all processes")
        return OK
    return SKIPPED if report.skipped else OK


def _settings(config: Config) -> "Settings":
    from patchatlas.datasets.build.settings import Settings
    from patchatlas.datasets.build.sharding import choose_shard
    from patchatlas.datasets.recipe import Recipe
    from patchatlas.io.images import MAX_PIXELS

    if not config.pass_filter:
        raise UsageError("--pass-filter names no pass; give one or several")
    if config.output_jsonl.is_dir():
        raise InputError(f"--output-jsonl {config.output_jsonl} is a folder; name a file in it")
    learn, table = parse_buckets(config.buckets)
    return Settings(
        input_dir=config.input_dir,
        manifest=config.output_jsonl,
        derived_dir=config.derived_dir or config.output_jsonl.parent / "derived",
        passes=config.pass_filter,
        recipe=Recipe(buckets=table, rule=config.bucket_rule, decode=config.decode, storage=config.dtype),
        learn_buckets=learn,
        encoder=config.encoder,
        device=_device(config),
        precision=config.precision,
        layer=config.layer,
        vae=config.latent_encoder,
        vae_precision=config.latent_precision,
        latents_scaled=not config.latent_raw,
        latent_stride=config.latent_stride,
        latent_patch=config.latent_patch,
        captions=config.captions,
        token_budget=config.token_budget,
        workers=config.workers,
        limit=config.limit,
        strict=config.strict,
        max_pixels=config.max_pixels or MAX_PIXELS,
        backup_old=config.backup_old,
        shard=choose_shard(config.shard, os.environ),
    )


def parse_buckets(text: str) -> "tuple[int | None, tuple[Hw, ...]]":
    """What `--buckets` says: how many buckets to learn, if so asked, and the table if not.

    Raises:
        UsageError: a number to learn that is none.
        InputError: there is no such file.
        FormatError: it holds no table.
    """
    from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS
    from patchatlas.io.bucket_tables import read_table

    if text == "default":
        return None, MEGAPIXEL_BUCKETS
    if text.startswith(LEARN):
        count = text.removeprefix(LEARN)
        if not count.isdecimal() or not int(count):
            raise UsageError(f"--buckets {text} learns no number of buckets; write {LEARN}7")
        return int(count), MEGAPIXEL_BUCKETS
    return None, read_table(text)


def _device(config: Config) -> str:
    """The device asked for; of several processes that a launcher started on one machine each takes its own GPU."""
    import torch

    from patchatlas.datasets.build.sharding import local_rank

    rank = local_rank(os.environ)
    if config.device != "auto" or config.shard is not None or rank is None or not torch.cuda.is_available():
        return config.device
    return f"cuda:{rank % torch.cuda.device_count()}"


@contextmanager
def _bar() -> "Iterator[Callable[[Progress], None]]":
    """A live bar on stderr with rates."""
    from rich.progress import TextColumn

    bar = live_progress(TextColumn("{task.fields[rates]}"))
    tasks = {}
    with bar:

        def show(progress: "Progress") -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(progress.stage, total=progress.total, rates="")
            task = tasks[progress.stage]
            elapsed = bar.tasks[task].elapsed or 0.0
            bar.update(task, completed=progress.done, total=progress.total, rates=rates(progress, elapsed))

        yield show


def rates(progress: "Progress", seconds: float) -> str:
    """Pictures and tokens a second, and how many were skipped."""
    parts = []
    if seconds > 0 and progress.done:
        parts.append(f"{progress.done / seconds:.1f} images/s")
        if progress.tokens:
            parts.append(f"{progress.tokens / seconds:,.0f} tokens/s")
    if progress.skipped:
        parts.append(f"{progress.skipped} skipped")
    return ", ".join(parts)


def describe(report: "Report") -> str:
    """The report in lines for people."""
    from patchatlas.datasets import fidelity as lossy

    lines = []
    for one in report.passes:
        speed = f" ({one.done / one.seconds:.2f} images/s)" if one.done and one.seconds else ""
        lines.append(
            f"{one.name}: {one.done} done, {one.there} already there, {one.bytes / 1e6:.1f} MB written in "
            f"{one.seconds:.1f} s{speed}"
        )
        lines += [f"  {folder}" for folder in one.sets.values()]
        lines += [f"  stored {kind} against fp32: {lossy.describe(found)}" for kind, found in one.fidelity.items()]
    lines += [f"skipped {one.image_path}: {one.error.type}: {one.error.message}" for one in report.skipped[:LISTED]]
    if len(report.skipped) > LISTED:
        lines.append(f"... and {len(report.skipped) - LISTED} more skipped, each with its reason in the manifest")
    lines.append(
        f"{report.manifest}: {report.pictures} pictures, {len(report.skipped)} skipped; {report.seconds:.1f} s"
    )
    return "\n".join(lines)
