"""The arms of an ablation: named changes of one config.

An arm is `uniform`, a part, or parts joined by "+", as in `S1+S2+overlap`. `all` is the six solutions with overlap, and
`all-S3` that without one part. Every arm begins from PLAIN, where none of them is on, so an arm says all that it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from patchatlas.errors import UsageError
from patchatlas.pretrain.config import PretrainConfig, make_config

Changes = Mapping[str, Any]
"""Settings by their names with dots, and their values."""

PLAIN: Changes = {
    "crops.globals.foreground_crop_prob": 1.0,
    "crops.globals.min_foreground_ratio": 0.0,
    "crops.globals.demands": [],
    "crops.globals.min_overlap": 0.0,
    "crops.globals.max_overlap": 1.0,
    "crops.locals.min_foreground_ratio": 0.0,
    "crops.locals.demands": [],
    "crops.locals.inside": "volume",
    "loss.foreground.weighting": "none",
    "loss.foreground.hierarchical": False,
    "loss.foreground.patches": "all",
}
"""Crops from anywhere, every pair and every token counts the same: the arm `uniform`."""

PARTS: dict[str, tuple[str, Changes]] = {
    "S1": (
        "crops hold foreground",
        {"crops.globals.min_foreground_ratio": 0.5, "crops.locals.min_foreground_ratio": 0.4},
    ),
    "S2": ("local crops are parts of global crops", {"crops.locals.inside": "global"}),
    "S3": ("pairs count by the foreground of both crops", {"loss.foreground.weighting": "pair"}),
    "S4": ("locals with little foreground are compared with locals", {"loss.foreground.hierarchical": True}),
    "S5": ("only foreground patches have targets", {"loss.foreground.patches": "foreground"}),
    "S6": (
        "crops meet several thresholds: tissue without lung, and sometimes bone",
        {
            "crops.globals.demands": [
                {"threshold": -300, "min_ratio": 0.4},
                {"threshold": 150, "min_ratio": 0.02, "prob": 0.3},
            ],
            "crops.locals.demands": [{"threshold": -300, "min_ratio": 0.3}],
        },
    ),
    "overlap": ("two global crops share at least 0.3", {"crops.globals.min_overlap": 0.3}),
    "origin": (
        "crops and window as the earlier project ships them: 500 HU is foreground and black, ratios are not held",
        {
            "crops.window": [500, 3000],
            "crops.globals.foreground": 500,
            "crops.locals.foreground": 500,
            "crops.locals.inside": "global",
            "crops.augment": {
                "flip_left_right": 0.0,
                "flip_front_back": 0.0,
                "flip_head_foot": 0.5,
                "low_resolution_prob": 0.0,
                "blur_prob": 0.0,
                "noise_prob": 0.0,
                "window_prob": 0.0,
                "gamma_prob": 0.0,
            },
        },
    ),
    "mean": ("the whole DINO term by the mean ratio of a batch", {"loss.foreground.weighting": "mean"}),
    "prototype": ("background patches share one prototype", {"loss.foreground.patches": "prototype"}),
    "no-koleo": ("without KoLeo", {"loss.koleo.weight": 0.0}),
    "no-ibot": ("without iBOT", {"loss.ibot.weight": 0.0}),
    "layer-scale": ("LayerScale from 1e-5", {"model.layer_scale": 1e-5}),
    "sigreg": (
        "SIGReg alone, no teacher",
        {
            "loss.sigreg.weight": 1.0,
            **{f"loss.{term}.weight": 0.0 for term in ("dino", "ibot", "koleo", "match", "distil")},
            "loss.distil.encoder": None,
        },
    ),
}
"""What each part is, and what it changes."""

UNIFORM = "uniform"

SOLUTIONS = ("S1", "S2", "S3", "S4", "S5", "S6", "overlap")
"""The parts of `all`."""

STANDARD = (
    "origin",
    UNIFORM,
    *SOLUTIONS,
    "S2+overlap",
    "S1+S2+overlap",
    "all",
    *(f"all-{part}" for part in SOLUTIONS),
    "mean",
    "prototype",
    "no-koleo",
    "no-ibot",
    "layer-scale",
    "sigreg",
)
"""The arms of an ablation that names none."""


def parts_of(arm: str) -> tuple[str, ...]:
    """The parts that an arm is made of.

    Raises:
        UsageError: a part that is not known or named twice.
    """
    if arm == UNIFORM:
        return ()
    head, minus, left_out = arm.partition("-")
    if head == "all" and minus:
        _require((left_out,), SOLUTIONS, arm)
        return tuple(part for part in SOLUTIONS if part != left_out)
    named = [SOLUTIONS if part == "all" else (part,) for part in arm.split("+")]
    parts = tuple(part for some in named for part in some)
    _require(parts, PARTS, arm)
    if len(set(parts)) < len(parts):
        raise UsageError(f"the arm {arm!r} names a part twice; name each once")
    return parts


def changes_of(arm: str) -> dict[str, Any]:
    """All settings that an arm fixes.

    Raises:
        UsageError: a part that is not known, or two that want one setting to be different.
    """
    changed: dict[str, Any] = {}
    for part in parts_of(arm):
        for name, value in PARTS[part][1].items():
            if changed.get(name, value) != value:
                raise UsageError(
                    f"the parts of {arm!r} want {name} to be {changed[name]!r} and {value!r}; name one of them"
                )
            changed[name] = value
    return {**PLAIN, **changed}


def arm_config(base: PretrainConfig, arm: str, *, seed: int) -> PretrainConfig:
    """The config of one run of an ablation. It goes on after a collapse, so that all arms do the same steps.

    Args:
        base: what all arms have in common, crops of volumes.
        arm: its name.
        seed: of everything random.

    Raises:
        UsageError: an arm that is not known, or a config that it does not fit.
    """
    if base.crops.kind != "volumes":
        raise UsageError("the arms of an ablation are about foreground, and photographs have none; give volumes")
    settings = base.model_dump(mode="json")
    changes = {**changes_of(arm), "train.seed": seed, "monitor.on_collapse": "warn"}
    for name, value in changes.items():
        *groups, last = name.split(".")
        group = settings
        for part in groups:
            group = group[part]
        group[last] = value
    return make_config(settings, source=f"the arm {arm}")


def described(arms: Sequence[str]) -> str:
    """A line for each part, then the names of arms, for people."""
    width = max(map(len, PARTS))
    lines = [f"  {UNIFORM:<{width}}  none of the parts below"]
    for part, (line, changes) in PARTS.items():
        lines += [f"  {part:<{width}}  {line}", *(f"  {'':<{width}}    {key}: {v}" for key, v in changes.items())]
    return "\n".join(
        [
            'parts, joined by "+"; `all` is ' + "+".join(SOLUTIONS) + ", `all-S1` that without one:",
            *lines,
            "",
            "arms: " + " ".join(arms),
        ]
    )


def _require(parts: Sequence[str], known: Sequence[str] | Mapping[str, Any], arm: str) -> None:
    wrong = [part for part in parts if part not in known]
    if wrong:
        raise UsageError(
            f"the arm {arm!r}: there is no part {wrong[0]!r}; there are {', '.join(known)}, and arms uniform and all"
        )
