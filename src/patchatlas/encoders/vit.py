"""One Vision Transformer for DINOv2, DINOv3 and their 3-D kin: patches in, class, register and patch tokens out.

Pre-norm blocks with LayerScale, exact GELU or SwiGLU, scaled dot-product attention; positions from a learned table or
rotary. The number of axes, 2 or 3, is the length of `patch`; nothing else differs. It is written for training and
inference alike. Input is in the normalised space the weights were trained in; `vit_encoder.py` takes pixels in 0..1.

Precision: `dtype_of` says which parameters may be bfloat16 (the linears of the blocks). The residual stream, norms,
LayerScale, patch embedding, positions and rotary tables stay in float32.

Axes: b batch, c channels, size = (h, w) or (z, h, w), n patches (row-major), r registers, t = 1 + r + n tokens, d
features.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from patchatlas.encoders.attention import attend
from patchatlas.encoders.inputs import patch_grid
from patchatlas.encoders.positions import resample_table
from patchatlas.encoders.protocol import Tokens
from patchatlas.encoders.rope import Rope, Table
from patchatlas.errors import ShapeError

FFN_BYTES = 3 * 2**20
"""Hidden activations that a feed-forward part on a CPU makes at a time, gradients off: what stays in its cache."""


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Everything that fixes the shape and the arithmetic of a `ViT`.

    Attributes:
        family: `dinov2`, `dinov3` or `vit3d`: whose weights these are.
        patch: patch size in input pixels, one number an axis.
        channels: input channels.
        dim: length of a token.
        depth: number of blocks.
        heads: attention heads; `dim` is a multiple of it.
        registers: register tokens, between the class token and the patches.
        ffn: `mlp` (exact GELU) or `swiglu`.
        ffn_hidden: width inside the feed-forward part (of one half, for `swiglu`).
        qkv_bias: whether queries, keys and values have a bias.
        norm_eps: epsilon of every LayerNorm: 1e-6 for DINOv2, 1e-5 for DINOv3.
        table_grid: cells of the learned position table, `None` for rotary positions.
        table_offset: added to the cell counts when the table is resampled; see `positions.resample_table`.
        table_antialias: whether the table is resampled with antialias.
        rope_base: ratio that the rotary periods span, where they are not read from a file.
    """

    family: str
    patch: tuple[int, ...]
    dim: int
    depth: int
    heads: int
    ffn_hidden: int
    channels: int = 3
    registers: int = 0
    ffn: Literal["mlp", "swiglu"] = "mlp"
    qkv_bias: bool = True
    norm_eps: float = 1e-5
    table_grid: tuple[int, ...] | None = None
    table_offset: float = 0.0
    table_antialias: bool = False
    rope_base: float = 100.0

    def __post_init__(self) -> None:
        if len(self.patch) not in (2, 3):
            raise ShapeError(f"a patch has 2 or 3 axes, not {len(self.patch)}: {self.patch}")
        if self.heads < 1 or self.dim % self.heads:
            raise ShapeError(f"{self.heads} heads do not divide a token of {self.dim}; pass heads= that do")
        if self.table_grid is None and self.head_dim < 2 * self.ndim:
            raise ShapeError(
                f"rotary positions over {self.ndim} axes need heads of at least {2 * self.ndim} channels, "
                f"these have {self.head_dim}"
            )
        if self.table_grid is not None and len(self.table_grid) != self.ndim:
            raise ShapeError(f"position table {self.table_grid} and patch {self.patch} differ in their number of axes")

    @property
    def ndim(self) -> int:
        """Axes of the input."""
        return len(self.patch)

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.dim // self.heads

    @property
    def prefix(self) -> int:
        """Tokens before the patches: the class token and the registers."""
        return 1 + self.registers


def split_tokens(tokens: Float[Tensor, "b t d"], config: ViTConfig) -> Tokens:
    """Class token, registers and patches, by their counts in `config`: the only place where tokens are sliced."""
    patches = tokens[:, config.prefix :]
    return Tokens(
        patches=patches, cls=tokens[:, 0], registers=tokens[:, 1 : config.prefix] if config.registers else None
    )


def dtype_of(key: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype that a parameter has in a network of precision `dtype`: only linears of the blocks leave float32."""
    return dtype if ".attention." in key or ".ffn." in key else torch.float32


class PatchEmbed(nn.Module):
    """A linear map of every patch: a strided convolution whose windows do not overlap, as one matrix product."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.weight = nn.Parameter(torch.empty(config.dim, config.channels, *config.patch))
        self.bias = nn.Parameter(torch.empty(config.dim))

    def forward(self, x: Float[Tensor, "b c *size"], grid: tuple[int, ...]) -> Float[Tensor, "b n d"]:
        ndim = len(grid)
        cut = [part for pair in zip(grid, self.patch, strict=True) for part in pair]
        cells = x.reshape(*x.shape[:2], *cut)  # (b, c, gh, ph, gw, pw)
        order = [0, *range(2, 2 + 2 * ndim, 2), 1, *range(3, 3 + 2 * ndim, 2)]
        flat = cells.permute(order).reshape(x.shape[0], prod(grid), -1)  # (b, n, c * ph * pw)
        return F.linear(flat, self.weight.flatten(1), self.bias)


class Attention(nn.Module):
    """Self-attention over all tokens; queries and keys are turned where positions are rotary."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.qkv_bias)
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(self, x: Float[Tensor, "b t d"], table: Table | None) -> Float[Tensor, "b t d"]:
        b, t, d = x.shape
        qkv = self.qkv(x).view(b, t, 3, self.heads, d // self.heads)
        return self.proj(attend(qkv, table))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linears with an exact GELU between them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.dim, config.ffn_hidden)
        self.down = nn.Linear(config.ffn_hidden, config.dim)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.down(F.gelu(self.up(x)))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    """down(silu(gate) * value) with gate and value from one matrix product, gate first (Shazeer, arXiv:2002.05202)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.dim, 2 * config.ffn_hidden)
        self.down = nn.Linear(config.ffn_hidden, config.dim)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)  # type: ignore[no-any-return]


