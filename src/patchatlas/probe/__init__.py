"""The alignment probe: proves, by perturbing pixels, that every token of an encoder sits where its patch is."""

from patchatlas.probe.alignment import probe
from patchatlas.probe.report import ProbeReport, Verdict

__all__ = ["ProbeReport", "Verdict", "probe"]
