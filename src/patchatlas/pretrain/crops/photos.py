"""The crops of photographs as a network learns from them: random parts, resized, each varied by itself.

The same samples and batches as of volumes, so the same losses and trainer: one more axis there, and here everything is
foreground. Sizes and positions run in array order (y, x), in pixels of the upright photograph.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import InputError, UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.projective import Projective
from patchatlas.geometry.pyramid import Pyramid
from patchatlas.geometry.sampling import resample_picture
from patchatlas.io.images import read_header, read_picture
from patchatlas.io.reasons import PictureError
from patchatlas.pretrain.crops.augment import blurred, log_uniform
from patchatlas.pretrain.crops.colours import grey, jittered, lit, noisy, solarised
from patchatlas.pretrain.crops.config import PhotoCropConfig, PhotoScale, PhotoWarp
from patchatlas.pretrain.crops.kept import Kept
from patchatlas.pretrain.crops.quads import Quad, draw_shape, place, place_at
from patchatlas.pretrain.crops.records import OVERLAP_RELAXED, SHRUNK, CropRecord, Sample

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm")
"""Files that are taken for photographs, in any letter case."""

Box = tuple[tuple[int, int], tuple[int, int]]
"""First pixel and pixels along each axis."""

KEEP_BYTES = 2**30
"""What decoded photographs may take in each process, unless said otherwise."""

_DRAW, _VARY = 0, 1
"""What a generator is for, the last number of its seed but for that of the crop."""


@dataclass(frozen=True)
class Drawn:
    """A part of a photograph.

    Attributes:
        box: where it lies.
        n_valid: places that it was drawn from.
        flags: what it does not meet.
        warp: from the crop to the photograph where it is no box.
    """

    box: Box
    n_valid: int
    flags: tuple[str, ...]
    warp: Projective | None = None


@dataclass(frozen=True)
class Photo:
    """One photograph of a folder.

    Attributes:
        id: its path below the folder.
        path: its file.
        size_hw: rows and columns, upright.
    """

    id: str
    path: Path
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class PhotoFolder:
    """The photographs of a folder and of those below it, by name.

    Attributes:
        records: those that can be used.
        skipped: name of each other one, and why it cannot be.
    """

    records: tuple[Photo, ...]
    skipped: tuple[tuple[str, str], ...]


def open_photos(folder: str | Path) -> PhotoFolder:
    """Look through a folder; pixels are read when crops are made.

    Raises:
        InputError: there is no such folder, or no photograph in it can be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name one that holds photographs")
    records, skipped = [], []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()):
        name = path.relative_to(folder).as_posix()
        try:
            records.append(Photo(name, path, read_header(path).size_hw))
        except PictureError as error:
            skipped.append((name, str(error)))
    if not records:
        why = f"; the first of {len(skipped)} that cannot be read: {skipped[0][1]}" if skipped else ""
        raise InputError(f"{folder} holds no photograph ({', '.join(SUFFIXES)}){why}")
    return PhotoFolder(tuple(records), tuple(skipped))


