"""What is known of an encoder: the facts that turn its tokens back into places and make its numbers repeatable."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """The facts of one loaded encoder.

    Attributes:
        name: how the user named it, or the catalogue name that its shapes match.
        family: `dinov2`, `dinov3`, `vit3d`, `vjepa2`, `convnext`, `sift`, `fake`.
        patch: patch size in input pixels, one number an axis: (h, w) or (z, h, w).
        dim: length of a token.
        registers: register tokens, which stand between CLS and the patches.
        has_cls: whether there is a class token.
        channels: input channels.
        mean: per channel, in the 0..1 range of the input.
        std: per channel, in the 0..1 range of the input.
        layer: the block whose output is read, counted from 0.
        depth: number of blocks.
        norm: `final` if the last LayerNorm was applied to the tokens, `none` if not.
        dtype: arithmetic of the network: `fp32` or `bf16`.
        licence: licence of the weights as their publisher names it, `unknown` where no file says so.
        weights_sha256: hash of the weights; two encoders with one hash hold the same numbers.
        config_sha256: hash of the facts of the network that its weights do not tell (heads, epsilons, positions); empty
            where there are none.
        layers: the blocks whose tokens stand side by side in one, counted from 0; empty where `layer` alone is read.
        debias: directions of position that were taken out of the tokens; 0 where none were.
        source: where the weights came from: a path's last part, a hub id or `bundled`.
    """

    name: str
    family: str
    patch: tuple[int, ...]
    dim: int
    registers: int
    has_cls: bool
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layer: int
    depth: int
    norm: Literal["final", "none"]
    dtype: Literal["fp32", "bf16"]
    licence: str
    weights_sha256: str
    source: str
    config_sha256: str = ""
    layers: tuple[int, ...] = ()
    debias: int = 0

    @property
    def ndim(self) -> int:
        """2 for pictures, 3 for volumes."""
        return len(self.patch)
