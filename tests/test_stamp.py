"""Stamps: what changes the numbers changes the digest, what does not does not."""

from dataclasses import fields, replace

import pytest

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.stamp import Stamp

spec = FakeEncoder().spec
OTHER = {
    "family": "x", "patch": (8, 8), "dim": 9, "mean": (0.1,) * 3, "std": (0.2,) * 3, "layer": 7, "norm": "final",
    "dtype": "bf16", "weights_sha256": "0", "registers": 9, "has_cls": False, "channels": 1, "depth": 9,
    "config_sha256": "x", "name": "x", "source": "x", "licence": "x",
    "layers": (3, 7), "debias": 5,
}  # fmt: skip
# Names change no number; counts of registers, channels and blocks are fixed by the weights that the hash names.
NEUTRAL = {"name", "source", "licence", "registers", "has_cls", "channels", "depth"}


@pytest.mark.parametrize("field", [f.name for f in fields(spec)])
def test_every_fact_is_either_stamped_or_neutral(field):
    changed = Stamp.of(replace(spec, **{field: OTHER[field]}), fill="edge").digest != Stamp.of(spec, fill="edge").digest
    assert changed == (field not in NEUTRAL)


def test_recipe_counts_and_order_does_not():
    assert Stamp.of(spec, a=1, b=2) == Stamp.of(spec, b=2, a=1)
    assert Stamp.of(spec, a=1).digest != Stamp.of(spec, a=2).digest
    assert Stamp.of(spec).digest != Stamp.of(spec, a=1).digest


def test_json_round_trip():
    stamp = Stamp.of(spec, fill=(0.5, 0.25), window=3)
    assert Stamp.from_json(stamp.to_json()) == stamp
