"""What a pass over the pictures makes: which kinds of features, under which stamps, from one forward.

Axes: b batch, h w pixels, n patches, m latent tokens, r registers, d features, c latent channels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.datasets.latents import LatentEncoder
from patchatlas.datasets.recipe import Recipe, stamp_for
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import ShapeError, UsageError
from patchatlas.geometry.area import LatentMatch, match_latents
from patchatlas.geometry.buckets import Hw, to_patches
from patchatlas.geometry.frame import Frame
from patchatlas.io.codecs import StoredDtype
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp

EncoderPass = Literal["dinov3", "dinov2", "encoder"]
"""`encoder` takes an encoder of any family."""

DEFAULT_ENCODERS: dict[EncoderPass, str] = {"dinov3": "dinov3-vitl16", "dinov2": "dinov2-vitl14-reg"}
"""Catalogue names of what is used where no encoder is named; only if its weights are on this machine."""

LATENTS = "vae_latents"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of feature, a file a picture.

    Attributes:
        name: such as `dinov3_patches`; also the name of the folder and of the manifest's entry.
        dtype: how it is stored.
        stamp: everything that changes its numbers.
        dim: length of a token, or channels of latents.
        shapes: of one picture's array, by bucket.
        grids: (rows, columns) by bucket; `None` for CLS and registers, which belong to no place.
        channel_axis: which axis of the array has the features.
    """

    name: str
    dtype: StoredDtype
    stamp: Stamp
    dim: int
    shapes: Mapping[Hw, tuple[int, ...]]
    grids: Mapping[Hw, tuple[int, int]] | None = None
    channel_axis: int = -1


