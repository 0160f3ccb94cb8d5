"""Latents of a variational autoencoder, through diffusers' AutoencoderKL; the only file that imports diffusers.

Axes: b batch, h w pixels of a bucket, c latent channels, lh lw latent pixels.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from jaxtyping import Float
from torch import Tensor

from patchatlas.encoders.checkpoint import digest, read_json
from patchatlas.encoders.precision import TORCH_DTYPES, Precision, choose_device, choose_precision
from patchatlas.errors import MissingExtraError, ShapeError, WeightsError
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import StampValue

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
"""The two files of a model folder as diffusers writes it (`ModelMixin.save_pretrained`)."""

SUBFOLDER = "vae"
"""Where a folder of a whole diffusers pipeline keeps its autoencoder."""

_NO_FACTS = ("_class_name", "_diffusers_version", "_name_or_path", "sample_size")
"""Entries of the config that change no number: names, versions, and the size of a tiling that is never used."""


class LatentEncoder:
    """Pictures of one size to latents: the mode of the posterior (its mean), so that a rerun gives the same numbers.

    Made by `load_vae`.

    Attributes:
        spec: family `vae`, `patch` the stride in pixels, `dim` the latent channels.
        facts: what belongs into the stamp beside the spec: `Stamp.of(encoder.spec, **encoder.facts, ...)`.
    """

    def __init__(self, network: Any, spec: EncoderSpec, *, scaled: bool) -> None:
        config = network.config
        self.spec = spec
        self.scaled = scaled
        self._network = network
        self._factor = float(config.scaling_factor)
        self._shift = float(config.shift_factor or 0.0)
        self._mean = tuple(float(value) for value in config.latents_mean or ())
        self._std = tuple(float(value) for value in config.latents_std or ())
        self.facts: dict[str, StampValue] = {
            "latents_posterior": "mode",
            "latents_scaled": scaled,
            "latents_factor": self._factor,
            "latents_shift": self._shift,
            "latents_mean": self._mean,
            "latents_std": self._std,
        }

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self._network.parameters()).device
        return device

    def toggled(self) -> "LatentEncoder":
        """The same network, scaled if this one is not, and the other way round."""
        return LatentEncoder(self._network, self.spec, scaled=not self.scaled)

    def require_fit(self, size_hw: tuple[int, int]) -> None:
        """Refuse sizes that are not whole latent pixels; the network itself would drop the rest in silence.

        Raises:
            ShapeError: a side is no multiple of the stride.
        """
        for side, stride in zip(size_hw, self.spec.patch, strict=True):
            if side % stride:
                raise ShapeError(
                    f"{size_hw[1]}x{size_hw[0]} px are not whole latent pixels: side {side} is no multiple of the "
                    f"stride {stride} of {self.spec.name}; take buckets with sides that are"
                )

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "b 3 h w"], /) -> Float[Tensor, "b c lh lw"]:
        """Encode pixels in 0..1; latents in float32, on the device, scaled as the config says if `scaled`.

        Raises:
            ShapeError: a side is no multiple of the stride.
        """
        self.require_fit((pixels.shape[2], pixels.shape[3]))
        wanted = 2 * pixels.to(self.device, torch.float32) - 1  # -1..1, as diffusers' VaeImageProcessor gives it
        latents: Tensor = self._network.encode(wanted.to(TORCH_DTYPES[self.spec.dtype])).latent_dist.mode().float()
        if not self.scaled:
            return latents
        # (z - shift) * factor, as SD3 and Flux feed their transformers; a config with a mean and std a channel instead
        # means (z - mean) / std * factor, as diffusers' StableDiffusionXLImg2ImgPipeline does.
        latents = latents - self._shift
        if self._mean and self._std:
            mean, std = (latents.new_tensor(values)[:, None, None] for values in (self._mean, self._std))
            latents = (latents - mean) / std
        return latents * self._factor


def load_vae(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str = "fp32",
    scaled: bool = True,
) -> LatentEncoder:
    """Load an autoencoder. Nothing is downloaded unless a hub id is given.

    Args:
        name_or_path: a folder in the layout of diffusers (config.json and diffusion_pytorch_model.safetensors), a
            folder of a whole pipeline with such a folder `vae`, or a hub id `owner/name` of either.
        device: `auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:N` or `mps`.
        dtype: `fp32`, `bf16`, or `auto` (bf16 where the hardware has it). Latents are small and training adds its own
            noise to them, so exactness costs little here.
        scaled: whether latents are shifted and scaled as the config says, ready to train on.

    Raises:
        MissingExtraError: diffusers is not installed.
        WeightsError: no such folder, another kind of model, weights that are damaged or do not fit the config.
        UsageError: a device or dtype that is not known.
    """
    chosen = choose_device(device)
    arithmetic: Precision = choose_precision(dtype, chosen)
    folder, source = _find(name_or_path)
    network = _read(folder, TORCH_DTYPES[arithmetic])
    del network.decoder  # more than half of the weights, and never asked
    network = network.to(chosen).eval().requires_grad_(False)
    config = {name: value for name, value in network.config.items() if name not in _NO_FACTS}
    blocks = len(network.config.block_out_channels)
    stride = 2 ** (blocks - 1)  # every block but the last halves the picture
    spec = EncoderSpec(
        name=Path(source).name,
        family="vae",
        patch=(stride, stride),
        dim=network.config.latent_channels,
        registers=0,
        has_cls=False,
        channels=network.config.in_channels,
        mean=(0.5,) * network.config.in_channels,
        std=(0.5,) * network.config.in_channels,
        layer=blocks - 1,
        depth=blocks,
        norm="none",
        dtype=arithmetic,
        licence="unknown",
        weights_sha256=digest([folder / WEIGHTS]),
        source=source,
        config_sha256=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
    )
    return LatentEncoder(network, spec, scaled=scaled)


def _find(name_or_path: str | Path) -> tuple[Path, str]:
    """The folder with config and weights, and what to call its source."""
    folder, source = Path(name_or_path).expanduser(), Path(name_or_path).name
    if not folder.exists():
        text = str(name_or_path)
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text) is None or isinstance(name_or_path, Path):
            raise WeightsError(f"{text} does not exist; give a folder with {CONFIG} and {WEIGHTS}, or a hub id")
        folder, source = _fetch(text), text
    if not (folder / WEIGHTS).is_file() and (folder / SUBFOLDER / WEIGHTS).is_file():
        folder = folder / SUBFOLDER
    absent = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise WeightsError(
            f"{folder} lacks {' and '.join(absent)}; an autoencoder is a folder with both, as diffusers writes them "
            "(save_pretrained)"
        )
    kind = read_json(folder, CONFIG).get("_class_name")
    if kind != "AutoencoderKL":
        raise WeightsError(f"{folder} holds a {kind}, not an AutoencoderKL; give the folder of the autoencoder")
    return folder, source


def _read(folder: Path, dtype: torch.dtype) -> Any:
    """The network in a folder, every weight of it from the file."""
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise MissingExtraError("diffusers", extra="latents", needed_for="encoding latents") from error
    load: Any = AutoencoderKL.from_pretrained  # it has no annotations
    try:
        network, report = load(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{folder} cannot be loaded as an AutoencoderKL: {reason}") from error
    problems = {kind: names for kind, names in report.items() if names}
    if problems:
        raise WeightsError(f"the weights in {folder} do not fit its {CONFIG}: {problems}; download both again")
    return network


def _fetch(repo_id: str) -> Path:
    """The snapshot of a repository, from the local cache or else downloaded."""
    wanted = [CONFIG, WEIGHTS, f"{SUBFOLDER}/{CONFIG}", f"{SUBFOLDER}/{WEIGHTS}"]
    try:
        cached = Path(snapshot_download(repo_id, allow_patterns=wanted, local_files_only=True))
        if any(cached.rglob(WEIGHTS)):
            return cached
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(repo_id, allow_patterns=wanted))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"{repo_id} is not in the local cache and cannot be had from the hub ({type(error).__name__}). On a "
            f"machine with network run: hf download {repo_id} --local-dir FOLDER, copy FOLDER here and give its path "
            "instead (a gated model wants its licence accepted and: hf auth login)"
        ) from error
