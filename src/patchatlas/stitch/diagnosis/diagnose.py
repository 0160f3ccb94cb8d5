"""Is this stitch right, and if not, what is wrong: all checks, one verdict, one sentence.

Axes: n tiles, c channels, *tile. Positions are (x[, y[, z]]) of each tile's first corner in object pixels.
"""

import math

import torch
from numpy import ndarray
from torch import Tensor

from patchatlas.canvas.canvas import Tiles
from patchatlas.stitch.diagnosis.box import Box, bounding_box
from patchatlas.stitch.diagnosis.clusters import clusters
from patchatlas.stitch.diagnosis.contract import Contract, contract
from patchatlas.stitch.diagnosis.coverage import CoverageStats, coverage_stats
from patchatlas.stitch.diagnosis.fault import Fault
from patchatlas.stitch.diagnosis.limits import Limits
from patchatlas.stitch.diagnosis.orientation import OrientationCheck, check_orientation
from patchatlas.stitch.diagnosis.picture import Picture, PictureCheck, check_picture
from patchatlas.stitch.diagnosis.report import StitchReport
from patchatlas.stitch.diagnosis.spread import Spread, position_spread


def diagnose(
    tiles: Tiles,
    positions: Tensor | ndarray,
    picture: Picture | None = None,
    *,
    box: Box | None = None,
    generator: torch.Generator | None = None,
    limits: Limits | None = None,
) -> StitchReport:
    """Check tiles and positions against each other, and the picture made of them against both.

    The scan is sampled (`Limits.sample` tiles, in clusters), so this takes about a second whatever its size, plus one
    stitch of at most `Limits.reference_pixels` tile pixels where there is a picture.

    Args:
        tiles: real or complex.
        positions: as they were given, of any shape, so that a wrong shape can be named.
        picture: what was made; without it only tiles and positions are checked.
        box: of the whole canvas, where `picture` is a part of one that memory does not hold.
        generator: of the shuffled control; the same one every time without it.
        limits: thresholds.

    Returns:
        The report. Nothing is raised for what is wrong with the stitch.
    """
    limits = limits if limits is not None else Limits()
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    given = contract(positions, tiles)
    if given.fault is not None or not len(tiles):
        return _report(tiles, given, limits, [given.fault or Fault("misshaped", "there are no tiles")])
    at = torch.as_tensor(positions).detach().double().cpu()
    tiles = tiles.detach()
    spread = position_spread(tiles, at, limits=limits)
    size = tuple(tiles.shape[2:])
    sample = max(16, min(limits.sample, limits.sample_pixels // math.prod(size)))
    groups = clusters(at, size, limit=sample, count=limits.clusters)
    orientation = check_orientation(tiles, at, groups, generator=generator, limits=limits)
    turned = orientation.fault if orientation is not None else None
    if turned is not None and spread.reach <= limits.crowded * min(size) and turned.verdict in ("shuffled", "loose"):
        turned = Fault(
            "one_spot",
            f"all {len(at)} positions lie within {spread.reach:.3g} px, and their tiles differ: {turned.sentence}",
        )
    # Positions that collapsed make every comparison of tiles fail; their own fault says it all.
    faults = [spread.fault or turned]
    if picture is None:
        return _report(tiles, given, limits, faults, spread=spread, orientation=orientation)
    partial = box is not None
    if box is None:
        box = bounding_box(picture.values, at, size, origin=picture.origin, coverage=picture.coverage, limits=limits)
    stats = None
    if picture.coverage is not None and not partial:
        stats = coverage_stats(picture.coverage, at, size, origin=picture.origin, placed=picture.placed)
    checked = check_picture(tiles, at, picture, box, limits=limits)
    # A picture's own fault explains its box and its holes; these speak where it has none.
    faults.append(checked.fault or box.fault or (stats.fault if stats is not None else None))
    return _report(
        tiles, given, limits, faults, spread=spread, orientation=orientation, box=box, coverage=stats, picture=checked
    )


def _report(
    tiles: Tensor,
    given: Contract,
    limits: Limits,
    found: list[Fault | None],
    *,
    spread: Spread | None = None,
    orientation: OrientationCheck | None = None,
    box: Box | None = None,
    coverage: CoverageStats | None = None,
    picture: PictureCheck | None = None,
) -> StitchReport:
    faults = [fault for fault in found if fault is not None]
    return StitchReport(
        verdict=faults[0].verdict if faults else "ok",
        sentence=faults[0].sentence if faults else _all_well(len(tiles), orientation, picture),
        advice=faults[0].advice if faults else "",
        faults=tuple(faults),
        tiles=len(tiles),
        tile_size=tuple(tiles.shape[2:]),
        contract=given,
        spread=spread,
        box=box,
        coverage=coverage,
        orientation=orientation,
        picture=picture,
        limits=limits,
    )


def _all_well(count: int, orientation: OrientationCheck | None, picture: PictureCheck | None) -> str:
    """What was seen where nothing is wrong, and what could not be seen."""
    tiles = f"{count} tiles"
    if count == 1:
        text = "1 tile, so nothing tells whether signs and axes are right"
    elif orientation is None:
        text = f"{tiles}, no two of which overlap: nothing tells whether signs and axes are right"
    elif orientation.indistinct:
        text = f"{tiles} that look the same wherever they lie: nothing tells whether signs and axes are right"
    else:
        text = (
            f"{tiles} agree where they overlap (residual {orientation.given:.2g}, {orientation.shuffled:.2g} with rows "
            "shuffled)"
        )
    if picture is None:
        return text + "; there is no picture to check"
    if math.isnan(picture.agreement):
        return text + "; the picture has the size that positions predict, more could not be compared"
    return text + f"; the picture is what they give (correlation {picture.agreement:.3f})"
