"""The tests of stitching are themselves tested: planted faults make them fail."""

import subprocess
import sys

import pytest

from tools import mutate_stitch


@pytest.mark.slow
def test_planted_faults_are_seen():
    """Every eighth; `python tools/mutate_stitch.py` plants all, which takes minutes."""
    assert len(mutate_stitch.FAULTS) >= 48
    names = [fault.name for fault in mutate_stitch.FAULTS[::8]]
    program = mutate_stitch.ROOT / "tools" / "mutate_stitch.py"
    done = subprocess.run([sys.executable, program, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_fault_still_fits_the_code():
    """The line that a fault changes is there, once, so that the slow test above means something."""
    for fault in mutate_stitch.FAULTS:
        code = (mutate_stitch.ROOT / "src" / "patchatlas" / fault.file).read_text(encoding="utf-8")
        assert code.count(fault.old) == 1, fault.name
