"""Encoders with one planted fault each: the pixels are changed before a healthy encoder, or its tokens after it."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.encoders.vit import ViT, ViTConfig
from patchatlas.encoders.vit_encoder import VitEncoder, build_network
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample
from patchatlas.spec import EncoderSpec

Redraw = Callable[[Tensor], Tensor]
Reorder = Callable[[Tokens, tuple[int, ...]], Tensor]


def vit(
    patch: tuple[int, ...] = (8, 8), *, channels: int = 3, depth: int = 2, registers: int = 4, seed: int = 0
) -> VitEncoder:
    """A small ViT with random weights, whose attention mixes its tokens well (weights of deviation 0.1)."""
    dim = 24 * len(patch)
    config = ViTConfig(
        family="vit", patch=patch, channels=channels, dim=dim, depth=depth, heads=2, ffn_hidden=128, registers=registers
    )
    network = ViT(config)
    network.init_weights(torch.Generator().manual_seed(seed), layer_scale=1.0)
    state = {
        key: 5 * value if ".ffn." in key or ".attention." in key else value
        for key, value in network.state_dict().items()
    }
    mean, std = (0.45,) * channels, (0.25,) * channels
    built = build_network(state, config, mean=mean, std=std, device=torch.device("cpu"), dtype=torch.float32)
    spec = EncoderSpec(
        name="random ViT",
        family="vit",
        patch=patch,
        dim=dim,
        registers=registers,
        has_cls=True,
        channels=channels,
        mean=mean,
        std=std,
        layer=depth - 1,
        depth=depth,
        norm="final",
        dtype="fp32",
        licence="unknown",
        weights_sha256="0" * 64,
        source="test",
    )
    return VitEncoder(built, spec)


@dataclass(frozen=True)
class Faulty:
    """A healthy encoder with something before it or behind it."""

    healthy: Encoder
    before: Redraw = lambda pixels: pixels
    behind: Reorder = lambda tokens, _: tokens.patches

    @property
    def spec(self) -> EncoderSpec:
        return self.healthy.spec

    @property
    def device(self) -> torch.device:
        return self.healthy.device

    def __call__(self, pixels: Tensor, /) -> Tokens:
        grid = tuple(side // patch for side, patch in zip(pixels.shape[2:], self.spec.patch, strict=True))
        return Tokens(patches=self.behind(self.healthy(self.before(pixels)), grid))


def framed(make: Callable[[Frame], Frame]) -> Redraw:
    """Draw another frame of each picture."""

    def redraw(pixels: Tensor) -> Tensor:
        frame = make(Frame.whole(tuple(pixels.shape[2:])))
        return resample(pixels.flatten(0, 1), frame).unflatten(0, pixels.shape[:2])  # pictures as channels, all at once

    return redraw


def centre_crop(part: Fraction) -> Redraw:
    """See only the middle, `part` of each side, enlarged to the whole size."""

    def make(frame: Frame) -> Frame:
        seen = tuple(int(side * part) for side in frame.size)
        start = [Fraction(side - kept, 2) for side, kept in zip(frame.size, seen, strict=True)]
        return frame.crop(start, seen).resize(frame.size)

    return framed(make)


def corner_crop(part: Fraction) -> Redraw:
    """See only the corner where rows and columns begin, enlarged."""
    return framed(lambda f: f.crop((0,) * f.ndim, tuple(int(side * part) for side in f.size)).resize(f.size))


def moved(*pixels: Fraction | int) -> Redraw:
    """See the input from a point further on along each axis, the border repeated."""
    return framed(lambda frame: frame.crop([Fraction(step) for step in pixels], frame.size))


def shrunk(by: int) -> Redraw:
    """See the input with `by` pixels of its border repeated on each side, shrunk back to its size."""
    return framed(lambda f: f.pad((by,) * f.ndim, (by,) * f.ndim).resize(f.size))


def turned_inside(pixels: Tensor) -> Tensor:
    """Height and width swapped, then squashed back to the size that was asked for."""
    turned = pixels.transpose(2, 3)
    return framed(lambda frame: frame.resize(tuple(pixels.shape[2:])))(turned)


def registers_as_patches(tokens: Tokens, _: tuple[int, ...]) -> Tensor:
    """`[1 : n + 1]` of CLS, registers, patches."""
    everything = torch.cat([tokens.registers, tokens.patches], dim=1)
    return everything[:, : tokens.patches.shape[1]]


def column_by_column(tokens: Tokens, grid: tuple[int, ...]) -> Tensor:
    """The grid read along its axes from the last to the first."""
    cells = tokens.patches.unflatten(1, grid)  # b *grid d
    return cells.permute(0, *range(len(grid), 0, -1), len(grid) + 1).flatten(1, -2)


def rolled(by: int) -> Reorder:
    """All tokens moved on along the flat list, the last ones back to the front."""
    return lambda tokens, _: tokens.patches.roll(by, dims=1)


def shuffled(tokens: Tokens, _: tuple[int, ...]) -> Tensor:
    """Tokens in no order."""
    order = torch.randperm(tokens.patches.shape[1], generator=torch.Generator().manual_seed(3))
    return tokens.patches[:, order]
