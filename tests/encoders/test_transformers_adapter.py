"""V-JEPA 2 and DINOv3-ConvNeXt: the numbers of transformers where transformers is right, and tokens in their places."""

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from patchatlas.encoders.catalogue import IMAGENET
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.transformers_adapter import ROW_STEP, load, position_ids
from patchatlas.errors import MissingExtraError, ShapeError, UsageError, WeightsError
from tests.encoders import tiny_transformers as tiny

CPU = torch.device("cpu")
MEAN = torch.tensor(IMAGENET[0]).view(3, 1, 1)
STD = torch.tensor(IMAGENET[1]).view(3, 1, 1)


@pytest.fixture(scope="module")
def vjepa2_folder(tmp_path_factory) -> Path:
    return tiny.saved(tiny.vjepa2(), tmp_path_factory.mktemp("vjepa2"))


@pytest.fixture(scope="module")
def convnext_folder(tmp_path_factory) -> Path:
    return tiny.saved(tiny.convnext(), tmp_path_factory.mktemp("convnext"))


@pytest.fixture(params=["vjepa2", "convnext"])
def folder(request) -> Path:
    return request.getfixturevalue(f"{request.param}_folder")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def as_clip(pixels: torch.Tensor) -> torch.Tensor:
    return ((pixels - MEAN) / STD)[:, None].repeat(1, 2, 1, 1, 1)


@torch.no_grad()
def vjepa2_of_transformers(pixels: torch.Tensor, **changes: int) -> torch.Tensor:
    return tiny.vjepa2(**changes)(as_clip(pixels), skip_predictor=True).last_hidden_state


def copy_with(folder: Path, target: Path, *, config: dict | None = None, weights: dict | None = None) -> Path:
    """A copy of a folder with another config or other tensors."""
    old = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**old, **(config or {})}))
    save_file(load_file(folder / "model.safetensors") if weights is None else weights, target / "model.safetensors")
    return target


