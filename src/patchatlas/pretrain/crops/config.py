"""Settings of crops: how many, how large, how much foreground, how they overlap, and how their values are varied.

Sizes run in array order, (z, y, x) in volumes and (y, x) in photographs; one number stands for all axes. Chances are
probabilities, ranges are (low, high), and HU are Hounsfield units.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from patchatlas.pretrain.window import WINDOWS, check_window

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(gt=0)]

Foreground = Literal["body"] | float
"""What counts as foreground: the body mask of the cache, or all voxels above this many HU."""


def _every_axis(n: int) -> BeforeValidator:
    """One number given for all axes."""
    return BeforeValidator(lambda given: (given,) * n if isinstance(given, int | float) else given)


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"{pair} falls; write the lower number first")
    return pair


Zyx = Annotated[tuple[Side, Side, Side], _every_axis(3)]
ZyxMm = Annotated[tuple[Positive, Positive, Positive], _every_axis(3)]
Hw = Annotated[tuple[Side, Side], _every_axis(2)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# -- volumes ----------------------------------------------------------------------------------------------------------


class Demand(_Settings):
    """A second threshold that some crops of a scale must meet too: soft tissue, contrast, bone."""

    threshold: float
    """Voxels above this many HU count."""
    min_ratio: Annotated[float, Field(gt=0, le=1)]
    """Least share of them in the crop."""
    prob: Share = 1.0
    """Chance that a crop is asked to."""


class GlobalCrops(_Settings):
    """The large crops, which the teacher sees too."""

    count: Annotated[int, Field(ge=1)] = 2
    """Crops a sample; DINO's global term needs two."""
    size: Zyx = (96, 96, 96)
    """Voxels of a crop as the network sees it; a multiple of the patch."""
    mm: ZyxMm | None = None
    """Physical size, millimetres; rounded to whole cells of the cache and resized to `size`. As many source voxels as
    `size` has if not given."""
    zoom: Range = (1.0, 1.0)
    """How much larger than that the part of the volume is that a crop shows, along each axis; drawn for each crop."""
    foreground: Foreground = "body"
    """What counts as foreground: body, or a threshold in HU."""
    min_foreground_ratio: Share = 0.5
    """Least share of foreground voxels in a crop, exact."""
    foreground_crop_prob: Share = 1.0
    """Chance that the global crops of a sample are held to the ratio and the demands; the others come from anywhere
    and say so."""
    demands: tuple[Demand, ...] = ()
    """Further thresholds."""
    min_overlap: Share = 0.3
    """Least share of the smaller of two global crops that the other one shows too."""
    max_overlap: Share = 1.0
    """Largest such share; below 1 the two are never the same place."""


class LocalCrops(_Settings):
    """The small crops, which the student alone sees."""

    count: Count = 8
    """Crops a sample."""
    size: Zyx = (48, 48, 48)
    """Voxels of a crop as the network sees it; a multiple of the patch."""
    mm: ZyxMm | None = None
    """Physical size, millimetres, as for global crops."""
    zoom: Range = (1.0, 1.0)
    """As for global crops. A part of a global crop that would be larger than that is as large, and says so."""
    foreground: Foreground = "body"
    """What counts as foreground: body, or a threshold in HU."""
    min_foreground_ratio: Share = 0.4
    """Least share of foreground voxels in a crop; not above that of the global crops where both count the same."""
    demands: tuple[Demand, ...] = ()
    """Further thresholds."""
    inside: Literal["global", "volume"] = "global"
    """global: part of a global crop, on its patches, the global crops in turn. volume: anywhere in the volume."""


