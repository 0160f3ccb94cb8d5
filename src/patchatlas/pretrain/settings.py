"""Settings of the network, its heads, what is hidden from it, and how its weights are moved.

The settings of the whole run, `config.PretrainConfig`, put these beside those of the crops, losses and monitors.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0, strict=True)]
Side = Annotated[int, Field(gt=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Beta = Annotated[float, Field(ge=0, lt=1)]

Size = Literal["pico", "tiny", "small", "base", "large"]

SIZES: dict[Size, tuple[int, int, int]] = {
    "pico": (96, 4, 3),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
"""Token length, blocks and heads of each size. Tiny to large are those of DeiT (arXiv 2012.12877) and of all DINO
releases, with 64 channels a head; pico is for tests and for machines without an accelerator."""


_OF_WEIGHTS = ("size", "dim", "depth", "heads", "registers", "layer_scale", "rope_base")
"""Settings of the network that weights bring with them."""


class Settings(BaseModel):
    """A group of settings: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(Settings):
    """The network that becomes the encoder."""

    size: Size = "small"
    """Token length, blocks and heads."""
    dim: Side | None = None
    """Token length other than that of the size."""
    depth: Side | None = None
    """Blocks other than those of the size."""
    heads: Side | None = None
    """Attention heads other than those of the size."""
    registers: Count = 4
    """Register tokens."""
    layer_scale: Positive | None = None
    """What each branch of a block is multiplied with at the start. Without it there is no LayerScale: at 1e-5, Meta's
    number, the class token of a small network hardly depends on its input for long."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a batch that skips a branch of a block, the same for all blocks; rounded to whole crops, so that of 4
    or fewer in a pass 0.1 is none."""
    rope_base: Positive = 100.0
    """Ratio that the rotary periods span."""
    rope_rescale: Annotated[float, Field(ge=1)] = 2.0
    """Positions are stretched by up to this factor or its inverse, anew for each pass in training; 1 for never."""
    mean: tuple[float, ...] | None = None
    """What is taken from pixels in 0..1, a channel; if not given, that of `weights`, else 0.5 for volumes and
    ImageNet's for photographs."""
    std: tuple[Positive, ...] | None = None
    """What they are then divided by; if not given, that of `weights`, else 0.25 for volumes and ImageNet's for
    photographs."""
    weights: str | None = None
    """An encoder to begin from, named as for `load_encoder`: one of the same axes, or one for pictures, which is made
    into one for volumes. Its shape, registers, LayerScale and rotary periods are then taken from it, and so are `mean`
    and `std` where they are not given; one that is made into one for volumes gets those of volumes."""
    grey: Literal["mean", "sum"] = "mean"
    """How the colours of such a patch embedding become one channel: sum keeps its answers to grey pictures."""

    @model_validator(mode="after")
    def _possible(self) -> "ModelConfig":
        if self.weights is None:
            dim, _, heads = self.shape
            if dim % heads:
                raise ValueError(f"{heads} heads do not divide a token of {dim}; give heads that do")
        else:
            fields = type(self).model_fields
            given = [name for name in _OF_WEIGHTS if getattr(self, name) != fields[name].default]
            if given:
                raise ValueError(f"{', '.join(given)} come from the weights that are begun from; leave them out")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Token length, blocks and heads."""
        dim, depth, heads = SIZES[self.size]
        return self.dim or dim, self.depth or depth, self.heads or heads


class HeadConfig(Settings):
    """Layers between a token and the prototypes."""

    prototypes: Side = 4096
    """Prototypes that a token is compared with."""
    hidden: Side = 2048
    """Width of the hidden layers."""
    layers: Side = 3
    """Linear layers before the prototypes."""
    bottleneck: Side = 256
    """Length of what is compared with the prototypes."""


class MaskConfig(Settings):
    """What is hidden from the student: blocks of neighbouring patches of some of the large crops."""

    prob: Share = 0.5
    """Share of the large crops in which patches are hidden."""
    ratio: tuple[Share, Share] = (0.1, 0.5)
    """Least and largest share of patches that is hidden; spread evenly over the crops of a step."""
    min_aspect: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Least ratio of two sides of a block; the largest is its inverse."""

    @model_validator(mode="after")
    def _possible(self) -> "MaskConfig":
        if self.ratio[0] > self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} falls; write the lower number first")
        return self


class OptimConfig(Settings):
    """How weights are moved: AdamW, and schedules that count optimiser steps."""

    lr: Positive = 1e-3
    """Learning rate."""
    lr_rule: Literal["none", "sqrt_1024"] = "none"
    """sqrt_1024: multiply it with the root of the samples a step, over 1024; all micro-batches and processes count."""
    lr_end: Share = 1e-3
    """Share of the learning rate that is left at the last step."""
    warmup: Count = 100
    """Steps in which the learning rate rises from 0."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.04
    """At the start; biases, norms and LayerScale have none."""
    weight_decay_end: Annotated[float, Field(ge=0)] = 0.4
    """At the end."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The learning rate of a block is this share of that of the block after it."""
    patch_embed_lr: Positive = 0.2
    """Factor of the learning rate of the patch embedding."""
    clip: Positive | None = 3.0
    """Largest norm of the gradient of the network, and of each head, once a step."""
    momentum: Share = 0.992
    """Of the teacher's moving average, at the start."""
    momentum_end: Share = 1.0
    """At the end."""
    teacher_temp: Positive = 0.04
    """Temperature of the teacher's targets at the start."""
    teacher_temp_end: Positive = 0.04
    """And after its warm-up; the same if not given. At 0.07, Meta's number, the targets of short runs stay uniform: see
    docs/pretrain.md."""
    teacher_temp_warmup: Count = 1000
    """Steps of that warm-up."""
    freeze_last: Count = 100
    """Steps at the start during which the prototypes do not move."""
