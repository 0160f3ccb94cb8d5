"""The flags that say what the positions of a scan mean, shared by the stitch commands, and reading by them.

tyro makes flags of the fields; a field's docstring is its help.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from patchatlas.cli.console import Output
from patchatlas.errors import FormatError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from patchatlas.io.scans.scan import Declared, Scan


class PositionOptions(Output):
    """What is said of a scan's positions; it goes before what the file says."""

    unit: Literal["px", "m"] | None = None
    """Unit of the positions: object pixels or metres."""
    order: Literal["xy", "yx"] | None = None
    """Across first (xy), or down first (yx: row, column)."""
    sign: Literal["plus", "minus", "minus-x", "minus-y"] | None = None
    """plus: a larger number is further right and down in the object; minus: further left and up; or one of them."""
    anchor: Literal["corner", "centre", "middle"] | None = None
    """What of a tile lies on its position: its corner, its element N // 2 (centre), or its geometric middle N / 2."""
    pixel_size: str | None = None
    """Side of an object pixel in metres, or far-field: worked out from energy, distance and detector in the file."""
    columns: tuple[str, str] | None = None
    """Names or numbers (from 0) of the columns or arrays that hold x and y, for plain tables."""
    frames_axis: Literal["first", "last"] | None = None
    """Where an older PtychoPINN file counts its frames, if the shape does not tell."""

    def declared(self) -> "Declared":
        """What the flags say.

        Raises:
            UsageError: a pixel size that is no number.
        """
        from patchatlas.io.scans.scan import Declared

        return Declared(
            unit=self.unit,
            order=self.order,
            sign=self.sign,
            anchor=self.anchor,
            pixel_size=parse_pixel_size(self.pixel_size),
            columns=self.columns,
            frames_axis=self.frames_axis,
        )


class TileOptions(PositionOptions):
    """A scan with its tiles."""

    scan: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCAN")]
    """PtychoPINN or tike NPZ (also .npz.bz2), ptychodus product, CXI, .ptyd; CSV, NPY or other NPZ with --columns."""
    tiles: Path | None = None
    """Tiles to place, one a position: NPY, NPZ or HDF5 of (n, h, w) or (n, c, h, w). Those in SCAN without it."""
    tiles_key: str | None = None
    """Name of the array in --tiles, where there are several."""
    channels_axis: Literal["first", "last"] | None = None
    """Where tiles of four axes have their channels, (n, c, h, w) or (n, h, w, c), if the shape does not tell."""
    any_size: bool = False
    """Take tiles of another size than the scan's frames, such as their middles; positions then name these tiles'
    corner, centre or middle, and their pixels must be the scan's object pixels."""


def parse_pixel_size(text: str | None) -> float | Literal["far-field"] | None:
    """A length, or the word for working it out.

    Raises:
        UsageError: it is neither.
    """
    if text is None or text == "far-field":
        return text  # type: ignore[return-value]  # mypy does not narrow str by ==
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--pixel-size {text!r} is no length; pass metres, such as 1.8e-7, or far-field") from None


def load(config: TileOptions) -> "tuple[Scan, Tensor, dict[str, str]]":
    """The scan, its tiles (n, c, h, w), and where they are from: path and SHA-256 of each file.

    Raises:
        InputError, UsageError: see `read_scan` and `read_tiles`; no tiles, or not one for each position.
    """
    import torch

    from patchatlas.io.scans.read import read_scan
    from patchatlas.io.scans.scan import count_advice
    from patchatlas.io.scans.tiles import read_tiles, with_channels

    scan = read_scan(config.scan, config.declared())
    files = {"scan": scan.path.name, "scan_sha256": scan.sha256}
    if config.tiles is not None:
        array, digest = read_tiles(
            config.tiles,
            key=config.tiles_key,
            frame_hw=scan.frame_hw,
            channels_axis=config.channels_axis,
            any_size=config.any_size,
        )
        files |= {"tiles": config.tiles.name, "tiles_sha256": digest}
    elif scan.tiles is not None:
        array = with_channels(scan.tiles, str(scan.path), frame_hw=scan.frame_hw, any_size=config.any_size)
    else:
        notes = f" (note: {'; '.join(scan.notes)})" if scan.notes else ""
        raise UsageError(
            f"{scan.path} ({scan.format}) holds positions and no object tiles; give the tiles, such as a network's "
            f"predictions for its frames, with --tiles FILE{notes}"
        )
    if len(array) != len(scan):
        raise FormatError(
            f"{config.scan} holds {len(scan)} positions, {config.tiles or config.scan} {len(array)} tiles; "
            f"{count_advice(len(scan), len(array))}"
        )
    tiles = torch.from_numpy(array)
    if not tiles.is_complex() and tiles.dtype not in (torch.float32, torch.float64):
        tiles = tiles.float()  # whole numbers, and halves, in which sums go wrong
    return scan, tiles, files
