"""V-JEPA 2 and DINOv3-ConvNeXt as encoders: transformers holds the networks, everything around them is ours.

Weights are read by `checkpoint` (safe, no network) and put in strictly; preprocessing is mean and std alone. Both
networks are run block by block, so that any block's tokens can be had and positions are right at every size.

Axes: b batch, c channels, t frames, h w pixels, gh gw patch grid, n patches (row-major), d features.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchatlas.encoders import checkpoint
from patchatlas.encoders.catalogue import IMAGENET, find
from patchatlas.encoders.checkpoint import Checkpoint
from patchatlas.encoders.inputs import grid_shape
from patchatlas.encoders.layers import choose_layer
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.errors import MissingExtraError, ShapeError, UsageError, WeightsError
from patchatlas.spec import EncoderSpec

Norm = Literal["final", "none"]

ROW_STEP = 4096
"""Ids of patches in neighbouring rows of V-JEPA 2 differ by this: the most patches a side that it can take here."""


def load(
    path: str | Path,
    *,
    device: torch.device,
    dtype: Literal["fp32", "bf16"],
    layer: int | None = None,
    norm: Norm = "final",
    name: str | None = None,
    source: str | None = None,
) -> Encoder:
    """Load V-JEPA 2 or DINOv3-ConvNeXt from a local folder in the layout of transformers' `save_pretrained`.

    Args:
        path: folder with `config.json` and weights, or the weights file in it.
        dtype: `bf16` runs linears and attention in bfloat16, norms and residuals in float32; tokens are float32.
        layer: block whose tokens are given, counted from 0 through all stages, from the end if negative; default last.
        norm: `final` puts the network's last LayerNorm on the tokens, `none` does not.
        name: for the spec; the folder's name by default. A hub id finds the licence in the catalogue.
        source: for the spec; the folder's name by default.

    Raises:
        MissingExtraError: transformers is not installed.
        WeightsError: no folder, another kind of network, or weights that are damaged, missing, left over or misshapen.
        UsageError: no such layer, or the final norm asked for on a stage of another width.
    """
    transformers = _transformers()
    path = Path(path)
    weights = checkpoint.read(path)
    name = name or path.name
    told: dict[str, Any] = {"norm": norm, "dtype": dtype, "name": name, "source": source or path.name}
    model_type = weights.config.get("model_type")
    if model_type == "vjepa2":
        return _load_vjepa2(transformers, path, weights, device=device, layer=layer, told=told)
    if model_type == "dinov3_convnext":
        return _load_convnext(transformers, path, weights, device=device, layer=layer, told=told)
    raise WeightsError(f"{path} has model_type {model_type!r} in config.json; here it is vjepa2 or dinov3_convnext")


def require_complete(path: Path, fields: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Refuse weights unless the network that `config.json` describes has exactly these tensors; no numbers are read.

    Args:
        path: of the weights, for messages.
        fields: of config.json, with a `model_type` of vjepa2 or dinov3_convnext.
        state: may be on the meta device.

    Raises:
        MissingExtraError: transformers is not installed.
        WeightsError: naming what is missing, left over or of another shape, or a config.json that is not whole.
    """
    transformers = _transformers()
    if fields["model_type"] == "vjepa2":
        _empty(transformers.VJEPA2Model, path, _config(transformers.VJEPA2Config, path, fields), state)
    else:
        config = _config(transformers.DINOv3ConvNextConfig, path, fields)
        _empty(transformers.DINOv3ConvNextModel, path, config, _as_convnext(state))


