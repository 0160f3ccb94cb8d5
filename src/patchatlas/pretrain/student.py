"""The network as it is trained: a `ViT` with the token that stands for hidden patches, and the heads of the losses.

Student and teacher are both one of these. A forward takes all crops of a micro-batch, one pass a crop size, and gives
what the losses need of each: so gradients are gathered once, whatever wraps the network.

Axes: b crops, c channels, size = (h, w) or (z, h, w), n patch tokens, q hidden tokens (in the order of crops, then
patches), d features, e embedding, k and j prototypes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from patchatlas.encoders.inputs import patch_grid
from patchatlas.encoders.rope import Table, patch_angles, patch_centres
from patchatlas.encoders.vit import ViT, ViTConfig, split_tokens
from patchatlas.pretrain.heads import Head, Projector
from patchatlas.pretrain.settings import HeadConfig


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What is random in a pass of the student.

    Attributes:
        drop_path: share of a batch that skips each branch of a block.
        rope_rescale: largest factor that positions are stretched or shrunk by.
        generator: on the CPU, seeded from the run, step and micro-batch.
    """

    drop_path: float
    rope_rescale: float
    generator: torch.Generator


@dataclass(frozen=True, eq=False, kw_only=True)
class Pass:
    """Crops of one size, and what is done with them.

    Attributes:
        x: crops, normalised.
        hidden: patches that the mask token stands in for.
        asked: patches whose logits are wanted.
        chance: what is random; `None` for a plain pass.
        like: whether tokens are wanted as they are compared with those of a distilled encoder.
    """

    x: Float[Tensor, "b c *size"]
    hidden: Bool[Tensor, "b n"] | None = None
    asked: Bool[Tensor, "b n"] | None = None
    chance: Chance | None = None
    like: bool = False


class Seen(NamedTuple):
    """What a network says of crops of one size (a tuple, so that what wraps a network finds its tensors)."""

    cls: Float[Tensor, "b d"]
    """Class tokens after the final norm."""
    patches: Float[Tensor, "b n d"]
    """Patch tokens after the final norm."""
    cls_logits: Float[Tensor, "b k"] | None
    """Of the class tokens over the DINO prototypes."""
    patch_logits: Float[Tensor, "q j"] | None
    """Of the patch tokens asked for, over the iBOT prototypes."""
    embeddings: Float[Tensor, "b e"] | None
    """Of the class tokens, for SIGReg."""
    like: Float[Tensor, "b n f"] | None = None
    """Patch tokens as they are compared with those of a distilled encoder."""
    like_cls: Float[Tensor, "b f"] | None = None
    """Class tokens, likewise."""


