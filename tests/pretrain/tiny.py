"""A run small enough for a test: pictures of noise and stripes, or volumes in memory, and a network of two blocks."""

from pathlib import Path

import numpy as np

from patchatlas.io.images import write_image
from patchatlas.pretrain.config import PretrainConfig, make_config

HEAD = {"prototypes": 16, "hidden": 24, "bottleneck": 8}


def pictures(folder: Path, count: int = 6, side: int = 48) -> Path:
    """Pictures of stripes in several directions and colours."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    for number in range(count):
        wave = np.sin(x * np.cos(number) * 0.7 + y * np.sin(number) * 0.7)
        colour = rng.uniform(0.3, 1, 3)
        pixels = (127 + 100 * wave[..., None] * colour + rng.normal(0, 8, (side, side, 3))).clip(0, 255)
        write_image(folder / f"{number}.png", pixels.astype(np.uint8))
    return folder


def photo_config(folder: Path, **changes) -> PretrainConfig:
    """Settings for a few steps; `changes` are groups of settings, or single ones at the top."""
    settings = {
        "data": str(folder),
        "crops": {
            "kind": "photos",
            "patch": 8,
            "globals": {"count": 2, "size": 32},
            "locals": {"count": 2, "size": 16},
        },
        "model": {"dim": 24, "depth": 2, "heads": 2, "registers": 1},
        "dino_head": HEAD,
        "ibot_head": HEAD,
        "projector": HEAD,
        "optim": {"lr": 1e-3, "warmup": 2, "teacher_temp_warmup": 4, "freeze_last": 1, "momentum": 0.9},
        "monitor": {"spectra_every": 2},
        "train": {"steps": 4, "batch": 4, "device": "cpu", "precision": "fp32", "save_every": 2, "tensorboard": False},
    }
    for name, change in changes.items():
        known = settings.get(name)
        settings[name] = {**known, **change} if isinstance(known, dict) and isinstance(change, dict) else change
    return make_config(settings)
