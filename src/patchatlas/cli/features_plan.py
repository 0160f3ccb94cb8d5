"""What `features build` will make: pictures and patches by bucket, bytes by dtype, hours, and whether storing pays.

Without --encoder the sizes of dinov3-vitl16 are taken and nothing is timed.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit, progress
from patchatlas.errors import InputError, UsageError

if TYPE_CHECKING:
    from patchatlas.datasets.plan import BreakEven, DiskSpeed, Plan, Timing
    from patchatlas.encoders.protocol import Encoder
    from patchatlas.io.manifest import Record

DEFAULT_ENCODER = "dinov3-vitl16"

LISTED = 20
"""Skipped pictures that are listed for people; JSON lists all."""


class Config(Output):
    """What `patchatlas features plan` is asked to do."""

    input_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of pictures, if there is no manifest yet; only their headers are read."""
    output_jsonl: Annotated[Path | None, tyro.conf.arg(metavar="FILE", aliases=["--output"])] = None
    """Manifest; where it is there, it is taken instead of the folder."""
    encoder: Annotated[str | None, tyro.conf.arg(metavar="NAME|PATH")] = None
    """Weights file or folder, hub id or catalogue name; it is loaded and timed."""
    timing: bool = True
    """Time the encoder and the disk. Without it a catalogue name needs no weights."""
    dtype: Literal["fp32", "fp16", "bf16", "int8"] = "fp16"
    """How patches will be stored."""
    derived_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for the features, whose disk is timed; `derived` beside the manifest without it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the hardware has it."""
    buckets: Annotated[str, tyro.conf.arg(metavar="default|FILE|learn:N")] = "default"
    """Bucket table, for a folder without a manifest; as in `features build`."""
    bucket_rule: Literal["log", "linear"] = "log"
    """How the nearest bucket is found."""
    token_budget: Annotated[int, Field(gt=0)] = 8192
    """Patches of a batch that is timed."""
    seconds: Annotated[float, Field(gt=0)] = 10.0
    """Begin no further timed forward after so long."""
    workers: Annotated[int, Field(gt=0)] = 1
    """Machines or GPUs like this one that will work together."""
    epochs: Annotated[int, Field(gt=0)] = 100
    """Epochs that the features will be read for."""
    read_mb_s: Annotated[float | None, Field(gt=0)] = None
    """Speed at which the features will be read, MB/s; measured without it."""
    write_mb_s: Annotated[float | None, Field(gt=0)] = None
    """Speed at which they will be written, MB/s; measured without it."""


def run(config: Config) -> int:
    """Plan, print, and return 0, or 3 if pictures will be skipped.

    Raises:
        UsageError: neither a manifest nor a folder.
        InputError: a manifest, folder or table that cannot be used.
        WeightsError: the encoder cannot be had.
        ResourceError: the disk that is to be timed is full or may not be written.
    """
    from patchatlas.cli.main import OK, SKIPPED
    from patchatlas.datasets.plan import break_even, encode_seconds, time_encoder

    records = _records(config)
    facts, encoder = _facts(config)
    plan = _plan(records, facts)
    data: dict[str, Any] = {"encoder": facts, **_plan_data(plan)}
    lines = [*_heading(facts), *_table_lines(plan), *_size_lines(plan, config)]
    if encoder is not None and plan.buckets:
        timing = time_encoder(encoder, plan.buckets[0], token_budget=config.token_budget, seconds=config.seconds)
        seconds = encode_seconds(plan, timing, encoder.spec)
        size = plan.total_bytes(config.dtype) / plan.images
        even = break_even(encode=seconds / plan.images, size=size, disk=_disk(config))
        lines += _time_lines(config, encoder, timing, seconds, even)
        data |= _time_data(config, timing, seconds, even)
    left_out = [record for record in records if record.error is not None]
    data["skipped"] = [_why(record) for record in left_out]
    if left_out:
        lines += [f"skipped {len(left_out)}:"]
        lines += ["  {image_path}: {type}: {message}".format(**_why(record)) for record in left_out[:LISTED]]
        lines += [f"  and {len(left_out) - LISTED} more; --format json lists all"] if len(left_out) > LISTED else []
    emit(config, human="\n".join(lines), data=data)
    return SKIPPED if left_out else OK


def _records(config: Config) -> "list[Record]":
    """Records of the manifest, or of the pictures in the folder."""
    from patchatlas.cli.features_build import parse_buckets
    from patchatlas.datasets.placement import place
    from patchatlas.datasets.scan import scan_folder
    from patchatlas.geometry.bucket_tables import learn_table
    from patchatlas.io.manifest import read_manifest

    if config.output_jsonl is not None and config.output_jsonl.is_file():
        return read_manifest(config.output_jsonl)
    if config.input_dir is None:
        if config.output_jsonl is not None:
            raise InputError(f"there is no manifest {config.output_jsonl}; give --input-dir to plan for a folder")
        raise UsageError("give --input-dir with a folder of pictures, or --output-jsonl with a manifest")
    learn, table = parse_buckets(config.buckets)
    with progress() as bar:
        task = bar.add_task("looking at pictures")
        records = scan_folder(
            config.input_dir,
            table=table,
            rule=config.bucket_rule,
            skip_dirs=[_derived(config)],
            on_progress=lambda done, total, _: bar.update(task, completed=done, total=total),
        )
    sizes = [(record.height, record.width) for record in records if record.height and record.width]
    if learn is None or not sizes:
        return records
    table = learn_table(sizes, count=learn)
    return [
        place(record, table, rule=config.bucket_rule) if record.aspect_bucket is not None else record
        for record in records
    ]


def _facts(config: Config) -> "tuple[dict[str, Any], Encoder | None]":
    """Name, patch, dim, registers and CLS of the encoder, and the encoder itself if it is to be timed."""
    from patchatlas.encoders.catalogue import find
    from patchatlas.encoders.loading import load_encoder

    known = find(config.encoder or DEFAULT_ENCODER)
    if known is not None and (config.encoder is None or not config.timing):
        facts = {"name": known.name, "patch": list(known.patch), "dim": known.dim, "registers": known.registers}
        return {**facts, "has_cls": known.family != "convnext"}, None
    assert config.encoder is not None
    encoder = load_encoder(config.encoder, device=config.device, dtype=config.precision)
    spec = encoder.spec
    facts = {"name": spec.name, "patch": list(spec.patch), "dim": spec.dim, "registers": spec.registers}
    return {**facts, "has_cls": spec.has_cls}, encoder if config.timing else None


def _plan(records: "list[Record]", facts: dict[str, Any]) -> "Plan":
    from patchatlas.datasets.plan import plan_build

    if len(facts["patch"]) != 2:
        raise UsageError(f"{facts['name']} takes volumes; pictures need an encoder with patches of two sides")
    return plan_build(
        records,
        patch=(facts["patch"][0], facts["patch"][1]),
        dim=facts["dim"],
        registers=facts["registers"],
        has_cls=facts["has_cls"],
    )


def _derived(config: Config) -> Path:
    if config.derived_dir is not None:
        return config.derived_dir
    return (Path("data") if config.output_jsonl is None else config.output_jsonl.parent) / "derived"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def _disk(config: Config) -> "DiskSpeed":
    from patchatlas.datasets.plan import DiskSpeed, time_disk

    if config.read_mb_s is not None and config.write_mb_s is not None:
        return DiskSpeed(read=config.read_mb_s * 1e6, write=config.write_mb_s * 1e6)
    measured = time_disk(_existing(_derived(config)))
    return DiskSpeed(
        read=measured.read if config.read_mb_s is None else config.read_mb_s * 1e6,
        write=measured.write if config.write_mb_s is None else config.write_mb_s * 1e6,
    )


def _heading(facts: dict[str, Any]) -> list[str]:
    patch = "x".join(map(str, facts["patch"]))
    return [f"{facts['name']}: patch {patch}, {facts['dim']} features, {facts['registers']} registers"]


def _table_lines(plan: "Plan") -> list[str]:
    from patchatlas.geometry.buckets import bucket_name
    from patchatlas.io.codecs import STORED_DTYPES

    lines = [
        f"{'bucket WxH':>12} {'images':>8} {'input WxH':>10} {'rows x cols':>11} {'patches':>8}   MB of one image: "
        + " ".join(f"{dtype:>6}" for dtype in STORED_DTYPES)
    ]
    for bucket in plan.buckets:
        grid = f"{bucket.grid[0]} x {bucket.grid[1]}"
        sizes = " ".join(f"{bucket.bytes[dtype] / 1e6:>6.2f}" for dtype in STORED_DTYPES)
        lines.append(
            f"{bucket_name(bucket.bucket):>12} {bucket.images:>8} {bucket_name(bucket.input_size):>10} {grid:>11} "
            f"{bucket.tokens:>8}   {'':16} {sizes}"
        )
    return lines


def _size_lines(plan: "Plan", config: Config) -> list[str]:
    import shutil

    from patchatlas.io.codecs import STORED_DTYPES

    folder = _existing(_derived(config))
    free, wanted = shutil.disk_usage(folder).free, plan.total_bytes(config.dtype)
    totals = ", ".join(f"{dtype} {plan.total_bytes(dtype) / 1e9:.3f}" for dtype in STORED_DTYPES)
    return [
        f"{plan.images} images, {plan.tokens} patches",
        f"GB of all files, with CLS and registers: {totals}",
        f"{'NOT ENOUGH ROOM: ' if wanted > free else ''}{config.dtype} takes {wanted / 1e9:.3f} GB, "
        f"{free / 1e9:.3f} GB are free in {folder}",
    ]


def _time_lines(config: Config, encoder: "Encoder", timing: "Timing", seconds: float, even: "BreakEven") -> list[str]:
    hours = seconds / 3600 / config.workers
    shared = f", shared by {config.workers}" if config.workers > 1 else ""
    lines = [
        f"encoding: {hours:.2f} hours on {encoder.device}{shared} ({1 / timing.seconds:.3g} images/s in batches of "
        f"{timing.batch} of the fullest bucket, {timing.forwards} forwards timed)",
        f"one image: encode {even.encode * 1e3:.1f} ms, write {even.write * 1e3:.1f} ms, read {even.read * 1e3:.1f} ms",
    ]
    if even.epochs is None:
        return [*lines, "storing never pays: reading takes as long as encoding; encode while training instead"]
    return [
        *lines,
        f"storing pays from {even.epochs} epochs on; over {config.epochs} epochs it is "
        f"{even.gain(config.epochs):.1f} x as fast as encoding in each",
    ]


def _plan_data(plan: "Plan") -> dict[str, Any]:
    from patchatlas.geometry.buckets import bucket_name
    from patchatlas.io.codecs import STORED_DTYPES

    return {
        "buckets": [
            {
                "bucket": bucket_name(bucket.bucket),
                "images": bucket.images,
                "input": bucket_name(bucket.input_size),
                "grid": list(bucket.grid),
                "tokens": bucket.tokens,
                "bytes": dict(bucket.bytes),
            }
            for bucket in plan.buckets
        ],
        "images": plan.images,
        "tokens": plan.tokens,
        "bytes": {dtype: plan.total_bytes(dtype) for dtype in STORED_DTYPES},
    }


def _time_data(config: Config, timing: "Timing", seconds: float, even: "BreakEven") -> dict[str, Any]:
    return {
        "encode_hours": seconds / 3600 / config.workers,
        "images_per_second": 1 / timing.seconds,
        "seconds_per_image": {"encode": even.encode, "write": even.write, "read": even.read},
        "break_even_epochs": even.epochs,
        "gain": even.gain(config.epochs),
    }


def _why(record: "Record") -> dict[str, str]:
    assert record.error is not None
    return {"image_path": record.image_path, "type": record.error.type, "message": record.error.message}
