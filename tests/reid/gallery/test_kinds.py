"""Vectors of another kind: the refusal names both encoders, then what differs, then what to do."""

from dataclasses import replace

import pytest

from patchatlas.encoders.catalogue import CATALOGUE
from patchatlas.errors import StampError
from patchatlas.reid.embed.lab import LabEmbedder
from patchatlas.reid.gallery.kinds import encoder_of, require_kind
from patchatlas.stamp import Stamp

LAB = LabEmbedder().spec
MINE = Stamp.of(LAB, crop="squeezed")
HASH = LAB.weights_sha256[:8]


def refused(theirs: Stamp) -> str:
    with pytest.raises(StampError) as error:
        require_kind(MINE, theirs, one="the gallery g", other="the episode two", remedy="give --gallery OTHER")
    return str(error.value)


def test_another_encoder() -> None:
    spec = replace(LAB, family="dinov2", dim=384, weights_sha256="ab" * 32, config_sha256="cd" * 32)
    assert refused(Stamp.of(spec, crop="squeezed")) == (
        f"the gallery g has vectors of the encoder bundled (weights {HASH}), the episode two of dinov2 (weights "
        f"abababab) (config_sha256: '' and 'cdcdcdcd'; dim: {LAB.dim} and 384); give --gallery OTHER, or run the "
        "episode two with that encoder"
    )


def test_other_weights_alone() -> None:
    assert refused(Stamp.of(replace(LAB, weights_sha256="ab" * 32), crop="squeezed")) == (
        f"the gallery g has vectors of the encoder bundled (weights {HASH}), the episode two of bundled (weights "
        "abababab); give --gallery OTHER, or run the episode two with that encoder"
    )


def test_the_same_encoder_with_other_settings() -> None:
    assert refused(Stamp.of(LAB, crop="whole", size=224)) == (
        f"the gallery g and the episode two have vectors of one encoder, bundled (weights {HASH}), made in different "
        "ways (crop: 'squeezed' and 'whole'; size: None and 224); give --gallery OTHER, or run the episode two with "
        "those settings"
    )


def test_the_same_is_taken() -> None:
    require_kind(MINE, Stamp.of(LAB, crop="squeezed"), one="one", other="other", remedy="")


def test_weights_of_the_catalogue_are_called_by_their_name() -> None:
    entry = next(one for one in CATALOGUE.values() if one.sha256_start)
    spec = replace(LAB, family="dinov3", weights_sha256=f"{entry.sha256_start}{'0' * 56}")
    assert encoder_of(Stamp.of(spec)) == f"dinov3 ({entry.name})"
