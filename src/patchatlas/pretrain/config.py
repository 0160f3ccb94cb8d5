"""Settings of a whole run, read from YAML, changed one by one, and written down in full beside what they made.

A key that is not known is an error. The parts belong to those who use them: crops in `crops.config`, losses in
`losses.config`, monitors in `monitors.config`, network and optimiser in `settings`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from patchatlas.encoders.catalogue import IMAGENET
from patchatlas.errors import InputError, UsageError
from patchatlas.pretrain.crops.config import CropConfig, PhotoCropConfig
from patchatlas.pretrain.losses.config import LossConfig
from patchatlas.pretrain.monitors.config import MonitorConfig
from patchatlas.pretrain.settings import Count, HeadConfig, MaskConfig, ModelConfig, OptimConfig, Seed, Settings, Side
from patchatlas.yaml_file import read_yaml

VOLUME_MEAN_STD = ((0.5,), (0.25,))
"""What is taken from windowed HU in 0..1, and what it is divided by: the window's ends become -2 and 2."""

FREE = (
    "data",  # by another path only: what it holds is told by its fingerprint
    "train.workers",
    "train.photo_mib",
    "train.save_every",
    "train.keep",
    "train.tensorboard",
    "train.device",
    "monitor",
)
"""Settings and groups that a run may be resumed with other values of: none changes what is learnt."""

FROM_GOOD = (
    "optim",
    "loss.koleo",
    "loss.sinkhorn",
    "loss.foreground",
    "masks",
    "crops.globals.min_foreground_ratio",
    "crops.globals.foreground_crop_prob",
    "crops.globals.min_overlap",
    "crops.locals.min_foreground_ratio",
    "crops.min_overlap",
    "crops.augment",
)
"""What may be changed beside those where a run goes back to its last good checkpoint: what verdicts advise to change,
and nothing that the weights in a checkpoint or the numbers of samples depend on."""


class TrainConfig(Settings):
    """How long, how much at a time, and on what."""

    steps: Side = 10_000
    """Updates of the weights."""
    batch: Side = 16
    """Samples that a process takes at a time."""
    accumulate: Side = 1
    """Such micro-batches a step. Targets are shared out over all of them at once, and gradients are cut once."""
    seed: Seed = 0
    """Of everything random."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; under torchrun each process takes the device of its number."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the network; auto takes bf16 where the hardware has it. Weights stay in float32."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: whole weights on every device, or shards of them (FSDP2)."""
    checkpointing: bool = False
    """Compute blocks again for the gradients, to hold less."""
    compile: bool = False
    """Let torch compile each block."""
    workers: Count = 0
    """Processes that read and cut crops; 0 for none but the one that trains."""
    photo_mib: Count = 1024
    """MiB that decoded photographs may take in each process that cuts crops; one that is not held is read again."""
    save_every: Side = 500
    """Steps from one checkpoint to the next."""
    keep: Side = 2
    """Checkpoints of the run's whole state that are kept; the last good one always is, and so is every teacher."""
    tensorboard: bool = True
    """Whether numbers are written for TensorBoard too."""


