"""`patchatlas features build`: flags, results, progress and exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from patchatlas.cli.features_build import Config, describe, rates
from patchatlas.cli.main import main
from patchatlas.datasets.build.owner import claim
from patchatlas.datasets.build.report import Progress
from patchatlas.encoders.vit import ViTConfig
from patchatlas.io.manifest import read_manifest
from tests.datasets.conftest import SMALL_BUCKETS, write_photos, write_tiny
from tests.disk_limit import no_file_may_grow

PHOTOS = (("a.jpg", (90, 120)), ("b.png", (64, 64)), ("sub/a.jpg", (61, 97)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    config = ViTConfig(family="dinov3", patch=(16, 16), dim=32, depth=1, heads=2, registers=4, ffn_hidden=64)
    return write_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors", config)


@pytest.fixture
def arguments(tmp_path, weights):
    write_photos(tmp_path / "in", PHOTOS)
    (tmp_path / "table.txt").write_text("".join(f"{w}x{h}\n" for h, w in SMALL_BUCKETS))
    return [
        "features", "build", "--input-dir", str(tmp_path / "in"), "--output-jsonl", str(tmp_path / "data.jsonl"),
        "--pass-filter", "dinov3", "--device", "auto", "--encoder", str(weights), "--precision", "fp32",
        "--buckets", str(tmp_path / "table.txt"),
    ]  # fmt: skip


def test_a_build_reports_counts_bytes_time_and_manifest(arguments, tmp_path, capsys):
    assert main([*arguments, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    assert (result["done"], result["there"], result["skipped"], result["pictures"]) == (3, 0, 0, 3)
    assert result["manifest"] == str(tmp_path / "data.jsonl")
    assert result["bytes"] == sum(path.stat().st_size for path in (tmp_path / "derived").glob("*@*/*.npy"))
    assert 0 < result["passes"][0]["seconds"] < result["seconds"]
    assert main([*arguments, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["there"] == 3


def test_the_result_for_people(arguments, tmp_path, capsys):
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    assert main(arguments) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("dinov3: 3 done, 0 already there, ")
    assert lines[1].strip().startswith("dinov3_patches@")
    assert lines[-2].startswith("skipped empty.jpg: empty: empty.jpg is empty")
    assert lines[-1].startswith(f"{tmp_path / 'data.jsonl'}: 4 pictures, 1 skipped; ")


def test_the_flags_of_the_earlier_project_are_understood(arguments, tmp_path):
    old = {"--output-jsonl": "--output", "--pass-filter": "--pass"}
    assert main([old.get(one, one) for one in arguments]) == 0
    assert len(read_manifest(tmp_path / "data.jsonl")) == 3


def test_derived_dir_dtype_and_verbose(arguments, tmp_path):
    assert main([*arguments, "--derived-dir", str(tmp_path / "elsewhere"), "--dtype", "int8", "--verbose"]) == 0
    assert not (tmp_path / "derived").exists()
    assert {path.suffix for path in (tmp_path / "elsewhere").glob("*patches*/[!_]*")} == {".safetensors"}
    assert {path.suffix for path in (tmp_path / "elsewhere").glob("*cls*/[!_]*")} == {".npy"}


def test_features_of_another_kind_need_backup_old(arguments, tmp_path, capsys):
    assert main(arguments) == 0
    assert main([*arguments, "--dtype", "bf16"]) == 4
    assert "storage: 'fp16' and 'bf16'" in capsys.readouterr().err
    assert main([*arguments, "--dtype", "bf16", "--backup-old"]) == 0
    assert {entry.dtype for r in read_manifest(tmp_path / "data.jsonl") for entry in r.features.values()} == {
        "bf16", "fp32",
    }  # fmt: skip
    assert len(list((tmp_path / "derived" / "_old").iterdir())) == 3


def test_a_missing_bucket_names_the_pass_to_run(arguments, tmp_path, capsys):
    (tmp_path / "data.jsonl").write_text('{"image_path": "a.jpg", "image_id": "a"}\n')
    assert main(arguments) == 4
    assert "aspect_bucket not found" in (error := capsys.readouterr().err)
    assert "run with --pass-filter migrate" in error
    assert main([*arguments, "--pass-filter", "migrate", "dinov3"]) == 0


def test_strict_stops_with_exit_4(arguments, tmp_path, capsys):
    (tmp_path / "in" / "cut.jpg").write_bytes((tmp_path / "in" / "a.jpg").read_bytes()[:1500])
    assert main([*arguments, "--strict"]) == 4
    assert "cut.jpg is cut short" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--buckets", "nowhere.txt"], 4, "there is no bucket table nowhere.txt"),
        (["--buckets", "learn:many"], 2, "learn:7"),
        (["--shard", "2/2"], 2, "count from 0"),
        (["--encoder", "nowhere.safetensors"], 5, "nowhere.safetensors does not exist"),
        (["--pass-filter", "dinov2"], 2, "needs an encoder of the family dinov2"),
        (["--input-dir", "nowhere"], 4, "there is no folder nowhere"),
        (["--output-jsonl", "."], 4, "is a folder"),
        (["--limit", "0"], 2, "limit"),
    ],
)
def test_mistakes_have_a_code_and_a_sentence(arguments, capsys, flags, code, says):
    assert main([*arguments, *flags]) == code
    assert says in capsys.readouterr().err


def test_a_bucket_table_that_is_not_text_is_named(arguments, tmp_path, capsys):
    (tmp_path / "table.txt").write_bytes(b"\xff\xfe")
    assert main(arguments) == 4
    assert "table.txt: 'utf-8' codec" in capsys.readouterr().err
    (tmp_path / "table.txt").write_text("64x64\n64x64\n")
    assert main(arguments) == 4
    assert "table.txt: the bucket table names 64x64 twice" in capsys.readouterr().err


def test_another_number_of_learnt_buckets_is_refused(arguments, tmp_path, capsys):
    learning = [*arguments, "--pass-filter", "migrate", "--buckets"]
    assert main([*learning, "learn:1"]) == 0
    table = tmp_path / "derived" / "_buckets.txt"
    assert table.read_text() == "# learn:1\n1152x896\n"
    assert main([*learning, "learn:3"]) == 4
    error = capsys.readouterr().err
    assert "_buckets.txt does not begin with '# learn:3' but with '# learn:1'" in error
    assert "--derived-dir" in error
    assert main([*learning, "learn:1"]) == 0
    table.unlink()
    assert main([*learning, "learn:3"]) == 0
    assert table.read_text().startswith("# learn:3\n")


def test_inline_vectors_that_do_not_fit_on_the_disk_are_exit_6(arguments, tmp_path, capsys):
    manifest = tmp_path / "data.jsonl"
    manifest.write_text('{"image_path": "a.jpg", "image_id": "a", "dinov3_embedding": [0.5, 1.5]}\n')
    (tmp_path / "derived").mkdir()
    claim(tmp_path / "derived", manifest)  # so that the vectors are what is written first
    with no_file_may_grow():
        assert main([*arguments, "--pass-filter", "migrate"]) == 6
    assert "a.npy: it is larger than files may be here" in capsys.readouterr().err


def test_shards_from_the_environment(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*arguments, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert "working on shard 1/2, as torchrun says" in err
    first = json.loads(out)["done"]
    monkeypatch.setenv("RANK", "0")
    main([*arguments, "--format", "json"])
    assert first + json.loads(capsys.readouterr().out)["done"] == 3
    assert all(len(record.features) == 3 for record in read_manifest(tmp_path / "data.jsonl"))


def test_skipped_pictures_do_not_make_torchrun_end_the_others(arguments, tmp_path, capsys, monkeypatch):
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert main(arguments) == 0
    assert "exit code 0 in spite of skipped pictures" in capsys.readouterr().err


def test_the_bar_says_rates_and_skipped():
    progress = Progress(stage="dinov3", done=30, total=90, skipped=2, tokens=60_000)
    assert rates(progress, 10.0) == "3.0 images/s, 6,000 tokens/s, 2 skipped"
    assert rates(Progress(stage="dinov3", done=0, total=90), 0.0) == ""


def test_many_skipped_pictures_do_not_flood_the_terminal(arguments, tmp_path, capsys):
    for number in range(25):
        (tmp_path / "in" / f"bad{number:02d}.jpg").write_bytes(b"")
    assert main(arguments) == 3
    out = capsys.readouterr().out
    assert out.count("skipped bad") == 20
    assert "and 5 more skipped" in out
    assert main([*arguments, "--format", "json"]) == 3
    assert len(json.loads(capsys.readouterr().out)["errors"]) == 25


def test_defaults():
    config = Config(input_dir=Path("in"), output_jsonl=Path("m.jsonl"))
    assert (config.pass_filter, config.dtype, config.executor, config.buckets) == (
        ("dinov3",),
        "fp16",
        "local",
        "default",
    )
    assert callable(describe)


def test_nothing_heavy_is_imported_that_is_not_needed(arguments):
    """A build from a weights file needs neither transformers nor diffusers, ray, or torch's compiler."""
    code = (
        "import sys; from patchatlas.cli.main import main; assert main(sys.argv[1:]) == 0; "
        "found = {'transformers', 'diffusers', 'ray', 'pandas', 'matplotlib', 'torch._dynamo'} & set(sys.modules); "
        "assert not found, found"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
