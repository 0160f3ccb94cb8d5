"""SIGKILL at any touch of the disk: no mark is lost, no file is half-written, and the rerun ends in the same bytes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.datasets.build.fork_server import ForkServer, fork_server
from tests.locate.automark.conftest import make_session, snapshot

pytestmark = pytest.mark.slow

POINTS = 48

MODULES = (
    "patchatlas.cli.automark", "patchatlas.cli.automark_review", "patchatlas.encoders.sift",
    "patchatlas.locate.automark.audit",
)  # fmt: skip
"""Imported once, by the server; each child would take a second for it."""

PART = "rotomaps/parts/back/upper"

Snapshot = dict[str, bytes]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with fork_server(*MODULES) as started:
        yield started


@pytest.fixture(scope="module", params=["stem", "merge"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def arguments(root: Path, mode: str) -> list[str]:
    """The command, with everything that it can write; a photo and a mark file in it cannot be used."""
    part = root / PART
    return [
        "automark", str(part / "2026_01_31"), "--from", str(part / "2025_01_31"), "--encoder", "bundled:sift",
        "--image-size", "96", "--audit", str(part / "audit.json"), "--review", str(part / "review.html"),
        "--device", "cpu", "--include-uncertain", "--format", "json", *(["--merge"] if mode == "merge" else []),
    ]  # fmt: skip


def new_session(root: Path) -> Path:
    root.mkdir()
    make_session(root)
    (root / PART / "2026_01_31" / "3.jpg").write_bytes(b"no picture")
    (root / PART / "2026_01_31" / "4.jpg").write_bytes((root / PART / "2026_01_31" / "1.jpg").read_bytes())
    (root / PART / "2026_01_31" / "4.jpg.json").write_text('[{"uuid": ')
    return root


@pytest.fixture(scope="module")
def undisturbed(
    server: ForkServer, mode: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Snapshot, Snapshot, int]:
    """All files before and after a run that nobody disturbed, and how often it touched the disk."""
    root = new_session(tmp_path_factory.mktemp("undisturbed") / "root")
    before = snapshot(root)
    answer = server.run(arguments(root, mode), root=root)
    assert answer["code"] == 3, answer
    assert json.loads(answer["stdout"])["counts"]["proposed"] >= 8
    return before, snapshot(root), int(answer["touches"])


def check_after_kill(root: Path, before: Snapshot, whole: Snapshot) -> None:
    """Every file under its own name is as it was or as it is to be; what is half-written has a name of its own."""
    now = snapshot(root)
    assert before.keys() <= now.keys()
    for name, content in now.items():
        if not Path(name).name.startswith("."):
            assert content in (before.get(name), whole.get(name)), name


def test_a_kill_at_any_touch_of_the_disk_costs_nothing(server, mode, undisturbed, tmp_path):
    before, whole, touches = undisturbed
    assert touches > POINTS
    points = sorted({1 + round(k * (touches - 1) / (POINTS - 1)) for k in range(POINTS)})
    assert len(points) == POINTS
    for point in points:
        root = new_session(tmp_path / f"{point}")
        answer = server.run(arguments(root, mode), root=root, kill_at=point)
        assert answer.get("killed"), answer
        check_after_kill(root, before, whole)
        answer = server.run(arguments(root, mode), root=root)
        assert answer["code"] == 3, answer
        assert snapshot(root) == whole  # nothing more either: no temporary file is left


def test_killed_again_and_again_it_still_ends_in_the_same_bytes(server, mode, undisturbed, tmp_path):
    before, whole, touches = undisturbed
    root = new_session(tmp_path / "root")
    for part in (0.3, 0.5, 0.6, 0.4, 0.2):  # each run begins where the last one ended
        server.run(arguments(root, mode), root=root, kill_at=max(1, round(part * touches)))
        check_after_kill(root, before, whole)
    assert server.run(arguments(root, mode), root=root)["code"] == 3
    assert snapshot(root) == whole