@dataclass(frozen=True, kw_only=True)
class FeaturePass:
    """One forward and what is kept of it.

    Attributes:
        name: for messages.
        kinds: what it makes.
        spec: the network.
        config: settings worth keeping beside the features; equal for every worker.
        device: where it runs.
        forward: pixels in 0..1 of a bucket (given as (h, w)) to an array of each kind by name, first axis the batch.
    """

    name: str
    kinds: tuple[Kind, ...]
    spec: EncoderSpec
    config: Mapping[str, Any]
    device: torch.device
    forward: Callable[[Tensor, Hw], dict[str, Tensor]]

    @property
    def patch(self) -> Hw:
        """What the sides of its input are multiples of."""
        return self.spec.patch[0], self.spec.patch[1]

    def cost(self, bucket: Hw) -> int:
        """Tokens of a picture."""
        h, w = input_size(bucket, self.patch)
        return (h // self.patch[0]) * (w // self.patch[1])

    def features(self, pixels: Float[Tensor, "b 3 h w"], bucket: Hw) -> dict[str, Tensor]:
        """An array of each kind, float32, on the CPU, held to the exact number of patches and registers.

        Raises:
            ShapeError: the network gave other numbers than its spec and the bucket say.
        """
        made = self.forward(pixels, bucket)
        for kind in self.kinds:
            found, wanted = tuple(made[kind.name].shape[1:]), kind.shapes[bucket]
            if found != wanted:
                raise ShapeError(
                    f"{self.spec.name} gave {kind.name} of shape {found} for pictures of {pixels.shape[3]}x"
                    f"{pixels.shape[2]} px, its spec says {wanted}; the spec of the encoder is wrong"
                )
        return {kind.name: made[kind.name].float().cpu() for kind in self.kinds}


def input_size(bucket: Hw, patch: Hw) -> Hw:
    """The bucket at the size rounded half-up to whole patches, (h, w)."""
    h, w = to_patches(Frame.whole(bucket), patch).size
    return h, w


def encoder_pass(
    encoder: Encoder,
    recipe: Recipe,
    *,
    name: EncoderPass = "encoder",
    latent_stride: int | None = None,
    latent_patch: int = 2,
) -> FeaturePass:
    """Patches, CLS and registers of one forward; with `latent_stride` also patches on the grid of a latent model.

    Those last, `{family}_latent_patches`, are the patches resampled by area. They are made only if there is a bucket
    whose patches and latent tokens do not meet one to one; else the patches are already what is wanted.

    Args:
        encoder: of the family that the pass is named after.
        recipe: what else changes the numbers.
        name: the pass.
        latent_stride: pixels to a latent pixel, see `match_latents`.
        latent_patch: latent pixels to a token.

    Raises:
        UsageError: an encoder of another family, or one that does not take colour pictures.
        ShapeError: a bucket that is not whole latent tokens.
    """
    spec = encoder.spec
    require_suited(spec, name)
    patch = (spec.patch[0], spec.patch[1])
    grids = {bucket: _grid(bucket, patch) for bucket in recipe.buckets}
    matches = _matches(recipe, patch, latent_stride, latent_patch)
    stamp = stamp_for(spec, recipe)
    patches, cls, registers, on_latents = (
        f"{spec.family}_{part}" for part in ("patches", "cls", "registers", "latent_patches")
    )
    counts = {bucket: (rows * columns, spec.dim) for bucket, (rows, columns) in grids.items()}
    kinds = [Kind(name=patches, dtype=recipe.storage, stamp=stamp, dim=spec.dim, shapes=counts, grids=grids)]
    if spec.has_cls:
        kinds.append(Kind(name=cls, dtype="fp32", stamp=stamp, dim=spec.dim, shapes=dict.fromkeys(grids, (spec.dim,))))
    if spec.registers:
        shapes = dict.fromkeys(grids, (spec.registers, spec.dim))
        kinds.append(Kind(name=registers, dtype="fp32", stamp=stamp, dim=spec.dim, shapes=shapes))
    if matches:
        tokens = {bucket: match.tokens for bucket, match in matches.items()}
        shapes = {bucket: (rows * columns, spec.dim) for bucket, (rows, columns) in tokens.items()}
        resampled = stamp_for(spec, recipe, latent_stride=latent_stride or 0, latent_patch=latent_patch)
        kinds.append(
            Kind(name=on_latents, dtype=recipe.storage, stamp=resampled, dim=spec.dim, shapes=shapes, grids=tokens)
        )

    def forward(pixels: Tensor, bucket: Hw) -> dict[str, Tensor]:
        given = encoder(pixels)
        made = {patches: given.patches}
        if given.cls is not None:
            made[cls] = given.cls
        if given.registers is not None:
            made[registers] = given.registers
        if matches:
            made[on_latents] = torch.stack([matches[bucket].resample(one) for one in given.patches.float()])
        return made

    return FeaturePass(
        name=name,
        kinds=tuple(kinds),
        spec=spec,
        config={"pass": name, "encoder": spec.source},
        device=encoder.device,
        forward=forward,
    )


def require_suited(spec: EncoderSpec, name: EncoderPass) -> None:
    """Refuse an encoder that a pass does not take.

    Raises:
        UsageError: an encoder of another family, or one that does not take colour pictures.
    """
    if name != "encoder" and spec.family != name:
        raise UsageError(
            f"--pass-filter {name} needs an encoder of the family {name}, {spec.name} is of {spec.family}; take "
            f"--pass-filter {spec.family if spec.family in DEFAULT_ENCODERS else 'encoder'}, or another --encoder"
        )
    if spec.ndim != 2 or spec.channels != 3:
        raise UsageError(f"{spec.name} takes {spec.ndim}-D inputs of {spec.channels} channels; pictures are 2-D with 3")


def latents_pass(vae: LatentEncoder, recipe: Recipe) -> FeaturePass:
    """Latents of the bucket.

    Raises:
        ShapeError: a bucket whose sides are no multiples of the stride.
    """
    for bucket in recipe.buckets:
        vae.require_fit(bucket)
    grids = {bucket: _grid(bucket, (vae.spec.patch[0], vae.spec.patch[1])) for bucket in recipe.buckets}
    kind = Kind(
        name=LATENTS,
        dtype=recipe.storage,
        stamp=stamp_for(vae.spec, recipe, **vae.facts),
        dim=vae.spec.dim,
        shapes={bucket: (vae.spec.dim, *grid) for bucket, grid in grids.items()},
        grids=grids,
        channel_axis=0,
    )
    return FeaturePass(
        name="latents",
        kinds=(kind,),
        spec=vae.spec,
        config={"pass": "latents", "encoder": vae.spec.source},
        device=vae.device,
        forward=lambda pixels, _: {LATENTS: vae(pixels)},
    )


def _grid(bucket: Hw, patch: Hw) -> tuple[int, int]:
    h, w = input_size(bucket, patch)
    return h // patch[0], w // patch[1]


def _matches(recipe: Recipe, patch: Hw, stride: int | None, latent_patch: int) -> dict[Hw, LatentMatch]:
    """The latent tokens of each bucket, or nothing where none are asked for or all meet the patches one to one."""
    if stride is None:
        return {}
    matches = {
        bucket: match_latents(bucket, patch=patch, latent_stride=stride, latent_patch=latent_patch)
        for bucket in recipe.buckets
    }
    return {} if all(match.one_to_one for match in matches.values()) else matches
