"""Every fault that verification can name: a closed list, with how bad each is and what to do about it."""

from dataclasses import dataclass
from typing import Literal, get_args

Fault = Literal[
    # the manifest
    "bad_record",
    "duplicate_id",
    "bad_id",
    "bad_journal",
    "shared_file",
    # the place of a picture in its bucket
    "no_bucket",
    "wrong_bucket",
    "inexact_crop",
    # the picture
    "not_upright",
    "source_changed",
    "source_unusable",
    # sets and stamps
    "unknown_set",
    "two_sets",
    "mixed_stamps",
    # files
    "nothing_to_verify",
    "missing_features",
    "missing_file",
    "truncated_file",
    "changed_file",
    "damaged_file",
    "wrong_file",
    "exchanged_file",
    # shapes
    "one_size_for_all",
    "transposed_grid",
    "other_patch",
    "other_bucket",
    "other_rounding",
    "wrong_grid",
    "latents_do_not_meet",
    # numbers
    "not_finite",
    "empty_tokens",
    "constant",
    "registers_in_patches",
    "cls_in_patches",
    "other_norm",
    "outlier",
    "copied",
    # the folder
    "orphan_file",
    "stray_file",
    "leftover_file",
    # the probe: what is stored against what the encoder gives
    "register_shift",
    "token_shift",
    "transposed",
    "mirrored",
    "centre_crop",
    "squashed",
    "half_patch_shift",
    "sideways",
    "swapped_channels",
    "no_normalisation",
    "rescaled",
    "other_picture",
    "cls_of_other_input",
    "latents_unscaled",
    "unlike",
    "misaligned_encoder",
]

Severity = Literal["error", "warning"]
"""`error`: not to be trained on. `warning`: worth a look, may well be right."""


@dataclass(frozen=True)
class Meaning:
    """How bad a fault is and what to do.

    Attributes:
        severity: see `Severity`.
        advice: one sentence.
        requeue: whether building the picture again mends it.
    """

    severity: Severity
    advice: str
    requeue: bool = True


_AGAIN = "Run with --fix, then `features build` again."
_BUILD_ALL = (
    "Every picture of this set was made like that: find the cause in what made it, then build with --backup-old."
)
_MIGRATE = "Run `features build` with --pass-filter migrate and the pass of the features."
_LOOK = "Look at the picture; if it is as it should be, nothing is wrong."
_SAME_PIXELS = (
    "Nothing is wrong if both show the same pixels; --probe encodes such pictures first and says if one has the "
    "features of the other."
)
_SWEEP = "Remove it if no build is running; the next build removes its own leftovers itself."

