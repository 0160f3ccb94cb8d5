"""A picture becomes the map that landmarks are looked for on: all of a recipe that concerns encoding, in one place.

`prepare` turns an encoder into the one that a recipe asks for (layers, debiasing), `encode_view` makes the map. Whoever
encodes anything else for the same search, such as a crop, takes the prepared encoder: its spec, and with it the stamp,
says what was done, so that maps made in different ways are never compared.

Axes: b batch, c channels, n patches, d features.
"""

import logging
from collections import OrderedDict
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.arrays import ImageU8
from patchatlas.dense import encode
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.encoders.vit_encoder import with_layers
from patchatlas.errors import UsageError
from patchatlas.features import FeatureMap
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.locate.recipe import Recipe
from patchatlas.matching.debias import position_basis, take_out
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

log = logging.getLogger(__name__)

_KEPT = 64
_bases: OrderedDict[tuple[str, tuple[int, ...], int, str], Tensor] = OrderedDict()
"""Directions of position by (stamp, grid, how many, device): the latest `_KEPT`, some 100 kB each."""


def encode_view(image: ImageU8, encoder: Encoder, recipe: Recipe, *, frame: Frame | None = None) -> FeatureMap:
    """The map of one picture, made as the recipe says.

    Args:
        image: upright picture.
        encoder: of pictures, prepared or not.
        recipe: its size, windows, layers and debiasing are used here.
        frame: draw this frame of the picture instead of the whole at `recipe.image_size`.

    Raises:
        UsageError: a recipe that this encoder cannot follow.
        ShapeError: see `dense.encode`.
        ResourceError: see `dense.encode`.
    """
    prepared = prepare(encoder, recipe)
    whole = frame or fit(image.shape[:2], long_side=recipe.image_size, patch=encoder.spec.patch)
    return encode(
        image,
        prepared,
        frame=whole,
        windows=recipe.windows,
        global_view=recipe.windows is not None and recipe.global_view,
        max_memory=recipe.max_memory,
    )


def prepare(encoder: Encoder, recipe: Recipe) -> Encoder:
    """The encoder with the layers and the debiasing of a recipe; one that has them already is given back as it is.

    Raises:
        UsageError: the encoder has no such layers, fewer features than directions to take out, a patch that the
            recipe's jitter does not divide, or was debiased otherwise before.
    """
    require_jitter(encoder.spec, recipe)
    if recipe.layers and encoder.spec.layers != recipe.layers:
        encoder = with_layers(encoder, recipe.layers)
    if recipe.debias and encoder.spec.debias != recipe.debias:
        encoder = DebiasedEncoder(encoder, recipe.debias)
    return encoder


def require_jitter(spec: EncoderSpec, recipe: Recipe) -> None:
    """Refuse a recipe whose jitter is no part of the patch.

    Raises:
        UsageError: it is as large as the patch, or does not divide it.
    """
    for side in spec.patch:
        if recipe.jitter is not None and (side % recipe.jitter or side == recipe.jitter):
            parts = [n for n in range(1, side) if side % n == 0]
            raise UsageError(
                f"jitter {recipe.jitter} does not part the patch of {spec.name}, {side} px; take one of "
                f"{', '.join(map(str, parts))}"
            )


class DebiasedEncoder:
    """An encoder whose patch tokens have lost what they say of their own position; see `matching.debias`.

    The directions are those of an empty picture of the input's own size, shown once for each size and then remembered.
    Tokens have unit length. Class token and registers are left as they are.

    Args:
        encoder: whose tokens to take.
        directions: how many to take out.

    Raises:
        UsageError: the tokens have not so many features, or are standardised layers: an empty picture would scale
            their channels otherwise than a real one does, and the directions of one are not those of the other.
    """

    def __init__(self, encoder: Encoder, directions: int) -> None:
        if encoder.spec.layers:
            raise UsageError("debias works on the tokens of one layer as they are; leave out either debias or layers")
        if encoder.spec.debias:
            raise UsageError(f"{encoder.spec.name} is debiased already; give the encoder as it was loaded")
        if not 1 <= directions < encoder.spec.dim:
            raise UsageError(
                f"debias {directions} of the {encoder.spec.dim} features of {encoder.spec.name}; "
                f"take 1 to {encoder.spec.dim - 1}"
            )
        self.encoder = encoder
        self._spec = replace(encoder.spec, debias=directions)

    @property
    def spec(self) -> EncoderSpec:
        """The facts."""
        return self._spec

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "b c *size"], /) -> Tokens:
        """Encode a batch.

        Raises:
            ShapeError: see the encoder's own.
        """
        tokens = self.encoder(pixels)
        return replace(tokens, patches=take_out(tokens.patches, self._basis(tuple(pixels.shape[2:]))))

    def _basis(self, size: tuple[int, ...]) -> Tensor:
        """Directions of position for inputs of this size."""
        key = (Stamp.of(self._spec).digest, size, self._spec.debias, str(self.device))
        if key not in _bases:
            spec = self._spec
            grey = torch.tensor(spec.mean, device=self.device).reshape(1, -1, *[1] * spec.ndim)
            empty = self.encoder(grey.expand(1, -1, *size).contiguous()).patches[0]
            _bases[key] = position_basis(empty, k=spec.debias)
            if not len(_bases[key]):
                log.warning("debias changes nothing: %s sees no position in an empty picture", spec.name)
            if len(_bases) > _KEPT:
                _bases.popitem(last=False)
        return _bases[key]
