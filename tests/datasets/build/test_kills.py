"""SIGKILL at any touch of the disk: reopening works, nothing committed is lost, a rerun ends in the same bytes."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from patchatlas.datasets.build.journal import FOLDER, read_journal
from patchatlas.io.codecs import read_header
from patchatlas.io.manifest import FeatureEntry, read_manifest
from tests.datasets.build.fork_server import ForkServer, fork_server
from tests.datasets.conftest import Snapshot, write_photos

pytestmark = pytest.mark.slow

POINTS = 64
RANDOM_KILLS = 20

FEW = (("a.jpg", (90, 120)), ("b.png", (64, 64)), ("sub/c.jpg", (97, 61)), ("d.jpg", (66, 99)), ("e.jpg", (70, 70)))


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with fork_server("patchatlas.cli.features_build", "patchatlas.datasets.build.run") as started:
        yield started


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures, one that is no picture, and one whose pixels end too early."""
    folder = write_photos(tmp_path_factory.mktemp("pictures"), FEW)
    (folder / "bad.jpg").write_bytes(b"no picture")
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:1500])
    return folder


@pytest.fixture(scope="module")
def arguments(pictures: Path, bucket_table: Path, tiny_dinov3: Path) -> list[str]:
    """The command without its output; batches of two pictures at most, so that there are several."""
    return [
        "features", "build", "--input-dir", str(pictures), "--pass-filter", "dinov3", "--encoder", str(tiny_dinov3),
        "--buckets", str(bucket_table), "--device", "cpu", "--precision", "fp32", "--token-budget", "32",
        "--format", "json",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(server: ForkServer, arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run that nobody disturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    answer = server.run([*arguments, "--output-jsonl", str(root / "m.jsonl")], root=root)
    assert answer["code"] == 3, answer
    (root / "touches").write_text(str(answer["touches"]))
    return root


def result(root: Path) -> Snapshot:
    """All files of a finished build; locks are no part of it."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(".lock") and path.name != "touches"
    }


def committed(root: Path) -> dict[str, dict[str, FeatureEntry]]:
    """What manifest and journals say is stored, after checking that it is, by picture and kind."""
    found: dict[str, dict[str, FeatureEntry]] = {}
    if (root / "m.jsonl").exists():
        for record in read_manifest(root / "m.jsonl"):
            found.setdefault(record.image_id, {}).update(record.features)
    for journal in (root / "derived" / FOLDER).glob("[!.]*"):
        for finished in read_journal(journal):
            for name, entries in finished.done.items():
                found.setdefault(name, {}).update(entries)
    for entries in found.values():
        for entry in entries.values():
            content = (root / "derived" / entry.file).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry.sha256
    return {name: entries for name, entries in found.items() if entries}


def check_after_kill(root: Path, whole: Snapshot) -> int:
    """Files under their own names are whole; gives how many pictures are committed."""
    for name, content in result(root).items():
        path = root / name
        if path.name.startswith(".") or FOLDER in path.parts:  # temporary, or a journal, which grows
            continue
        if path.suffix == ".npy":
            read_header(path)
            assert content == whole[name]
        if path.name == "_features.json":
            assert content == whole[name]
    return len(committed(root))


def check_rerun(server: ForkServer, arguments: list[str], root: Path, whole: Snapshot) -> None:
    before = check_after_kill(root, whole)
    answer = server.run([*arguments, "--output-jsonl", str(root / "m.jsonl")], root=root)
    assert answer["code"] == 3, answer
    assert json.loads(answer["stdout"])["there"] == before
    assert result(root) == whole  # nothing more either: no temporary file, no journal


def test_a_kill_at_any_touch_of_the_disk_costs_nothing(server, arguments, undisturbed, tmp_path):
    whole = result(undisturbed)
    touches = int((undisturbed / "touches").read_text())
    assert touches > POINTS
    points = sorted({1 + round(k * (touches - 1) / (POINTS - 1)) for k in range(POINTS)})
    assert len(points) == POINTS
    early = 0
    for point in points:
        root = tmp_path / f"{point}"
        root.mkdir()
        answer = server.run([*arguments, "--output-jsonl", str(root / "m.jsonl")], root=root, kill_at=point)
        if "code" in answer:  # threads take turns: a run may touch the disk once or twice less
            early += 1
        else:
            assert answer["killed"], answer
        check_rerun(server, arguments, root, whole)
    assert early <= 4


def test_killed_again_and_again_it_still_ends_in_the_same_bytes(server, arguments, undisturbed, tmp_path):
    whole = result(undisturbed)
    for kill_at in (30, 60, 120, 180, 120, 60, 150):
        server.run([*arguments, "--output-jsonl", str(tmp_path / "m.jsonl")], root=tmp_path, kill_at=kill_at)
        check_after_kill(tmp_path, whole)
    check_rerun(server, arguments, tmp_path, whole)


def kill_after(seconds: float, arguments: list[str], root: Path) -> bool:
    """Run the command, and kill it so long after it began to touch the disk; gives whether it was still running."""
    root.mkdir()
    command = [sys.executable, "-m", "patchatlas.cli", *arguments, "--output-jsonl", str(root / "m.jsonl")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (root / ".m.jsonl.lock").exists():
        time.sleep(0.002)
    time.sleep(seconds)
    process.kill()
    return process.wait() == -signal.SIGKILL


def test_the_real_command_killed_at_random_times(server, arguments, undisturbed, tmp_path):
    whole = result(undisturbed)
    chance = random.Random(0)
    delays = [chance.uniform(0, 0.25) for _ in range(RANDOM_KILLS)]
    roots = [tmp_path / f"{number}" for number in range(RANDOM_KILLS)]
    with ThreadPoolExecutor(3) as pool:
        killed = list(pool.map(kill_after, delays, [arguments] * RANDOM_KILLS, roots))
    assert sum(killed) >= RANDOM_KILLS // 2
    for root in roots:
        check_rerun(server, arguments, root, whole)
