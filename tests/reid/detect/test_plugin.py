"""A detector of the user's own: known by its code, and its mistakes are told as its own."""

import importlib
import sys
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from patchatlas.errors import InputError, MissingExtraError, UsageError
from patchatlas.io.video import VideoFrame
from patchatlas.reid.detect.plugin import PluginDetector

CODE = """
import functools
from patchatlas.errors import MissingExtraError
from elsewhere_of_test import borrowed, kept

def plain(picture, time_s):
    return [], [], []

@kept
def decorated(picture, time_s):
    return [], [], []

class Made:
    def __call__(self, picture, time_s):
        return [], [], []

made = Made()
partly = functools.partial(plain)

def broken(picture, time_s):
    return {}["no such key"]
def needs(picture, time_s):
    raise MissingExtraError("cats", extra="cats", needed_for="finding cats")
def greedy(picture, time_s):
    raise MemoryError
"""

ELSEWHERE = """
import functools

def borrowed(picture, time_s):
    return [], [], []

def kept(function):
    @functools.wraps(function)
    def inner(*parts):
        return function(*parts)
    return inner
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "finds_of_test.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "elsewhere_of_test.py").write_text(ELSEWHERE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("finds_of_test", "elsewhere_of_test"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return tmp_path


def shown() -> VideoFrame:
    return VideoFrame(7, Fraction(7, 10), np.zeros((48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("module", ["finds_of_test", "{folder}/finds_of_test.py"])
@pytest.mark.parametrize(
    ("function", "file"),
    [
        ("plain", "finds_of_test.py"),
        ("decorated", "finds_of_test.py"),
        ("made", "finds_of_test.py"),
        ("partly", "finds_of_test.py"),
        ("borrowed", "elsewhere_of_test.py"),
    ],
)
def test_it_is_known_by_the_file_it_is_written_in(folder: Path, module: str, function: str, file: str) -> None:
    name = f"{module.format(folder=folder)}:{function}"
    assert PluginDetector(name).facts == {
        "name": name,
        "sha256": sha256((folder / file).read_bytes()).hexdigest(),
        "licence": "the user's own",
    }


def test_other_code_is_another_detector(folder: Path) -> None:
    name = f"{folder}/finds_of_test.py:plain"
    before = PluginDetector(name).facts
    assert PluginDetector(name).facts == before
    (folder / "finds_of_test.py").write_text(f"{CODE}\n# otherwise\n", encoding="utf-8")
    assert PluginDetector(name).facts != before


def test_what_has_no_file_has_no_hash() -> None:
    assert PluginDetector("builtins:print").facts["sha256"] is None


def test_its_exceptions_are_its_own(folder: Path) -> None:
    name = f"{folder}/finds_of_test.py:broken"
    with pytest.raises(InputError, match=r"finds_of_test\.py:broken raised KeyError at frame 7: 'no such key'") as told:
        PluginDetector(name)(shown())
    assert isinstance(told.value.__cause__, KeyError)


def test_what_patchatlas_says_and_want_of_memory_pass(folder: Path) -> None:
    with pytest.raises(MissingExtraError, match="finding cats needs cats"):
        PluginDetector(f"{folder}/finds_of_test.py:needs")(shown())
    with pytest.raises(MemoryError):
        PluginDetector(f"{folder}/finds_of_test.py:greedy")(shown())


@pytest.mark.parametrize("module", ["finds_of_test", "{folder}/finds_of_test.py"])
def test_a_module_that_cannot_be_run(folder: Path, module: str) -> None:
    (folder / "finds_of_test.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(InputError, match="raised ZeroDivisionError when it was loaded: division by zero") as told:
        PluginDetector(f"{module.format(folder=folder)}:plain")
    assert isinstance(told.value.__cause__, ZeroDivisionError)


def test_a_module_that_is_not_there(folder: Path) -> None:
    (folder / "finds_of_test.py").write_text("import no_such_module_of_test\n", encoding="utf-8")
    with pytest.raises(UsageError, match="finds_of_test cannot be imported"):
        PluginDetector("finds_of_test:plain")
