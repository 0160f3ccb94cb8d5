"""tike's NPZ files: `scan`, `data`, `probe`.

By tike's manual (its Ptychography class) `scan` holds pixels, (row, column), of the minimum corner of the probe in the
object. The example files centre it near zero.
"""

from patchatlas.errors import FormatError
from patchatlas.io.scans.archive import Archive
from patchatlas.io.scans.scan import Content, probe_modes, real_numbers

FORMAT = "tike NPZ"


def is_tike(names: tuple[str, ...]) -> bool:
    """Whether an NPZ with these arrays is one."""
    return "scan" in names and bool({"data", "probe"} & set(names))


def read_tike(archive: Archive, *, frames: bool) -> Content:
    """Read one, of a single view.

    Raises:
        FormatError: arrays of other shapes than (1, n, 2) and (1, n, h, w); the leading 1 may be missing.
    """
    positions = archive.load("scan")
    if positions.ndim == 3 and positions.shape[0] == 1:
        positions = positions[0]
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise FormatError(
            f"{archive.path}: scan has the shape {positions.shape}; one view, (1, n, 2) or (n, 2), is read"
        )
    rule = f"the rule of {FORMAT}"
    shape = archive.shape("data") if "data" in archive else None
    if shape is not None:
        shape = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
        if len(shape) != 3:
            raise FormatError(
                f"{archive.path}: data has the shape {shape}; one view, (1, n, h, w) or (n, h, w), is read"
            )
    notes: tuple[str, ...] = () if shape is None else ("frames have zero frequency at the corner",)
    probe = None
    if "probe" in archive:
        probe, more = probe_modes(archive.load("probe"), "probe")
        notes += more
    return Content(
        format=FORMAT,
        positions=real_numbers(positions, f"{archive.path}: scan"),
        known={"unit": ("px", rule), "order": ("yx", rule), "sign": ("plus", rule), "anchor": ("corner", rule)},
        frame_hw=None if shape is None else (shape[1], shape[2]),
        frames=None if shape is None else shape[0],
        diffraction=archive.load("data").reshape(shape) if frames and shape is not None else None,
        probe=probe,
        notes=notes,
    )
