"""load_encoder: every layout and kind of path to the same tokens, and a clear next step wherever there are none."""

import hashlib
import json
import sys
import types
from functools import partial
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import save_file

from patchatlas.encoders import checkpoint, hub, loading, precision
from patchatlas.encoders.catalogue import CATALOGUE, DINO_SIZES, IMAGENET, SAT493M, find, find_by_sha256
from patchatlas.encoders.checkpoint import digest
from patchatlas.encoders.keymaps import own
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.naming import how_to_get, names_on_disk, resolve
from patchatlas.errors import UsageError, WeightsError
from tests.encoders.dino_reference import ours, reference
from tests.encoders.foreign_layouts import to_huggingface, to_timm

V3 = "dinov3_mlp_d128h2"  # periods in float32, as computed where a layout does not store them
V2 = "dinov2_swiglu_reg_g4_d64h2"


@pytest.fixture(autouse=True)
def no_network_and_no_weights(monkeypatch):
    monkeypatch.delenv("PATCHATLAS_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "snapshot_download", not_cached)


def not_cached(repo_id, **_):
    raise LocalEntryNotFoundError(f"{repo_id} is not cached")


def write_json(path, **content):
    path.write_text(json.dumps(content))


def huggingface_config(name):
    ref = reference(name)
    model_type = {V3: "dinov3_vit", V2: "dinov2_with_registers"}[name]
    return {"model_type": model_type, "num_attention_heads": ref.heads, "layer_norm_eps": ref.facts["layernorm_eps"]}


def meta_pth(folder, name):
    path = folder / "backbone.pth"
    torch.save(reference(name).weights, path)
    return path


def meta_teacher(folder, name):
    path = folder / "teacher_checkpoint.pth"
    state = {f"backbone.{key}": value for key, value in reference(name).weights.items()}
    torch.save({"teacher": state, "iteration": 7}, path)
    return path


def meta_safetensors(folder, name):
    path = folder / "backbone.safetensors"
    save_file(reference(name).weights, path)
    return path


def huggingface_folder(folder, name):
    write_json(folder / "config.json", **huggingface_config(name))
    save_file(to_huggingface(reference(name).weights), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def huggingface_file(folder, name):
    return huggingface_folder(folder, name) / "model.safetensors"


def huggingface_pickled(folder, name):
    write_json(folder / "config.json", **huggingface_config(name))
    torch.save(to_huggingface(reference(name).weights, names="class"), folder / "pytorch_model.bin")
    return folder


def huggingface_sharded(folder, name):
    write_json(folder / "config.json", **huggingface_config(name))
    state = to_huggingface(reference(name).weights)
    keys = sorted(state)
    shards = {"model-00001-of-00002.safetensors": keys[::2], "model-00002-of-00002.safetensors": keys[1::2]}
    for file, part in shards.items():
        save_file({key: state[key].contiguous() for key in part}, folder / file)
    weight_map = {key: file for file, part in shards.items() for key in part}
    write_json(folder / "model.safetensors.index.json", metadata={}, weight_map=weight_map)
    return folder


def huggingface_sharded_pickled(folder, name):
    write_json(folder / "config.json", **huggingface_config(name))
    state = to_huggingface(reference(name).weights)
    keys = sorted(state)
    shards = {"pytorch_model-00001-of-00002.bin": keys[::2], "pytorch_model-00002-of-00002.bin": keys[1::2]}
    for file, part in shards.items():
        torch.save({key: state[key].clone() for key in part}, folder / file)
    weight_map = {key: file for file, part in shards.items() for key in part}
    write_json(folder / "pytorch_model.bin.index.json", metadata={}, weight_map=weight_map)
    return folder


def timm_folder(folder, name):
    write_json(
        folder / "config.json",
        architecture="vit",
        model_args={"num_heads": reference(name).heads},
        pretrained_cfg={"mean": IMAGENET[0], "std": IMAGENET[1]},
    )
    save_file({k: v.contiguous() for k, v in to_timm(reference(name).weights).items()}, folder / "model.safetensors")
    return folder


def our_file(folder, name):
    state, config = ours(name)
    header = own.Header(config=config, mean=IMAGENET[0], std=IMAGENET[1], name=name, licence="cc0-1.0")
    own.write(folder / "ours.safetensors", state, header)
    return folder / "ours.safetensors"


LAYOUTS = [
    meta_pth, meta_teacher, meta_safetensors, huggingface_folder, huggingface_file, huggingface_pickled,
    huggingface_sharded, huggingface_sharded_pickled, timm_folder, our_file,
]  # fmt: skip


def load(path, name=V3, **options):
    heads = None if name == V3 else reference(name).heads
    return load_encoder(path, **{"device": "cpu", "dtype": "fp32", "heads": heads, **options})


def pixels_of(name, size):
    """The stored input, which is normalised, as pixels."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in IMAGENET)
    return reference(name).outputs[f"{size}/input"] * std + mean


def largest_distance(tokens, name, key):
    expected = reference(name).outputs
    return max(
        (getattr(tokens, kind) - expected[f"{key}{kind}"]).abs().max().item()
        for kind in ("cls", "registers", "patches")
    )


@pytest.mark.parametrize("name", [V3, V2])
@pytest.mark.parametrize("store", LAYOUTS, ids=lambda store: store.__name__)
def test_every_layout_gives_metas_tokens(tmp_path, store, name):
    encoder = load(store(tmp_path, name), name)
    for size in reference(name).sizes[:2]:
        # twice the parity tolerance: mean and std are folded into weights, one more rounding
        assert largest_distance(encoder(pixels_of(name, size)), name, f"{size}/") <= 4e-5


@pytest.mark.parametrize("store", LAYOUTS, ids=lambda store: store.__name__)
def test_the_spec_tells_the_facts(tmp_path, store):
    path = store(tmp_path, V3)
    spec = load(path).spec
    assert (spec.family, spec.patch, spec.dim, spec.registers, spec.has_cls) == ("dinov3", (16, 16), 128, 4, True)
    assert (spec.channels, (spec.mean, spec.std)) == (3, IMAGENET)
    assert (spec.layer, spec.depth, spec.norm, spec.dtype) == (1, 2, "final", "fp32")
    assert spec.licence == ("cc0-1.0" if store is our_file else "unknown")
    assert spec.name == (V3 if store is our_file else path.name)
    assert spec.source == path.name
    files = [path] if path.is_file() else sorted(f for f in path.iterdir() if f.suffix in (".safetensors", ".bin"))
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    lines = "\n".join(f"{name}:{value}" for name, value in sorted(hashes.items()))
    expected = next(iter(hashes.values())) if len(hashes) == 1 else hashlib.sha256(lines.encode()).hexdigest()
    assert spec.weights_sha256 == expected


@pytest.mark.parametrize(
    ("layer", "norm", "key", "index"),
    [
        (0, "final", "inter0_", 0),
        (-2, "final", "inter0_", 0),
        (-1, "none", "prenorm_", 1),
        (None, "none", "prenorm_", 1),
    ],
)
def test_layer_and_norm(tmp_path, layer, norm, key, index):
    encoder = load(meta_pth(tmp_path, V3), layer=layer, norm=norm)
    assert (encoder.spec.layer, encoder.spec.norm) == (index, norm)
    assert largest_distance(encoder(pixels_of(V3, "48x80")), V3, f"48x80/{key}") <= 4e-5


def test_bf16(tmp_path):
    path = meta_pth(tmp_path, V3)
    coarse = load(path, dtype="bf16")
    assert coarse.spec.dtype == "bf16"
    exact = load(path)(pixels_of(V3, "48x80")).patches
    given = coarse(pixels_of(V3, "48x80")).patches
    assert 0.999 < torch.cosine_similarity(given, exact, dim=-1).min() < 0.999999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 2}, "layer 2 does not exist: this encoder has 2 blocks, 0 to 1 or -2 to -1"),
        ({"layer": -3}, "layer -3 does not exist"),
        ({"dtype": "fp16"}, "fp16 is refused: DINOv3 does not support it"),
        ({"dtype": "int8"}, "dtype 'int8' is not known; use auto, fp32 or bf16"),
        ({"device": "tpu"}, "device 'tpu' is not known"),
        ({"device": "xpu"}, "device 'xpu' is not supported"),
        ({"device": "cuda:99"}, "is not on this machine"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        load(meta_pth(tmp_path, V3), **{"heads": None, **options})


@pytest.mark.parametrize(
    ("features", "expected"), [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")]
)
def test_auto_precision_follows_the_cpu(monkeypatch, features, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert precision.choose_precision("auto", torch.device("cpu")) == expected


def test_auto_device_is_one_of_this_machine():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert precision.choose_device("auto").type == best
    assert precision.choose_precision("auto", torch.device("mps")) == "fp32"


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        (lambda f: write_json(f / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]),
         ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))),
        (lambda _: None, IMAGENET),
    ],
)  # fmt: skip
def test_mean_and_std_come_from_the_folder(tmp_path, store, expected):
    store(huggingface_folder(tmp_path, V3))
    spec = load(tmp_path).spec
    assert (spec.mean, spec.std) == expected


def test_mean_and_std_of_satellite_weights_come_from_the_name(tmp_path):
    torch.save(reference(V3).weights, tmp_path / "my_vitl16_sat493m.pth")
    spec = load(tmp_path / "my_vitl16_sat493m.pth").spec
    assert (spec.mean, spec.std) == SAT493M


@pytest.fixture
def tiny_stands_for_released(monkeypatch):
    """Lets the tiny reference network pass for any released one, whose weights are too large to make here."""
    monkeypatch.setattr(loading, "models_of_shape", lambda _: list(CATALOGUE.values()))


def test_other_weights_under_a_catalogue_name_are_refused(tmp_path, monkeypatch):
    torch.save(reference(V3).weights, tmp_path / CATALOGUE["dinov3-vitb16"].meta_file)
    monkeypatch.setenv("PATCHATLAS_WEIGHTS", str(tmp_path))
    for name in (tmp_path / CATALOGUE["dinov3-vitb16"].meta_file, "dinov3-vitb16"):
        with pytest.raises(WeightsError, match=r"named as dinov3-vitb16, but holds another network: 2 blocks of 128"):
            load(name)


@pytest.mark.usefixtures("tiny_stands_for_released")
def test_the_publishers_file_is_known_by_its_name(tmp_path):
    entry = CATALOGUE["dinov3-vitl16-sat493m"]
    torch.save(reference(V3).weights, tmp_path / entry.meta_file)
    spec = load(tmp_path / entry.meta_file).spec
    assert (spec.name, spec.licence, spec.mean) == (entry.name, "dinov3-license", SAT493M[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu'.*gelu expected"),
        ({"hidden_act": "gelu", "use_gated_mlp": True}, "hidden_act 'gelu'.*silu expected"),
    ],
)
def test_another_activation_is_refused(tmp_path, changes, message):
    huggingface_folder(tmp_path, V3)
    write_json(tmp_path / "config.json", **huggingface_config(V3), **changes)
    with pytest.raises(WeightsError, match=message):
        load(tmp_path)


def test_the_licence_comes_from_the_model_card(tmp_path):
    huggingface_folder(tmp_path, V3)
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: 'my-licence'\n---\n# Card\nlicense: no\n")
    assert load(tmp_path).spec.licence == "my-licence"


def test_heads_that_contradict_the_file_are_refused(tmp_path):
    assert load(our_file(tmp_path, V3), heads=2).spec.dim == 128
    with pytest.raises(WeightsError, match="heads=4 was asked, but the file says 2"):
        load(tmp_path / "ours.safetensors", heads=4)
    write_json(tmp_path / "config.json", model_type="vjepa2")
    with pytest.raises(UsageError, match="vjepa2 has them in its config"):
        load(tmp_path, heads=4)


def test_other_channels_need_a_file_that_tells(tmp_path):
    state = dict(reference(V3).weights)
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :1].contiguous()
    torch.save(state, tmp_path / "grey.pth")
    with pytest.raises(WeightsError, match="take 1 channels and no file tells their mean and std"):
        load(tmp_path / "grey.pth")


def test_a_pickle_with_code_is_never_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"cls_token": torch.ones(1), "x": Attack()}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="holds code, which is never run"):
        load(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("torn.pth", b"PK\x03\x04 torn", "cannot be read as plain tensors"),
        ("torn.safetensors", b"\xff" * 20, "not a whole safetensors file"),
        ("empty.pth", b"", "cannot be read as plain tensors"),
        ("notes.txt", b"", r"suffix \.txt; weights are \.safetensors"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load(tmp_path / name)


def test_a_file_without_a_state_dict(tmp_path):
    torch.save({"iteration": 3}, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        load(tmp_path / "none.pth")


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(WeightsError, match="holds no weights"):
        load(tmp_path)
    huggingface_sharded(tmp_path, V3)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match="lacks the shards model-00002-of-00002"):
        load(tmp_path)
    write_json(tmp_path / "model.safetensors.index.json", weight_map={"a": "../evil.safetensors"})
    with pytest.raises(WeightsError, match="names files outside its folder"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json is not JSON"):
        load(tmp_path)


def test_names_that_mean_nothing(tmp_path):
    with pytest.raises(WeightsError, match=r"no encoder is called 'dinov9'.*a hub id.*bundled:sift.*dinov3-vitb16"):
        load("dinov9")
    for missing in ("weights/model.pth", str(tmp_path / "none"), "./none", Path("none")):
        with pytest.raises(WeightsError, match="does not exist; check the path"):
            load(missing)
    with pytest.raises(WeightsError, match=r"bundled:orb is not bundled; there is: bundled:sift"):
        load("bundled:orb")


def test_a_catalogue_name_without_weights_says_how_to_get_them():
    with pytest.raises(WeightsError) as caught:
        load("dinov3-vitb16")
    message = str(caught.value)
    for part in (
        "facebook/dinov3-vitb16-pretrain-lvd1689m (gated)",
        "timm/vit_base_patch16_dinov3.lvd1689m (not gated)",
        "dinov3-license",
        "PATCHATLAS_WEIGHTS",
        "dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth",
        "--encoder bundled:sift or bundled:vit-tiny16 works now",
    ):
        assert part in message


def test_a_catalogue_name_is_found_in_the_weights_folder_and_in_the_cache(tmp_path, monkeypatch):
    entry = CATALOGUE["dinov3-vitb16"]
    monkeypatch.setenv("PATCHATLAS_WEIGHTS", str(tmp_path / "weights"))
    for name in names_on_disk(entry):
        (tmp_path / "weights" / name).mkdir(parents=True)
        assert resolve(entry.name).path == tmp_path / "weights" / name
        (tmp_path / "weights" / name).rmdir()
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "model.safetensors").touch()
    asked = []

    def cached(repo_id, **options):
        asked.append((repo_id, options["local_files_only"]))
        if repo_id == entry.timm_id:
            return str(cache)
        return not_cached(repo_id)

    monkeypatch.setattr(hub, "snapshot_download", cached)
    assert resolve(entry.name).path == cache
    assert list(dict.fromkeys(asked)) == [(entry.hf_id, True), (entry.timm_id, True)]


@pytest.mark.usefixtures("tiny_stands_for_released")
def test_a_hub_id_is_fetched_and_named_by_the_catalogue(tmp_path, monkeypatch):
    huggingface_folder(tmp_path, V3)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    spec = load("facebook/dinov3-vitb16-pretrain-lvd1689m").spec
    assert (spec.name, spec.source) == ("dinov3-vitb16", "facebook/dinov3-vitb16-pretrain-lvd1689m")
    assert load("someone/private").spec.name == "private"


REAL_DOWNLOAD = huggingface_hub.snapshot_download


@pytest.mark.usefixtures("tiny_stands_for_released")
def test_an_id_is_read_from_the_hub_cache_without_network(tmp_path, monkeypatch):
    """A cache as the hub's own program leaves it, weights and config only; a network would be refused."""
    cache = tmp_path / "models--facebook--dinov3-vits16-pretrain-lvd1689m"
    snapshot = cache / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    huggingface_folder(snapshot, V3)

    def local_only(*args, local_files_only=False, **options):
        assert local_files_only, "the network was asked"
        return REAL_DOWNLOAD(*args, local_files_only=True, cache_dir=tmp_path, **options)

    monkeypatch.setattr(hub, "snapshot_download", local_only)
    assert load("facebook/dinov3-vits16-pretrain-lvd1689m").spec.licence == "dinov3-license"
    assert load("dinov3-vits16").spec.name == "dinov3-vits16"


def test_offline_mode_of_the_hub_is_obeyed(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "snapshot_download", partial(REAL_DOWNLOAD, cache_dir=tmp_path))
    with pytest.raises(WeightsError, match=r"not in the local cache and the hub cannot be reached"):
        load("facebook/dinov2-base")


def response(status):
    return httpx2.Response(status, request=httpx2.Request("GET", "https://hub"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            GatedRepoError("no", response=response(403)),
            r"is gated: accept its licence .*hf auth login.*not gated: timm/",
        ),
        (RepositoryNotFoundError("no", response=response(401)), "not on the hub, or is private"),
        (LocalEntryNotFoundError("offline"), r"cannot be reached.*hf download facebook/dinov3-vits16.*bundled:sift"),
        (ConnectionError("down"), "cannot be reached"),
    ],
)
def test_a_hub_that_gives_nothing(monkeypatch, error, message):
    def refuse(_, *, local_files_only=False, **__):
        raise LocalEntryNotFoundError("not cached") if local_files_only else error

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(WeightsError, match=message):
        load("facebook/dinov3-vits16-pretrain-lvd1689m")


def test_a_repository_without_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        load("someone/dataset")


def test_bundled_sift_needs_no_weights_and_has_no_layers():
    assert load_encoder("bundled:sift", device="cpu").spec.family == "sift"
    with pytest.raises(UsageError, match="bundled:sift is no network"):
        load_encoder("bundled:sift", layer=3)


@pytest.mark.parametrize("model_type", ["vjepa2", "dinov3_convnext"])
def test_networks_of_transformers_are_dispatched(tmp_path, monkeypatch, model_type):
    calls = []
    stand_in = types.ModuleType("patchatlas.encoders.transformers_adapter")
    stand_in.load = lambda path, **options: calls.append((path, options)) or load(meta_pth(tmp_path, V3))
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr("patchatlas.encoders.transformers_adapter", stand_in, raising=False)
    folder = tmp_path / "folder"
    folder.mkdir()
    write_json(folder / "config.json", model_type=model_type)
    load_encoder(folder, device="cpu", dtype="fp32", layer=3, norm="none")
    options = {"device": torch.device("cpu"), "dtype": "fp32", "layer": 3, "norm": "none"}
    assert calls == [(folder, {**options, "name": "folder", "source": "folder"})]


def test_the_catalogue_is_sound():
    assert [CATALOGUE[name].dim for name in DINO_SIZES.values()] == [384, 768, 1024]
    for field in ("hf_id", "timm_id", "meta_file"):
        values = [getattr(entry, field) for entry in CATALOGUE.values() if getattr(entry, field)]
        assert len(values) == len(set(values))
        assert all(find(value) is not None for value in values)
    for entry in CATALOGUE.values():
        assert entry.name in how_to_get(entry)
        if entry.family in ("dinov3", "convnext"):
            assert len(entry.sha256_start) == 8
            assert int(entry.sha256_start, 16)
            assert find_by_sha256(entry.sha256_start + "0" * 56) is entry
        else:
            assert entry.sha256_start is None
    assert find_by_sha256("0" * 64) is None
    assert CATALOGUE["dinov3-vitb16"].size_bytes == 4 * 85_669_632


def test_digest_of_shards_does_not_depend_on_their_order(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    assert digest([tmp_path / "a", tmp_path / "b"]) == digest([tmp_path / "b", tmp_path / "a"])
    assert digest([tmp_path / "a"]) == hashlib.sha256(b"a").hexdigest()
    assert checkpoint.folder_of(tmp_path / "a") is None
