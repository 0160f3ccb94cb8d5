"""Settings of re-identification: one model that YAML files, presets and flags all fill, checked before anything runs.

Dimensions are no setting: they come from the encoder. Once made, a config says everything; nothing is left to be
guessed later, so what is saved with a run is what was run.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from patchatlas.encoders.catalogue import find
from patchatlas.errors import UsageError, WeightsError
from patchatlas.reid.portraits import HANDOVER_S
from patchatlas.spec import EncoderSpec
from patchatlas.yaml_file import read_yaml

Share = Annotated[float, Field(ge=0, le=1)]
Pooling = Literal["cls", "mean", "cls+mean", "gem", "none"]
Regions = Literal["auto", "crops", "frame"]

FAMILIES = {"dinov2": ("dinov2",), "dinov3": ("dinov3", "convnext"), "vjepa2": ("vjepa2",)}
"""Families of encoders, as `EncoderSpec` names them, that each backend with a name of its own takes."""

_MODELS = {"dinov2": "dinov2-vitb14-reg", "dinov3": "dinov3-vitb16", "vjepa2": "vjepa2-vitl"}

ROOT = "perception"
"""The one key at the top of a YAML file."""

_HINTS = {
    "embedding_dim": "the dimension comes from the encoder",
    "dim": "the dimension comes from the encoder",
}


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EmbeddingConfig(_Settings):
    """How a box becomes a vector."""

    backend: str = "bundled"
    """bundled (colours, no weights), dinov2, dinov3, vjepa2, or any name, path or hub id that names an encoder."""
    model: str | None = None
    """Which encoder of the backend: catalogue name, path or hub id; the base size if not given."""
    dinov3_weights_dir: Path | None = None
    """Folder or file with DINOv3 weights, in place of `model`; only with backend dinov3."""
    batch_size: int = Field(default=16, gt=0)
    """Crops a forward."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the hardware has it."""
    pooling: Pooling = "mean"
    """What is kept of the tokens: cls, mean, cls+mean or gem; none for bundled, which has no tokens. If not given,
    none for bundled, else mean."""
    regions: Regions = "crops"
    """crops: a forward for each box. frame: one forward for the whole frame, boxes read from its patch map. auto:
    whichever is cheaper; crops where the pooling takes the class token, which a frame has but one of. If not given,
    crops for bundled and vjepa2, else auto."""
    crop_size: int = Field(default=224, gt=0)
    """Long side of a crop as the encoder sees it, pixels; a multiple of its patch."""
    frame_size: int | None = Field(default=None, gt=0)
    """Long side of the whole frame as the encoder sees it; its own size, rounded up to patches, if not given."""
    clip_frames: int | None = Field(default=None, ge=2)
    """Frames of a clip, even; 2 is a still shown twice. Only for vjepa2, 4 if not given."""
    crops_per_track: int = Field(default=16, gt=0)
    """Crops, or clips, of a track that are embedded, the best and spread over its time; 8 for vjepa2 if not given."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """Put in what follows from the backend, where it is not given."""
        if not isinstance(given, Mapping):
            return given
        full = {key: value for key, value in given.items() if value is not None}
        backend = full.get("backend", "bundled")
        if backend in _MODELS and "model" not in full and "dinov3_weights_dir" not in full:
            full["model"] = _MODELS[backend]
        full.setdefault("pooling", "none" if backend == "bundled" else "mean")
        if backend == "vjepa2":
            full.setdefault("clip_frames", 4)  # a second at 4 fps: a visit of four seconds gives four clips
            full.setdefault("crops_per_track", 8)
        full.setdefault("regions", "crops" if backend in ("bundled", "vjepa2") else "auto")
        return full

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", device):
            raise ValueError(f"device {device!r} is not known; allowed are auto, cpu, cuda, cuda:N and mps")
        return device

    @model_validator(mode="after")
    def _possible(self) -> "EmbeddingConfig":
        own = self.backend in FAMILIES
        if self.dinov3_weights_dir is not None and self.backend != "dinov3":
            raise ValueError(
                f"dinov3_weights_dir is for backend dinov3, given backend {self.backend}; leave one of them out"
            )
        if self.dinov3_weights_dir is not None and self.model is not None:
            raise ValueError("dinov3_weights_dir and model both name weights; give one of them")
        if self.model is not None and not own:
            raise ValueError(
                f"model is for the backends {', '.join(FAMILIES)}; backend {self.backend!r} names its encoder itself"
            )
        entry = find(self.model) if self.model is not None else None
        if own and entry is not None and entry.family not in FAMILIES[self.backend]:
            raise ValueError(f"model {self.model} is {entry.family}, not {self.backend}; name a model of the backend")
        if (self.pooling == "none") != (self.backend == "bundled"):
            raise ValueError(
                f"pooling {self.pooling} cannot be with backend {self.backend}: bundled has no tokens and takes none, "
                "all others take cls, mean, cls+mean or gem"
            )
        if self.backend == "vjepa2" and self.pooling in ("cls", "cls+mean"):
            raise ValueError(f"pooling {self.pooling} needs a class token, V-JEPA 2 has none; allowed are mean and gem")
        if self.backend in ("bundled", "vjepa2") and self.regions != "crops":
            raise ValueError(
                f"regions {self.regions} reads boxes from the patch map of a whole frame, which backend "
                f"{self.backend} does not make; allowed is crops"
            )
        if self.regions == "frame" and self.pooling in ("cls", "cls+mean"):
            raise ValueError(
                f"pooling {self.pooling} takes the class token, which is of the whole frame and alike for all its "
                "boxes; with regions frame, mean and gem are allowed"
            )
        if self.clip_frames is not None and self.backend in ("bundled", "dinov2", "dinov3"):
            raise ValueError(f"clip_frames is for backend vjepa2, given backend {self.backend}; leave it out")
        if self.clip_frames is not None and self.clip_frames % 2:
            raise ValueError(f"clip_frames {self.clip_frames} is odd; V-JEPA 2 takes frames in twos")
        return self

    @property
    def encoder(self) -> str | Path | None:
        """What to load; None for the bundled descriptor."""
        if self.backend == "bundled":
            return None
        return self.dinov3_weights_dir or self.model or self.backend

    def require(self, spec: EncoderSpec) -> None:
        """Refuse an encoder that is not of the backend asked for.

        Raises:
            WeightsError: it is of another family.
        """
        if self.backend in FAMILIES and spec.family not in FAMILIES[self.backend]:
            raise WeightsError(
                f"backend {self.backend} was asked for, but {self.encoder} holds {spec.family} ({spec.name}); give "
                f"weights of {self.backend}, or backend {spec.family}"
            )


class DetectionConfig(_Settings):
    """How boxes are found."""

    detector: str = "motion"
    """motion, boxes, hog, saliency, hf:NAME (a folder or hub id of RF-DETR, D-FINE or RT-DETRv2) or module:function."""
    boxes: Path | None = None
    """File with boxes: MOTChallenge .txt, COCO .json or .jsonl; only with detector boxes."""
    least_score: Share = 0.25
    """Boxes with a lower score are left out."""
    least_side: float = Field(default=8.0, ge=0)
    """Boxes that are narrower or lower are left out, pixels."""
    labels: tuple[str, ...] = ()
    """Keep only these classes; all if empty."""
    size: int | None = Field(default=None, gt=0)
    """Long side of the frame as saliency sees it; its own size if not given."""
    device: str = "auto"
    """Where hf:NAME runs: auto, cpu, cuda, cuda:N or mps."""

    @model_validator(mode="after")
    def _possible(self) -> "DetectionConfig":
        named = ("motion", "boxes", "hog", "saliency")
        prefix, _, rest = self.detector.partition(":")
        if self.detector not in named and not (prefix and rest):
            raise ValueError(
                f"there is no detector {self.detector!r}; allowed are {', '.join(named)}, hf:NAME and module:function"
            )
        if (self.detector == "boxes") != (self.boxes is not None):
            raise ValueError("detector boxes and the file `boxes` belong together; give both or neither")
        return self


class TrackingConfig(_Settings):
    """When a box continues a track."""

    method: Literal["bytetrack", "ocsort"] = "bytetrack"
    """How boxes of neighbouring frames are matched."""
    patience_s: float = Field(default=1.0, ge=0)
    """A track that was not seen for longer has ended, seconds."""
    least_iou: Share = 0.1
    """Least overlap of a box with where its track is expected."""
    sure: Share = 0.6
    """Boxes with this score are matched first; the others only continue tracks."""
    start: Share = 0.6
    """Least score of a box that begins a track."""
    label_by_label: bool = True
    """Boxes of different classes never share a track."""
    least_boxes: int = Field(default=3, gt=0)
    """Shorter tracks are left out, and counted."""


class LinkConfig(_Settings):
    """Which tracks are one identity."""

    threshold: Share = 0.5
    """Least probability of being the same that joins tracks, by what the video itself says of cosines."""
    false_links: float | None = Field(default=None, gt=0, lt=1)
    """Share of strangers that may be taken for somebody; the stricter of this and `threshold` holds."""
    cosine: float | None = Field(default=None, ge=-1, le=1)
    """Cosine that joins tracks, in place of `threshold`; for videos that are too short to learn from."""
    split: bool = True
    """First cut tracks that hold more than one object."""
    rerank: bool = False
    """Compare by shared neighbours (k-reciprocal); for fifty tracks and more."""
    same_label: bool = True
    """Only tracks of one class are joined."""
    tolerance_s: float = Field(default=HANDOVER_S, ge=0)
    """Seconds for which two tracks of one object may be there at once, touching, where a tracker hands over late."""
    top_speed: float | None = Field(default=None, gt=0)
    """Fastest that an object can move, in its own heights a second; no limit if not given."""
    least_seen_s: float = Field(default=1.5, ge=0)
    """Seconds that a track must be seen well to stand for somebody; a box of half the usual quality counts half."""
    sure: float = Field(default=0.8, ge=0.5, le=1)
    """Probability below which a link, and from 1 - `sure` on a missing one, is listed for review."""
    margin: float = Field(default=0.03, ge=0)
    """Cosine by which somebody must lead the runner-up."""
    accept: Share = 0.9
    """Least probability of being the same for taking somebody for one whom the gallery knows."""

    @model_validator(mode="after")
    def _possible(self) -> "LinkConfig":
        if self.cosine is not None and self.false_links is not None:
            raise ValueError("cosine takes the place of what is learnt, false_links is learnt; give one of them")
        return self


class ReidConfig(_Settings):
    """All settings of a run."""

    fps: float = Field(default=4.0, gt=0)
    """Frames looked at in a second of video."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """How a box becomes a vector."""
    detection: DetectionConfig = DetectionConfig()
    """How boxes are found."""
    tracking: TrackingConfig = TrackingConfig()
    """When a box continues a track."""
    link: LinkConfig = LinkConfig()
    """Which tracks are one identity."""


PRESETS: dict[str, dict[str, Any]] = {
    "dinov3": {"embedding": {"backend": "dinov3"}},
    "dinov2": {"embedding": {"backend": "dinov2"}},
    "vjepa2": {"embedding": {"backend": "vjepa2"}},
    "fast": {"embedding": {"backend": "bundled", "crops_per_track": 4}, "fps": 2.0},
}
"""Starting points by name."""


def make_config(*layers: Mapping[str, Any], preset: str | None = None) -> ReidConfig:
    """A config from a preset and layers of settings, later ones first in rank.

    Args:
        layers: nested mappings with the fields of `ReidConfig`, each possibly in part.
        preset: one of `PRESETS`.

    Raises:
        UsageError: an unknown preset or key, a bad value or an impossible mix; says where and what is allowed.
    """
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    merged: dict[str, Any] = {}
    for layer in (PRESETS[preset] if preset else {}, *layers):
        merged = _merged(merged, layer)
    try:
        return ReidConfig.model_validate(merged)
    except ValidationError as error:
        raise UsageError("\n".join(_explained(one) for one in error.errors())) from error


def read_settings(path: str | Path) -> dict[str, Any]:
    """What a YAML file holds under `perception`, not yet checked; a layer for `make_config`.

    Raises:
        InputError: the file cannot be opened.
        UsageError: it is not YAML, or has not `perception` as its one key.
    """
    path = Path(path)
    content = read_yaml(path)
    if not isinstance(content, dict) or list(content) != [ROOT] or not isinstance(content[ROOT], dict):
        raise UsageError(f"{path} must have one key at the top, `{ROOT}:`, with {_names(ReidConfig)} below it")
    settings: dict[str, Any] = content[ROOT]
    return settings


def to_yaml(config: ReidConfig) -> str:
    """The config in full, as YAML that `read_settings` and `make_config` turn into the same config."""
    return yaml.safe_dump({ROOT: config.model_dump(mode="json")}, sort_keys=False)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(under)
    for key, value in over.items():
        below = both.get(key)
        both[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return both


def _explained(error: Any) -> str:
    """One of pydantic's complaints in our words."""
    place = [str(part) for part in error["loc"]]
    where = ".".join([ROOT, *place])
    if error["type"] == "extra_forbidden":
        owner: Any = ReidConfig
        for part in place[:-1]:
            owner = owner.model_fields[part].annotation
        hint = f" ({_HINTS[place[-1]]})" if place[-1] in _HINTS else ""
        return f"{where} is no setting{hint}; allowed are {_names(owner)}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    return f"{where}: {error['msg'].lower()}, given {error['input']!r}"


def _names(settings: type[BaseModel]) -> str:
    return ", ".join(settings.model_fields)
