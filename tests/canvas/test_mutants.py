"""The tests of stitching are themselves tested: every planted fault makes one of them fail."""

import pytest

from tools import mutate_stitch


@pytest.mark.slow
def test_every_planted_fault_is_seen():
    assert len(mutate_stitch.FAULTS) >= 30
    assert mutate_stitch.main([]) == 0


def test_every_fault_still_fits_the_code():
    """The line that a fault changes is there, once, so that the slow test above means something."""
    for fault in mutate_stitch.FAULTS:
        code = (mutate_stitch.ROOT / "src" / "patchatlas" / fault.file).read_text(encoding="utf-8")
        assert code.count(fault.old) == 1, fault.name
