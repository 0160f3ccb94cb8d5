"""What every test shares: shape checks on the whole package, one thread, repeatable examples, folders of real data."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before anything imports the package: every annotated shape and type is then checked at run time.
install_import_hook("patchatlas", "beartype.beartype")

import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from tools import debian_data  # noqa: E402

# Inputs are small, so more threads only cost time, and one thread adds up in the same order on every machine.
torch.set_num_threads(1)

# The same examples in every run, so that a red test is red for everybody; no deadlines, for a busy machine misses any.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("repeatable")

# These need timm, which stays out of the environment; `make parity` runs them by name.
collect_ignore = ["parity"]


def pytest_report_header() -> list[str]:
    """Say what this run leaves out, and where the real pictures are."""
    lines = [f"data: {name}: {debian_data.folder(name)}" for name in debian_data.PACKAGES if has_data(name)]
    lines += [f"data: {name} is absent, `make data` fetches it" for name in debian_data.PACKAGES if not has_data(name)]
    return [*lines, "tests/parity (against timm) runs only by name: make parity"]


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Take off what a command put on the package's log: its handler writes to the stderr of that one test."""
    log = logging.getLogger("patchatlas")
    handlers, level = list(log.handlers), log.level
    yield
    log.handlers = handlers
    log.setLevel(level)


@pytest.fixture(scope="session")
def opencv_doc() -> Path:
    """Folder with the sample pictures of Debian's opencv-doc.

    graf1.png, graf3.png and H1to3p.xml (a wall seen twice and the homography between the two), aloeL.jpg, aloeR.jpg and
    aloeGT.png (a rectified stereo pair and its true disparity), leuvenA.jpg, leuvenB.jpg, box.png, vtest.avi and more.
    Without it tests skip; with PATCHATLAS_REQUIRE_DATA=1, as in CI, they fail.
    """
    return data_folder("opencv-doc")


@pytest.fixture(scope="session")
def head_ct() -> Path:
    """Folder with Cranium.inv3 of Debian's invesalius-examples: the CT of a real head, so no test writes its face."""
    return data_folder("invesalius-examples")


def data_folder(name: str) -> Path:
    """The fetched files of a Debian package; skips or fails the test where they are absent."""
    if has_data(name):
        return debian_data.folder(name)
    reason = f"{debian_data.folder(name)} is absent; fetch it with: make data"
    if os.environ.get("PATCHATLAS_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def has_data(name: str) -> bool:
    """Whether the files of a Debian package have been fetched."""
    return debian_data.folder(name).is_dir()
