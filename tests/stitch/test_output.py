"""A result folder is replaced in one step: whatever fails, the former result stays, and nothing else does."""

from pathlib import Path

import numpy as np
import pytest

from patchatlas.errors import InputError
from patchatlas.stitch.output import read_stitch, replacing_result, write_stitch


def write(folder, number):
    write_stitch(
        folder,
        arrays={"object": np.full((2, 2), float(number))},
        pictures={},
        report={"arrays": {"object": ["float64", [2, 2]]}},
        with_hdf5=False,
    )


def test_a_rename_that_fails_leaves_the_former_result(tmp_path, monkeypatch):
    write(tmp_path / "out", 1)
    rename = Path.rename

    def refused(self, target):
        if self.suffix == ".part":
            raise PermissionError(13, "held by a scanner")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PermissionError):
        write(tmp_path / "out", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert read_stitch(tmp_path / "out")[0]["object"][0, 0] == 1
    monkeypatch.undo()
    write(tmp_path / "out", 3)
    assert read_stitch(tmp_path / "out")[0]["object"][0, 0] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_that_came_while_it_was_made_are_not_deleted(tmp_path):
    write(tmp_path / "out", 1)

    def other_files_arrive():
        with replacing_result(tmp_path / "new") as folder:
            (folder / "object.npy").touch()
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "mine.txt").write_text("x")

    with pytest.raises(InputError, match="holds other files"):
        other_files_arrive()
    assert (tmp_path / "new" / "mine.txt").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out"]