class VolumeAugment(_Settings):
    """How values and sides are varied, for each crop by itself; HU before the window, then shares of the window."""

    flip_left_right: Share = 0.5
    """Chance of a flip along axis 2."""
    flip_front_back: Share = 0.0
    """Chance of a flip along axis 1."""
    flip_head_foot: Share = 0.0
    """Chance of a flip along axis 0."""
    low_resolution_prob: Share = 0.2
    """Chance of drawing a crop with fewer voxels and back."""
    low_resolution: Range = (1.0, 2.0)
    """How many times fewer along each axis."""
    blur_prob: Share = 0.2
    """Chance of a Gaussian blur."""
    blur_sigma: Range = (0.3, 1.0)
    """Its standard deviation, voxels of the crop."""
    noise_prob: Share = 0.5
    """Chance of Gaussian noise."""
    noise_hu: Range = (5.0, 40.0)
    """Its standard deviation, HU."""
    window_prob: Share = 0.5
    """Chance of another window."""
    window_shift_hu: Annotated[float, Field(ge=0)] = 50.0
    """Largest move of its middle, HU, either way."""
    window_width: Range = (0.9, 1.1)
    """Its width, as a multiple."""
    gamma_prob: Share = 0.3
    """Chance of a power law inside the window."""
    gamma: Range = (0.7, 1.5)
    """Its exponent."""

    @classmethod
    def none(cls) -> "VolumeAugment":
        """No variation at all."""
        chances = [name for name in cls.model_fields if name.startswith("flip_") or name.endswith("_prob")]
        return VolumeAugment.model_validate(dict.fromkeys(chances, 0.0))


class CropConfig(_Settings):
    """All settings of crops of volumes."""

    kind: Literal["volumes"] = "volumes"
    """What is cropped."""
    patch: Zyx = (8, 8, 8)
    """Voxels of a patch of the network."""
    globals: GlobalCrops = GlobalCrops()
    """The large crops."""
    locals: LocalCrops = LocalCrops()
    """The small crops."""
    window: tuple[float, float] | str = "ct"
    """HU that become 0 and 1, or the name of a preset; its lower end may not lie above a foreground threshold, for the
    body above the one that the cache made it with."""
    augment: VolumeAugment = VolumeAugment()
    """How values and sides are varied."""
    strict: bool = False
    """Refuse a volume in which a ratio, a demand or an overlap cannot be had, rather than flag the crop."""

    @property
    def window_hu(self) -> tuple[float, float]:
        """The window as numbers."""
        return WINDOWS[self.window] if isinstance(self.window, str) else self.window

    @property
    def ndim(self) -> int:
        """Axes of a crop."""
        return 3

    @property
    def channels(self) -> int:
        """Channels of a crop."""
        return 1

    def lowest_foreground(self, body_hu: float) -> float:
        """The lowest of all thresholds, HU; the window begins there or below, however it is varied.

        Args:
            body_hu: the threshold that the body masks of the cache were made with.
        """
        return min(body_hu if key == "body" else key for key in self.keys)

    @property
    def keys(self) -> tuple[Foreground, ...]:
        """All that the cells of the cache must have been counted for."""
        demands = [demand.threshold for scale in (self.globals, self.locals) for demand in scale.demands]
        return tuple(dict.fromkeys([self.globals.foreground, self.locals.foreground, *demands]))

    @model_validator(mode="after")
    def _possible(self) -> "CropConfig":
        for name, scale in (("globals", self.globals), ("locals", self.locals)):
            _require_patches(f"{name}.size", scale.size, self.patch)
        if self.globals.min_overlap > self.globals.max_overlap:
            raise ValueError(
                f"globals.min_overlap {self.globals.min_overlap} is above globals.max_overlap "
                f"{self.globals.max_overlap}; no pair of crops can meet both"
            )
        if self.locals.count and self.locals.inside == "global":
            self._check_inside()
        if isinstance(self.window, str) and self.window not in WINDOWS:
            raise ValueError(f"there is no window {self.window!r}; there are {', '.join(WINDOWS)}, or give (low, high)")
        check_window(self.window_hu, self.lowest_foreground(math.inf))  # that of the body is known to the cache alone
        return self

    def _check_inside(self) -> None:
        if any(small > large for small, large in zip(self.locals.size, self.globals.size, strict=True)):
            raise ValueError(
                f"locals.size {self.locals.size} does not fit into globals.size {self.globals.size}; "
                "make it smaller, or set locals.inside to volume"
            )
        self._check_extents()
        alike = self.locals.foreground == self.globals.foreground
        if alike and self.locals.min_foreground_ratio > self.globals.min_foreground_ratio:
            raise ValueError(
                f"locals.min_foreground_ratio {self.locals.min_foreground_ratio} is above that of the global crops, "
                f"{self.globals.min_foreground_ratio}: a global crop need not have such a part. Where locals tile a "
                "global crop one of them has at least its ratio, so lower it to that or below"
            )

    def _check_extents(self) -> None:
        part, whole = self.locals, self.globals
        if part.mm is not None and whole.mm is not None:
            unit, small, large = "mm", part.mm, whole.mm
        elif part.mm is None and whole.mm is None:
            unit, small, large = "voxels", part.size, whole.size
        else:
            return  # the spacing decides, in which volumes differ
        least, most = [n * part.zoom[0] for n in small], [n * whole.zoom[1] for n in large]
        if any(n > m for n, m in zip(least, most, strict=True)):
            raise ValueError(
                f"local crops show {_sides(least)} {unit} at least, with their mm and zoom, and global crops "
                f"{_sides(most)} at most; make locals.mm or locals.zoom smaller, or set locals.inside to volume"
            )


