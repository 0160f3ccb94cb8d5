"""Key maps: every released key list without rest, every layout to the same tensors, every flaw named."""

import json

import pytest
import torch

from patchatlas.encoders import keymaps
from patchatlas.encoders.catalogue import CATALOGUE
from patchatlas.encoders.keymaps import huggingface, own
from patchatlas.encoders.keymaps.layout import Facts
from patchatlas.encoders.rope import geometric_periods
from patchatlas.encoders.vit import ViT, ViTConfig
from patchatlas.errors import WeightsError
from tests.encoders.dino_reference import DINOV3, MODELS, ours, reference, released
from tests.encoders.foreign_layouts import chunked, on_meta, to_huggingface, to_timm

RELEASED = sorted(released())
FIELDS = ("dim", "depth", "heads", "patch", "registers")


def catalogue_name(released_name: str) -> str:
    return released_name.replace("_", "-")


def translate(state, heads=None):
    return keymaps.translate(state, Facts(heads=heads))


@pytest.mark.parametrize("name", RELEASED)
def test_released_meta_keys_map_without_rest(name):
    facts = released()[name]
    state, config = translate(on_meta(facts["state_dict"]))
    entry = CATALOGUE[catalogue_name(name)]
    assert {field: getattr(config, field) for field in FIELDS} == {field: getattr(entry, field) for field in FIELDS}
    assert config.family == entry.family
    assert entry.parameters == facts["n_parameters"]
    with torch.device("meta"):
        parameters = sum(p.numel() for p in ViT(config).parameters())
    position_of_cls = config.dim if config.table_grid else 0  # added to the class token
    ignored = sum(
        torch.Size(shape).numel()
        for key, shape in facts["state_dict"].items()
        if key == "mask_token" or key.startswith("local_cls_norm")
    )
    assert parameters == facts["n_parameters"] - ignored - position_of_cls
    assert state.keys() == ViT_keys(config)


def ViT_keys(config):
    with torch.device("meta"):
        return ViT(config).state_dict().keys()


@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("layout", [to_huggingface, lambda s: to_huggingface(s, names="class"), to_timm])
def test_released_sizes_map_from_the_other_layouts_too(name, layout):
    meta = on_meta(released()[name]["state_dict"])
    assert translate(layout(meta))[1] == translate(meta)[1]


@pytest.mark.parametrize(
    ("name", "eps", "offset", "antialias"),
    [
        ("dinov3_vits16", 1e-5, 0.0, False),
        ("dinov2_vits14", 1e-6, 0.1, False),
        ("dinov2_vits14_reg", 1e-6, 0.0, True),
    ],
)
def test_what_shapes_cannot_tell_follows_the_family(name, eps, offset, antialias):
    config = translate(on_meta(released()[name]["state_dict"]))[1]
    assert (config.norm_eps, config.table_offset, config.table_antialias) == (eps, offset, antialias)


def test_a_hugging_face_config_overrules_the_family():
    """Epsilon and the base of the rotary periods are in config.json and nowhere else."""
    config = {"num_attention_heads": 4, "layer_norm_eps": 3e-4, "rope_theta": 50.0}
    facts = huggingface.facts_of(config, heads=None)
    assert facts == Facts(heads=4, norm_eps=3e-4, rope_base=50.0)
    state, described = keymaps.translate(to_huggingface(reference(DINOV3[0]).weights), facts)
    assert described.norm_eps == 3e-4
    assert described.rope_base == 50.0
    torch.testing.assert_close(
        state["rope.periods"], geometric_periods(described.head_dim, described.ndim, 50.0), rtol=0, atol=0
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "layout", [to_huggingface, lambda s: to_huggingface(s, names="class"), to_timm], ids=["hf", "hf-class", "timm"]
)
def test_other_layouts_give_the_same_tensors(name, layout):
    ref = reference(name)
    expected, config = ours(name)
    found, other = translate(layout(ref.weights), ref.heads)
    assert other == config
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key != "rope.periods":
            assert torch.equal(found[key], value), key
        else:  # not stored by these projects: computed, in float32
            torch.testing.assert_close(found[key], value, rtol=6e-3, atol=0)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "teacher.backbone.", "module.backbone."])
def test_wrappers_of_training_are_stripped(prefix):
    ref = reference(DINOV3[0])
    expected, config = ours(DINOV3[0])
    found, other = translate({prefix + key: value for key, value in ref.weights.items()}, ref.heads)
    assert other == config
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_heads_and_students_of_a_training_run_are_ignored():
    ref = reference(DINOV3[0])
    state = {f"teacher.backbone.{key}": value for key, value in ref.weights.items()}
    extra = {f"{name}.weight": torch.ones(3) for name in ("teacher.dino_head.mlp.0", "teacher.ibot_head.last_layer")}
    extra |= {f"student.backbone.{key}": value for key, value in ref.weights.items()}
    assert translate(state | extra, ref.heads)[1] == ours(DINOV3[0])[1]


@pytest.mark.parametrize("name", MODELS)
def test_chunked_blocks_are_one_list(name):
    ref = reference(name)
    found, _ = translate(chunked(ref.weights, per_chunk=1), ref.heads)
    assert all(torch.equal(found[key], value) for key, value in ours(name)[0].items())


