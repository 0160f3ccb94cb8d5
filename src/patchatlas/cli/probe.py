"""Prove that the tokens of ENCODER sit where their pixels are; exit code 4 when they do not.

Replaces the pixels of one patch at a time by noise and looks which token changes most, over the whole grid.
"""

from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit, progress
from patchatlas.errors import UsageError

if TYPE_CHECKING:
    from patchatlas.probe import ProbeReport

DEFAULT_CELLS = {2: (8, 12), 3: (4, 6, 8)}
"""Patches along each axis where no size is given: few, and no two sides alike."""

BARS = 8
"""Lines of the histogram."""

BAR_WIDTH = 40


class Config(Output):
    """What `patchatlas probe` is asked to do."""

    encoder: tyro.conf.Positional[str]
    """Weights file or folder, hub id, catalogue name, bundled:sift or bundled:vit-tiny16."""
    size: str | None = None
    """Input to probe with, HxW or ZxHxW, multiples of the patch; 8 x 12 patches (4 x 6 x 8 in volumes) without it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the hardware has it."""
    layer: int | None = None
    """Block whose tokens are probed, from 0, or from the end if negative; the last one without it."""
    batch: Annotated[int, Field(gt=0)] = 8
    """Inputs a forward."""
    pictures: Annotated[int, Field(gt=0)] = 8
    """Pictures of noise at most; one is enough for most networks, and the work ends once the verdict is certain."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the noise."""


def run(config: Config) -> int:
    """Probe, print the report, and return 0 when aligned, 4 when not.

    Raises:
        UsageError: a size that is not HxW or ZxHxW.
        InputError: a size that does not fit the encoder, or tokens that do not fit the size.
        WeightsError: the encoder cannot be had.
    """
    size = None if config.size is None else parse_size(config.size)

    import torch

    from patchatlas.cli.main import BAD_INPUT, OK
    from patchatlas.encoders.loading import load_encoder
    from patchatlas.probe import probe

    encoder = load_encoder(config.encoder, device=config.device, dtype=config.dtype, layer=config.layer)
    patch = encoder.spec.patch
    if size is None:
        size = tuple(cells * side for cells, side in zip(DEFAULT_CELLS[len(patch)], patch, strict=True))
    with progress() as bar:
        task = bar.add_task("probing")
        report = probe(
            encoder,
            size,
            batch=config.batch,
            pictures=config.pictures,
            generator=torch.Generator().manual_seed(config.seed),
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    emit(config, human=describe(report), data=report.to_json())
    return OK if report.aligned else BAD_INPUT


def parse_size(text: str) -> tuple[int, ...]:
    """`HxW` or `ZxHxW` as numbers.

    Raises:
        UsageError: it is neither.
    """
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--size {text!r} is not a size; write height x width as 224x336, volumes as 16x224x336")
    return tuple(int(part) for part in parts)


def describe(report: "ProbeReport") -> str:
    """The report in lines for people."""
    size, grid = ("x".join(map(str, sides)) for sides in (report.size, report.grid))
    axes = "(row, col)" if len(report.grid) == 2 else "(z, row, col)"
    hits = report.cells - len(report.misses)
    pictures = f"{report.pictures} picture{'s' if report.pictures > 1 else ''}"
    lines = [
        f"{report.verdict}: {report.encoder} at {size}, {grid} patches",
        report.explanation,
        f"hit rate {100 * report.hit_rate:.1f} % ({hits} of {report.cells}); {pictures}, {report.forwards} forwards",
        f"token minus patch, {axes}:",
    ]
    bars = sorted(report.displacements.items(), key=lambda item: (-item[1], item[0]))
    for step, count in bars[:BARS]:
        bar = "#" * max(1, round(BAR_WIDTH * count / report.cells))
        lines.append(f"  {_signed(step):>14}  {count:>5}  {bar}")
    if len(bars) > BARS:
        rest = sum(count for _, count in bars[BARS:])
        lines.append(f"  {'others':>14}  {rest:>5}  in {len(bars) - BARS} more displacements")
    if report.silent:
        lines.append(f"  {'no answer':>14}  {len(report.silent):>5}")
    if not report.aligned:
        lines.append(f"what to do: {report.advice}")
    return "\n".join(lines)


def _signed(step: tuple[int, ...]) -> str:
    return "(" + ", ".join(f"{part:+d}" if part else "0" for part in step) + ")"
