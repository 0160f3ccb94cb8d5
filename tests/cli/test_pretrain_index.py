"""`patchatlas pretrain index`: results on stdout, 3 where a volume was left out."""

import json

import numpy as np

from patchatlas.cli.main import main
from patchatlas.pretrain.cache import open_cache
from tests.io.volumes.volume_files import write_nifti


def test_index_and_its_exit_codes(tmp_path, capsys):
    source, cache = tmp_path / "source", tmp_path / "cache"
    source.mkdir()
    write_nifti(source / "a.nii")
    call = ["pretrain", "index", str(source), "--out", str(cache), "--thresholds", "-500", "-200"]
    assert main([*call, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["volumes"], told["made"]) == (1, 1)
    assert set(open_cache(cache).records[0].foreground) == {"body", "hu>-500", "hu>-200"}

    np.save(source / "b.npy", np.zeros((3, 3, 3), np.int16))
    assert main(call) == 3
    assert "skipped b.npy: no_spacing" in capsys.readouterr().out
    assert main([*call, "--assume-spacing-zyx", "1", "1", "1"]) == 3
    assert "skipped b.npy: wrong_units" in capsys.readouterr().out


def test_what_makes_no_sense_is_refused(tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    call = ["pretrain", "index", str(tmp_path / "nothing"), "--out", str(tmp_path / "cache")]
    assert main(call) == 4
    assert "there is no volume in" in capsys.readouterr().err
    assert main([*call, "--cell-zyx", "0", "8", "8"]) == 2
    assert "--cell-zyx" in capsys.readouterr().err
    assert main([*call, "--workers", "0"]) == 2
    assert main(["pretrain", "index", str(tmp_path / "none"), "--out", str(tmp_path / "cache")]) == 4
