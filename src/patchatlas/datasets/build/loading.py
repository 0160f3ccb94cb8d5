"""The networks of a build, loaded before anything else is done, and the passes they make once the buckets are known."""

from collections.abc import Mapping
from typing import get_args

from patchatlas.datasets.build.passes import (
    DEFAULT_ENCODERS,
    EncoderPass,
    FeaturePass,
    encoder_pass,
    latents_pass,
    require_suited,
)
from patchatlas.datasets.build.settings import PassName, Settings
from patchatlas.datasets.latents import LatentEncoder, load_vae
from patchatlas.datasets.recipe import Recipe
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import UsageError

Networks = Mapping[PassName, Encoder | LatentEncoder]


def load_networks(settings: Settings) -> Networks:
    """What each pass needs, in the order of the passes.

    Raises:
        UsageError: an encoder that is not named, is meant for several passes, or is none that the pass takes.
        WeightsError: a network that cannot be had.
    """
    with_encoder = [name for name in settings.passes if name in get_args(EncoderPass)]
    if settings.encoder is not None and len(with_encoder) > 1:
        raise UsageError(f"--encoder is for one pass, given are {' and '.join(with_encoder)}; run them one by one")
    return {name: _load(settings, name) for name in settings.passes if name != "migrate"}


def make_pass(settings: Settings, name: PassName, networks: Networks, recipe: Recipe) -> FeaturePass:
    """The pass of that name.

    Raises:
        UsageError: an encoder that the pass does not take.
        ShapeError: buckets that do not fit.
    """
    network = networks[name]
    if isinstance(network, LatentEncoder):
        return latents_pass(network, recipe)
    assert name != "migrate", "it has no network"
    assert name != "latents", "its network is a LatentEncoder"
    return encoder_pass(
        network,
        recipe,
        name=name,
        latent_stride=settings.latent_stride,
        latent_patch=settings.latent_patch,
    )


def _load(settings: Settings, name: PassName) -> Encoder | LatentEncoder:
    if name == "latents":
        if settings.vae is None:
            raise UsageError("--pass-filter latents needs --latent-encoder: a folder in diffusers' layout, or a hub id")
        return load_vae(
            settings.vae, device=settings.device, dtype=settings.vae_precision, scaled=settings.latents_scaled
        )
    assert name != "migrate", "it needs no network"
    wanted = settings.encoder or DEFAULT_ENCODERS.get(name)
    if wanted is None:
        raise UsageError(
            "--pass-filter encoder needs --encoder: a weights file or folder, a hub id or a catalogue name"
        )
    encoder = load_encoder(wanted, device=settings.device, dtype=settings.precision, layer=settings.layer)
    require_suited(encoder.spec, name)  # now, before a manifest is begun
    return encoder
