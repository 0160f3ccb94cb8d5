"""How pictures become stored features, apart from the encoder: what `--buckets`, `--decode` and `--dtype` choose."""

from dataclasses import dataclass
from typing import Literal

from patchatlas.dense import RESAMPLE_RULE
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS, BucketRule, Hw, bucket_name
from patchatlas.io.codecs import StoredDtype
from patchatlas.spec import EncoderSpec
from patchatlas.stamp import Stamp, StampValue

Decode = Literal["full", "fast"]
"""`full`: all pixels of the file. `fast`: JPEGs at 1/2, 1/4 or 1/8 of their size where that still covers the bucket."""

_DECODERS: dict[Decode, str] = {"full": "pillow", "fast": "pillow-draft"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything but the encoder that changes the numbers of a set of features.

    Attributes:
        buckets: table of sizes (h, w) that pictures are brought to, in its order (of equally near ones the first wins).
        rule: how the nearest bucket is found.
        decode: how picture files are read.
        storage: how patches and latents are stored; CLS and registers are always fp32.
    """

    buckets: tuple[Hw, ...] = MEGAPIXEL_BUCKETS
    rule: BucketRule = "log"
    decode: Decode = "full"
    storage: StoredDtype = "fp16"

    def facts(self) -> dict[str, StampValue]:
        """What a stamp says of the recipe."""
        return {
            "resample": RESAMPLE_RULE,
            "fill": "edge",
            "decode": _DECODERS[self.decode],
            "buckets": ",".join(bucket_name(bucket) for bucket in self.buckets),
            "bucket_rule": self.rule,
            "rounding": "half-up",
            "storage": self.storage,
        }


def stamp_for(spec: EncoderSpec, recipe: Recipe, **more: StampValue) -> Stamp:
    """The stamp of every kind of feature that `spec` makes under `recipe`.

    Args:
        more: facts beyond the spec, such as `LatentEncoder.facts`.
    """
    return Stamp.of(spec, **recipe.facts(), **more)
