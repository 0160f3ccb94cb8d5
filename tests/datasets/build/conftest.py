"""A small build to vary: settings over the shared pictures, and encoders that note what they are asked."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patchatlas.datasets.build import loading
from patchatlas.datasets.build.settings import Settings
from patchatlas.datasets.recipe import Recipe
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.spec import EncoderSpec
from tests.datasets.conftest import SMALL_BUCKETS

MakeSettings = Callable[..., Settings]


@pytest.fixture
def settings(tmp_path: Path, photos: Path, tiny_dinov3: Path) -> MakeSettings:
    """Settings of a build of `photos` below `tmp_path`/NAME, patches of 16 px in small buckets, batches of a few."""

    def make(name: str = "out", **changes: Any) -> Settings:
        (tmp_path / name).mkdir(exist_ok=True)
        usual = Settings(
            input_dir=photos,
            manifest=tmp_path / name / "m.jsonl",
            derived_dir=tmp_path / name / "derived",
            passes=("dinov3",),
            recipe=Recipe(buckets=SMALL_BUCKETS),
            encoder=str(tiny_dinov3),
            device="cpu",
            precision="fp32",
            token_budget=48,
        )
        return replace(usual, **changes)

    return make


@dataclass
class Noting:
    """An encoder that notes the shape of each batch and the thread that it came in.

    Attributes:
        inner: makes the tokens.
        most: pictures that it has memory for.
    """

    inner: Encoder = field(default_factory=FakeEncoder)
    most: int = 1000
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    pixels: list[Tensor] = field(default_factory=list)

    @property
    def spec(self) -> EncoderSpec:
        return self.inner.spec

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def __call__(self, pixels: Tensor, /) -> Tokens:
        self.shapes.append(tuple(pixels.shape))
        self.threads.add(threading.current_thread().name)
        if len(pixels) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        self.pixels.append(pixels)
        return self.inner(pixels)


@pytest.fixture
def use_encoder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Encoder], Any]:
    """Have builds load this encoder, whatever they name."""

    def use(encoder: Encoder) -> Any:
        monkeypatch.setattr(loading, "load_encoder", lambda *_, **__: encoder)
        return encoder

    return use
