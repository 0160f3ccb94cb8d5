"""What several tests of runs learn from."""

from pathlib import Path

import pytest

from tests.pretrain.tiny import pictures


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six small pictures."""
    return pictures(tmp_path_factory.mktemp("photos") / "pictures")
