"""Settings of the losses: unknown keys, and objectives in which nothing would be learnt."""

import pytest
from pydantic import ValidationError

from patchatlas.pretrain.losses.config import LossConfig


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(ValidationError, match="head_norm_last_layer"):
        LossConfig.model_validate({"dino": {"head_norm_last_layer": True}})


def test_sigreg_alone_needs_no_teacher() -> None:
    alone = LossConfig.model_validate({"dino": {"weight": 0}, "ibot": {"weight": 0}, "sigreg": {"weight": 1}})
    assert not alone.needs_teacher
    assert LossConfig().needs_teacher


def test_an_objective_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="nothing would be learnt"):
        LossConfig.model_validate({"dino": {"weight": 0}, "ibot": {"weight": 0}})


def test_the_teacher_sees_locals_only_for_hierarchical_matching() -> None:
    assert not LossConfig().teacher_sees_locals
    assert LossConfig.model_validate({"foreground": {"hierarchical": True}}).teacher_sees_locals


def test_matches_alone_need_neither_teacher_nor_class_tokens() -> None:
    alone = {name: {"weight": 0} for name in ("dino", "ibot", "koleo")} | {"match": {"weight": 1}}
    assert not LossConfig.model_validate(alone).needs_teacher
    assert not LossConfig.model_validate(alone).trains_cls
    assert LossConfig.model_validate(alone | {"koleo": {"weight": 0.1}}).trains_cls
    assert LossConfig().trains_cls
