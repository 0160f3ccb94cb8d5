"""Small builds that a test may spoil."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from patchatlas.datasets.build.run import build
from patchatlas.datasets.build.settings import Settings
from patchatlas.datasets.recipe import Recipe
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Encoder
from tests.datasets.conftest import SMALL_BUCKETS
from tests.datasets.verify.planting import Built

Build = Callable[..., Built]


def make(root: Path, photos: Path, encoder: Path, *, buckets: tuple[tuple[int, int], ...] = SMALL_BUCKETS) -> Built:
    """A build with `encoder` below `root`, and what a test needs of it."""
    settings = Settings(
        input_dir=photos,
        manifest=root / "set.jsonl",
        derived_dir=root / "derived",
        passes=("encoder",),
        recipe=Recipe(buckets=buckets, storage="fp32"),
        encoder=str(encoder),
        device="cpu",
        precision="fp32",
        workers=1,
    )
    build(settings)
    return Built(root, settings)


@pytest.fixture(scope="session")
def network(tiny_dinov3: Path) -> Encoder:
    """The encoder of `built`."""
    return load_encoder(tiny_dinov3, device="cpu", dtype="fp32")


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory, photos: Path, tiny_dinov3: Path) -> Built:
    """A set with nothing wrong: patch 16, 4 registers, fp32. Tests must not write into it."""
    return make(tmp_path_factory.mktemp("healthy"), photos, tiny_dinov3)


@pytest.fixture
def built(healthy: Built, tmp_path: Path) -> Built:
    """A copy of `healthy` to spoil."""
    shutil.copytree(healthy.root, tmp_path / "copy")
    return healthy.at(tmp_path / "copy")