def _sides(sides: list[float]) -> str:
    return " x ".join(f"{side:g}" for side in sides)


# -- photographs ------------------------------------------------------------------------------------------------------


class PhotoScale(_Settings):
    """Crops of photographs of one size."""

    count: Count
    """Crops a sample."""
    size: Hw
    """Pixels of a crop as the network sees it; a multiple of the patch."""
    area: Range
    """Share of the photograph that a crop shows."""
    aspect: Range = (3 / 4, 4 / 3)
    """Width over height of what a crop shows."""
    blur_prob: tuple[Share, ...] = (0.5,)
    """Chance of a blur, for each crop in turn."""
    solarise_prob: tuple[Share, ...] = (0.0,)
    """Chance that bright levels are inverted, for each crop in turn."""


class PhotoWarp(_Settings):
    """Crops that are any quadrilateral of a photograph: turned, slanted, stretched, of sizes in pixels.

    The global crops of a sample lie around one place, so that each shows most of what the others do; each local crop
    lies around a place in one of them, with a turn of its own, and may reach over its edge. All of them lie inside the
    photograph.
    """

    scale: Range = (0.6, 5.0)
    """Pixels of the photograph along one of the crop, for the first global crop; evenly over the logarithm. Where the
    photograph is smaller than that, as many as fit, and a flag."""
    ratio: Range = (0.55, 1.8)
    """The same of another global crop over that of the first."""
    shift: Share = 0.25
    """Largest way from the middle of the first global crop to that of another along each axis, over its side."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 18.0
    """Standard deviation of the angle that a crop is turned by, degrees; two crops differ by 1.4 times as much."""
    any_turn: Share = 0.1
    """Chance that it is turned by any angle instead, all alike."""
    perspective: Annotated[float, Field(ge=0, lt=0.5)] = 0.12
    """Largest move of a corner along each axis, over its distance from the middle; 0.5 could fold a crop over."""
    stretch: Annotated[float, Field(ge=1)] = 1.25
    """Largest factor between the scales of both axes, either way."""


class PhotoLight(_Settings):
    """Other light, another camera: more than `jitter` changes, in one pass over the pixels.

    Levels are multiplied channel by channel, moved away from their mean, moved up or down, and put to a power; then
    multiplied with a slope across the crop, and given noise.
    """

    prob: Share = 1.0
    """Chance of all of it; noise has its own."""
    gain: Share = 0.2
    """Largest relative change of each channel."""
    contrast: Range = (0.55, 1.5)
    """Factor of the distance from the mean level, evenly over its logarithm."""
    level: Share = 0.2
    """Largest number added to all levels, either way."""
    gamma: Range = (0.6, 1.65)
    """Exponent, evenly over its logarithm."""
    slope: Annotated[float, Field(ge=0, lt=0.5)] = 0.3
    """Largest relative change from the middle to an edge, along each axis."""
    noise_prob: Share = 0.5
    """Chance of Gaussian noise, after any blur."""
    noise: Annotated[float, Field(ge=0)] = 0.06
    """Its largest standard deviation."""


class PhotoAugment(_Settings):
    """How pixels are varied, for each crop by itself."""

    flip: Share = 0.5
    """Chance of a flip left to right."""
    jitter_prob: Share = 0.8
    """Chance of other colours."""
    brightness: Share = 0.4
    """Largest relative change of brightness."""
    contrast: Share = 0.4
    """Of contrast."""
    saturation: Share = 0.2
    """Of saturation."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Of hue, turns of the colour circle."""
    grey_prob: Share = 0.2
    """Chance of grey."""
    blur_sigma: Range = (0.1, 2.0)
    """Standard deviation of a blur, pixels of the crop."""
    solarise_above: Share = 0.5
    """Levels from here on are inverted."""
    light: PhotoLight | None = None
    """Stronger changes of light, after those of colour; none if not given."""

    @classmethod
    def none(cls) -> "PhotoAugment":
        """No variation at all."""
        return PhotoAugment(flip=0, jitter_prob=0, grey_prob=0)


