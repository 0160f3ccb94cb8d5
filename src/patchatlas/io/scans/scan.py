"""A scan: where each tile was taken, what its numbers mean, and who said so.

Programs disagree on every part of the meaning of a position: unit, order of the axes, direction, and which point of
the tile it names. A `Scan` therefore holds the numbers as they are stored, the four facts, and the origin of each fact.
`patchatlas.stitch.positions.corners` makes pixel corners of them.

Axes: n positions, h w pixels of a tile or frame, columns of `positions` as `order` says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from patchatlas.errors import FormatError, UsageError

Unit = Literal["px", "m"]
Order = Literal["xy", "yx"]
Sign = Literal["plus", "minus", "minus-x", "minus-y"]
Anchor = Literal["corner", "centre", "middle"]

FACTS: dict[str, tuple[str, ...]] = {
    "unit": get_args(Unit),
    "order": get_args(Order),
    "sign": get_args(Sign),
    "anchor": get_args(Anchor),
}
"""The facts without which positions are numbers only, and the values each may have."""

MEANINGS = {
    "unit": "object pixels or metres",
    "order": "across first (xy) or down first (yx, that is row, column)",
    "sign": "whether a larger number is further right and down in the object (plus), further left and up (minus: the "
    "motion of the sample, say), or mixed (minus-x, minus-y)",
    "anchor": "the tile's corner (0, 0), its element N // 2 (centre), or its geometric middle N / 2 (middle)",
}


@dataclass(frozen=True)
class Declared:
    """What the caller says of a scan; it goes before what the file or its format says. `None`: not said.

    Attributes:
        unit: of the positions.
        order: of the two numbers of a position.
        sign: direction of the positions in the object.
        anchor: which point of the tile a position names.
        pixel_size: side of an object pixel in metres, or `"far-field"`: wavelength times distance over the width of
            the detector, from numbers in the file.
        columns: x and y: names or numbers (from 0) of columns in a table, or names of two arrays in an NPZ.
        frames_axis: where the frames are counted in `diff3d`, if its shape does not tell.
    """

    unit: Unit | None = None
    order: Order | None = None
    sign: Sign | None = None
    anchor: Anchor | None = None
    pixel_size: float | Literal["far-field"] | None = None
    columns: tuple[str, str] | None = None
    frames_axis: Literal["first", "last"] | None = None


@dataclass(frozen=True)
class FarField:
    """Object pixel that a far-field geometry gives: wavelength * distance / (pixels * detector pixel), (x, y) metres.

    Follows from the discrete Fourier transform (Thibault et al., Ultramicroscopy 109, 2009, section 2). It is wrong
    for near-field data, so it is used only where the file or the caller says that the geometry is this one.
    """

    size: tuple[float, float]
    origin: str


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds, before the caller's word is heard.

    Attributes:
        format: name of the file's format.
        positions: as stored, float64.
        known: fact -> (value, origin), for the facts that the file or its format settles.
        tiles: object patches, if the file has them.
        frame_hw: rows and columns of a diffraction frame, if the file has any.
        frames: how many, if the file has any.
        diffraction: the frames themselves, if they were asked for.
        probe: modes (m, h, w), if there is one; see `probe_modes`.
        object: complex object, (h, w), if there is one.
        far_field: what a far-field geometry would give.
        notes: what a person should know of how it was read.
    """

    format: str
    positions: Float64[ndarray, "n 2"]
    known: Mapping[str, tuple[Any, str]]
    tiles: ndarray | None = None
    frame_hw: tuple[int, int] | None = None
    frames: int | None = None
    diffraction: ndarray | None = None
    probe: ndarray | None = None
    object: ndarray | None = None
    far_field: FarField | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Scan:
    """Positions with all that is needed to place tiles by them.

    Attributes:
        path: the file.
        sha256: of the file's bytes, in hex.
        format: name of its format.
        positions: as stored, float64, in `unit`, columns as `order` says.
        unit, order, sign, anchor: see `Declared`.
        pixel_size: (x, y) metres of an object pixel; `None` where the unit is px and nobody said.
        origin_px: (x, y) object pixel at which the stored position zero lies; zeros unless the file says more.
        sources: fact -> who settled it: the caller, the file, or the rule of its format.
        tiles: object patches (n, h, w) or (n, c, h, w), real or complex, if the file has them.
        frame_hw: rows and columns of a diffraction frame, if the file has any.
        diffraction: frames (n, h, w), if they were asked for.
        probe: all modes, (m, h, w), mostly complex, if there is one; they do not interfere.
        object: complex (h, w), if there is one.
        notes: what a person should know of how it was read.
    """

    path: Path
    sha256: str
    format: str
    positions: Float64[ndarray, "n 2"]
    unit: Unit
    order: Order
    sign: Sign
    anchor: Anchor
    pixel_size: tuple[float, float] | None
    origin_px: tuple[float, float] = (0.0, 0.0)
    sources: Mapping[str, str] = field(default_factory=dict)
    tiles: ndarray | None = None
    frame_hw: tuple[int, int] | None = None
    diffraction: ndarray | None = None
    probe: ndarray | None = None
    object: ndarray | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.positions)

    def facts(self) -> dict[str, Any]:
        """What is known of the positions and who said so, as JSON goes."""
        values: dict[str, Any] = {
            "unit": self.unit,
            "order": self.order,
            "sign": self.sign,
            "anchor": self.anchor,
            "pixel_size": None if self.pixel_size is None else list(self.pixel_size),
            "origin_px": list(self.origin_px),
        }
        return {name: {"value": value, "from": self.sources.get(name)} for name, value in values.items()}


