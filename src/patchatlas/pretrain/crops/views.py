"""The crops of volumes as a network learns from them: placed by tables, read from a cache, each varied by itself.

Sample (index, epoch) is the same whoever asks for it, in whatever order and process: its generators are seeded by
(seed, epoch, index). Sizes and positions run in array order (z, y, x).
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

from patchatlas.errors import InputError, ShapeError, UsageError
from patchatlas.geometry.frame import Frame, Size
from patchatlas.geometry.sampling import Fill, resample
from patchatlas.pretrain.cache import CellCounts
from patchatlas.pretrain.crops.augment import AIR_HU, draw_flips, vary
from patchatlas.pretrain.crops.config import CropConfig, Foreground, GlobalCrops, LocalCrops
from patchatlas.pretrain.crops.draw import Ground, Placed
from patchatlas.pretrain.crops.locals import draw_locals
from patchatlas.pretrain.crops.pairs import draw_globals
from patchatlas.pretrain.crops.records import DEMAND_RELAXED, PADDED, CropRecord, Sample
from patchatlas.pretrain.crops.table import SummedTable
from patchatlas.pretrain.crops.tokens import token_shares
from patchatlas.pretrain.window import check_window

_KEPT_VOLUMES = 32
"""Volumes whose tables are held, some MB each; made again from the cache in milliseconds."""

_DRAW, _VARY = 0, 1
"""What a generator is for, the last number of its seed but for that of the crop."""


@runtime_checkable
class Volume(Protocol):
    """What is asked of a record of a cache."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def size_zyx(self) -> tuple[int, int, int]:
        """Voxels along each axis."""

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """Millimetres a voxel along each axis."""


V = TypeVar("V", bound=Volume)


@runtime_checkable
class Volumes(Protocol[V]):
    """What is asked of a cache; `pretrain.cache.VolumeCache` is one."""

    @property
    def records(self) -> Sequence[V]:
        """Its volumes."""

    @property
    def body_hu(self) -> float:
        """The threshold that its body masks were made with, HU."""

    def read(self, record: V, start_zyx: Sequence[int], size_zyx: Sequence[int]) -> Int16[np.ndarray, "z y x"]:
        """One box of a volume, HU."""

    def cells(self, record: V, key: Foreground) -> CellCounts:
        """Foreground voxels in each cell of a volume."""


