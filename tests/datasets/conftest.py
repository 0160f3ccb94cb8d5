"""What tests of data sets share: a folder of small varied pictures, buckets of their size, tiny encoders in files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchatlas.encoders.keymaps import own
from patchatlas.encoders.vit import ViT, ViTConfig

SMALL_BUCKETS: tuple[tuple[int, int], ...] = ((64, 64), (64, 96), (96, 64), (48, 80))
"""(h, w); multiples of 16, not all of 14."""

PHOTOS: tuple[tuple[str, tuple[int, int]], ...] = (
    ("a.jpg", (90, 120)),
    ("a.png", (120, 90)),
    ("b.v2.final.jpg", (70, 70)),
    ("grey.png", (66, 100)),
    ("palette.png", (80, 81)),
    ("see-through.png", (100, 64)),
    ("sub/a.jpg", (61, 97)),
    ("sub/deep/turned.jpg", (75, 130)),
    ("tall.jpg", (150, 97)),
    ("tiny.png", (5, 3)),
    ("wide.jpg", (50, 83)),
    ("wider.png", (48, 80)),
    ("x/y.jpg", (64, 64)),
    ("x_y.jpg", (65, 63)),
)
"""Path and stored (h, w); `turned.jpg` has EXIF orientation 6, so it is seen 130 high and 75 wide."""


def write_photos(folder: Path, photos: tuple[tuple[str, tuple[int, int]], ...] = PHOTOS) -> Path:
    """Pictures of coarse noise, each with a seed of its own, in the modes that their names say."""
    for seed, (name, (h, w)) in enumerate(photos):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (h // 8 + 1, w // 8 + 1, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((w, h), Image.Resampling.BICUBIC)
        if name == "grey.png":
            picture = picture.convert("L")
        if name == "palette.png":
            picture = picture.quantize(32)
        if name == "see-through.png":
            picture.putalpha(Image.linear_gradient("L").resize((w, h)))
        exif = Image.Exif()
        if "turned" in name:
            exif[0x0112] = 6
        if name.endswith(".jpg"):
            picture.save(path, quality=90, exif=exif)
        else:
            picture.save(path)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `PHOTOS`; tests must not write into it."""
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def bucket_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`SMALL_BUCKETS` as a file for `--buckets`, one `WxH` a line."""
    path = tmp_path_factory.mktemp("tables") / "small.txt"
    path.write_text("".join(f"{w}x{h}\n" for h, w in SMALL_BUCKETS))
    return path


@pytest.fixture(scope="session")
def tiny_dinov3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the family `dinov3`: patch 16, 32 features, 4 registers, random weights."""
    config = ViTConfig(family="dinov3", patch=(16, 16), dim=32, depth=2, heads=2, registers=4, ffn_hidden=64)
    return write_tiny(tmp_path_factory.mktemp("dinov3") / "tiny-dinov3.safetensors", config)


@pytest.fixture(scope="session")
def tiny_dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the family `dinov2`: patch 14, 24 features, no registers, random weights."""
    config = ViTConfig(family="dinov2", patch=(14, 14), dim=24, depth=2, heads=2, ffn_hidden=48, table_grid=(4, 4))
    return write_tiny(tmp_path_factory.mktemp("dinov2") / "tiny-dinov2.safetensors", config)


def write_tiny(path: Path, config: ViTConfig, *, seed: int = 0) -> Path:
    """A file in our own layout, with weights large enough that every pixel shows in every token."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: torch.randn(value.shape, generator=generator) * (0.2 if value.ndim > 1 else 0.5)
        for key, value in ViT(config).state_dict().items()
        if "periods" not in key
    }
    kept = {key: value for key, value in ViT(config).state_dict().items() if "periods" in key}
    header = own.Header(config=config, mean=(0.5,) * 3, std=(0.25,) * 3, name=path.stem, licence="cc0-1.0")
    own.write(path, {**state, **kept}, header)
    return path


Snapshot = dict[str, bytes]


@pytest.fixture
def snapshot() -> Callable[..., Snapshot]:
    """Content of all files that a finished build consists of, by path: no locks, journals or sets moved aside."""

    def take(*roots: Path) -> Snapshot:
        return {
            f"{root.name}/{path.relative_to(root).as_posix()}" if root.is_dir() else root.name: path.read_bytes()
            for root in roots
            for path in (sorted(root.rglob("*")) if root.is_dir() else [root])
            if path.is_file() and not path.name.endswith(".lock") and "_old" not in path.parts
        }

    return take
