"""`patchatlas features plan`: from a folder or a manifest, with and without an encoder."""

import json
from pathlib import Path

import pytest
from PIL import Image

from patchatlas.cli.main import main
from patchatlas.encoders.keymaps import own
from patchatlas.encoders.vit import ViT, ViTConfig
from tests.datasets.stored import stored_ramps


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in {"a.png": (50, 50), "b.png": (50, 50), "c.jpg": (73, 50), "d.png": (52, 100)}.items():
        Image.new("RGB", size).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = ViTConfig(family="dinov3", patch=(16, 16), dim=32, depth=1, heads=2, registers=4, ffn_hidden=64)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    own.write(
        path,
        ViT(config).state_dict(),
        own.Header(config=config, mean=(0.5,) * 3, std=(0.25,) * 3, name="tiny", licence="cc0-1.0"),
    )
    return path


def plan(capsys, *arguments: object) -> dict:
    code = main(["features", "plan", "--format", "json", *map(str, arguments)])
    return {"code": code, **json.loads(capsys.readouterr().out)}


def test_a_folder_is_counted_by_bucket_with_the_sizes_of_vit_large(pictures, capsys):
    found = plan(capsys, "--input-dir", pictures)
    assert found["code"] == 0
    assert found["encoder"]["name"] == "dinov3-vitl16"
    assert [(b["bucket"], b["images"], b["grid"], b["tokens"]) for b in found["buckets"]] == [
        ("1024x1024", 2, [64, 64], 4096),
        ("1216x832", 1, [52, 76], 3952),
        ("704x1344", 1, [84, 44], 3696),
    ]
    assert found["buckets"][0]["bytes"]["fp16"] == 4096 * 1024 * 2
    assert found["images"] == 4
    assert found["bytes"]["fp32"] == (2 * 4096 + 3696 + 3952 + 4 * 5) * 1024 * 4
    assert "encode_hours" not in found
    assert sorted(p.name for p in pictures.iterdir()) == ["a.png", "b.png", "c.jpg", "d.png"]


def test_the_linear_rule_and_another_table_change_the_buckets(pictures, tmp_path, capsys):
    table = tmp_path / "table.txt"
    table.write_text("64x64\n96x64\n")
    found = plan(capsys, "--input-dir", pictures, "--buckets", table)
    assert {b["bucket"]: b["images"] for b in found["buckets"]} == {"64x64": 3, "96x64": 1}
    learnt = plan(capsys, "--input-dir", pictures, "--buckets", "learn:1")
    assert len(learnt["buckets"]) == 1
    assert learnt["images"] == 4


def test_pictures_that_will_be_skipped_are_listed_and_exit_3(pictures, capsys):
    (pictures / "bad.png").write_bytes(b"no picture")
    found = plan(capsys, "--input-dir", pictures)
    assert found["code"] == 3
    assert found["images"] == 4
    assert [row["image_path"] for row in found["skipped"]] == ["bad.png"]
    assert main(["features", "plan", "--input-dir", str(pictures)]) == 3
    out = capsys.readouterr().out
    assert "skipped 1:\n  bad.png: not_a_picture: " in out
    assert "    704x1344        1   704x1344     84 x 44     3696 " in out
    assert "GB are free" in out


def test_an_encoder_is_timed_and_the_break_even_is_said(pictures, weights, tmp_path, capsys):
    common = ["--input-dir", pictures, "--encoder", weights, "--derived-dir", tmp_path / "new" / "derived"]
    small = tmp_path / "table.txt"
    small.write_text("64x64\n")
    common += ["--buckets", small, "--device", "cpu", "--token-budget", 32, "--read-mb-s", 1000, "--write-mb-s", 1000]
    found = plan(capsys, *common)
    assert found["code"] == 0
    assert found["encoder"]["dim"] == 32
    assert found["encode_hours"] > 0
    assert found["break_even_epochs"] == 2
    assert found["seconds_per_image"]["read"] == pytest.approx((16 * 32 * 2 + 5 * 32 * 4) / 1e9)
    assert not (tmp_path / "new").exists()
    shared = plan(capsys, *common, "--workers", 1000)
    assert shared["encode_hours"] < found["encode_hours"]
    never = plan(capsys, *common[:-4], "--read-mb-s", 1e-6, "--write-mb-s", 1000)
    assert never["break_even_epochs"] is None
    untimed = plan(capsys, *common, "--no-timing")
    assert "encode_hours" not in untimed
    assert main(["features", "plan", *map(str, common)]) == 0
    assert "storing pays from 2 epochs on" in capsys.readouterr().out


def test_a_catalogue_name_needs_no_weights_without_timing(pictures, capsys):
    found = plan(capsys, "--input-dir", pictures, "--encoder", "dinov2-vits14-reg", "--no-timing")
    assert found["encoder"]["dim"] == 384
    assert found["buckets"][0]["grid"] == [73, 73]


def test_a_manifest_is_taken_where_there_is_one(tmp_path, pictures, capsys):
    stored_ramps(tmp_path, skipped=1)
    found = plan(capsys, "--output-jsonl", tmp_path / "dataset.jsonl", "--input-dir", pictures)
    assert found["code"] == 3
    assert {b["bucket"]: b["images"] for b in found["buckets"]} == {"96x64": 2, "64x96": 2, "64x64": 1, "80x48": 1}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--input-dir with a folder"),
        (["--output-jsonl", "absent.jsonl"], 4, "no manifest absent.jsonl"),
        (["--input-dir", "absent"], 4, "no folder absent"),
        (["--input-dir", ".", "--encoder", "absent.safetensors"], 5, "absent.safetensors"),
        (["--input-dir", ".", "--buckets", "absent.txt"], 4, "absent.txt"),
        (["--input-dir", ".", "--encoder", "vjepa2-vitl", "--no-timing"], 2, "volumes"),
    ],
)
def test_mistakes_have_their_exit_codes(tmp_path, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    assert main(["features", "plan", *arguments]) == code
    assert message in capsys.readouterr().err
