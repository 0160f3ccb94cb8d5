"""The pictures of a stitched scan, as `stitch run` and `stitch diagnose` write them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.stitch.run import OrientedView
from patchatlas.viz.stitch import (
    RESIDUAL_BAR,
    Map,
    View,
    contact_sheet,
    coverage_bar,
    overview,
    phase_bar,
    value_bar,
)


def draw_maps(
    values: Tensor, coverage: Tensor, has_value: Tensor, *, residual: Tensor | None, lines: Sequence[str]
) -> dict[str, ImageU8]:
    """Amplitude and phase (or value, if real) of the first channel, coverage and residual, and all in one overview.

    Args:
        values: (c, rows, cols).
        coverage: (rows, cols).
        has_value: (rows, cols), where `values` mean something.
        residual: (rows, cols), NaN where there is none; `None` where it was not measured.
        lines: what the overview says below.
    """
    covered = has_value.numpy()
    first = values[0]
    many = f" of the first of {len(values)} channels" if len(values) > 1 else ""
    if first.is_complex():
        amplitude, phase = first.abs().numpy(), first.angle().numpy()
        maps = {
            "amplitude": Map(f"Amplitude{many}", amplitude, covered, value_bar(amplitude, covered)),
            "phase": Map(f"Phase{many}", phase, covered, phase_bar(phase, covered)),
        }
    else:
        real = first.numpy()
        maps = {"value": Map(f"Value{many}", real, covered, value_bar(real, covered))}
    lies = coverage.numpy()
    maps["coverage"] = Map("Coverage", lies, lies > 0, coverage_bar(lies))
    if residual is not None:
        known = residual.isfinite()
        shown = torch.where(known, residual, 0.0).numpy()
        maps["residual"] = Map("Residual where tiles overlap", shown, known.numpy(), RESIDUAL_BAR)
    return {name: one.paint() for name, one in maps.items()} | {"overview": overview(list(maps.values()), lines=lines)}


def draw_orientations(views: Sequence[OrientedView]) -> ImageU8:
    """What the eight orientations of the positions give, as given first."""
    told = any(view.residual == view.residual for view in views)  # NaN where no two tiles overlap
    return contact_sheet(
        [
            View(
                name=view.orientation.name,
                values=_real(view.values[0]).numpy(),
                covered=view.covered.numpy(),
                residual=view.residual,
                used=view.orientation.as_given,
            )
            for view in views
        ],
        title="The same tiles by all signs and orders of their positions: "
        + ("the right one is sharp" if told else "nothing tells which is right"),
    )


def _real(values: Tensor) -> Tensor:
    return values.abs() if values.is_complex() else values
