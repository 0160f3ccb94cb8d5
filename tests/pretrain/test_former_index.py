"""A cache that is there keeps its settings, says what would change its values, and no other folder is filled."""

from pathlib import Path

import numpy as np
import pytest

from patchatlas.cli.main import main
from patchatlas.errors import UsageError
from patchatlas.pretrain.cache import open_cache
from patchatlas.pretrain.former_index import former_settings
from patchatlas.pretrain.index import index_volumes
from patchatlas.pretrain.index_settings import Drawing, IndexSettings
from tests.io.volumes.volume_files import example, write_nifti

OPTIONS = ["--spacing-zyx", "2", "2", "2", "--thresholds", "-500", "-200", "150", "--cell-zyx", "2", "2", "2"]


@pytest.fixture
def call(tmp_path: Path) -> list[str]:
    """A call that has made a cache of one volume with options, without them."""
    (tmp_path / "scans").mkdir()
    write_nifti(tmp_path / "scans" / "a.nii")
    made = ["pretrain", "index", str(tmp_path / "scans"), "--out", str(tmp_path / "cache")]
    assert main([*made, *OPTIONS]) == 0
    return made


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a cache but the report, which tells the time it took."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("report.json", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_what_is_not_given_is_as_the_cache_was_made(call, tmp_path, capsys):
    before = contents(tmp_path / "cache")
    capsys.readouterr()
    assert main(call) == 0
    assert "1 kept" in capsys.readouterr().out
    assert contents(tmp_path / "cache") == before
    write_nifti(tmp_path / "scans" / "b.nii")
    assert main([*call, "--body-threshold", "-300"]) == 0
    told = capsys.readouterr().out
    assert "1 made, 1 counted" in told
    assert "counted otherwise than before: body_threshold -500 -> -300" in told
    for record in open_cache(tmp_path / "cache").records:
        assert record.spacing_zyx == pytest.approx((2, 2, 2), abs=0.4)
        assert set(record.foreground) == {"body", "hu>-500", "hu>-200", "hu>150"}
        assert record.cell_zyx == (2, 2, 2)


def test_other_values_are_refused_by_name_unless_they_are_meant(call, tmp_path, capsys):
    before = contents(tmp_path / "cache")
    assert main([*call, "--spacing-zyx", "3", "3", "3"]) == 2
    told = capsys.readouterr().err
    assert "was made with --spacing-zyx 2 2 2, asked for is --spacing-zyx 3 3 3" in told
    assert "--anew" in told
    assert contents(tmp_path / "cache") == before  # its index, too
    with pytest.raises(UsageError, match="--spacing-zyx none"):
        index_volumes([tmp_path / "scans"], tmp_path / "cache", IndexSettings())
    assert main([*call, "--anew"]) == 0
    assert "1 made" in capsys.readouterr().out
    (record,) = open_cache(tmp_path / "cache").records
    assert (record.spacing_zyx, set(record.foreground)) == ((3.0, 2.0, 1.0), {"body", "hu>-500"})


def test_a_stopped_run_is_gone_on_with_as_its_last_volume_was_made(call, tmp_path):
    (tmp_path / "cache" / "index.json").unlink()
    former = former_settings(tmp_path / "cache")
    assert former is not None
    assert former.drawing.spacing_zyx == (2, 2, 2)
    assert main([*call, "--spacing-zyx", "3", "3", "3"]) == 2
    assert main(call) == 0
    assert former_settings(tmp_path / "cache") == former
    assert former_settings(tmp_path / "none") is None


def test_what_only_takes_in_more_volumes_is_no_other_value(tmp_path):
    np.save(tmp_path / "a.npy", example())
    write_nifti(tmp_path / "b.nii")
    sources, cache = [tmp_path / "a.npy", tmp_path / "b.nii"], tmp_path / "cache"
    assert len(index_volumes(sources, cache).cache.records) == 1
    drawing = Drawing(assume_spacing_zyx=(3.0, 2.0, 1.0))
    assert len(index_volumes(sources, cache, IndexSettings(drawing=drawing)).cache.records) == 2
    for drawing in (
        Drawing(assume_spacing_zyx=(3.0, 2.0, 2.0)),
        Drawing(assume_spacing_zyx=(3.0, 2.0, 1.0), assume_axes="IPL"),
        Drawing(),
    ):
        with pytest.raises(UsageError, match="get other values"):
            index_volumes(sources, cache, IndexSettings(drawing=drawing))


