"""One run a folder, and no litter of killed ones."""

import errno
import fcntl
import logging

import pytest

from patchatlas.errors import InputError
from patchatlas.locate.automark.alone import alone_in


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path):
    with (
        alone_in(tmp_path, outputs=[]),
        pytest.raises(InputError, match="another run is marking"),
        alone_in(tmp_path, outputs=[]),
    ):
        pass
    with alone_in(tmp_path, outputs=[]):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_of_its_own_files_is_removed_and_nothing_else(tmp_path):
    output = tmp_path / "1.jpg.automark.json"
    left = tmp_path / ".1.jpg.automark.json.0123abcd.part.json"
    others = [
        output,
        tmp_path / ".1.jpg.json.0123abcd.part.json",
        tmp_path / ".1.jpg.automark.json.0123abcd.part",
        tmp_path / ".1.jpg.automark.json.xyz.part.json",
    ]
    for path in (left, *others):
        path.touch()
    with alone_in(tmp_path, outputs=[output]):
        assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_disk_without_locks_is_told_and_swept_of_nothing(tmp_path, monkeypatch, caplog):
    def refused(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    left = tmp_path / ".a.json.0123abcd.part.json"
    left.touch()
    with (
        caplog.at_level(logging.WARNING, logger="patchatlas"),
        alone_in(tmp_path, outputs=[tmp_path / "a.json"]),
    ):
        assert left.exists()
    assert "cannot be locked" in caplog.text