class Views(Generic[V]):
    """All crops that can be made of a cache with one config.

    Attributes:
        volumes: the cache.
        config: the settings.
        seed: of everything random.
    """

    def __init__(self, volumes: Volumes[V], config: CropConfig, *, seed: int = 0) -> None:
        """Remember where crops come from.

        Args:
            volumes: a cache with tables for all of `config.keys`.
            config: the settings.
            seed: not negative.

        Raises:
            InputError: the cache is empty.
            UsageError: the window begins above a foreground threshold, of the config or of the body masks.
        """
        if not volumes.records:
            raise InputError("the cache holds no volume; index some with: patchatlas pretrain index SRC --out CACHE")
        self._lowest = config.lowest_foreground(volumes.body_hu)
        check_window(config.window_hu, self._lowest)
        told = json.dumps([config.window_hu, self._lowest, config.augment.model_dump(mode="json")])
        self._varied = hashlib.sha256(told.encode()).hexdigest()[:16]
        self.volumes = volumes
        self.config = config
        self.seed = seed
        self._by_id = {record.id: record for record in volumes.records}
        self._grounds: OrderedDict[str, Ground] = OrderedDict()

    def __len__(self) -> int:
        """Volumes; sample `index` is of volume `index` modulo this."""
        return len(self.volumes.records)

    def plan(self, index: int, epoch: int) -> tuple[CropRecord, ...]:
        """Where the crops of a sample lie, its global crops first; no voxel is read.

        Args:
            index: any number from 0 on.
            epoch: any number from 0 on.

        Raises:
            InputError: the config is strict and the volume cannot give what it asks.
            ShapeError: the config does not fit the cells of the cache.
        """
        return tuple(record for _, record in self._planned(index, epoch))

    def sample(self, index: int, epoch: int) -> Sample:
        """The crops of a sample with their pixels.

        Raises:
            InputError: as `plan`.
            ShapeError: as `plan`.
        """
        planned = self._planned(index, epoch)
        volume = self._volume(index)
        n_globals = self.config.globals.count
        blocks = [self._block(volume, record) for _, record in planned[:n_globals]]
        for placed, record in planned[n_globals:]:
            if placed.parent < 0:
                blocks.append(self._block(volume, record))
            else:
                blocks.append(_part(blocks[placed.parent], planned[placed.parent][1], record))
        pixels = [self._pixels(record, block) for (_, record), block in zip(planned, blocks, strict=True)]
        shares = [self._tokens(volume, placed, record) for placed, record in planned]
        foreground, pad = ([pair[k] for pair in shares] for k in (0, 1))
        return Sample(
            globals=torch.stack(pixels[:n_globals]),
            locals=_stacked(pixels[n_globals:], (self.config.channels, *self.config.locals.size)),
            global_foreground=torch.stack(foreground[:n_globals]),
            local_foreground=_stacked(foreground[n_globals:], (self._patches(self.config.locals.size),)),
            global_pad=torch.stack(pad[:n_globals]),
            local_pad=_stacked(pad[n_globals:], (self._patches(self.config.locals.size),), dtype=torch.bool),
            records=tuple(record for _, record in planned),
        )

    def replay(self, record: CropRecord) -> Float[Tensor, "c *size"]:
        """The pixels of one crop again, equal to those of its sample bit for bit.

        Raises:
            InputError: its volume is not in the cache, or has other voxels there.
            UsageError: it was made with another window or variation.
        """
        volume = self._by_id.get(record.volume)
        if volume is None:
            raise InputError(f"{record.volume} is not in this cache; open the one that the record was made from")
        was = tuple(record.frame.source_size), tuple(record.spacing)
        now = tuple(volume.size_zyx), tuple(volume.spacing_zyx)
        if was != now:
            raise InputError(
                f"{record.volume} has {now[0]} voxels of {now[1]} mm in this cache and had {was[0]} of {was[1]} mm "
                "when the record was made; open the cache that it was made from"
            )
        if record.varied != self._varied:
            raise UsageError(
                f"the record of {record.volume} was made with another window, foreground or augment; replay it with "
                "the settings that it was made with"
            )
        return self._pixels(record, self._block(volume, record))

    def generator(self, index: int, epoch: int) -> np.random.Generator:
        """What decides the places of a sample."""
        return np.random.default_rng((self.seed, epoch, index, _DRAW))

    def ground(self, volume: V) -> Ground:
        """The tables of a volume; those of the last ones are kept."""
        ground = self._grounds.get(volume.id)
        if ground is None:
            tables = {key: self._table(volume, key) for key in self.config.keys}
            ground = Ground(volume.id, tables, self.config.strict)
            self._grounds[volume.id] = ground
            if len(self._grounds) > _KEPT_VOLUMES:
                self._grounds.popitem(last=False)
        self._grounds.move_to_end(volume.id)
        return ground

    def __getstate__(self) -> dict[str, Any]:
        return {"volumes": self.volumes, "config": self.config, "seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["volumes"], state["config"], seed=state["seed"])  # type: ignore[misc]

    # -- places -------------------------------------------------------------------------------------------------------

    def _planned(self, index: int, epoch: int) -> list[tuple[Placed, CropRecord]]:
        volume, rng = self._volume(index), self.generator(index, epoch)
        ground = self.ground(volume)
        parents = draw_globals(ground, self.config.globals, volume.spacing_zyx, rng)
        parts = draw_locals(ground, self.config, volume.spacing_zyx, parents, rng)
        planned = []
        for number, placed in enumerate((*parents, *parts)):
            flips = draw_flips(self.config.augment, rng)
            seed = (self.seed, epoch, index, _VARY, number)
            planned.append((placed, self._record(volume, ground, placed, flips, seed)))
        return planned

    def _record(
        self, volume: V, ground: Ground, placed: Placed, flips: tuple[int, ...], seed: tuple[int, ...]
    ) -> CropRecord:
        scale = self._scale(seed[-1])
        (at_z, at_y, at_x), (n_z, n_y, n_x) = placed.start, placed.cells
        c_z, c_y, c_x = ground.cell
        z, y, x = start = at_z * c_z, at_y * c_y, at_x * c_x
        size = n_z * c_z, n_y * c_y, n_x * c_x
        whole = volume.size_zyx
        outside = z + size[0] > whole[0] or y + size[1] > whole[1] or x + size[2] > whole[2]
        relaxed = placed.rule is None or DEMAND_RELAXED in placed.flags
        return CropRecord(
            volume=volume.id,
            start_zyx=start,
            size_zyx=size,
            spacing=volume.spacing_zyx,
            fg_ratio=ground.tables[scale.foreground].ratio(placed.start, placed.cells),
            n_valid=placed.n_valid,
            flags=(*placed.flags, PADDED) if outside else placed.flags,
            parent=placed.parent,
            flips=flips,
            frame=_frame(whole, start, size, scale.size, flips),
            threshold=scale.foreground,
            demands=() if relaxed or placed.rule is None else placed.rule.demands,
            seed=seed,
            varied=self._varied,
        )

    def _scale(self, number: int) -> GlobalCrops | LocalCrops:
        return self.config.globals if number < self.config.globals.count else self.config.locals

    def _volume(self, index: int) -> V:
        return self.volumes.records[index % len(self)]

    def _table(self, volume: V, key: Foreground) -> SummedTable:
        counted = self.volumes.cells(volume, key)
        for name, scale in (("globals", self.config.globals), ("locals", self.config.locals)):
            if scale.mm is None and any(n % c for n, c in zip(scale.size, counted.cell_zyx, strict=True)):
                raise ShapeError(
                    f"{name}.size {scale.size} is not a multiple of the cells of {counted.cell_zyx} voxels that "
                    f"{volume.id} was indexed with; take a multiple, or index again with cells that divide it"
                )
        return SummedTable.of(counted.counts, counted.cell_zyx, volume.size_zyx)

    # -- pixels -------------------------------------------------------------------------------------------------------

    def _block(self, volume: V, record: CropRecord) -> Int16[np.ndarray, "z y x"]:
        """The voxels of a crop that lie in the volume."""
        return self.volumes.read(volume, record.start_zyx, _held(record))

    def _pixels(self, record: CropRecord, block: Int16[np.ndarray, "z y x"]) -> Float[Tensor, "c *size"]:
        """A crop as the network sees it.

        Args:
            record: of the crop.
            block: its voxels that lie in the volume.
        """
        rng = np.random.default_rng(record.seed)
        shift = tuple(t - at for t, at in zip(record.frame.shift, record.start_zyx, strict=True))
        frame = replace(record.frame, source_size=block.shape, shift=shift)
        fill: Fill = (AIR_HU,) if PADDED in record.flags else "edge"  # without padding nothing is filled
        hu = resample(torch.from_numpy(block.astype(np.float32))[None], frame, fill=fill)
        return vary(hu, self.config.augment, self.config.window_hu, rng, floor=self._lowest)

    def _tokens(self, volume: V, placed: Placed, record: CropRecord) -> tuple[Tensor, Tensor]:
        """Share of foreground of every patch, and whether it is padding; row-major in the crop as it is, flipped."""
        grid = [n // p for n, p in zip(record.frame.size, self.config.patch, strict=True)]
        table = self.ground(volume).tables[record.threshold]
        foreground, inside = token_shares(table, placed.start, placed.cells, grid)
        shares = torch.from_numpy(np.flip(foreground, record.flips).astype(np.float32).ravel())
        pad = torch.from_numpy((np.flip(inside, record.flips) * 2 < 1).ravel())
        return shares, pad

    def _patches(self, size: Size) -> int:
        return int(np.prod([n // p for n, p in zip(size, self.config.patch, strict=True)]))


_fraction = lru_cache(maxsize=4096)(Fraction)


def _frame(whole: Size, start: Size, size: Size, shown: Size, flips: tuple[int, ...]) -> Frame:
    """The frame of a crop: a part of a volume, resized, then flipped."""
    first = _first_frame(whole, size, shown, flips)
    shift = tuple(_fraction(at + t.numerator) for at, t in zip(start, first.shift, strict=True))  # of whole voxels
    return Frame(first.size, first.source_size, first.axes, first.scale, shift)


@lru_cache(maxsize=1024)
def _first_frame(whole: Size, size: Size, shown: Size, flips: tuple[int, ...]) -> Frame:
    """The same of a crop at the first voxel; exact fractions cost more than all else in a plan."""
    frame = Frame.whole(whole).crop((0,) * len(whole), size).resize(shown)
    for axis in flips:
        frame = frame.flip(axis)
    return frame


def _held(record: CropRecord) -> Size:
    """The voxels of a crop along each axis that lie in its volume."""
    sides = zip(record.start_zyx, record.size_zyx, record.frame.source_size, strict=True)
    return tuple(min(n, whole - at) for at, n, whole in sides)


def _part(block: Int16[np.ndarray, "z y x"], parent: CropRecord, record: CropRecord) -> Int16[np.ndarray, "pz py px"]:
    """The voxels of a local crop, out of those of its global crop."""
    within = zip(record.start_zyx, parent.start_zyx, _held(record), strict=True)
    return block[tuple(slice(at - first, at - first + n) for at, first, n in within)]


def _stacked(parts: Sequence[Tensor], shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Parts of one shape, stacked; none of them are an empty stack."""
    return torch.stack(list(parts)) if parts else torch.zeros((0, *shape), dtype=dtype)