class VJepa2Encoder:
    """V-JEPA 2: called as any encoder, a picture is fed as one tubelet of equal frames; `clips` takes what moves.

    It has neither class token nor registers.

    Args:
        network: `VJEPA2Model.encoder`, made with a grid of `ROW_STEP` patches a side (see `position_ids`).
        tubelet: frames that one token sees.
        spec: its facts.
    """

    def __init__(self, network: Any, *, tubelet: int, spec: EncoderSpec) -> None:
        self.network = network
        self.tubelet = tubelet
        self._spec = spec

    @property
    def spec(self) -> EncoderSpec:
        """The facts."""
        return self._spec

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return _device_of(self.network)

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "b c *size"], /) -> Tokens:
        """Encode a batch of pictures in 0..1.

        Raises:
            ShapeError: a side is not a multiple of the patch, or the channels are not the network's.
        """
        grid_shape(pixels, self._spec)
        return Tokens(patches=self.clips(pixels[:, None].expand(-1, self.tubelet, -1, -1, -1)))

    @torch.no_grad()
    def clips(self, pixels: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b n d"]:
        """Tokens of a batch of clips in 0..1, float32: tubelet after tubelet, each row-major over the patch grid.

        Raises:
            ShapeError: frames that do not fill tubelets, a side that is not a multiple of the patch, or channels that
                are not the network's.
        """
        steps, rest = divmod(pixels.shape[1], self.tubelet)
        if rest or not steps:
            raise ShapeError(
                f"a clip of {pixels.shape[1]} frames does not fill tubelets of {self.tubelet}; give a multiple of it"
            )
        rows, columns = grid_shape(pixels[:, 0], self._spec)
        frames = normalised(pixels.flatten(0, 1), self._spec, self.device).unflatten(0, pixels.shape[:2])
        tokens = self.network.embeddings(frames)  # b n d
        ids = position_ids(rows, columns, steps=steps).to(self.device)
        with _arithmetic(self._spec, self.device):
            for block in self.network.layer[: self._spec.layer + 1]:
                tokens = block(tokens, position_mask=ids)[0]
        tokens = tokens.float()
        normed: Tensor = self.network.layernorm(tokens) if self._spec.norm == "final" else tokens
        return normed


class ConvNextEncoder:
    """DINOv3-ConvNeXt: a patch is the stride of the stage that is read, the class token the mean of its patches.

    Args:
        network: `DINOv3ConvNextModel`.
        spec: its facts; blocks are counted through all stages.
    """

    def __init__(self, network: Any, *, spec: EncoderSpec) -> None:
        self.network = network
        self._spec = spec

    @property
    def spec(self) -> EncoderSpec:
        """The facts."""
        return self._spec

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return _device_of(self.network)

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "b c *size"], /) -> Tokens:
        """Encode a batch of pictures in 0..1.

        Raises:
            ShapeError: a side is not a multiple of the patch, or the channels are not the network's.
        """
        grid_shape(pixels, self._spec)
        features = normalised(pixels, self._spec, self.device)
        with _arithmetic(self._spec, self.device):
            features = self._run(features)
        patches = features.float().flatten(2).transpose(1, 2)  # b d gh gw -> b n d
        tokens = torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
        if self._spec.norm == "final":
            tokens = self.network.layer_norm(tokens)
        return Tokens(patches=tokens[:, 1:], cls=tokens[:, 0])

    def _run(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d gh gw"]:
        """Features after block `spec.layer`."""
        to_go = self._spec.layer + 1
        for stage in self.network.model.stages:
            for module in stage.downsample_layers:
                features = module(features)
            for block in stage.layers[:to_go]:
                features = block(features)
            to_go -= len(stage.layers)
            if to_go <= 0:
                break
        return features


def position_ids(rows: int, columns: int, *, steps: int = 1) -> Int[Tensor, "1 n"]:
    """Ids that V-JEPA 2's attention takes apart into (tubelet, row, column), tubelet after tubelet, each row-major.

    The class of transformers counts rows and columns on the square grid of its config, whatever the input: at any other
    width it would turn tokens by the positions of other patches. With the grid made `ROW_STEP` wide, these ids say the
    true rows and columns, which is what the authors' code does with the size of its input.

    Raises:
        ShapeError: more than `ROW_STEP` patches a side.
    """
    if max(rows, columns) > ROW_STEP:
        raise ShapeError(f"V-JEPA 2 takes up to {ROW_STEP} patches a side, given {rows} x {columns}; cut the picture")
    step, row, column = torch.arange(steps)[:, None, None], torch.arange(rows)[:, None], torch.arange(columns)
    return ((step * ROW_STEP + row) * ROW_STEP + column).reshape(1, -1)


def normalised(
    pixels: Float[Tensor, "b c *size"], spec: EncoderSpec, device: torch.device
) -> Float[Tensor, "b c *size"]:
    """(pixels - mean) / std per channel, float32, on `device`."""
    pixels = pixels.to(device, torch.float32)
    shape = (-1, *[1] * spec.ndim)
    return (pixels - pixels.new_tensor(spec.mean).view(shape)) / pixels.new_tensor(spec.std).view(shape)


def _load_vjepa2(
    transformers: Any,
    path: Path,
    weights: Checkpoint,
    *,
    device: torch.device,
    layer: int | None,
    told: dict[str, Any],
) -> VJepa2Encoder:
    config = _config(transformers.VJEPA2Config, path, weights.config)
    patch = config.patch_size
    if not isinstance(patch, int):
        raise WeightsError(f"{path} has patch_size {patch} in config.json; V-JEPA 2 has square patches, one number")
    config.crop_size = ROW_STEP * patch  # enters nothing but the split of ids into rows and columns
    # the predictor is checked with the rest and then left away: tokens do not depend on it
    model = _filled(transformers.VJEPA2Model, path, config, weights.state)
    spec = EncoderSpec(
        family="vjepa2",
        patch=(patch, patch),
        dim=config.hidden_size,
        registers=0,
        has_cls=False,
        channels=config.in_chans,
        layer=choose_layer(layer, config.num_hidden_layers),
        depth=config.num_hidden_layers,
        **_published(path, weights, told["name"]),
        **told,
    )
    return VJepa2Encoder(_placed(model.encoder, spec, device), tubelet=config.tubelet_size, spec=spec)


def _load_convnext(
    transformers: Any,
    path: Path,
    weights: Checkpoint,
    *,
    device: torch.device,
    layer: int | None,
    told: dict[str, Any],
) -> ConvNextEncoder:
    config = _config(transformers.DINOv3ConvNextConfig, path, weights.config)
    model = _filled(transformers.DINOv3ConvNextModel, path, config, _as_convnext(weights.state))
    depth = sum(config.depths)
    block = choose_layer(layer, depth)
    stage = next(s for s in range(len(config.depths)) if block < sum(config.depths[: s + 1]))
    dim = config.hidden_sizes[stage]
    if told["norm"] == "final" and stage != len(config.depths) - 1:
        raise UsageError(
            f"layer {block} is in stage {stage} of {len(config.depths)}, and the final norm belongs to the last one; "
            f"pass norm='none', or a layer from {sum(config.depths[:-1])} to {depth - 1}"
        )
    spec = EncoderSpec(
        family="convnext",
        patch=(4 * 2**stage,) * 2,  # a stem of stride 4, then a stride of 2 before each further stage
        dim=dim,
        registers=0,
        has_cls=True,
        channels=config.num_channels,
        layer=block,
        depth=depth,
        **_published(path, weights, told["name"]),
        **told,
    )
    return ConvNextEncoder(_placed(model, spec, device), spec=spec)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", extra="transformers", needed_for="this encoder") from error
    return transformers


def _as_convnext(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Files say stages.*, the class model.stages.* (transformers 5.23.0, conversion_mapping.py)."""
    return {f"model.{key}" if key.startswith("stages.") else key: value for key, value in state.items()}


def _config(kind: Any, path: Path, fields: dict[str, Any]) -> Any:
    try:
        return kind.from_dict(fields)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}/config.json is not a {kind.__name__} ({error}); download it again") from error


def _filled(kind: Any, path: Path, config: Any, state: dict[str, Tensor]) -> Any:
    """A network with exactly the tensors of `state`, in float32."""
    model = _empty(kind, path, config, state)
    model.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return model.eval().requires_grad_(False)


def _empty(kind: Any, path: Path, config: Any, state: dict[str, Tensor]) -> Any:
    """A network on the meta device, which has exactly the tensors of `state`."""
    with torch.device("meta"):
        model = kind(config)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    complaints = {
        "missing": sorted(wanted.keys() - state.keys()),
        "left over": sorted(state.keys() - wanted.keys()),
        "of another shape": [
            f"{key} {tuple(state[key].shape)}, not {shape}"
            for key, shape in wanted.items()
            if key in state and tuple(state[key].shape) != shape
        ],
    }
    if any(complaints.values()):
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in complaints.items() if names)
        raise WeightsError(f"the weights in {path} do not fill {kind.__name__}: {listed}. Download the folder again")
    return model


def _placed(network: nn.Module, spec: EncoderSpec, device: torch.device) -> nn.Module:
    """The network on `device`; for bf16 its linears are stored so, which saves casting them in every call."""
    network.to(device)
    if spec.dtype == "bf16":
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.to(torch.bfloat16)
    return network


def _arithmetic(spec: EncoderSpec, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=spec.dtype == "bf16")


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _published(path: Path, weights: Checkpoint, name: str) -> dict[str, Any]:
    """Mean, std, licence and hash: from the files, else the catalogue (licence) and ImageNet (mean and std)."""
    video = checkpoint.read_json(checkpoint.folder_of(path), "video_preprocessor_config.json")
    found = weights.preprocessor or video
    mean, std = found.get("image_mean", IMAGENET[0]), found.get("image_std", IMAGENET[1])
    entry = find(name)
    return {
        "mean": tuple(float(value) for value in mean),
        "std": tuple(float(value) for value in std),
        "licence": weights.licence or (entry.licence if entry else None) or "unknown",
        "weights_sha256": weights.sha256,
    }