class PhotoViews:
    """All crops that can be made of photographs with one config; used as `Views` is.

    Attributes:
        photos: the photographs.
        config: the settings.
        seed: of everything random.
        keep_bytes: what decoded photographs may take in this process; those that were not used for longest go.
    """

    def __init__(
        self, photos: PhotoFolder, config: PhotoCropConfig, *, seed: int = 0, keep_bytes: int = KEEP_BYTES
    ) -> None:
        self.photos = photos
        self.config = config
        self._varied = _varied(config)
        self.seed = seed
        self.keep_bytes = keep_bytes
        self._by_id = {record.id: record for record in photos.records}
        self._kept = Kept(keep_bytes)

    def __len__(self) -> int:
        """Samples an epoch; sample `index` is of photograph `index` modulo their number."""
        return len(self.photos.records) * self.config.per_photo

    def plan(self, index: int, epoch: int) -> tuple[CropRecord, ...]:
        """Where the crops of a sample lie, its global crops first; no pixel is read.

        Args:
            index: any number from 0 on.
            epoch: any number from 0 on.
        """
        config, photo = self.config, self.photos.records[index % len(self.photos.records)]
        rng = np.random.default_rng((self.seed, epoch, index, _DRAW))
        if config.warp is None:
            drawn, parents = self._boxes(photo, rng)
        else:
            drawn, parents = self._quads(photo, config.warp, rng)
        flips = [(1,) if rng.random() < config.augment.flip else () for _ in drawn]
        return tuple(
            self._record(photo, one, parent, flipped, (self.seed, epoch, index, _VARY, number))
            for number, (one, parent, flipped) in enumerate(zip(drawn, parents, flips, strict=True))
        )

    def sample(self, index: int, epoch: int) -> Sample:
        """The crops of a sample with their pixels.

        Raises:
            PictureError: the photograph is damaged or was changed since the folder was looked through.
        """
        records = self.plan(index, epoch)
        picture = self._picture(self._by_id[records[0].volume])
        pixels = [self._pixels(record, picture) for record in records]
        n, large, small = (
            self.config.globals.count,
            self._patches(self.config.globals),
            self._patches(self.config.locals),
        )
        n_locals = self.config.locals.count
        return Sample(
            globals=torch.stack(pixels[:n]),
            locals=torch.stack(pixels[n:]) if n_locals else torch.zeros((0, 3, *self.config.locals.size)),
            global_foreground=torch.ones((n, large)),
            local_foreground=torch.ones((n_locals, small)),
            global_pad=torch.zeros((n, large), dtype=torch.bool),
            local_pad=torch.zeros((n_locals, small), dtype=torch.bool),
            records=records,
        )

    def replay(self, record: CropRecord) -> Float[Tensor, "c h w"]:
        """The pixels of one crop again, equal to those of its sample bit for bit.

        Raises:
            InputError: its photograph is not in the folder.
            PictureError: as `sample`.
            UsageError: it was made with another variation.
        """
        if record.volume not in self._by_id:
            raise InputError(f"{record.volume} is not in this folder; open the one that the record was made from")
        if record.varied != self._varied:
            raise UsageError(
                f"the record of {record.volume} was made with another augment, blur_prob, solarise_prob or "
                "globals.count, or with warp in place of boxes or the other way round; replay it with the settings "
                "that it was made with"
            )
        return self._pixels(record, self._picture(self._by_id[record.volume]))

    def __getstate__(self) -> dict[str, Any]:
        return {"photos": self.photos, "config": self.config, "seed": self.seed, "keep_bytes": self.keep_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["photos"], state["config"], seed=state["seed"], keep_bytes=state["keep_bytes"]
        )

    # -- places -------------------------------------------------------------------------------------------------------

    def _boxes(self, photo: Photo, rng: np.random.Generator) -> tuple[list[Drawn], list[int]]:
        """Upright crops, global ones first, and the parent of each."""
        config = self.config
        drawn: list[Drawn] = []
        for _ in range(config.globals.count):
            first = drawn[0].box if drawn and config.min_overlap else None
            drawn.append(draw_box(photo.size_hw, config.globals, rng, beside=first, overlap=config.min_overlap))
        parents = [-1] * len(drawn)
        for number in range(config.locals.count):
            parents.append(number % config.globals.count if config.locals_inside else -1)
            around = drawn[parents[-1]].box if config.locals_inside else None
            drawn.append(draw_box(photo.size_hw, config.locals, rng, within=around))
        return drawn, parents

    def _quads(self, photo: Photo, warp: PhotoWarp, rng: np.random.Generator) -> tuple[list[Drawn], list[int]]:
        """Crops of any shape, global ones around one place, local ones around places in those, and parents."""
        config, whole = self.config, photo.size_hw
        large, small = config.globals.size, config.locals.size
        quads = [place(draw_shape(large, warp, rng), warp.scale, whole, rng)]
        first = quads[0]
        for _ in range(1, config.globals.count):
            shape = draw_shape(large, warp, rng)
            away = warp.shift * first.scale * np.array(large[::-1]) * rng.uniform(-1, 1, 2)
            quads.append(place_at(shape, first.scale * log_uniform(warp.ratio, rng), first.centre + away, whole))
        maps = [Projective.onto(large, quad.corners) for quad in quads]
        parents = [-1] * len(quads)
        for number in range(config.locals.count):
            parents.append(number % config.globals.count)
            side = math.sqrt(rng.uniform(*config.locals.area))
            middle = np.array(large[::-1]) / 2 * (1 + (1 - side) * rng.uniform(-1, 1, 2))
            around = maps[parents[-1]].to_source(torch.from_numpy(middle)[None])[0].numpy()
            scale = quads[parents[-1]].scale * side * math.sqrt(math.prod(large) / math.prod(small))
            quads.append(place_at(draw_shape(small, warp, rng), scale, around, whole))
            maps.append(Projective.onto(small, quads[-1].corners))
        return [_drawn(quad, one) for quad, one in zip(quads, maps, strict=True)], parents

    def _record(
        self, photo: Photo, drawn: Drawn, parent: int, flips: tuple[int, ...], seed: tuple[int, ...]
    ) -> CropRecord:
        (start, size), crop = drawn.box, self._scale(seed[-1]).size
        frame, warp = Frame.whole(photo.size_hw).crop(start, size).resize(crop), drawn.warp
        if warp is None:
            frame = frame.flip(1) if flips else frame
        elif flips:
            warp = Projective.of_frame(Frame.whole(crop).flip(1)).then(warp)
        return CropRecord(
            volume=photo.id,
            start_zyx=start,
            size_zyx=size,
            spacing=(),
            fg_ratio=1.0,
            n_valid=drawn.n_valid,
            flags=drawn.flags,
            parent=parent,
            flips=flips,
            frame=frame,
            threshold="body",
            seed=seed,
            varied=self._varied,
            warp=warp,
        )

    # -- pixels -------------------------------------------------------------------------------------------------------

    def _picture(self, photo: Photo) -> Pyramid:
        return self._kept.get(photo.id, lambda: self._read(photo))

    def _read(self, photo: Photo) -> Pyramid:
        picture = read_picture(photo.path)
        if picture.size_hw != photo.size_hw:
            raise InputError(
                f"{photo.path} is {picture.size_hw} and was {photo.size_hw} when the folder was looked through; "
                "start again"
            )
        return Pyramid((picture.pixels,)) if self.config.warp is None else Pyramid.of(picture.pixels)

    def _pixels(self, record: CropRecord, picture: Pyramid) -> Float[Tensor, "c h w"]:
        config, rng = self.config, np.random.default_rng(record.seed)
        number = record.seed[-1]
        scale = self._scale(number)
        if number >= config.globals.count:
            number -= config.globals.count
        if record.warp is None:
            pixels = resample_picture(picture.levels[0], record.frame)
        else:
            pixels = picture.draw(record.warp, record.frame.size)
        light = config.augment.light
        if rng.random() < config.augment.jitter_prob:
            pixels = jittered(pixels, config.augment, rng)
        if light is not None and rng.random() < light.prob:
            pixels = lit(pixels, light, rng)
        if rng.random() < config.augment.grey_prob:
            pixels = grey(pixels)
        if rng.random() < scale.blur_prob[number % len(scale.blur_prob)]:
            pixels = blurred(pixels, rng.uniform(*config.augment.blur_sigma))
        if rng.random() < scale.solarise_prob[number % len(scale.solarise_prob)]:
            pixels = solarised(pixels, config.augment.solarise_above)
        if light is not None and rng.random() < light.noise_prob:
            pixels = noisy(pixels, light.noise, rng)
        return pixels.clamp(0, 1)

    def _scale(self, number: int) -> PhotoScale:
        return self.config.globals if number < self.config.globals.count else self.config.locals

    def _patches(self, scale: PhotoScale) -> int:
        return math.prod(n // p for n, p in zip(scale.size, self.config.patch, strict=True))


def _varied(config: PhotoCropConfig) -> str:
    """Short hash of all settings that pixels follow from beside a record."""
    chances = [(scale.blur_prob, scale.solarise_prob) for scale in (config.globals, config.locals)]
    halved = config.warp is not None
    told = json.dumps([halved, config.globals.count, chances, config.augment.model_dump(mode="json")])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _drawn(quad: Quad, warp: Projective) -> Drawn:
    """A quadrilateral with the box of whole pixels around it."""
    low, high = np.floor(quad.corners.min(axis=0)), np.ceil(quad.corners.max(axis=0))
    (x, y), (columns, rows) = low.astype(int).tolist(), (high - low).astype(int).tolist()
    return Drawn(((y, x), (rows, columns)), quad.places, (SHRUNK,) if quad.shrunk else (), warp)


def draw_box(
    size_hw: tuple[int, int],
    scale: PhotoScale,
    rng: np.random.Generator,
    *,
    beside: Box | None = None,
    overlap: float = 0.0,
    within: Box | None = None,
) -> Drawn:
    """A random part of a photograph, whole pixels.

    Area is drawn evenly, aspect evenly over its logarithm. A side that exceeds the photograph is cut to it and the
    other one made longer, so that the area stays. The place is drawn evenly among those that are allowed.

    Args:
        size_hw: rows and columns of the photograph.
        scale: ranges of area and aspect.
        rng: its state decides everything.
        beside: another part, of which at least `overlap` must be shared, measured on the smaller of the two.
        overlap: see `beside`; each axis shares the same part of what it can. Two parts of very different aspect may be
            unable to share so much, which sets a flag.
        within: another part that the new one must lie in.
    """
    area = rng.uniform(*scale.area) * math.prod(size_hw)
    low, high = scale.aspect
    aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
    rows, columns = within[1] if within else size_hw
    height = min(rows, math.sqrt(area / aspect))
    width = min(columns, area / height)
    sides = [max(1, round(side)) for side in (min(rows, area / width), width)]
    part, flags = 1.0, tuple[str, ...]()
    if beside:
        possible = math.prod(map(min, sides, beside[1]))
        part = math.sqrt(overlap * min(math.prod(sides), math.prod(beside[1])) / possible)
        part, flags = min(part, 1.0), (OVERLAP_RELAXED,) if part > 1 else ()
    start, places = [], 1
    for axis, side in enumerate(sides):
        first, last = 0, size_hw[axis] - side
        if within:
            first, last = within[0][axis], within[0][axis] + within[1][axis] - side
        if beside:
            at, other = beside[0][axis], beside[1][axis]
            shared = math.ceil(part * min(side, other))
            first, last = max(first, at + shared - side), min(last, at + other - shared)
        start.append(int(rng.integers(first, last + 1)))
        places *= last + 1 - first
    return Drawn(((start[0], start[1]), (sides[0], sides[1])), places, flags)
