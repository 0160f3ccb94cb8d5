"""An ablation small enough for a test: phantoms of a few patches, and a network of two blocks."""

from pathlib import Path

import numpy as np

from benchmarks.pretrain.phantoms import make_phantom, write_phantom
from patchatlas.pretrain.config import PretrainConfig, make_config
from patchatlas.pretrain.index import index_volumes
from patchatlas.pretrain.index_settings import Counting, IndexSettings

HEAD = {"prototypes": 8, "hidden": 16, "bottleneck": 8}
LEARNT, HELD = 3, 4


def make_volumes(folder: Path) -> tuple[Path, Path]:
    """A cache of three phantoms, and a folder of four others with labels."""
    for part in ("learnt", "held/volumes", "held/labels", "unused"):
        (folder / part).mkdir(parents=True)
    for number in range(LEARNT + HELD):
        phantom = make_phantom(np.random.default_rng([1, number]), size_zyx=(16, 64, 64))
        name = f"{number}.nii.gz"
        if number < LEARNT:
            write_phantom(phantom, folder / "learnt" / name, folder / "unused" / name)
        else:
            write_phantom(phantom, folder / "held/volumes" / name, folder / "held/labels" / name)
    settings = IndexSettings(counting=Counting(thresholds=(-500, -300, 150, 500)))
    index_volumes([folder / "learnt"], folder / "cache", settings)
    return folder / "cache", folder / "held"


def tiny_config(cache: Path | str, **changes) -> PretrainConfig:
    """Settings for two steps; `changes` are groups of settings."""
    settings = {
        "data": str(cache),
        "crops": {"patch": 8, "globals": {"size": 16}, "locals": {"count": 2, "size": 8}},
        "model": {"dim": 24, "depth": 2, "heads": 2, "registers": 0},
        "dino_head": HEAD,
        "ibot_head": HEAD,
        "projector": HEAD,
        "optim": {"warmup": 1, "teacher_temp_warmup": 1, "freeze_last": 0},
        "monitor": {"spectra_every": 2},
        "train": {"steps": 2, "batch": 4, "device": "cpu", "precision": "fp32", "tensorboard": False},
    }
    for name, change in changes.items():
        settings[name] = {**settings.get(name, {}), **change}
    return make_config(settings)
