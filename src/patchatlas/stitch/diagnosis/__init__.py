"""Diagnosis of a stitch: whether tiles, positions and picture belong together, and by name what is wrong if not."""

from patchatlas.stitch.diagnosis.box import Box, bounding_box
from patchatlas.stitch.diagnosis.contract import Contract, contract
from patchatlas.stitch.diagnosis.coverage import CoverageStats, coverage_stats
from patchatlas.stitch.diagnosis.diagnose import diagnose
from patchatlas.stitch.diagnosis.fault import Fault, Verdict
from patchatlas.stitch.diagnosis.limits import Limits
from patchatlas.stitch.diagnosis.overlap import overlap_residual
from patchatlas.stitch.diagnosis.picture import Picture
from patchatlas.stitch.diagnosis.report import StitchReport
from patchatlas.stitch.diagnosis.spread import Spread, position_spread

__all__ = [
    "Box",
    "Contract",
    "CoverageStats",
    "Fault",
    "Limits",
    "Picture",
    "Spread",
    "StitchReport",
    "Verdict",
    "bounding_box",
    "contract",
    "coverage_stats",
    "diagnose",
    "overlap_residual",
    "position_spread",
]