Kept = Int64[Tensor, " kept"]
"""Inputs of a batch, by number."""


class Block(nn.Module):
    """x + scale1 * attention(norm1(x)), then x + scale2 * ffn(norm2(x)); with gradients off in fewer passes.

    In training, `kept` names the inputs that each of the two parts is run for; what is added to them is enlarged so
    that its mean stays, and the others pass unchanged (stochastic depth, Huang et al. 2016, arXiv:1603.09382).
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config)
        self.scale1 = nn.Parameter(torch.empty(config.dim))
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.ffn = SwiGLU(config) if config.ffn == "swiglu" else Mlp(config)
        self.scale2 = nn.Parameter(torch.empty(config.dim))

    def forward(
        self, x: Float[Tensor, "b t d"], table: Table | None, kept: tuple[Kept, Kept] | None = None
    ) -> Float[Tensor, "b t d"]:
        dtype = self.attention.proj.weight.dtype
        if torch.is_grad_enabled():
            attended, fed = kept or (None, None)
            x = _add(x, lambda some: self.scale1 * self.attention(self.norm1(some).to(dtype), table), attended)
            return _add(x, lambda some: self.scale2 * self.ffn(self.norm2(some).to(dtype)), fed)
        x = torch.addcmul(x, self.scale1, self.attention(self.norm1(x).to(dtype), table).to(x.dtype))
        rows = x.view(1, -1, x.shape[-1])
        hidden_bytes = rows.shape[1] * self.ffn.up.out_features * dtype.itemsize
        pieces = ceil(hidden_bytes / FFN_BYTES) if x.device.type == "cpu" else 1
        for some in rows.chunk(pieces, dim=1):  # views: x itself is changed
            some.addcmul_(self.scale2, self.ffn(self.norm2(some).to(dtype)).to(x.dtype))
        return x


def _add(x: Tensor, branch: Callable[[Tensor], Tensor], kept: Tensor | None) -> Tensor:  # (b, t, d), (kept)
    if kept is None:
        return x + branch(x)
    return x.index_add(0, kept, branch(x[kept]).to(x.dtype), alpha=len(x) / len(kept))


class ViT(nn.Module):
    """The network, with parameters drawn as for training from scratch; `init_weights` draws them again, repeatably.

    State-dict keys are the layout that `keymaps/` translates foreign files into. The position of the class token that
    DINOv2 learns is part of `cls_token` here: both are only ever added to each other.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.empty(config.dim))
        self.registers = nn.Parameter(torch.empty(config.registers, config.dim)) if config.registers else None
        self.patch_embed = PatchEmbed(config)
        self.positions = nn.Parameter(torch.empty(*config.table_grid, config.dim)) if config.table_grid else None
        rotary = config.table_grid is None
        self.rope = Rope(config.head_dim, config.ndim, prefix=config.prefix, base=config.rope_base) if rotary else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        if not self.cls_token.is_meta:
            self.init_weights()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None, *, layer_scale: float = 1e-5) -> None:
        """Draw all parameters: normal with deviation 0.02, biases 0, norms 1 and 0, LayerScale at `layer_scale`."""
        for name, parameter in self.named_parameters():
            if ".norm" in f".{name}" and name.endswith("weight"):
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            elif name.endswith(("scale1", "scale2")):
                parameter.fill_(layer_scale)
            else:
                parameter.normal_(std=0.02, generator=generator)

    def embed(
        self,
        x: Float[Tensor, "b c *size"],
        grid: tuple[int, ...],
        masked: tuple[Bool[Tensor, "b n"], Float[Tensor, " d"]] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Tokens before the first block: class, registers, then patches with their learned positions.

        In training, `masked` says which patches are hidden and which token stands in their place.
        """
        patches = self.patch_embed(x, grid)
        if masked is not None:
            hidden, token = masked
            patches = torch.where(hidden[..., None], token.to(patches.dtype), patches)
        if self.positions is not None:
            config = self.config
            patches = patches + resample_table(
                self.positions, grid, offset=config.table_offset, antialias=config.table_antialias
            )
        prefix = self.cls_token[None] if self.registers is None else torch.cat((self.cls_token[None], self.registers))
        return torch.cat((prefix.expand(x.shape[0], -1, -1), patches), dim=1)

    def forward_blocks(self, x: Float[Tensor, "b c *size"], layers: Collection[int]) -> list[Float[Tensor, "b t d"]]:
        """Tokens after the named blocks, counted from 0, without the final norm, in the order of the blocks.

        Blocks after the last one named are not run.

        Raises:
            ShapeError: sides that are not multiples of the patch, or other channels than the network's.
        """
        if x.shape[1] != self.config.channels:
            raise ShapeError(f"this encoder takes {self.config.channels} channels, the input has {x.shape[1]}")
        grid = patch_grid(tuple(x.shape[2:]), self.config.patch)
        table = None if self.rope is None else self.rope(grid)
        tokens = self.embed(x, grid)
        found = []
        for index, block in enumerate(self.blocks[: max(layers) + 1]):
            tokens = block(tokens, table)
            if index in layers:
                found.append(tokens)
        return found

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b t d"]:
        """All tokens after the last block and the final norm."""
        (tokens,) = self.forward_blocks(x, [self.config.depth - 1])
        return self.norm(tokens)  # type: ignore[no-any-return]