class Network(nn.Module):
    """Encoder and heads.

    Args:
        vit: the encoder.
        dino: widths of the head of the class token; `None` for no such head.
        ibot: widths of the head of patch tokens; `None` for no such head.
        sigreg: widths of the projector; `None` for none.
        distil: length of the tokens of the encoder that is distilled; `None` for none.
        checkpointing: whether blocks are computed again for the gradients, to hold less.
    """

    def __init__(
        self,
        vit: ViT,
        *,
        dino: HeadConfig | None,
        ibot: HeadConfig | None,
        sigreg: HeadConfig | None = None,
        distil: int | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        dim = vit.config.dim
        self.checkpointing = checkpointing
        self.vit = vit
        self.mask_token = nn.Parameter(torch.zeros(dim)) if ibot else None
        self.dino_head = Head(dim, dino) if dino else None
        self.ibot_head = Head(dim, ibot) if ibot else None
        self.projector = Projector(dim, sigreg) if sigreg else None
        self.distil_head = None if distil in (None, dim) else nn.Linear(dim, distil, bias=False)

    def init_heads(self, generator: torch.Generator) -> None:
        """Draw the weights of all heads; the mask token begins as zero, as Meta's does."""
        for head in (self.dino_head, self.ibot_head, self.projector):
            if head is not None:
                head.init_weights(generator)
        if self.distil_head is not None:
            nn.init.normal_(self.distil_head.weight, std=0.02, generator=generator)

    def freeze_layer_scale(self) -> None:
        """Take the factors of all branches out of what learns."""
        for name, parameter in self.vit.named_parameters():
            if name.endswith(("scale1", "scale2")):
                parameter.requires_grad_(False)

    def forward(self, *passes: Pass) -> tuple[Seen, ...]:
        """What is seen in each pass; heads of class tokens look at those of all passes at once."""
        tokens = [split_tokens(self._tokens(one), self.vit.config) for one in passes]
        cls = [self.vit.norm(one.cls) for one in tokens]
        patches = [self.vit.norm(one.patches) for one in tokens]
        return tuple(
            Seen(
                cls=one,
                patches=around,
                cls_logits=logits,
                patch_logits=self._asked(around, given),
                embeddings=spread,
                like=self._like(around) if given.like else None,
                like_cls=self._like(one) if given.like else None,
            )
            for one, around, logits, spread, given in zip(
                cls, patches, _at_once(self.dino_head, cls), _at_once(self.projector, cls), passes, strict=True
            )
        )

    def _asked(self, patches: Tensor, given: Pass) -> Tensor | None:  # (b, n, d) -> (q, j)
        return None if self.ibot_head is None or given.asked is None else self.ibot_head(patches[given.asked])

    def _like(self, tokens: Tensor) -> Tensor:  # (..., d) -> (..., f)
        return tokens if self.distil_head is None else self.distil_head(tokens)

    def _tokens(self, given: Pass) -> Tensor:  # (b, t, d), before the final norm
        vit, chance = self.vit, given.chance
        grid = patch_grid(tuple(given.x.shape[2:]), vit.config.patch)
        masked = None if given.hidden is None or self.mask_token is None else (given.hidden, self.mask_token)
        tokens = vit.embed(given.x, grid, masked=masked)
        table = _table(vit, grid, chance)
        for block in vit.blocks:
            kept = None if chance is None else _kept(len(given.x), chance, tokens.device)
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, table, kept, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(tokens, table, kept)
        return tokens


def _at_once(head: nn.Module | None, parts: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """What a head says of several batches of tokens: one product with its weights, and one gradient of them."""
    return [None] * len(parts) if head is None else head(torch.cat(list(parts))).split([len(one) for one in parts])


def _table(vit: ViT, grid: tuple[int, ...], chance: Chance | None) -> Table | None:
    """The rotary table of a grid, stretched by one factor, log-uniform, along all axes (DINOv3's rescale)."""
    if vit.rope is None:
        return None
    if chance is None or chance.rope_rescale == 1:
        return vit.rope(grid)  # type: ignore[no-any-return]
    share = 2 * float(torch.rand((), generator=chance.generator)) - 1
    periods = vit.rope.periods.float()
    centres = patch_centres(grid).to(periods.device) * math.exp(share * math.log(chance.rope_rescale))
    angles = nn.functional.pad(patch_angles(centres, periods), (0, 0, vit.rope.prefix, 0))
    return angles.cos(), angles.sin()


def _kept(b: int, chance: Chance, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Which crops of a batch go through the two branches of a block; `None` if all do."""
    count = max(1, round(b * (1 - chance.drop_path)))
    if count == b:
        return None
    first, second = (torch.randperm(b, generator=chance.generator)[:count].to(device) for _ in range(2))
    return first, second


def begin(
    config: ViTConfig,
    *,
    dino: HeadConfig | None,
    ibot: HeadConfig | None,
    sigreg: HeadConfig | None = None,
    distil: int | None = None,
    layer_scale: float | None = None,
    checkpointing: bool = False,
    seed: int,
) -> Network:
    """A network with weights drawn from a seed; LayerScale of 1 that does not learn where there is to be none."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(ViT(config), dino=dino, ibot=ibot, sigreg=sigreg, distil=distil, checkpointing=checkpointing)
    network.vit.init_weights(generator, layer_scale=1.0 if layer_scale is None else layer_scale)
    network.init_heads(generator)
    if layer_scale is None:
        network.freeze_layer_scale()
    return network
