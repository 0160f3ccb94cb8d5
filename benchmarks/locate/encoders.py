"""The encoders that locating is measured with, none of which needs weights, and a memory for what they have seen.

Axes: b batch, c channels, h w pixels, n patches, d features.
"""

import hashlib
from collections import Counter, OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.random_vit import VITS16, random_vit
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.locate.encoding import prepare
from patchatlas.locate.recipe import Recipe
from patchatlas.spec import EncoderSpec

RAW_PATCH = 16


class RawEncoder:
    """The pixels of a patch, less their mean in each channel: a cosine of two is their normalised cross-correlation."""

    device = torch.device("cpu")
    spec = EncoderSpec(
        name="raw",
        family="raw",
        patch=(RAW_PATCH, RAW_PATCH),
        dim=3 * RAW_PATCH**2,
        registers=0,
        has_cls=False,
        channels=3,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        layer=0,
        depth=1,
        norm="none",
        dtype="fp32",
        licence="Apache-2.0",
        weights_sha256=hashlib.sha256(b"raw 16 x 16 patches less their mean").hexdigest(),
        source="bundled",
    )

    def __call__(self, pixels: Tensor, /) -> Tokens:
        """Pixels (b, 3, h, w) to tokens (b, n, 768)."""
        patches = F.unfold(pixels, RAW_PATCH, stride=RAW_PATCH).transpose(1, 2).unflatten(2, (3, RAW_PATCH**2))
        return Tokens((patches - patches.mean(dim=3, keepdim=True)).flatten(2))


class Remembering:
    """An encoder that encodes the same pixels once: methods that ask the same of it share the answer.

    Args:
        encoder: asked for what is new.
        most: inputs that are remembered; the oldest go first.
        tally: of the pixels asked for; its own if not given.
    """

    def __init__(self, encoder: Encoder, *, most: int = 200, tally: Counter[str] | None = None) -> None:
        self.encoder = encoder
        self.most = most
        self.tally = Counter() if tally is None else tally
        self._seen: OrderedDict[str, Tokens] = OrderedDict()

    @property
    def asked(self) -> int:
        """Pixels that it was asked to encode so far, remembered ones too."""
        return self.tally["pixels"]

    def prepared(self, recipe: Recipe) -> Encoder:
        """The encoder that a recipe asks for, with a memory of its own if its layers are others."""
        if not recipe.layers:
            return prepare(self, recipe)
        return Remembering(prepare(self.encoder, recipe), most=self.most, tally=self.tally)

    @property
    def spec(self) -> EncoderSpec:
        """The facts."""
        return self.encoder.spec

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    def __call__(self, pixels: Tensor, /) -> Tokens:
        """Encode a batch, or remember what came of it."""
        self.tally["pixels"] += pixels.shape[0] * pixels.shape[2] * pixels.shape[3]
        key = hashlib.sha256(repr(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()
        if key not in self._seen:
            self._seen[key] = self.encoder(pixels)
            if len(self._seen) > self.most:
                self._seen.popitem(last=False)
        return self._seen[key]


def open_encoder(name: str, *, device: str = "auto") -> Encoder:
    """An encoder by name: `sift`, `raw`, `vit-SEED` (a ViT-S/16 with random weights), else as `load_encoder` does."""
    if name == "sift":
        return load_encoder("bundled:sift", device=device)
    if name == "raw":
        return RawEncoder()
    kind, _, seed = name.partition("-")
    if kind == "vit" and seed.isdigit():
        return random_vit(VITS16, name=name, seed=int(seed))
    return load_encoder(name, device=device)
