"""Every setting changes something: the earlier project had keys that nothing read (its defects 1 and 15)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from patchatlas.errors import InputError
from patchatlas.pretrain.crops.config import CropConfig, PhotoCropConfig, PhotoLight, PhotoWarp
from patchatlas.pretrain.crops.photos import PhotoViews, open_photos
from patchatlas.pretrain.crops.views import Views
from tests.pretrain.crops.memory import MemoryCache, blob, small_config

ALL = ("low_resolution", "blur", "noise", "window", "gamma")

VOLUMES: dict[str, Any] = {
    "patch": 8,
    "globals.count": 3,
    "globals.size": 24,
    "globals.mm": 30,
    "globals.zoom": (0.5, 0.5),
    "globals.foreground": "body",
    "globals.min_foreground_ratio": 0.8,
    "globals.foreground_crop_prob": 0.0,
    "globals.demands": [{"threshold": 45, "min_ratio": 0.2}],
    "globals.min_overlap": 0.95,
    "globals.max_overlap": 0.31,
    "locals.count": 3,
    "locals.size": 4,
    "locals.mm": 9,
    "locals.zoom": (0.5, 0.5),
    "locals.foreground": "body",
    "locals.min_foreground_ratio": 0.0,
    "locals.demands": [{"threshold": 45, "min_ratio": 0.25}],
    "locals.inside": "volume",
    "window": (-1000.0, 400.0),
    "augment.flip_left_right": 0.0,
    "augment.flip_front_back": 1.0,
    "augment.flip_head_foot": 1.0,
    **{f"augment.{name}_prob": 0.0 for name in ALL},
    "augment.low_resolution": (3.0, 3.0),
    "augment.blur_sigma": (2.0, 2.0),
    "augment.noise_hu": (80.0, 80.0),
    "augment.window_shift_hu": 200.0,
    "augment.window_width": (0.5, 0.5),
    "augment.gamma": (3.0, 3.0),
}

PHOTOS: dict[str, Any] = {
    "patch": 16,
    "globals.count": 3,
    "globals.size": 48,
    "globals.area": (0.1, 0.1),
    "globals.aspect": (2.0, 2.0),
    "globals.blur_prob": (0.0,),
    "globals.solarise_prob": (1.0,),
    "locals.count": 3,
    "locals.size": 32,
    "locals.area": (0.3, 0.3),
    "locals.aspect": (2.0, 2.0),
    "locals.blur_prob": (0.0,),
    "locals.solarise_prob": (1.0,),
    "min_overlap": 0.95,
    "locals_inside": True,
    "augment.flip": 0.0,
    "augment.jitter_prob": 0.0,
    "augment.brightness": 0.0,
    "augment.contrast": 0.0,
    "augment.saturation": 0.0,
    "augment.hue": 0.0,
    "augment.grey_prob": 1.0,
    "augment.blur_sigma": (4.0, 4.0),
    "augment.solarise_above": 0.1,
    "augment.light": {},
    "warp": {},
    "per_photo": 2,
}

WARPED: dict[str, Any] = {
    "warp.scale": (0.4, 0.5),
    "warp.ratio": (2.0, 3.0),
    "warp.shift": 0.5,
    "warp.rotate": 90.0,
    "warp.any_turn": 1.0,
    "warp.perspective": 0.0,
    "warp.stretch": 2.0,
    "augment.light.prob": 0.0,
    "augment.light.gain": 0.0,
    "augment.light.contrast": (3.0, 4.0),
    "augment.light.level": 0.0,
    "augment.light.gamma": (3.0, 4.0),
    "augment.light.slope": 0.0,
    "augment.light.noise_prob": 0.0,
    "augment.light.noise": 0.5,
}


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of all settings."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def changed(settings: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The settings with one changed."""
    group, _, rest = name.partition(".")
    if not rest:
        return settings | {name: value}
    return settings | {group: changed(settings.get(group, {}), rest, value)}


