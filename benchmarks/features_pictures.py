"""Folders of JPEGs and random weights for benchmarks/features.py, drawn anew from a seed; no network.

The photographs are those of Debian's package opencv-doc (`make data` fetches it): pieces of random place and size, of
random ratio, resized to what a set wants. Enlarged ones are given the grain that a camera's would have, or they would
be decoded too fast.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from patchatlas.encoders.catalogue import IMAGENET
from patchatlas.geometry.buckets import Hw, nearest_bucket

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import debian_data

SOURCES = (
    "aero1.jpg", "aloeL.jpg", "aloeR.jpg", "baboon.jpg", "board.jpg", "building.jpg", "butterfly.jpg", "fruits.jpg",
    "home.jpg", "leuvenA.jpg", "messi5.jpg", "squirrel_cls.jpg", "starry_night.jpg", "stuff.jpg",
)  # fmt: skip

PATCH = 16
GRAIN = 4.0
"""Standard deviation of the grain, in grey levels; at quality 90 it brings 12 megapixels to about 3 MB."""


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """A folder of pictures and what is encoded of them.

    Attributes:
        name: of the folder.
        bound: what limits the speed.
        table: buckets (h, w).
        source: draws the size of a picture of a bucket, given the bucket and a source of randomness.
        count: pictures, and how many of them when things are to be quick.
        layers: blocks of the network.
    """

    name: str
    bound: str
    table: tuple[Hw, ...]
    source: Callable[[Hw, np.random.Generator], Hw]
    count: tuple[int, int]
    layers: int


def _a_little_larger(bucket: Hw, generator: np.random.Generator) -> Hw:
    """A size that dinotool cuts down to the bucket, and whose nearest bucket that is."""
    height, width = (side + int(more) for side, more in zip(bucket, generator.integers(0, PATCH, 2), strict=True))
    return height, width


def _of_a_camera(bucket: Hw, _: np.random.Generator) -> Hw:
    """Twelve megapixels, upright or lying."""
    return (3024, 4032) if bucket[1] > bucket[0] else (4032, 3024)


SETS = {
    one.name: one
    for one in (
        PictureSet(
            name="mixed",
            bound="model",
            table=((480, 480), (448, 512), (512, 448), (400, 576), (576, 400)),
            source=_a_little_larger,
            count=(20, 10),
            layers=12,
        ),
        PictureSet(
            name="camera",
            bound="decoding",
            table=((384, 512), (512, 384)),
            source=_of_a_camera,
            count=(12, 6),
            layers=2,
        ),
        PictureSet(
            name="tiny",
            bound="overhead",
            table=((96, 96), (80, 112), (112, 80)),
            source=_a_little_larger,
            count=(384, 96),
            layers=2,
        ),
    )
}


def draw(wanted: PictureSet, folder: Path, *, count: int) -> dict[str, Hw]:
    """Write the pictures of a set; gives the bucket of each by file name.

    Raises:
        FileNotFoundError: the photographs are not there.
    """
    photographs = debian_data.folder("opencv-doc")
    missing = [name for name in SOURCES if not (photographs / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{photographs / missing[0]} is not there; run: make data")
    generator = np.random.default_rng(4)
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {}
    for index in range(count):
        bucket = wanted.table[index % len(wanted.table)]
        size = wanted.source(bucket, generator)
        while nearest_bucket(size, wanted.table) != bucket:
            size = wanted.source(bucket, generator)
        name = f"picture_{index:04d}.jpg"  # a name of digits alone makes a folder a film for dinotool
        photograph = Image.open(photographs / SOURCES[generator.integers(len(SOURCES))]).convert("RGB")
        _piece(photograph, size, generator).save(folder / name, quality=90)
        shapes[name] = bucket
    return shapes


def _piece(photograph: Image.Image, size: Hw, generator: np.random.Generator) -> Image.Image:
    """A random piece of the photograph of the ratio of `size` (h, w), at that size."""
    fit = min(photograph.width / size[1], photograph.height / size[0])
    width, height = (fit * generator.uniform(0.6, 1) * side for side in size[::-1])
    left, top = generator.uniform(0, photograph.width - width), generator.uniform(0, photograph.height - height)
    box = (left, top, left + width, top + height)
    piece = photograph.resize(size[::-1], Image.Resampling.BICUBIC, box=box)
    if fit > 0.5:
        return piece
    grain = generator.normal(0, GRAIN, (*size, 1))
    return Image.fromarray((np.asarray(piece) + grain).clip(0, 255).astype(np.uint8))


def save_weights(folder: Path, *, layers: int) -> None:
    """A random DINOv3 ViT-S/16 as transformers keeps it, with the settings of its processor."""
    network = DINOv3ViTModel(
        DINOv3ViTConfig(
            hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_hidden_layers=layers, patch_size=PATCH,
            num_register_tokens=4,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lambda" in name:
                parameter.uniform_(0.05, 0.5, generator=generator)
            elif "norm" in name or "bias" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.01)
            else:
                parameter.normal_(0, 0.02, generator=generator)
    network.save_pretrained(folder)
    mean, std = IMAGENET
    processor = {
        "image_processor_type": "DINOv3ViTImageProcessorFast", "do_resize": True, "do_rescale": True,
        "do_normalize": True, "resample": 2, "image_mean": mean, "image_std": std,
        "size": {"height": 224, "width": 224},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor) + "\n")