# The numbers of both scales and of the variation are those of DINOv2 (arXiv 2304.07193) and DINOv3's configs.
_PHOTO_GLOBALS = PhotoScale(count=2, size=(224, 224), area=(0.32, 1.0), blur_prob=(1.0, 0.1), solarise_prob=(0.0, 0.2))
_PHOTO_LOCALS = PhotoScale(count=8, size=(96, 96), area=(0.05, 0.32))


class PhotoCropConfig(_Settings):
    """All settings of crops of photographs."""

    kind: Literal["photos"] = "photos"
    """What is cropped."""
    patch: Hw = (16, 16)
    """Pixels of a patch of the network."""
    globals: PhotoScale = _PHOTO_GLOBALS
    """The large crops."""
    locals: PhotoScale = _PHOTO_LOCALS
    """The small crops."""
    min_overlap: Share = 0.0
    """Least share of the smaller of two global crops that the other one shows too."""
    locals_inside: bool = False
    """Local crops are parts of the global crops, in turn; else they come from anywhere."""
    warp: PhotoWarp | None = None
    """Quadrilaterals instead of boxes: `globals.area`, both aspects and `min_overlap` then stay out, and `locals.area`
    is a share of the global crop that a local crop lies around a place in."""
    per_photo: Annotated[int, Field(ge=1)] = 1
    """Samples of each photograph an epoch."""
    augment: PhotoAugment = PhotoAugment()
    """How pixels are varied."""

    @property
    def ndim(self) -> int:
        """Axes of a crop."""
        return 2

    @property
    def channels(self) -> int:
        """Channels of a crop."""
        return 3

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """A scale given in part keeps the other settings of its own scale."""
        if not isinstance(given, dict):
            return given
        full = dict(given)
        for name, scale in (("globals", _PHOTO_GLOBALS), ("locals", _PHOTO_LOCALS)):
            if isinstance(full.get(name), dict):
                full[name] = scale.model_dump() | full[name]
        return full

    @model_validator(mode="after")
    def _possible(self) -> "PhotoCropConfig":
        if not self.globals.count:
            raise ValueError("globals.count is 0; at least one global crop is needed")
        for name, scale in (("globals", self.globals), ("locals", self.locals)):
            _require_patches(f"{name}.size", scale.size, self.patch)
            if scale.area[1] > 1:
                raise ValueError(f"{name}.area {scale.area} is more than the photograph; end at 1 or below")
        if self.warp is not None:
            self._check_warp()
        return self

    def _check_warp(self) -> None:
        unused = {
            "globals.area": (self.globals.area, _PHOTO_GLOBALS.area),
            "globals.aspect": (self.globals.aspect, _PHOTO_GLOBALS.aspect),
            "locals.aspect": (self.locals.aspect, _PHOTO_LOCALS.aspect),
            "min_overlap": (self.min_overlap, 0.0),
            "locals_inside": (self.locals_inside, False),
        }
        for name, (given, default) in unused.items():
            if given != default:
                raise ValueError(f"{name} {given} does nothing beside warp, which says what crops show; leave it out")


def _require_patches(name: str, size: tuple[int, ...], patch: tuple[int, ...]) -> None:
    if any(side % p for side, p in zip(size, patch, strict=True)):
        near = tuple(max(1, round(side / p)) * p for side, p in zip(size, patch, strict=True))
        raise ValueError(f"{name} {size} is not a multiple of the patch {patch}; take {near}")
