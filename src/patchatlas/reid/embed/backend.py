"""From a config to what makes vectors: the backend that was asked for, and never another.

Axes: n crops, d features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float32
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Encoder
from patchatlas.encoders.transformers_adapter import VJepa2Encoder
from patchatlas.errors import UsageError
from patchatlas.reid.config import EmbeddingConfig
from patchatlas.reid.embed.clips import ClipEmbedder
from patchatlas.reid.embed.crops import CropEmbedder
from patchatlas.reid.embed.lab import LabEmbedder
from patchatlas.reid.embed.regions import RegionEmbedder
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp


@runtime_checkable
class Embedder(Protocol):
    """Crops to unit vectors."""

    @property
    def spec(self) -> EncoderSpec:
        """The facts of what makes the vectors."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def stamp(self) -> Stamp:
        """What the vectors depend on; those of different stamps are not compared."""
        ...

    def embed_crops(self, crops: Sequence[ImageU8]) -> tuple[Float32[Tensor, "n d"], Bool[Tensor, " n"]]:
        """One row a crop, RGB, in their order: unit vectors, and which rows are any good; the others are NaN."""
        ...


@dataclass(frozen=True)
class Backend:
    """The ways to a vector that a config allows; all of one encoder, each with a stamp of its own.

    Attributes:
        crops: of crops; V-JEPA 2 sees a crop as two equal frames.
        regions: of boxes in a whole frame; None where the config has `regions: crops`, or a pooling for crops only.
        clips: of clips; None but for V-JEPA 2 with more than one tubelet of frames.
        encoder: what is behind them; None for the bundled descriptor.
    """

    crops: Embedder
    regions: RegionEmbedder | None = None
    clips: ClipEmbedder | None = None
    encoder: Encoder | None = None


def load_backend(config: EmbeddingConfig) -> Backend:
    """Load the encoder that the config names, strictly.

    Raises:
        WeightsError: weights that are absent, not whole, or of another family than the backend.
        UsageError: an encoder that cannot do what the config asks: class tokens, clips, pictures at all.
    """
    if config.encoder is None:
        return Backend(LabEmbedder())
    encoder = load_encoder(config.encoder, device=config.device, dtype=config.dtype)
    config.require(encoder.spec)
    return backend_of(encoder, config)


def backend_of(encoder: Encoder, config: EmbeddingConfig) -> Backend:
    """What a loaded encoder offers under a config.

    Raises:
        UsageError: as `load_backend`.
    """
    if config.pooling == "none":
        raise UsageError("pooling none is for backend bundled; give cls, mean, cls+mean or gem")
    if encoder.spec.ndim != 2 or encoder.spec.channels != 3:
        raise UsageError(f"{encoder.spec.name} does not take RGB pictures; choose an encoder of pictures")
    crops = CropEmbedder(encoder, pooling=config.pooling, size=config.crop_size, batch=config.batch_size)
    regions = clips = None
    if config.regions != "crops" and config.pooling in ("mean", "gem"):
        regions = RegionEmbedder(encoder, pooling=config.pooling, size=config.frame_size)
    if config.clip_frames is not None:
        if not isinstance(encoder, VJepa2Encoder):
            raise UsageError(f"clip_frames needs an encoder of video, {encoder.spec.name} is of pictures; leave it out")
        if config.clip_frames > encoder.tubelet:
            clips = ClipEmbedder(
                encoder,
                frames=config.clip_frames,
                size=config.crop_size,
                pooling=config.pooling,
                batch=config.batch_size,
            )
    return Backend(crops, regions, clips, encoder)
