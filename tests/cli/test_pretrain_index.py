"""`patchatlas pretrain index`: results on stdout, 3 where a volume was left out."""

import json

import numpy as np

from patchatlas.cli.main import main
from patchatlas.pretrain.cache import open_cache
from tests.io.volumes.volume_files import example, write_nifti


def test_index_and_its_exit_codes(tmp_path, capsys):
    source, cache = tmp_path / "source", tmp_path / "cache"
    source.mkdir()
    write_nifti(source / "a.nii")
    call = ["pretrain", "index", str(source), "--out", str(cache), "--thresholds", "-500", "-200"]
    assert main([*call, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["volumes"], told["made"]) == (1, 1)
    assert set(open_cache(cache).records[0].foreground) == {"body", "hu>-500", "hu>-200"}

    path = next(cache.glob("volumes/*/values.b2nd"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert main([*call, "--verify", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["made"] == 1

    np.save(source / "b.npy", np.zeros((3, 3, 3), np.int16))
    assert main(call) == 3
    assert "skipped b.npy: no_spacing" in capsys.readouterr().out
    assert main([*call, "--assume-spacing-zyx", "1", "1", "1"]) == 3
    assert "skipped b.npy: wrong_units" in capsys.readouterr().out


def test_masks_are_named_as_their_volumes(tmp_path, capsys):
    source, masks, cache = tmp_path / "source", tmp_path / "masks", tmp_path / "cache"
    source.mkdir()
    masks.mkdir()
    for name in ("a", "b"):
        write_nifti(source / f"{name}.nii")
    write_nifti(masks / "a.nii.gz", (example() > 0).astype(np.uint8))
    call = ["pretrain", "index", str(source), "--out", str(cache), "--mask", str(masks)]
    assert main(call) == 3
    assert f"skipped b.nii: no_mask: {masks} has no mask of its name; put one there as b.nii.gz" in (
        capsys.readouterr().out
    )
    (record,) = open_cache(cache).records
    assert record.foreground["body"] == (example() > 0).mean()
    write_nifti(masks / "b.nii.gz", (example() > 0).astype(np.uint8))
    assert main(call) == 0
    assert main([*call, "--detach-mm", "2"]) == 2
    assert "leave body, body_threshold and detach_mm" in capsys.readouterr().err


def test_what_makes_no_sense_is_refused(tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    call = ["pretrain", "index", str(tmp_path / "nothing"), "--out", str(tmp_path / "cache")]
    assert main(call) == 4
    assert "there is no volume in" in capsys.readouterr().err
    assert main([*call, "--cell-zyx", "0", "8", "8"]) == 2
    assert "--cell-zyx" in capsys.readouterr().err
    assert main([*call, "--assume-axes", "QQQ"]) == 2
    assert "--assume-axes" in capsys.readouterr().err
    assert main([*call, "--workers", "0"]) == 2
    assert main(["pretrain", "index", str(tmp_path / "none"), "--out", str(tmp_path / "cache")]) == 4
