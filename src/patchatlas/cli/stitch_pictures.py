"""The pictures of a stitched scan, as `stitch run` and `stitch diagnose` write them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.stitch.run import OrientedView, Stitched
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


def draw_maps(stitched: Stitched, *, lines: Sequence[str]) -> dict[str, ImageU8]:
    """Amplitude and phase (or value, if real) of the first channel, coverage and residual, and all in one overview."""
    covered = (stitched.coverage > 0).numpy()
    first = stitched.values[0]
    many = f" of the first of {len(stitched.values)} channels" if len(stitched.values) > 1 else ""
    if first.is_complex():
        amplitude, phase = first.abs().numpy(), first.angle().numpy()
        maps = {
            "amplitude": Map(f"Amplitude{many}", amplitude, covered, value_bar(amplitude, covered)),
            "phase": Map(f"Phase{many}", phase, covered, phase_bar(phase, covered)),
        }
    else:
        values = first.numpy()
        maps = {"value": Map(f"Value{many}", values, covered, value_bar(values, covered))}
    coverage, misfit = stitched.coverage.numpy(), stitched.misfit.map
    known = misfit.isfinite()
    maps["coverage"] = Map("Coverage", coverage, covered, coverage_bar(coverage))
    residual = torch.where(known, misfit, 0.0).numpy()
    maps["residual"] = Map("Residual where tiles overlap", residual, known.numpy(), RESIDUAL_BAR)
    return {name: one.paint() for name, one in maps.items()} | {"overview": overview(list(maps.values()), lines=lines)}


def draw_orientations(views: Sequence[OrientedView]) -> ImageU8:
    """What the eight orientations of the positions give, as given first."""
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
        title="The same tiles by all signs and orders of their positions: the right one is sharp",
    )


def _real(values: Tensor) -> Tensor:
    return values.abs() if values.is_complex() else values