MEANINGS: dict[Fault, Meaning] = {
    "bad_record": Meaning("error", "Restore or remove the line.", requeue=False),
    "duplicate_id": Meaning("error", _MIGRATE + " It gives each picture an id of its own.", requeue=False),
    "bad_id": Meaning("error", _MIGRATE + " It gives each picture an id of its own.", requeue=False),
    "bad_journal": Meaning("error", "Move the journal away and build again.", requeue=False),
    "shared_file": Meaning("error", _AGAIN),
    "no_bucket": Meaning("error", _MIGRATE, requeue=False),
    "wrong_bucket": Meaning("error", _MIGRATE),
    "inexact_crop": Meaning("error", _MIGRATE),
    "not_upright": Meaning("error", _MIGRATE),
    "source_changed": Meaning("error", _MIGRATE),
    "source_unusable": Meaning("warning", "Restore the picture, or remove its record.", requeue=False),
    "unknown_set": Meaning("error", "Restore _features.json from a backup, or build with --backup-old.", requeue=False),
    "two_sets": Meaning(
        "error", "Keep one: move the other below _old/, as --backup-old does when building.", requeue=False
    ),
    "mixed_stamps": Meaning("error", _AGAIN),
    "nothing_to_verify": Meaning("warning", "Run `features build`; check that this is its manifest.", requeue=False),
    "missing_features": Meaning("error", "Run `features build` again.", requeue=False),
    "missing_file": Meaning("error", _AGAIN),
    "truncated_file": Meaning("error", _AGAIN),
    "changed_file": Meaning("error", _AGAIN),
    "damaged_file": Meaning("error", _AGAIN),
    "wrong_file": Meaning("error", _AGAIN),
    "exchanged_file": Meaning("error", _AGAIN),
    "one_size_for_all": Meaning("error", "Take every resize and crop out that follows the bucket. " + _BUILD_ALL),
    "transposed_grid": Meaning("error", "Grids are [rows, columns], sizes WxH. " + _AGAIN),
    "other_patch": Meaning("error", "Take the patch from the model, never from memory. " + _AGAIN),
    "other_bucket": Meaning("error", _AGAIN),
    "other_rounding": Meaning("error", "Round halves up; Python's round() sends them to the even side. " + _AGAIN),
    "wrong_grid": Meaning("error", _AGAIN),
    "latents_do_not_meet": Meaning(
        "error", "Build with --latent-stride and --latent-patch, which resamples patches by area.", requeue=False
    ),
    "not_finite": Meaning("error", "Encode in fp32 and check the weights. " + _AGAIN),
    "empty_tokens": Meaning("error", _AGAIN),
    "constant": Meaning("error", _AGAIN),
    "registers_in_patches": Meaning("error", "Slice patches after CLS and all registers. " + _BUILD_ALL),
    "cls_in_patches": Meaning("error", "Slice patches after CLS and all registers. " + _BUILD_ALL),
    "other_norm": Meaning("error", "Tokens before and after the last LayerNorm differ like that. " + _AGAIN),
    "outlier": Meaning("warning", _LOOK, requeue=False),
    "copied": Meaning("warning", _SAME_PIXELS, requeue=False),
    "orphan_file": Meaning("warning", "Remove it if no build is running; no record names it.", requeue=False),
    "stray_file": Meaning("warning", "Move it elsewhere.", requeue=False),
    "leftover_file": Meaning("warning", _SWEEP, requeue=False),
    "register_shift": Meaning("error", "Slice patches after CLS and all registers. " + _BUILD_ALL),
    "token_shift": Meaning("error", "Slice patches after CLS and all registers. " + _BUILD_ALL),
    "transposed": Meaning("error", "Tokens must run row by row. " + _BUILD_ALL),
    "mirrored": Meaning("error", "Look for a flip among the pixels or tokens. " + _BUILD_ALL),
    "centre_crop": Meaning("error", "Take every crop out that follows the bucket. " + _BUILD_ALL),
    "squashed": Meaning("error", "Take every resize out that does not keep the aspect. " + _BUILD_ALL),
    "half_patch_shift": Meaning("error", "Look for a pad, roll or crop by half a patch. " + _BUILD_ALL),
    "sideways": Meaning("error", "Turn pictures upright as EXIF says before anything else. " + _BUILD_ALL),
    "swapped_channels": Meaning("error", "Give pixels as red, green, blue; OpenCV reads blue first. " + _BUILD_ALL),
    "no_normalisation": Meaning("error", "Normalise with the mean and std of the weights. " + _BUILD_ALL),
    "rescaled": Meaning("error", "Store tokens as the network gives them. " + _BUILD_ALL),
    "other_picture": Meaning("error", _AGAIN),
    "cls_of_other_input": Meaning("error", "Take CLS and patches from one forward. " + _BUILD_ALL),
    "latents_unscaled": Meaning("error", "Scale latents as the stamp says. " + _BUILD_ALL),
    "unlike": Meaning("error", _AGAIN),
    "misaligned_encoder": Meaning(
        "error", "Run `patchatlas probe` with this encoder; its tokens do not sit at their pixels.", requeue=False
    ),
}

FAULTS: tuple[Fault, ...] = get_args(Fault)