def settle(content: Content, declared: Declared, *, path: Path, sha256: str) -> Scan:
    """Join what the file holds with what the caller says; refuse what stays open and positions that cannot be used.

    Raises:
        UsageError: a fact that nobody settled, naming the flag that does.
        FormatError: no positions, positions that are not finite, or counts that differ.
    """
    _check_counts(content, path)
    values, sources = {}, {}
    for name, allowed in FACTS.items():
        said = getattr(declared, name)
        if said is not None and said not in allowed:
            raise UsageError(f"--{name} {said!r} is not one of: {', '.join(allowed)}")
        if said is not None:
            values[name], sources[name] = said, "the caller"
        elif name in content.known:
            values[name], sources[name] = content.known[name]
        else:
            raise UsageError(
                f"{path} ({content.format}) does not say the {name} of its positions: {MEANINGS[name]}; "
                f"pass --{name} {'|'.join(allowed)}"
            )
    pixel_size, sources["pixel_size"] = _pixel_size(content, declared, path, metres=values["unit"] == "m")
    origin, sources["origin_px"] = content.known.get("origin_px", ((0.0, 0.0), "the stored zero"))
    return Scan(
        path=path,
        sha256=sha256,
        format=content.format,
        positions=content.positions,
        unit=values["unit"],
        order=values["order"],
        sign=values["sign"],
        anchor=values["anchor"],
        pixel_size=pixel_size,
        origin_px=origin,
        sources=sources,
        tiles=content.tiles,
        frame_hw=content.frame_hw,
        diffraction=content.diffraction,
        probe=content.probe,
        object=content.object,
        notes=content.notes,
    )


def _pixel_size(
    content: Content, declared: Declared, path: Path, *, metres: bool
) -> tuple[tuple[float, float] | None, str]:
    said = declared.pixel_size
    if said == "far-field":
        if content.far_field is None:
            raise UsageError(
                f"{path} has not all of energy, distance, detector pixel and frame size, so --pixel-size far-field "
                f"cannot be worked out; pass --pixel-size METRES"
            )
        return content.far_field.size, f"the caller: far field, from {content.far_field.origin}"
    if said is not None:
        if not (np.isfinite(said) and said > 0):
            raise UsageError(f"--pixel-size {said!r} is no length; pass metres, such as 1.8e-7, or far-field")
        return (said, said), "the caller"
    if "pixel_size" in content.known:
        value, origin = content.known["pixel_size"]
        return value, origin
    if not metres:
        return None, "nobody"
    hint = ""
    if content.far_field is not None:
        x, y = content.far_field.size
        hint = f", or --pixel-size far-field if the data are far-field (then it is {x:.4g} x {y:.4g} m)"
    raise UsageError(
        f"{path} ({content.format}) has positions in metres and does not say how large an object pixel is; "
        f"pass --pixel-size METRES{hint}"
    )


def _check_counts(content: Content, path: Path) -> None:
    n = len(content.positions)
    if n == 0:
        raise FormatError(f"{path} holds no positions: the scan is empty")
    finite = np.isfinite(content.positions).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        rows = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise FormatError(
            f"{path}: {len(bad)} of {n} positions are NaN or infinite (rows {rows}, from 0); "
            f"remove these rows and their tiles, or export the scan again"
        )
    for what, count in (("frames", content.frames), ("tiles", None if content.tiles is None else len(content.tiles))):
        if count is not None and count != n:
            raise FormatError(f"{path} holds {n} positions for {count} {what}; {count_advice(n, count)}")


def real_numbers(values: ndarray, what: str) -> ndarray:
    """Coordinates as float64.

    Raises:
        FormatError: they are no real numbers.
    """
    if values.dtype.kind not in "fiu":
        raise FormatError(f"{what} must be real numbers, and is {values.dtype}; export the positions again")
    return values.astype(np.float64)


def probe_modes(stored: ndarray, what: str) -> tuple[ndarray | None, tuple[str, ...]]:
    """The modes (m, h, w) of a probe stored as (h, w) or (..., h, w), and what a person should know of them.

    All formats are read by this one rule: no mode is left out, and several are noted.
    """
    if stored.dtype.kind not in "fiuc" or stored.ndim < 2 or 0 in stored.shape:
        return None, (f"{what} is {stored.dtype} {stored.shape}, which is no probe, (h, w) or (modes, h, w)",)
    modes = stored.reshape(-1, *stored.shape[-2:])
    if len(modes) == 1:
        return modes, ()
    return modes, (f"the probe has {len(modes)} modes; where it weighs tiles, their intensities are summed",)


def count_advice(positions: int, tiles: int) -> str:
    """What to do where the number of positions is not that of tiles."""
    if positions == 1:
        return "one position for many tiles would put them all on one spot; give one position a tile"
    return f"each needs its own, in the same order, and none is used twice; give {tiles} positions"