def test_a_masked_bias_is_zero_and_the_rest_is_kept():
    ref = reference("dinov3_mlp_d128h2")
    q, k, v = ours("dinov3_mlp_d128h2")[0]["blocks.1.attention.qkv.bias"].chunk(3)
    theirs = ref.weights["blocks.1.attn.qkv.bias"].chunk(3)
    assert torch.equal(q, theirs[0])
    assert k.eq(0).all()
    assert not theirs[1].eq(0).any()
    assert torch.equal(v, theirs[2])


def test_an_uninitialised_mask_is_refused():
    state = dict(reference("dinov3_mlp_d128h2").weights)
    state["blocks.0.attn.qkv.bias_mask"] = torch.full((384,), torch.nan)
    with pytest.raises(WeightsError, match=r"bias_mask holds other numbers than 0 and 1"):
        translate(state)


@pytest.mark.parametrize("missing", ["blocks.1.attn.proj.weight", "norm.bias", "rope_embed.periods"])
def test_what_is_missing_is_named(missing):
    ref = reference("dinov3_mlp_d128h2")
    state = {key: value for key, value in ref.weights.items() if key != missing}
    with pytest.raises(WeightsError, match=r"missing: (blocks\.1\.attention\.proj\.weight|norm\.bias|rope\.periods)"):
        translate(state, heads=2)


def test_what_is_left_over_is_named():
    state = dict(reference("dinov3_mlp_d128h2").weights) | {"head.weight": torch.ones(2)}
    with pytest.raises(WeightsError, match=r"Meta layout.*left over: head\.weight"):
        translate(state)


def test_another_shape_is_named():
    state = dict(reference("dinov3_mlp_d128h2").weights)
    state["blocks.1.ls1.gamma"] = torch.ones(5)
    with pytest.raises(WeightsError, match=r"of another shape: blocks\.1\.scale1 \(5,\), not \(128,\)"):
        translate(state)


def test_half_a_gate_is_no_network():
    ref = reference("dinov3_swiglu_d64h2")
    state = {key: value for key, value in ref.weights.items() if key != "blocks.1.mlp.w2.weight"}
    with pytest.raises(WeightsError, match=r"missing: blocks\.1\.ffn\.up\.weight; left over: blocks\.1\.ffn\.gate"):
        translate(state)


def test_an_unknown_layout_lists_those_known():
    with pytest.raises(WeightsError, match=r"conv1\.weight.*Layouts known: Meta, Hugging Face, timm, patchatlas"):
        translate({"conv1.weight": torch.ones(1)})


@pytest.mark.parametrize(
    ("name", "layout"), [("dinov3_vits16", "Meta"), ("dinov2_vitg14", "Meta"), ("dinov2_vits14_reg", "Meta")]
)
def test_layouts_are_recognised(name, layout):
    meta = on_meta(released()[name]["state_dict"])
    assert keymaps.recognise(meta) == layout
    assert keymaps.recognise(to_huggingface(meta)) == "Hugging Face"
    assert keymaps.recognise(to_timm(meta)) == "timm"


def test_heads_come_from_the_periods_and_contradiction_is_refused():
    ref = reference("dinov3_mask0_d64h4")
    assert translate(ref.weights)[1].heads == 4
    with pytest.raises(WeightsError, match="heads=2 was asked, but the rotary periods in the file are those of 4"):
        translate(ref.weights, heads=2)


@pytest.mark.parametrize("name", ["dinov2_mlp_reg_g37_d64h2", "dinov3_7bstyle_d80h4"])
def test_heads_are_never_guessed(name):
    weights = reference(name).weights
    foreign = to_timm(weights) if name.startswith("dinov3") else weights
    with pytest.raises(WeightsError, match=r"nothing tells how many attention heads .* pass heads="):
        translate(foreign)


def test_our_own_file_round_trips(tmp_path):
    state, config = ours("dinov2_swiglu_reg_g4_d64h2")
    header = own.Header(config=config, mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.25), name="small", licence="cc0-1.0")
    own.write(tmp_path / "small.safetensors", state, header)
    assert [file.name for file in tmp_path.iterdir()] == ["small.safetensors"]
    assert own.read_header(header.to_metadata()) == header
    assert own.translate(state, header) == (state, config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "9"}, "version 9, this program reads version 1"),
        ({"config": "{}"}, "header of this patchatlas.encoder file cannot be read"),
        ({"config": "{"}, "header of this patchatlas.encoder file cannot be read"),
    ],
)
def test_a_bad_header_is_refused(change, message):
    config = ViTConfig(family="vit3d", patch=(4, 4, 4), dim=24, depth=1, heads=2, ffn_hidden=8, channels=1)
    header = own.Header(config=config, mean=(0.5,), std=(0.5,), name="volume", licence="unknown")
    with pytest.raises(WeightsError, match=message):
        own.read_header(header.to_metadata() | change)
    fields = json.loads(header.to_metadata()["config"])
    assert fields["patch"] == [4, 4, 4]
