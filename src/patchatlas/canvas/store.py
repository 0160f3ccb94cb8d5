"""A canvas as a zarr group: what its attributes say, and how it comes to be complete or absent.

The group has `value` (c, *size), `coverage` (*size) and `covered` (*size, whether there is a value). Its attributes are
`format`, `version`, `package` (of patchatlas), `origin` (object index of canvas pixel 0), `axes` (names, in the order
of origin) and `stamp` (`facts`, and the `digest` of them).
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchatlas import __version__
from patchatlas.canvas.canvas import Fill
from patchatlas.canvas.plan import CanvasPlan
from patchatlas.canvas.taps import Interpolation
from patchatlas.errors import FormatError, InputError, MissingExtraError, StampError
from patchatlas.files import replacing_folder
from patchatlas.stamp import Stamp, StampValue

FORMAT = "patchatlas.canvas"
VERSION = 1


def open_zarr(path: str | Path, *, expect: Stamp | None = None) -> tuple[Any, CanvasPlan, Stamp]:
    """A canvas that `place_to_zarr` has written: the group, its place and its stamp. Arrays are read when indexed.

    Args:
        path: the group.
        expect: refuse the group unless its stamp is this one.

    Raises:
        InputError: no such folder.
        FormatError: another format, a newer version, or a stamp that does not fit its digest.
        StampError: the stamp is not the expected one.
        MissingExtraError: zarr is not installed.
    """
    zarr, path = _zarr(), Path(path)
    if not path.is_dir():
        raise InputError(f"there is no folder {path}")
    try:
        group = zarr.open_group(path, mode="r")
    except FileNotFoundError as error:
        raise FormatError(f"{path} is no zarr group") from error
    about = dict(group.attrs)
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        raise FormatError(
            f"{path} is {about.get('format')} version {about.get('version')}; this program reads {FORMAT} version "
            f"{VERSION}"
        )
    stamp = Stamp.from_json(json.dumps(about["stamp"]["facts"]))
    if stamp.digest != about["stamp"]["digest"]:
        raise FormatError(f"{path}: its stamp was changed by hand, the digest beside it is another")
    if expect is not None:
        stamp.require(expect, what="canvases")
    return group, CanvasPlan(tuple(about["origin"]), tuple(group["coverage"].shape)), stamp


def recipe(
    plan: CanvasPlan,
    positions: Tensor,
    tile_size: tuple[int, ...],
    window: Tensor | None,
    weights: Tensor | None,
    *,
    interpolation: Interpolation,
    dtype: torch.dtype,
    fill: Fill,
) -> dict[str, StampValue]:
    """What changes the numbers, apart from the tiles."""
    return {
        "interpolation": interpolation,
        "dtype": str(dtype).removeprefix("torch."),
        "fill": str(complex(fill)),
        "tiles": len(positions),
        "tile_size": tile_size,
        "canvas_origin": plan.origin,
        "canvas_size": plan.size,
        "positions_sha256": _hash(positions),
        "tile_window_sha256": _hash(window),
        "tile_weights_sha256": _hash(weights),
    }


def complete(facts: dict[str, StampValue], given: Stamp | None) -> Stamp:
    """A stamp of these facts and of those given.

    Raises:
        StampError: names those given that contradict the facts.
    """
    more = {} if given is None else dict(given.facts)
    wrong = [
        f"{name}: {facts[name]!r} here, {more[name]!r} given"
        for name in facts
        if more.get(name, facts[name]) != facts[name]
    ]
    if wrong:
        raise StampError(f"the stamp says what is not so ({'; '.join(wrong)}); leave these facts out of it")
    return Stamp(tuple(sorted((more | facts).items())))


def attributes(plan: CanvasPlan, stamp: Stamp) -> dict[str, Any]:
    """Of the group."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "origin": list(plan.origin),
        "axes": ["z", "y", "x"][-plan.ndim :],
        "stamp": {"facts": json.loads(stamp.to_json()), "digest": stamp.digest},
    }


@contextmanager
def new_group(path: str | Path) -> Iterator[Any]:
    """A zarr group in the making, see `patchatlas.files.replacing_folder`; it takes the place of nothing.

    Raises:
        InputError: the path is taken, before or after, or its folder does not exist.
        MissingExtraError: zarr is not installed.
    """
    zarr, path = _zarr(), Path(path)
    _check_absent(path)
    with replacing_folder(path) as temporary:
        yield zarr.open_group(temporary, mode="w-")
        _check_absent(path)  # again: the tiles may have taken hours


def _check_absent(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path} exists; remove it or name another")


def _hash(numbers: Tensor | None) -> str:
    """Of the numbers as float64; empty for none."""
    return "" if numbers is None else hashlib.sha256(numbers.detach().double().cpu().numpy().tobytes()).hexdigest()


def _zarr() -> Any:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise MissingExtraError("zarr", extra="zarr", needed_for="a canvas on disk") from error
    return zarr