class PretrainConfig(Settings):
    """All settings of a run."""

    data: str
    """Cache of volumes that `pretrain index` made, or folder of photographs."""
    name: str = "pretrained"
    """What the encoder is called."""
    licence: str = "unknown"
    """Licence of the weights that come out."""
    crops: Annotated[CropConfig | PhotoCropConfig, Field(discriminator="kind")] = CropConfig()
    """Crops of volumes or photographs."""
    model: ModelConfig = ModelConfig()
    """The network."""
    dino_head: HeadConfig = HeadConfig()
    """The head of the class token."""
    ibot_head: HeadConfig = HeadConfig()
    """The head of patch tokens, apart from the other."""
    projector: HeadConfig = HeadConfig()
    """What SIGReg looks at; its prototypes are not used."""
    masks: MaskConfig = MaskConfig()
    """What is hidden from the student."""
    loss: LossConfig = LossConfig()
    """The objective."""
    optim: OptimConfig = OptimConfig()
    """How weights are moved."""
    monitor: MonitorConfig = MonitorConfig()
    """What is watched."""
    train: TrainConfig = TrainConfig()
    """How long, and on what."""

    @model_validator(mode="before")
    @classmethod
    def _volumes_if_nothing_is_said(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("crops"), dict):
            return {**given, "crops": {"kind": "volumes", **given["crops"]}}
        return given

    @model_validator(mode="after")
    def _possible(self) -> "PretrainConfig":
        if self.loss.dino.weight and self.crops.globals.count < 2 and not self.crops.locals.count:
            raise ValueError("the DINO term compares views, and crops give one; raise globals.count or locals.count")
        if self.loss.needs_matches and self.crops.globals.count < 2:
            raise ValueError(
                "match and distil.across compare global crops of a sample, and crops give one; raise globals.count, or "
                "set their weights to 0"
            )
        if self.train.batch == 1 and self.loss.koleo.weight and not self.loss.koleo.across_ranks:
            raise ValueError(
                "KoLeo looks for neighbours among the samples of a micro-batch, and train.batch 1 gives none; raise "
                "train.batch, set loss.koleo.across_ranks under torchrun, or loss.koleo.weight to 0"
            )
        dim, _, heads = self.model.shape
        if self.model.weights is None and dim // heads < 2 * self.crops.ndim:
            raise ValueError(
                f"model: heads of {dim // heads} channels are too short for {self.crops.ndim} rotary axes; give fewer "
                "heads"
            )
        for name, given in (("mean", self.model.mean), ("std", self.model.std)):
            if given is not None and len(given) != self.crops.channels:
                raise ValueError(f"model.{name} {given} is not one number for each of {self.crops.channels} channels")
        return self

    @property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What the network takes from pixels in 0..1, and what it divides them by, a channel; where it begins from
        weights, `model.with_mean_std` has first put theirs into the settings."""
        mean, std = VOLUME_MEAN_STD if self.crops.ndim == 3 else IMAGENET
        return self.model.mean or mean, self.model.std or std


def read_config(path: str | Path, overrides: Iterable[str] = ()) -> PretrainConfig:
    """The config in a YAML file, with single settings changed.

    Args:
        path: a mapping; what it leaves out keeps its default.
        overrides: `a.b=c`, the value as YAML.

    Raises:
        InputError: the file cannot be opened.
        UsageError: not YAML, a key that is not known, or a value that is not allowed; all of them are named.
    """
    path = Path(path)
    if path.is_dir():
        held, beside = path / "config.yaml", path.with_name(f"{path.name}.yaml")
        cure = f"give {held}, and --output {path} to go on with its run" if held.exists() else "give a file"
        cure = f"give {beside}" if beside.exists() else cure
        raise InputError(f"{path} is a folder, not a YAML file of settings; {cure}")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no settings; give it keys such as data: and train:")
    for override in overrides:
        _put(content, override)
    return make_config(content, source=str(path))


def make_config(content: Mapping[str, Any], *, source: str = "the settings") -> PretrainConfig:
    """A config from plain mappings.

    Raises:
        UsageError: a key that is not known, or a value that is not allowed; all of them are named.
    """
    try:
        return PretrainConfig.model_validate(dict(content))
    except ValidationError as error:
        raise UsageError(f"{source}: " + "; ".join(_complaint(one) for one in error.errors())) from error


def to_yaml(config: PretrainConfig) -> str:
    """The config in full, as YAML that `read_config` turns into the same config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def differences(one: PretrainConfig, other: PretrainConfig, *, free: Sequence[str] = FREE) -> list[str]:
    """Settings that differ, as `a.b: 1 and 2`, but for those and those in the groups that `free` names."""
    mine, theirs = _flat(one.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
    names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    counted = [name for name in names if not any(f"{name}.".startswith(f"{group}.") for group in free)]
    return [f"{name}: {mine.get(name)!r} and {theirs.get(name)!r}" for name in counted]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _put(content: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not all(name.split(".")):
        raise UsageError(f"--set {override!r} is not of the form a.b=c, for example train.steps=1000")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override!r}: {text!r} is no YAML value") from error
    *groups, last = name.split(".")
    for group in groups:
        content = content.setdefault(group, {})
        if not isinstance(content, dict):
            raise UsageError(f"--set {override!r}: {group} is no group of settings")
    content[last] = value


def _complaint(error: Any) -> str:
    """One of pydantic's, with the name as it is written in the file."""
    where = ".".join(str(part) for part in error["loc"] if part not in ("volumes", "photos"))
    if error["type"] == "extra_forbidden":
        return f"{where} is not known"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
