"""patchatlas weights list, check and convert, as a user runs them: what is printed, and the exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from patchatlas.cli.main import main
from patchatlas.encoders import bundled, hub
from patchatlas.encoders.catalogue import CATALOGUE
from patchatlas.encoders.loading import load_encoder

WEIGHTS = Path(__file__).parents[1] / "golden" / "dino" / "dinov3_mlp_d128h2.weights.safetensors"
GATED = "facebook/dinov3-vits16-pretrain-lvd1689m"


def not_cached(repo_id, **_):
    raise LocalEntryNotFoundError(f"{repo_id} is not cached")


@pytest.fixture(autouse=True)
def empty_machine(monkeypatch):
    monkeypatch.delenv("PATCHATLAS_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "snapshot_download", not_cached)


def run(capsys, *args):
    """Exit code, what was printed, and what went to stderr."""
    code = main(["weights", *map(str, args)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def run_json(capsys, *args):
    code, out, _ = run(capsys, *args, "--format", "json")
    return code, json.loads(out)


def test_list_names_every_model_in_80_columns(capsys):
    code, out, err = run(capsys, "list")
    assert (code, err) == (0, "")
    # A path is as long as it is.
    assert max(len(line) for line in out.splitlines() if not line.startswith("  here: ")) <= 80
    for entry in CATALOGUE.values():
        assert entry.name in out
        assert entry.licence in out
        assert all(one in out for one in (entry.hf_id, entry.timm_id, entry.sha256_start) if one)
    assert "PATCHATLAS_WEIGHTS is not set" in out


def test_list_of_one(capsys, tmp_path, monkeypatch):
    (tmp_path / "dinov3-vits16.safetensors").write_bytes(bytes(2_500_000))
    monkeypatch.setenv("PATCHATLAS_WEIGHTS", str(tmp_path))
    code, out, _ = run(capsys, "list", GATED)
    assert code == 0
    assert out.splitlines() == [
        "name                        params   dim  patch    reg     size  sha256    here",
        "dinov3-vits16               21.6 M   384  16x16      4  86.4 MB  08c60483  yes",
        "  timm/vit_small_patch16_dinov3.lvd1689m           not gated dinov3-license",
        "  facebook/dinov3-vits16-pretrain-lvd1689m         gated     dinov3-license",
        f"  here: {tmp_path}/dinov3-vits16.safetensors (2.5 MB)",
    ]


def test_list_of_what_is_here(capsys, monkeypatch, tmp_path):
    code, data = run_json(capsys, "list", "--here")
    assert (code, [one["name"] for one in data["encoders"]]) == (0, ["bundled:sift", "bundled:vit-tiny16"])
    monkeypatch.setattr("patchatlas.encoders.inventory.find_spec", lambda _: None)
    monkeypatch.setenv("PATCHATLAS_WEIGHTS", str(tmp_path / "absent"))
    _, data = run_json(capsys, "list", "--here")
    assert [one["name"] for one in data["encoders"]] == ["bundled:vit-tiny16"]  # which needs no extra
    monkeypatch.setattr("patchatlas.encoders.bundled.SHA256", {})
    _, out, _ = run(capsys, "list", "--here")
    assert "no encoder can be loaded now" in out
    assert "absent, which is no folder" in out
    _, out, _ = run(capsys, "list", "bundled:sift", "dinov3-vitl16plus")
    assert "pip install 'patchatlas[opencv]'" in out
    assert "file: dinov3_vitl16plus_pretrain_lvd1689m-46503df0.pth" in out


def test_list_of_an_unknown_name(capsys):
    code, out, err = run(capsys, "list", "dinov9")
    assert (code, out) == (2, "")
    assert "no encoder in the catalogue is called 'dinov9'" in err


def test_check_of_sound_weights(capsys):
    code, out, err = run(capsys, "check", WEIGHTS)
    assert code == 0
    assert err.startswith("WARNING: no file tells the mean and std of these weights")
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["pass", "files"]
    assert lines[-2].split()[:2] == ["pass", "forward"]
    assert lines[-1] == f"{WEIGHTS}: ok; not checked: sha256, config, model"


def test_check_as_json(capsys):
    code, data = run_json(capsys, "check", WEIGHTS, "--no-forward")
    assert (code, data["ok"], data["path"], len(data["sha256"])) == (0, True, str(WEIGHTS), 64)
    assert {check["name"]: check["state"] for check in data["checks"]}["forward"] == "skipped"
    code, data = run_json(capsys, "check", WEIGHTS, "--sha256", "00000000")
    assert (code, data["ok"]) == (5, False)


def test_check_tells_all_problems_and_exits_with_5(capsys, tmp_path):
    state = {"norm.weight": torch.tensor([float("nan")]), "cls_token": torch.ones(1)}
    torch.save(state, tmp_path / "a.pth")
    code, out, _ = run(capsys, "check", tmp_path / "a.pth", "--sha256", "0" * 64)
    assert code == 5
    assert out.splitlines()[-1] == f"{tmp_path / 'a.pth'}: 3 of 9 checks failed: sha256, layout, values"


@pytest.mark.parametrize("name", ["absent/weights.pth", "dinov3-vits16", "nonsense"])
def test_check_of_what_is_not_there(capsys, name):
    code, data = run_json(capsys, "check", name)
    assert (code, data["path"], [check["name"] for check in data["checks"]]) == (5, None, ["files"])


@pytest.mark.parametrize(
    "args", [("check", WEIGHTS, "--sha256", "abc"), ("check", WEIGHTS, "--heads", "0"), ("check",)]
)
def test_check_of_nonsense(capsys, args):
    assert run(capsys, *args)[0] == 2


def test_convert(capsys, tmp_path):
    out = tmp_path / "a.safetensors"
    code, data = run_json(capsys, "convert", WEIGHTS, out)
    assert (code, data["path"], data["bytes"]) == (0, str(out), out.stat().st_size)
    assert load_encoder(out, device="cpu").spec.weights_sha256 == data["sha256"]
    code, printed, err = run(capsys, "convert", WEIGHTS, out)
    assert (code, printed) == (2, "")
    assert "pass --overwrite" in err
    code, printed, _ = run(capsys, "convert", WEIGHTS, out, "--overwrite", "--dtype", "bf16")
    assert code == 0
    assert f"written: {out}" in printed
    assert out.stat().st_size < data["bytes"]
    assert run(capsys, "check", out)[0] == 0


def test_convert_of_what_cannot_be(capsys, tmp_path):
    for source, out, expected in (
        ("absent.pth", "a.safetensors", 5),
        ("bundled:sift", "a.safetensors", 5),
        (WEIGHTS, "a.pth", 2),
        (WEIGHTS, "absent/a.safetensors", 4),
    ):
        assert run(capsys, "convert", source, tmp_path / out)[0] == expected
    assert list(tmp_path.iterdir()) == []


def response(status):
    return httpx2.Response(status, request=httpx2.Request("GET", "https://hub"))


@pytest.mark.parametrize("command", ["check", "convert"])
@pytest.mark.parametrize(
    ("error", "steps"),
    [
        (
            GatedRepoError("no", response=response(403)),
            ("accept its licence at https://", "hf auth login", "timm/vit_"),
        ),
        (RepositoryNotFoundError("no", response=response(401)), ("check the spelling", "patchatlas weights list")),
        (ConnectionError("down"), ("hf download", "--local-dir FOLDER", "bundled:sift")),
        (TimeoutError("slow"), ("hf download", "--local-dir FOLDER", "bundled:sift")),
    ],
    ids=["gated", "absent", "unreachable", "slow"],
)
def test_a_hub_that_gives_nothing_is_never_replaced(capsys, monkeypatch, tmp_path, command, error, steps):
    """Exit 5 and the next step; no other repository is asked, nothing is written."""
    asked = []

    def refuse(repo_id, *, local_files_only=False, **_):
        asked.append(repo_id)
        raise LocalEntryNotFoundError("not cached") if local_files_only else error

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    out = [tmp_path / "a.safetensors"] if command == "convert" else []
    code, printed, err = run(capsys, command, GATED, *out)
    assert code == 5
    for step in steps:
        assert step in printed + err
    assert set(asked) == {GATED}
    assert list(tmp_path.iterdir()) == []


def patchatlas(*args, **environment):
    """In a process of its own, with an empty cache, offline."""
    settings = {"HF_HUB_OFFLINE": "1", "PATCHATLAS_WEIGHTS": "", **environment}
    return subprocess.run(
        [sys.executable, "-c", "import sys; from patchatlas.cli.main import main; sys.exit(main())", *args],
        env={**os.environ, **settings}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_end_to_end_offline(tmp_path):
    cache = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_CACHE": str(tmp_path / "cache")}
    listed = patchatlas("weights", "list", "--format", "json", **cache)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(json.loads(listed.stdout)["encoders"]) == len(bundled.names()) + len(CATALOGUE)
    gated = patchatlas("weights", "convert", GATED, str(tmp_path / "a.safetensors"), **cache)
    assert (gated.returncode, gated.stdout) == (5, "")
    assert "the hub cannot be reached" in gated.stderr
    assert not (tmp_path / "a.safetensors").exists()


def test_end_to_end_check():
    done = patchatlas("weights", "check", str(WEIGHTS), "--sha256", "00000000", "--format", "json")
    assert (done.returncode, json.loads(done.stdout)["ok"], done.stderr) == (5, False, "")
