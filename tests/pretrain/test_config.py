"""Settings of a run: read, changed, written, compared."""

import pytest

from patchatlas.errors import InputError, UsageError
from patchatlas.pretrain.config import PretrainConfig, differences, make_config, read_config, to_yaml


def test_settings_written_down_are_the_settings(tmp_path):
    config = make_config({"data": "cache", "crops": {"patch": 4, "globals": {"size": 32}, "locals": {"size": 16}}})
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert read_config(path) == config
    assert "layer_scale: null" in to_yaml(config)  # what nobody gave is written too


def test_single_settings_are_changed(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data: cache\noptim: {lr: 1.0e-3}\n", encoding="utf-8")
    config = read_config(path, ["optim.lr=2e-4", "crops.globals.size=[32, 64, 64]", "crops.globals.size=64"])
    assert config.optim.lr == 2e-4
    assert config.crops.globals.size == (64, 64, 64)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"optim": {"lrr": 1}}, r"optim\.lrr is not known"),
        ({"crops": {"kind": "photos", "globals": {"sice": 3}}}, r"crops\.globals\.sice is not known"),
        ({"loss": {"koleo": {"weight": -1}}}, r"loss\.koleo\.weight"),
        ({"model": {"dim": 100, "heads": 3}}, "3 heads do not divide"),
        ({"model": {"dim": 16, "heads": 4}}, "too short for 3 rotary axes"),
        ({"model": {"weights": "x", "dim": 64}}, "dim come from the weights"),
        (
            {"model": {"weights": "x", "size": "large", "registers": 7, "layer_scale": 1e-2, "rope_base": 3}},
            "size, registers, layer_scale, rope_base come from the weights",
        ),
        ({"optim": {"betas": [0.9, 1.0]}}, r"optim\.betas\.1: Input should be less than 1"),
        ({"train": {"seed": 99999999999999999999999}}, r"train\.seed: Input should be less than"),
        ({"train": {"batch": True}}, r"train\.batch: Input should be a valid integer"),
        ({"model": {"registers": 2.0}}, r"model\.registers: Input should be a valid integer"),
        ({"model": {"mean": [0.1, 0.2]}}, "not one number for each of 1 channels"),
        ({"masks": {"ratio": [0.5, 0.1]}}, "falls"),
    ],
)
def test_mistakes_are_named(given, named):
    with pytest.raises(UsageError, match=named):
        make_config({"data": "x", **given})


def test_a_window_that_hides_the_patient_is_refused():
    """Defect 3 of the earlier project: a window that begins above foreground. (The body is the cache's.)"""
    tissue = {"foreground": -300}
    with pytest.raises(UsageError, match="window"):
        make_config({"data": "x", "crops": {"window": [500, 3000], "globals": tissue, "locals": tissue}})


def test_files_that_are_no_settings(tmp_path):
    path = tmp_path / "config.yaml"
    with pytest.raises(InputError, match="cannot open"):
        read_config(path)
    for content, named in (("a: [", "is not YAML"), ("- 1\n", "holds no settings"), ("data: x\n", "no group")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match=named):
            read_config(path, ["data.a=1"])


def test_only_what_changes_what_is_learnt_keeps_a_run_from_going_on():
    one = make_config({"data": "x"})
    assert differences(one, make_config({"data": "x", "train": {"workers": 4, "keep": 9}})) == []
    assert differences(one, make_config({"data": "x", "monitor": {"on_collapse": "stop", "limits": {"rank": 0}}})) == []
    assert differences(one, make_config({"data": "x", "train": {"batch": 4}})) == ["train.batch: 16 and 4"]
    photos = make_config({"data": "x", "crops": {"kind": "photos"}})
    assert any(line.startswith("crops.kind") for line in differences(one, photos))


def test_volumes_and_photographs_have_their_own_mean():
    assert make_config({"data": "x"}).mean_std == ((0.5,), (0.25,))
    photos: PretrainConfig = make_config({"data": "x", "crops": {"kind": "photos"}})
    assert len(photos.mean_std[0]) == 3