class TestVJepa2:
    @pytest.mark.parametrize("h", [64, 32, 16])
    def test_parity_at_the_native_width(self, vjepa2_folder, h):
        # ids counted on a 4 x 4 grid are right for the first rows of it
        pixels = noise(2, 3, h, 64)
        tokens = load(vjepa2_folder, device=CPU, dtype="fp32")(pixels)
        torch.testing.assert_close(tokens.patches, vjepa2_of_transformers(pixels), atol=2e-5, rtol=0)
        assert tokens.cls is None
        assert tokens.registers is None

    @pytest.mark.parametrize(("h", "w"), [(96, 96), (32, 32), (48, 128), (16, 80)])
    def test_parity_at_other_sizes_with_a_network_made_for_their_width(self, vjepa2_folder, h, w):
        pixels = noise(1, 3, h, w)
        got = load(vjepa2_folder, device=CPU, dtype="fp32")(pixels).patches
        torch.testing.assert_close(got, vjepa2_of_transformers(pixels, crop_size=w), atol=2e-5, rtol=0)
        plain = vjepa2_of_transformers(pixels)  # with its native grid, transformers misplaces these
        assert (got - plain).abs().max() > 0.01

    def test_tall_pictures_see_true_rows_and_columns(self, vjepa2_folder):
        network = load(vjepa2_folder, device=CPU, dtype="fp32").network
        attention = network.layer[0].attention
        frames, rows, columns = attention.get_position_ids(torch.empty(1, 14, 36), position_ids(7, 2))
        assert not frames.any()
        assert rows[0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
        assert columns[0, 0].tolist() == [0, 1] * 7

    @pytest.mark.parametrize("frames", [2, 4, 6])
    def test_clips_of_several_tubelets(self, vjepa2_folder, frames):
        pixels = noise(2, frames, 3, 64, 64)
        got = load(vjepa2_folder, device=CPU, dtype="fp32").clips(pixels)
        with torch.no_grad():
            want = tiny.vjepa2()((pixels - MEAN) / STD, skip_predictor=True).last_hidden_state
        assert got.shape == (2, frames // 2 * 16, 36)
        torch.testing.assert_close(got, want, atol=2e-5, rtol=0)

    def test_clips_of_another_shape_see_true_places(self, vjepa2_folder):
        attention = load(vjepa2_folder, device=CPU, dtype="fp32").network.layer[0].attention
        tubelets, rows, columns = attention.get_position_ids(torch.empty(1, 12, 36), position_ids(2, 3, steps=2))
        assert tubelets[0, 0].tolist() == [0] * 6 + [1] * 6
        assert rows[0, 0].tolist() == [0, 0, 0, 1, 1, 1] * 2
        assert columns[0, 0].tolist() == [0, 1, 2] * 4

    def test_clips_that_fill_no_tubelet_are_refused(self, vjepa2_folder):
        encoder = load(vjepa2_folder, device=CPU, dtype="fp32")
        for frames in (0, 3):
            with pytest.raises(ShapeError, match=f"a clip of {frames} frames does not fill tubelets of 2"):
                encoder.clips(noise(1, frames, 3, 32, 32))
        with pytest.raises(ShapeError, match="not multiples of the patch"):
            encoder.clips(noise(1, 2, 3, 32, 40))

    def test_too_many_patches_a_side_are_refused(self):
        assert position_ids(1, ROW_STEP).max() == ROW_STEP - 1
        with pytest.raises(ShapeError, match="4096 patches a side, given 1 x 4097"):
            position_ids(1, ROW_STEP + 1)

    @pytest.mark.parametrize(("layer", "kept"), [(0, 1), (1, 2), (-1, 3)])
    @pytest.mark.parametrize("norm", ["final", "none"])
    def test_layer_and_norm(self, vjepa2_folder, layer, kept, norm):
        pixels = noise(1, 3, 64, 64)
        encoder = load(vjepa2_folder, device=CPU, dtype="fp32", layer=layer, norm=norm)
        reference = tiny.vjepa2().encoder
        with torch.no_grad():
            want = reference.embeddings(as_clip(pixels))
            for block in reference.layer[:kept]:
                want = block(want)[0]
            want = reference.layernorm(want) if norm == "final" else want
        torch.testing.assert_close(encoder(pixels).patches, want, atol=2e-5, rtol=0)
        assert (encoder.spec.layer, encoder.spec.depth, encoder.spec.norm) == (kept - 1, 3, norm)

    def test_spec(self, vjepa2_folder):
        spec = load(vjepa2_folder, device=CPU, dtype="fp32").spec
        assert (spec.family, spec.patch, spec.dim, spec.registers, spec.has_cls) == ("vjepa2", (16, 16), 36, 0, False)
        assert (spec.mean, spec.std, spec.licence, spec.name) == (*IMAGENET, "unknown", vjepa2_folder.name)


class TestConvNext:
    @pytest.mark.parametrize(("h", "w"), [(64, 64), (32, 96), (160, 64)])
    def test_parity(self, convnext_folder, h, w):
        pixels = noise(2, 3, h, w)
        with torch.no_grad():
            want = tiny.convnext()((pixels - MEAN) / STD)
        tokens = load(convnext_folder, device=CPU, dtype="fp32")(pixels)
        torch.testing.assert_close(tokens.cls, want.pooler_output, atol=2e-5, rtol=0)
        torch.testing.assert_close(tokens.patches, want.last_hidden_state[:, 1:], atol=2e-5, rtol=0)
        assert tokens.registers is None

    @pytest.mark.parametrize(("layer", "stage", "patch", "dim"), [(0, 0, 4, 8), (1, 1, 8, 12), (3, 2, 16, 16)])
    def test_stages_have_their_own_patch(self, convnext_folder, layer, stage, patch, dim):
        encoder = load(convnext_folder, device=CPU, dtype="fp32", layer=layer, norm="none")
        assert (encoder.spec.patch, encoder.spec.dim, encoder.spec.layer) == ((patch, patch), dim, layer)
        pixels = noise(1, 3, 32, 48)
        with torch.no_grad():
            want = tiny.convnext().model((pixels - MEAN) / STD, output_hidden_states=True).hidden_states[stage + 1]
        tokens = encoder(pixels)
        torch.testing.assert_close(tokens.patches[0], want[0].flatten(1).T, atol=2e-5, rtol=0)
        torch.testing.assert_close(tokens.cls, want.mean(dim=(2, 3)), atol=2e-5, rtol=0)

    def test_a_block_inside_a_stage(self, convnext_folder):
        encoder = load(convnext_folder, device=CPU, dtype="fp32", layer=2, norm="none")
        pixels = noise(1, 3, 32, 32)
        stages = tiny.convnext().model.stages
        with torch.no_grad():
            want = stages[1](stages[0]((pixels - MEAN) / STD))
            for module in (*stages[2].downsample_layers, stages[2].layers[0]):
                want = module(want)
        torch.testing.assert_close(encoder(pixels).patches[0], want[0].flatten(1).T, atol=2e-5, rtol=0)

    def test_the_final_norm_is_refused_on_earlier_stages(self, convnext_folder):
        with pytest.raises(UsageError, match=r"layer 3 is in stage 2 of 4.*norm='none'.*from 4 to 4"):
            load(convnext_folder, device=CPU, dtype="fp32", layer=3)

    def test_files_with_the_keys_of_the_class_load_too(self, convnext_folder, tmp_path):
        weights = tiny.convnext().state_dict()
        assert any(key.startswith("model.stages.") for key in weights)
        other = copy_with(convnext_folder, tmp_path, weights=weights)
        pixels = noise(1, 3, 32, 32)
        same = [load(f, device=CPU, dtype="fp32")(pixels).patches for f in (convnext_folder, other)]
        assert torch.equal(*same)

    def test_spec(self, convnext_folder):
        spec = load(convnext_folder, device=CPU, dtype="fp32").spec
        assert (spec.family, spec.patch, spec.dim, spec.registers, spec.has_cls) == ("convnext", (32, 32), 24, 0, True)
        assert (spec.layer, spec.depth, spec.norm) == (4, 5, "final")


@pytest.mark.parametrize(("h", "w"), [(64, 64), (96, 32), (32, 160)])
def test_the_token_that_changes_most_is_that_of_the_patch(folder, h, w):
    encoder = load(folder, device=CPU, dtype="fp32")
    (ph, pw) = encoder.spec.patch
    pixels = noise(1, 3, h, w)
    still = encoder(pixels).patches[0]
    columns = w // pw
    for cell in range(still.shape[0]):
        top, left = cell // columns * ph, cell % columns * pw
        changed = pixels.repeat(8, 1, 1, 1)
        changed[..., top : top + ph, left : left + pw] = noise(8, 3, ph, pw, seed=cell + 1)
        change = (encoder(changed).patches - still).norm(dim=2).mean(dim=0)
        assert change.argmax() == cell


def test_bf16_stays_close_and_is_kept_to_the_linears(folder):
    pixels = noise(2, 3, 64, 96)
    exact, fast = (load(folder, device=CPU, dtype=dtype) for dtype in ("fp32", "bf16"))
    assert fast.spec.dtype == "bf16"
    assert {p.dtype for p in fast.network.parameters()} == {torch.float32, torch.bfloat16}
    got = fast(pixels).patches
    assert got.dtype == torch.float32
    assert not torch.equal(got, exact(pixels).patches)
    assert F.cosine_similarity(got, exact(pixels).patches, dim=-1).min() > 0.9999


def test_mean_std_licence_and_hash_come_from_the_files(folder, tmp_path):
    other = copy_with(folder, tmp_path)
    name = "video_preprocessor_config.json" if "vjepa2" in folder.name else "preprocessor_config.json"
    (other / name).write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}))
    (other / "README.md").write_text("---\nlicense: some-licence\n---\n")
    plain, told = (load(f, device=CPU, dtype="fp32") for f in (folder, other))
    assert (told.spec.mean, told.spec.std) == ((0.5,) * 3, (0.25,) * 3)
    assert told.spec.licence == "some-licence"
    assert (told.spec.weights_sha256 == plain.spec.weights_sha256) == (
        (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    )
    pixels = noise(1, 3, 64, 64)
    equal = ((pixels - 0.5) / 0.25) * STD + MEAN  # what the plain one must be given to see the same
    torch.testing.assert_close(told(pixels).patches, plain(equal).patches, atol=1e-4, rtol=0)


def test_the_licence_of_a_known_name_comes_from_the_catalogue(vjepa2_folder):
    spec = load(vjepa2_folder, device=CPU, dtype="fp32", name="facebook/vjepa2-vitl-fpc64-256", source="a hub").spec
    assert (spec.name, spec.source, spec.licence) == ("facebook/vjepa2-vitl-fpc64-256", "a hub", "mit")


def test_load_encoder_leads_here(folder):
    pixels = noise(1, 3, 64, 64)
    through = load_encoder(folder, device="cpu", dtype="fp32")
    assert torch.equal(through(pixels).patches, load(folder, device=CPU, dtype="fp32")(pixels).patches)


def test_half_precision_files_are_run_in_float32(folder, tmp_path):
    halves = {key: value.half() for key, value in load_file(folder / "model.safetensors").items()}
    encoder = load(copy_with(folder, tmp_path, weights=halves), device=CPU, dtype="fp32")
    assert {p.dtype for p in encoder.network.parameters()} == {torch.float32}


class TestRefusals:
    def test_weights_that_do_not_fit_are_named(self, folder, tmp_path):
        weights = load_file(folder / "model.safetensors")
        gone = next(key for key in sorted(weights) if key.endswith("bias"))
        bent = next(key for key in sorted(weights) if key.endswith("weight"))
        del weights[gone]
        weights["head.weight"] = torch.zeros(2)
        weights[bent] = torch.zeros(7)
        with pytest.raises(WeightsError) as error:
            load(copy_with(folder, tmp_path, weights=weights), device=CPU, dtype="fp32")
        told = str(error.value)
        assert f"missing: {'model.' if gone.startswith('stages') else ''}{gone}" in told
        assert "left over: head.weight" in told
        assert f"{bent} (7,), not (" in told

    def test_no_folder_no_weights_no_config(self, folder, tmp_path):
        with pytest.raises(WeightsError, match="does not exist"):
            load(tmp_path / "nowhere", device=CPU, dtype="fp32")
        (tmp_path / "config.json").write_text((folder / "config.json").read_text())
        with pytest.raises(WeightsError, match="no weights"):
            load(tmp_path, device=CPU, dtype="fp32")
        (tmp_path / "config.json").unlink()
        save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match="model_type None"):
            load(tmp_path, device=CPU, dtype="fp32")

    def test_another_network(self, folder, tmp_path):
        with pytest.raises(WeightsError, match=r"model_type 'bert'.*vjepa2 or dinov3_convnext"):
            load(copy_with(folder, tmp_path, config={"model_type": "bert"}), device=CPU, dtype="fp32")

    @pytest.mark.parametrize("wrong", [{"layer_norm_eps": "small"}, {"depths": 3, "patch_size": [16, 16]}])
    def test_a_config_that_makes_no_sense(self, folder, tmp_path, wrong):
        with pytest.raises(WeightsError, match=r"config.json"):
            load(copy_with(folder, tmp_path, config=wrong), device=CPU, dtype="fp32")

    def test_no_such_layer(self, folder):
        with pytest.raises(UsageError, match="layer 9 does not exist"):
            load(folder, device=CPU, dtype="fp32", layer=9)

    def test_without_transformers_the_error_names_the_extra(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingExtraError, match=r"patchatlas\[transformers\]"):
            load(folder, device=CPU, dtype="fp32")
