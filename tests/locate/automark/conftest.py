"""Small sessions: photos of one textured scene, shifted and lit otherwise, with marks that are known exactly."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SIDE = 128

MARKS = {
    "a1": (30, 34),
    "b2": (84, 28),
    "c3": (98, 70),
    "d4": (60, 60),
    "e5": (34, 88),
    "f6": (76, 98),
}
"""Column and row of each mark in the scene, as a photo that is not shifted shows it."""

Shift = tuple[int, int]


def scene() -> np.ndarray:
    """160 x 160 px of coloured noise at two scales; a photo shows 128 x 128 of it."""
    random = np.random.default_rng(7)
    total = np.zeros((160, 160, 3))
    for cells, weight in ((20, 0.5), (54, 0.5)):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += weight * np.asarray(noise.resize((160, 160), Image.Resampling.BICUBIC), dtype=float)
    return total


def photograph(path: Path, shift: Shift = (0, 0), *, gain: float = 1.0, orientation: int = 1) -> None:
    """A photo of the scene moved `shift` pixels to the right and down; its marks move with it."""
    across, down = shift
    shown = scene()[16 - down : 16 - down + SIDE, 16 - across : 16 - across + SIDE]
    picture = Image.fromarray(np.clip(shown * gain, 0, 255).astype(np.uint8))
    exif = Image.Exif()
    if orientation == 6:  # stored lying on its side; a viewer turns it to the right
        picture = picture.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = 6
    picture.save(path, quality=95, exif=exif)


def moved(shift: Shift, uuids: Iterable[str] = MARKS) -> dict[str, tuple[int, int]]:
    return {uuid: (MARKS[uuid][0] + shift[0], MARKS[uuid][1] + shift[1]) for uuid in uuids}


def mark(uuid: Any, x: Any, y: Any, *, canonical: Any = True, **extra: Any) -> dict[str, Any]:
    return {"uuid": uuid, "x": x, "y": y, "is_uuid_canonical": canonical, **extra}


def write_marks(picture: Path, marks: Iterable[Mapping[str, Any]], *, stem: str = "") -> Path:
    """A mark file as mel writes it."""
    path = picture.with_name(f"{picture.name}{f'.{stem}' if stem else ''}.json")
    path.write_text(json.dumps(list(marks), indent=4, sort_keys=True, separators=(",", ": ")) + "\n")
    return path


def marked(shift: Shift, uuids: Iterable[str] = MARKS, **options: Any) -> list[dict[str, Any]]:
    return [mark(uuid, x, y, **options) for uuid, (x, y) in moved(shift, uuids).items()]


def snapshot(root: Path, *, leave_out: str = ".lock") -> dict[str, bytes]:
    """All files below a folder, but for locks."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(leave_out)
    }


SHIFTS = {"1.jpg": (3, -2), "2.jpg": (-5, 4), "10.jpg": (6, 6)}
"""How far the scene is moved in each photo of the target folder."""


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """A root with one reference folder of two photos, both with all marks, and a target folder of three.

    1.jpg has no marks, 2.jpg one confirmed and one guessed, 10.jpg all.
    """
    return make_session(tmp_path)


def make_session(root: Path) -> Path:
    part = root / "rotomaps" / "parts" / "back" / "upper"
    former, latter = part / "2025_01_31", part / "2026_01_31"
    former.mkdir(parents=True)
    latter.mkdir()
    (root / "melroot").touch()
    for name, shift in {"1.jpg": (0, 0), "2.jpg": (2, 5)}.items():
        photograph(former / name, shift)
        write_marks(former / name, marked(shift))
    for name, shift in SHIFTS.items():
        photograph(latter / name, shift, gain=0.9)
    write_marks(latter / "2.jpg", [*marked((-5, 4), ["a1"], kind="mole"), *marked((-5, 4), ["b2"], canonical=False)])
    write_marks(latter / "10.jpg", marked((6, 6)))
    return root


@pytest.fixture
def former(session: Path) -> Path:
    """The reference folder."""
    return session / "rotomaps" / "parts" / "back" / "upper" / "2025_01_31"


@pytest.fixture
def latter(session: Path) -> Path:
    """The target folder."""
    return session / "rotomaps" / "parts" / "back" / "upper" / "2026_01_31"