def test_other_units_are_other_values(tmp_path, capsys):
    """Padding of -3024 becomes -1024 in Hounsfield units, and stays as it is in others."""
    padded = example()
    padded[0, 0, 0] = -3024
    write_nifti(tmp_path / "a.nii", padded)
    call = ["pretrain", "index", str(tmp_path / "a.nii"), "--out", str(tmp_path / "cache")]
    assert main(call) == 0
    assert main([*call, "--units", "any"]) == 2
    assert "was made with --units hounsfield, asked for is --units any" in capsys.readouterr().err
    assert open_cache(tmp_path / "cache").records[0].low == -1024
    assert main([*call, "--units", "any", "--anew"]) == 0
    assert open_cache(tmp_path / "cache").records[0].low == -3024
    assert main([*call, "--units", "hounsfield"]) == 2


def test_masks_are_not_dropped_in_silence(call, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    write_nifti(tmp_path / "masks" / "a.nii", (example() > 0).astype(np.uint8))
    assert main([*call, "--mask", str(tmp_path / "masks")]) == 0
    capsys.readouterr()
    assert main(call) == 2
    assert "counts as body what masks say (files); give them again with --mask" in capsys.readouterr().err
    with pytest.raises(UsageError, match="give them again"):
        index_volumes([tmp_path / "scans"], tmp_path / "cache")
    assert main([*call, "--mask", str(tmp_path / "masks")]) == 0
    assert "1 kept" in capsys.readouterr().out
    assert main([*call, "--anew"]) == 0


def test_a_cache_without_a_body_stays_so_until_one_is_asked_for(tmp_path, capsys):
    write_nifti(tmp_path / "a.nii")
    call = ["pretrain", "index", str(tmp_path / "a.nii"), "--out", str(tmp_path / "cache")]
    assert main([*call, "--no-body"]) == 0
    assert main(call) == 0
    assert "1 kept" in capsys.readouterr().out
    for asked in (["--body-threshold", "-500"], ["--detach-mm", "4"], ["--body"]):
        assert main([*call, *asked]) == 0
        assert "body False -> True" in capsys.readouterr().out
        assert "body" in open_cache(tmp_path / "cache").records[0].foreground
        assert main([*call, "--no-body"]) == 0
        assert "body True -> False" in capsys.readouterr().out
    assert main([*call, "--body", "--no-body"]) == 2
    assert "--body and --no-body were both given" in capsys.readouterr().err


def test_an_index_that_is_damaged_is_one_where_there_are_volumes(call, tmp_path, capsys):
    (tmp_path / "cache" / "notes.txt").write_text("of mine")
    (tmp_path / "cache" / "index.json").write_text('{"format": ')
    capsys.readouterr()
    assert main(call) == 0  # the volumes say how they were made
    assert "1 kept" in capsys.readouterr().out
    (tmp_path / "cache" / "notes.txt").unlink()
    for path in tmp_path.glob("cache/volumes/*/volume.json"):
        path.write_text("{")
    (tmp_path / "cache" / "index.json").write_text('{"format": ')
    assert main(call) == 0
    assert "1 made" in capsys.readouterr().out


def test_settings_that_cannot_be_read_are_not_taken_for_none(call, tmp_path, capsys, monkeypatch):
    def refused(path: Path) -> bytes:
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        assert main(call) == 6
    told = capsys.readouterr().err
    assert "index.json (Input/output error), which says how the cache was made" in told
    assert (tmp_path / "cache" / "index.json").is_file()


def test_a_folder_of_other_files_is_left_alone(call, tmp_path, capsys):
    for name, content in (("notes.txt", "hello"), ("index.json", '{"pages": 3}')):
        folder = tmp_path / f"with-{name}"
        folder.mkdir()
        (folder / name).write_text(content)
        assert main([*call[:-1], str(folder)]) == 2
        assert f"holds other files and no cache ({name})" in capsys.readouterr().err
        assert [path.name for path in folder.iterdir()] == [name]
    folder = tmp_path / "page"
    (folder / "volumes").mkdir(parents=True)
    (folder / "index.json").write_text("no JSON")
    assert main([*call[:-1], str(folder)]) == 2
    assert "holds other files and no cache (index.json)" in capsys.readouterr().err
    assert (folder / "index.json").read_text() == "no JSON"
    (folder / "index.json").unlink()
    (folder / "index.json").mkdir()
    assert main([*call[:-1], str(folder)]) == 2
    (tmp_path / "cache" / "notes.txt").write_text("of the cache")
    assert main(call) == 0
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").touch()
    assert index_volumes([tmp_path / "scans"], tmp_path / "empty").how == {"made": 1}
