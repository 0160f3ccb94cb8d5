"""Where the small reference networks lie."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Folder of small networks in Meta's layout."""
    return Path(__file__).parents[1] / "golden" / "dino"
