"""Move the tiles of SCAN so that they agree where they overlap, and write the refined positions.

OUTPUT is an NPZ with x, y (corners, object pixels), shift_x, shift_y, and `stored`, the positions in SCAN's own terms.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from patchatlas.cli.console import emit, progress
from patchatlas.cli.scan_options import TileOptions, load
from patchatlas.cli.threads import one_thread
from patchatlas.errors import InputError, UsageError

HELD = 10
"""Rows of held tiles that are printed."""


class Config(TileOptions):
    """What `patchatlas stitch refine` is asked to do."""

    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUTPUT")]
    """NPZ file to write."""
    rounds: Annotated[int, Field(gt=0)] = 30
    """Rounds at most."""
    limit: Annotated[float, Field(gt=0)] = 4.0
    """Pixels along an axis; a tile that would go farther is left where it was, and named."""
    interp: Literal["linear", "cubic"] = "cubic"
    """How tiles are placed and read."""


def run(config: Config) -> int:
    """Refine, write, and tell the residual before and after; 3 if some tiles were held.

    Raises:
        UsageError: OUTPUT is no .npz.
        InputError: the scan or its tiles cannot be used, no two tiles overlap, or OUTPUT's folder does not exist.
    """
    if config.output.suffix.lower() != ".npz":
        raise UsageError(f"OUTPUT {config.output} must end in .npz")
    if not config.output.parent.is_dir():
        raise InputError(f"cannot write {config.output}: the folder {config.output.parent} does not exist")

    from patchatlas.cli.main import OK, SKIPPED
    from patchatlas.io.scans.archive import write_npz
    from patchatlas.stitch.diagnosis.limits import Limits
    from patchatlas.stitch.positions import corners, stored
    from patchatlas.stitch.refine import refine

    one_thread()
    scan, tiles, files = load(config)
    tile_hw = (tiles.shape[2], tiles.shape[3])
    at = corners(scan, tile_hw)
    with progress() as bar:
        task = bar.add_task("refining", total=config.rounds)
        found = refine(
            tiles,
            at,
            rounds=config.rounds,
            limit=config.limit,
            interpolation=config.interp,
            on_round=lambda number, _: bar.update(task, completed=number),
        )
    x, y = found.positions.numpy().T
    shift_x, shift_y = found.shifts.numpy().T
    arrays = {"x": x, "y": y, "shift_x": shift_x, "shift_y": shift_y}
    write_npz(config.output, {**arrays, "stored": stored(scan, found.positions, tile_hw)})
    moved = found.shifts.norm(dim=1)
    data = {
        "output": str(config.output),
        **files,
        "positions": scan.facts(),
        "residual_before": found.before,
        "residual_after": found.after,
        "rounds": len(found.residuals) - 1,
        "rms_shift_px": float(moved.square().mean().sqrt()),
        "largest_shift_px": float(moved.max()),
        "held": list(found.held),
        "loose": found.after > Limits().loose,
    }
    lines = [
        f"residual {found.before:.5f} before, {found.after:.5f} after {len(found.residuals) - 1} rounds",
        f"shifts: {data['rms_shift_px']:.3f} px RMS, {data['largest_shift_px']:.3f} px at most",
        f"positions: {config.output}",
    ]
    if data["loose"]:
        lines.append(
            "tiles still agree only in part: they are noisy or differ in phase or scale, or positions were off by more "
            "than refinement reaches; the new positions may be no better than the given ones"
        )
    if found.held:
        rows = ", ".join(map(str, found.held[:HELD])) + (", ..." if len(found.held) > HELD else "")
        lines.append(f"{len(found.held)} tiles wanted to go farther than {config.limit} px and were left: {rows}")
    emit(config, human="\n".join(lines), data=data)
    return SKIPPED if found.held else OK
