"""What the tests of the canvas share."""

from collections.abc import Iterator

import pytest

from patchatlas.canvas import canvas, place


@pytest.fixture(scope="module")
def torch_path() -> Iterator[None]:
    """The path that runs on every device, whether numba is installed or not; test_compiled.py holds numba's to it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (canvas, place):
            patch.setattr(module, "use_compiled", lambda *_, **__: False)
        yield
