"""An encoder without weights whose tokens are the mean pixels of their patches: on a ramp, the patch centres.

For tests of whatever stands on encoders: a token says where its pixels were, because it is read from them, and CLS and
registers hold values that no pixel has, so that a wrong slice shows. Works in 2-D and 3-D with any patch.

Axes: b batch, c channels, size = (h, w) or (z, h, w), n patch tokens (row-major), r registers, d features.
"""

import hashlib
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.encoders.inputs import grid_shape
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.spec import EncoderSpec

CLS_VALUE = -1.0
"""All features of the class token; register i holds `CLS_VALUE - 1 - i`. Means of pixels in 0..1 are never negative."""


@dataclass(frozen=True, kw_only=True)
class FakeEncoder:
    """Mean colour of each patch as its token.

    Attributes:
        patch: patch size, (h, w) or (z, h, w).
        channels: channels of the input; the first features of a token are their means over the patch.
        registers: how many register tokens to give.
        has_cls: whether to give a class token.
        position_code: append the patch centre in pixels of the input, (x, y) or (x, y, z), so that tokens differ on an
            even picture too. It does not come from the pixels: leave it off where alignment is what is tested.
        device: where tokens are made.
    """

    patch: tuple[int, ...] = (16, 16)
    channels: int = 3
    registers: int = 4
    has_cls: bool = True
    position_code: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def spec(self) -> EncoderSpec:
        """The facts; with no weights to hash, the hash is over the settings."""
        settings = (self.patch, self.channels, self.registers, self.has_cls, self.position_code)
        return EncoderSpec(
            name="fake",
            family="fake",
            patch=self.patch,
            dim=self.channels + (len(self.patch) if self.position_code else 0),
            registers=self.registers,
            has_cls=self.has_cls,
            channels=self.channels,
            mean=(0.0,) * self.channels,
            std=(1.0,) * self.channels,
            layer=0,
            depth=1,
            norm="none",
            dtype="fp32",
            licence="Apache-2.0",
            weights_sha256=hashlib.sha256(repr(settings).encode()).hexdigest(),
            source="bundled",
        )

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "b c *size"], /) -> Tokens:
        """Tokens of a batch of pixels in 0..1.

        Raises:
            ShapeError: a side is not a multiple of the patch, or the channels are not `channels`.
        """
        spec = self.spec
        grid = grid_shape(pixels, spec)
        pixels = pixels.to(self.device, torch.float32)
        b, c = pixels.shape[:2]
        split = [side for pair in zip(grid, self.patch, strict=True) for side in pair]
        cells = pixels.reshape(b, c, *split)  # b c gh ph gw pw (b c gz pz gh ph gw pw)
        means = cells.mean(dim=tuple(range(3, cells.ndim, 2)))  # b c gh gw
        patches = means.flatten(2).transpose(1, 2)  # b n c
        if self.position_code:
            centres = PatchGrid.on(Frame.whole(tuple(pixels.shape[2:])), self.patch).centres()  # n ndim
            patches = torch.cat([patches, centres.to(patches).expand(b, -1, -1)], dim=2)
        register_values = CLS_VALUE - 1 - torch.arange(self.registers, device=self.device, dtype=torch.float32)
        return Tokens(
            patches=patches,
            cls=patches.new_full((b, spec.dim), CLS_VALUE) if self.has_cls else None,
            registers=register_values[None, :, None].repeat(b, 1, spec.dim) if self.registers else None,
        )


def ramp(size: tuple[int, ...], *, channels: int = 3) -> Float[Tensor, "c *size"]:
    """A picture (or volume) in which every pixel names its own place, in 0..1.

    Channel 0 is x / width at the pixel's centre, channel 1 y / height, channel 2 z / depth; channels beyond the axes
    are zero. A fake token of it, times (width, height[, depth]), is the centre of the token's patch.

    Raises:
        ShapeError: fewer channels than axes.
    """
    if channels < len(size):
        raise ShapeError(f"a ramp over {len(size)} axes needs as many channels, given {channels}")
    pixel_centres = PatchGrid.on(Frame.whole(size), (1,) * len(size)).centres()  # pixels ndim
    places = pixel_centres / pixel_centres.new_tensor(size[::-1])
    picture = torch.zeros(channels, *size)
    picture[: len(size)] = places.T.reshape(len(size), *size)
    return picture
