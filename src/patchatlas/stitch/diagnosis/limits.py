"""What counts as right: every number of the diagnosis that is a choice, and how far healthy and broken ones lie off."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Thresholds.

    The margins were measured on tiles of 24 and 32 pixels of real, complex and weak-phase objects, from pixel-rough to
    as smooth as a whole scan, on raster, spiral, Fermat, random and single-row paths and at the positions of two
    measured scans; `tests/stitch/test_diagnosis_margins.py` holds them.

    Attributes:
        sample: tiles that are compared, in `clusters` clusters. 128 tiles of 64 x 64 take about half a second.
        clusters: see `diagnosis.clusters`.
        sample_pixels: fewer tiles are taken where they are large, so that not more pixels than this are compared.
        one_spot_px: positions that all lie within so much are one place. Sub-pixel dithers step by 0.25 px or more.
        crowded: part of a tile's side; positions that all lie within it, of tiles that disagree, are one place as well:
            a unit is wrong.
        same_px: positions closer than this are the same.
        loose: residual from which tiles agree only in part. Healthy: up to 0.04 on an object rough to the pixel, 0.0002
            on one with features of 2 px. Positions off by 1 px: 0.1 to 0.3 on that one.
        shuffled: residual from which tiles have nothing in common. Shuffled rows: 0.87 and more.
        turned: another orientation is the right one if its residual is below this part of that of the given one.
            Right over wrong: below 0.08, and below 0.04 where the path is no raster.
        turned_least: residual below which no other orientation is looked for. A wrong orientation of an object that is
            smooth over several tiles gives 0.03 and more.
        stray: disagreement of a tile that does not belong to its place, in units of the mean power. Planted strays: 0.8
            and more; healthy tiles of rough objects: 0.15 at most.
        brightest: how much brighter than its brightest tile a picture may be. A mean with positive weights is never
            brighter, cubic and Fourier kernels ring by up to a half.
        box: part of the predicted box that must be lit.
        equal: correlation above which two pictures are the same.
        displaced_px: displacement of the picture that counts; smaller ones are rounding.
        whole_px: displacement from which it is called `displaced`, below `half_pixel`.
        gain: part of the misfit that must vanish when the displacement is undone.
        reference_pixels: tile pixels placed for the comparison with the picture; larger scans are compared in part.
    """

    sample: int = 128
    clusters: int = 4
    sample_pixels: int = 2**19
    one_spot_px: float = 0.05
    crowded: float = 0.1
    same_px: float = 1e-3
    loose: float = 0.35
    shuffled: float = 0.7
    turned: float = 0.5
    turned_least: float = 0.02
    stray: float = 0.5
    brightest: float = 2.0
    box: float = 0.98
    equal: float = 0.9
    displaced_px: float = 0.25
    whole_px: float = 0.75
    gain: float = 0.5
    reference_pixels: int = 2**24
