"""What a build is asked to do, in one value that can be sent to other machines."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from patchatlas.datasets.build.sharding import Shard
from patchatlas.datasets.recipe import Recipe
from patchatlas.io.images import MAX_PIXELS

PassName = Literal["migrate", "dinov3", "dinov2", "encoder", "latents"]
"""`migrate` fills in the manifest, the others store features; see `passes`."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a build is asked to do.

    Attributes:
        input_dir: folder of the pictures.
        manifest: JSONL file to make or continue.
        derived_dir: folder of the features.
        passes: what to do, in this order; `migrate` comes first wherever it stands.
        recipe: what changes the numbers, apart from the networks.
        learn_buckets: learn a table of so many buckets from the pictures, once; it then stands for `recipe.buckets`.
        encoder: what `load_encoder` takes; the default of the pass without it.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: arithmetic of the networks, `auto`, `fp32` or `bf16`.
        layer: block whose tokens are stored; the last one without it.
        vae: what `load_vae` takes.
        vae_precision: arithmetic of the autoencoder.
        latents_scaled: whether latents are scaled as its config says.
        latent_stride: pixels to a latent pixel; with it, patches are also given on the grid of latent tokens.
        latent_patch: latent pixels to a token.
        captions: JSONL file of captions to put into the manifest.
        token_budget: tokens of a batch; without it what suits the device.
        workers: threads that read pictures, of all Ray actors together; without it one a core.
        limit: stop after so many new pictures.
        strict: stop at the first picture that cannot be used.
        max_pixels: larger pictures are skipped.
        backup_old: move stale sets aside.
        shard: the part of the units to work on.
        sample: ids of pictures of which it is measured what a lossy dtype costs; `build` chooses them.
    """

    input_dir: Path
    manifest: Path
    derived_dir: Path
    passes: tuple[PassName, ...]
    recipe: Recipe = field(default_factory=Recipe)
    learn_buckets: int | None = None
    encoder: str | None = None
    device: str = "auto"
    precision: str = "auto"
    layer: int | None = None
    vae: str | None = None
    vae_precision: str = "fp32"
    latents_scaled: bool = True
    latent_stride: int | None = None
    latent_patch: int = 2
    captions: Path | None = None
    token_budget: int | None = None
    workers: int | None = None
    limit: int | None = None
    strict: bool = False
    max_pixels: int = MAX_PIXELS
    backup_old: bool = False
    shard: Shard = field(default_factory=Shard)
    sample: frozenset[str] = frozenset()
