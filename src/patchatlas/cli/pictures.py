"""The picture of a finding, as `locate` and `demo` write it."""

from patchatlas.arrays import ImageU8
from patchatlas.locate.result import Finding, Point
from patchatlas.viz.finding import SIGMAS, draw_finding
from patchatlas.viz.heatmap import Scale

SCALES = {"sift": Scale(0.68, 1.0)}
"""Cosines from no red to full red, by family of the encoder; 0 to 1 for the others.

RootSIFT has no negative entries, so unlike patches are far from orthogonal: among 200 patches of one photo and all of
an unrelated one the median cosine is 0.54 and the 95th percentile 0.67, while the best match in another view of the
same scene has 0.77 to 0.99 (Middlebury motorcycle, graf, leuven and aloe, long side 896).
"""


def draw(target: ImageU8, source: ImageU8, finding: Finding) -> ImageU8:
    """The heatmap on `target` with all marks, and below it both places close up, the state, the numbers, the scale."""
    x, y = finding.target_xy
    (xx, xy), (yx, yy) = finding.covariance
    column, row = finding.mel
    scale = SCALES.get(finding.spec.family, Scale(0.0, 1.0))
    return draw_finding(
        target,
        source,
        similarity_map=finding.similarity_map,
        grid=finding.grid,
        scored=finding.scored,
        source_xy=_flat(finding.source_xy),
        target_xy=(x, y),
        covariance=((xx, xy), (yx, yy)),
        runners_up=[_flat(peak.xy) for peak in finding.runners_up],
        state=finding.state,
        title=finding.uuid,
        lines=[
            f"at x {x:.1f}, y {y:.1f} (pixel {column}, {row})",
            f"cosine {finding.similarity:.3f}, margin {finding.margin:.3f}, "
            f"cycle {finding.cycle_px:.1f} px, spread {finding.spread_px:.1f} px",
            finding.reason,
        ],
        scale=scale,
        scale_caption=f"cosine: one scale for every picture by {finding.spec.name}. Cross: best place; "
        f"ellipse: {SIGMAS} sigma; rings: next best.",
    )


def _flat(point: Point) -> tuple[float, float]:
    x, y = point
    return x, y
