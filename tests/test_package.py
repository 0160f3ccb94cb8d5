"""The package as a whole: what importing it does, what it leaves alone, and what it ships."""

import json
import re
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import patchatlas

EXTRAS = [
    "av",
    "blosc2",
    "cv2",
    "diffusers",
    "faiss",
    "h5py",
    "SimpleITK",
    "matplotlib",
    "nibabel",
    "numba",
    "pydicom",
    "ray",
    "supervision",
    "tensorboard",
    "timm",
    "torchvision",
    "trackeval",
    "trackers",
    "transformers",
    "webdataset",
    "zarr",
]

# What numba compiles is written with numba's decorators; `canvas.compiled` imports it when it is asked for.
WRITTEN_IN_AN_EXTRA = ["patchatlas.canvas.finish", "patchatlas.canvas.rows"]

IMPORT_ALL = f"""
import importlib, pkgutil
import patchatlas
for module in pkgutil.walk_packages(patchatlas.__path__, "patchatlas."):
    if module.name not in {WRITTEN_IN_AN_EXTRA}:
        importlib.import_module(module.name)
"""


def python(code: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, in which nothing of this test run is imported; warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )


def imported_by(code: str) -> set[str]:
    """The top-level packages that an interpreter of its own has imported after running `code`."""
    done = python(
        code + "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_version_is_the_installed_one() -> None:
    assert patchatlas.__version__ == metadata.version("patchatlas")
    assert re.fullmatch(r"\d+\.\d+\.\d+", patchatlas.__version__)


def test_changelog_is_open_for_the_next_change() -> None:
    changelog = Path(__file__).parents[1] / "CHANGELOG.md"
    assert re.findall(r"^## \[(.+?)\]", changelog.read_text(encoding="utf-8"), flags=re.M)[0] == "Unreleased"


def test_types_are_published() -> None:
    assert resources.files("patchatlas").joinpath("py.typed").is_file()


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert imported_by("import patchatlas").isdisjoint({"numpy", "torch", "PIL", "huggingface_hub", *EXTRAS})


def test_importing_every_module_has_no_side_effects(tmp_path: Path) -> None:
    code = f"""
import logging, os, signal, numpy, torch
def state():
    return {{
        "handlers": logging.getLogger().handlers + logging.getLogger("patchatlas").handlers,
        "environment": dict(os.environ),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "torch seed": torch.initial_seed(),
        "numpy random": str(numpy.random.get_state()),  # noqa: NPY002
        "interrupt": signal.getsignal(signal.SIGINT),
    }}
before = state()
{IMPORT_ALL}
after = state()
changed = [key for key in before if before[key] != after[key]]
assert not changed, changed
"""
    done = python(code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_every_module_imports_without_the_extras() -> None:
    """An extra that is not installed is missed when its feature is asked for, not before."""
    code = f"""import sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # importing any of them now raises
{IMPORT_ALL}"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy() -> None:
    """So that it answers at once."""
    code = """
import sys
from patchatlas.cli.main import main
sys.argv = ["patchatlas", "--help"]
try:
    code = main()
except SystemExit as exit:
    code = exit.code
assert not code, code
"""
    assert imported_by(code).isdisjoint({"torch", "huggingface_hub", *EXTRAS})


def test_command_is_installed() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="patchatlas")
    assert command.value == "patchatlas.cli.main:main"
