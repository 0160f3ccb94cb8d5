"""The entry point: overview, unknown commands, exit codes, pipes."""

import subprocess
import sys

import pytest

from patchatlas import __version__, errors
from patchatlas.cli import main as cli


def patchatlas(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "patchatlas.cli", *args], capture_output=True, text=True, check=False)


def test_overview_and_version(capsys):
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.COMMANDS)
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"patchatlas {__version__}"


def test_help_of_a_group_lists_its_commands(capsys):
    assert cli.main(["stitch", "--help"]) == 0
    out = capsys.readouterr().out
    assert "stitch refine" in out
    assert "locate" not in out
    assert cli.main(["nothing", "--help"]) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["lokate"], "there is no command 'lokate'; commands are: demo, features build,"),
        (["weights"], "`patchatlas weights` needs one of: list, check, convert"),
        (["weights", "chek"], "needs not 'chek', one of: list, check, convert"),
    ],
)
def test_commands_that_do_not_exist(capsys, args, message):
    assert cli.main(args) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.MissingExtraError("p", extra="e", needed_for="n"), 2),
        (errors.ShapeError("x"), 4),
        (errors.StampError("x"), 4),
        (errors.WeightsError("x"), 5),
        (errors.ResourceError("x"), 6),
        (errors.PatchAtlasError("x"), 1),
    ],
)
def test_errors_become_exit_codes(monkeypatch, capsys, error, code):
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["demo"]) == code
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 6, "out of memory"),
        (OSError(28, "No space left on device"), 6, "free some space"),
        (PermissionError(13, "Permission denied"), 4, "Permission denied"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 6, "out of memory"),
        (RuntimeError("oops"), 1, "This is a bug in patchatlas"),
        (ZeroDivisionError("oops"), 1, "This is a bug in patchatlas"),
    ],
)
def test_other_ends(monkeypatch, capsys, error, code, message):
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["demo"]) == code
    assert message in capsys.readouterr().err


def test_flags_that_do_not_exist_are_usage_errors():
    assert patchatlas("demo", "--no-such-flag").returncode == 2


def test_values_that_the_config_refuses_are_usage_errors(capsys):
    assert cli.main(["demo", "--image-size", "-5"]) == 2
    assert "image_size" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m patchatlas.cli weights list | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