def fingerprint(views: Views[Any] | PhotoViews) -> list[Any]:
    """Everything that a few samples hold, but for the hash of settings, which changes with dead ones too."""
    samples = [views.sample(index, 0) for index in range(3)]
    tensors = [getattr(s, name) for s in samples for name in ("globals", "locals", "global_foreground")]
    return [
        len(views),
        [replace(record, varied="") for sample in samples for record in sample.records],
        [(t.shape, t.numpy().tobytes()) for t in tensors],
    ]


def test_every_setting_of_volumes_is_in_the_table() -> None:
    assert set(leaves(CropConfig().model_dump())) == set(VOLUMES) | {"kind", "strict"}


def test_every_setting_of_photographs_is_in_the_table() -> None:
    assert set(leaves(PhotoCropConfig().model_dump())) == set(PHOTOS) | {"kind"}


def test_every_setting_of_warps_and_light_is_in_the_table() -> None:
    full = {"warp": PhotoWarp().model_dump(), "augment": {"light": PhotoLight().model_dump()}}
    assert set(leaves(full)) == set(WARPED)


@pytest.mark.parametrize("name", VOLUMES)
def test_a_setting_of_volumes_changes_samples(name: str) -> None:
    volume = blob(np.random.default_rng(0))
    rough = volume.values.copy()
    rough[:, ::2] += 500  # some of the air is denser than -500 HU, and not of the body
    volume = type(volume)("v", rough, volume.spacing_zyx, {"body": volume.values > -500})
    settings = small_config(locals={"min_foreground_ratio": 0.45}, augment={f"{kind}_prob": 1.0 for kind in ALL})
    views = [
        Views(MemoryCache((volume,)), CropConfig.model_validate(made))
        for made in (settings, changed(settings, name, VOLUMES[name]))
    ]
    assert fingerprint(views[0]) != fingerprint(views[1])


@pytest.mark.parametrize("name", PHOTOS)
def test_a_setting_of_photographs_changes_samples(name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    settings = {
        "patch": 8,
        "globals": {"size": 32, "blur_prob": (1.0,), "solarise_prob": (0.5,)},
        "locals": {"size": 16, "count": 2, "blur_prob": (1.0,), "solarise_prob": (0.5,)},
        "augment": {"jitter_prob": 1.0, "grey_prob": 0.0},
    }
    views = [
        PhotoViews(open_photos(tmp_path), PhotoCropConfig.model_validate(made))
        for made in (settings, changed(settings, name, PHOTOS[name]))
    ]
    assert fingerprint(views[0]) != fingerprint(views[1])


@pytest.mark.parametrize("name", WARPED)
def test_a_setting_of_warps_and_light_changes_samples(name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    settings = {
        "patch": 8,
        "globals": {"size": 32},
        "locals": {"size": 16, "count": 2},
        "warp": {"scale": (0.6, 2.0)},
        "augment": {"light": {"noise_prob": 1.0}},
    }
    views = [
        PhotoViews(open_photos(tmp_path), PhotoCropConfig.model_validate(made))
        for made in (settings, changed(settings, name, WARPED[name]))
    ]
    assert fingerprint(views[0]) != fingerprint(views[1])


def test_strict_refuses_what_is_else_flagged() -> None:
    volume = blob(np.random.default_rng(0), share=0.1)
    settings = small_config(globals={"min_foreground_ratio": 1.0, "size": 32})
    cache = MemoryCache((volume,))
    assert Views(cache, CropConfig.model_validate(settings)).plan(0, 0)[0].flags == ("below_min",)
    with pytest.raises(InputError, match="has no crop"):
        Views(cache, CropConfig.model_validate(settings | {"strict": True})).plan(0, 0)


def test_the_seed_changes_samples() -> None:
    cache = MemoryCache((blob(np.random.default_rng(0)),))
    config = CropConfig.model_validate(small_config())
    one, other = (Views(cache, config, seed=seed).sample(0, 0) for seed in (0, 1))
    assert not torch.equal(one.globals, other.globals)
