"""From a video to an episode: who is who, the same bytes every time, and a run that can be stopped anywhere."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchatlas import files as files_module
from patchatlas.errors import FormatError, InputError, UsageError
from patchatlas.io import video as video_module
from patchatlas.io.video import Video, open_video
from patchatlas.reid import engine as engine_module
from patchatlas.reid.boxes import Detections
from patchatlas.reid.config import ReidConfig, make_config
from patchatlas.reid.embed import crops as crops_module
from patchatlas.reid.engine import FILES, PerceptionEngine
from patchatlas.reid.episode import Episode, read_episode
from patchatlas.reid.files.detections import Journal, SeenFrame, read_head, write_detections
from patchatlas.reid.motchallenge import read_rows
from patchatlas.reid.stages import embed as embed_stage
from tests.encoders import tiny_transformers as tiny
from tests.reid.scene import FRAMES, boxes_at, write_scene

DINOV3 = Path(__file__).parents[1] / "golden" / "dino" / "dinov3_mlp_d128h2.weights.safetensors"

Scene = tuple[Path, Path]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_scene(tmp_path_factory.mktemp("scene"))


def settings(boxes: Path, **more: Any) -> ReidConfig:
    return make_config(
        {
            "fps": 10,
            "detection": {"detector": "boxes", "boxes": boxes},
            "tracking": {"patience_s": 0.3},
            "embedding": {"device": "cpu", "dtype": "fp32", "batch_size": 2, "crops_per_track": 6},
        },
        more,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (*FILES, "run.json")}


@pytest.fixture(scope="module")
def whole(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Episode:
    video, boxes = scene
    return PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path_factory.mktemp("whole"))


def test_who_comes_back_is_known_again(whole: Episode) -> None:
    assert whole.name == "street"
    assert {name: whole.run["counts"][name] for name in ("frames", "boxes", "tracks", "identities", "unknown")} == {
        "frames": FRAMES,
        "boxes": 6 * 48,
        "tracks": 12,
        "identities": 6,
        "unknown": 0,
    }
    assert [len(own) for own in whole.members.values()] == [2] * 6
    # By place, everybody would be somebody else after the pause.
    for tracklets in whole.members.values():
        colours = set()
        for tracklet in tracklets:
            first = tracklet.observations[0]
            person = min(boxes_at(first.frame), key=lambda one: abs(one[1][0] - first.box[0]))[0]
            colours.add(person)
        assert len(colours) == 1
    assert whole.calibration is not None
    assert whole.run["notes"] == []
    assert not list(whole.folder.glob("*.part*"))


def test_the_files_tell_the_same(whole: Episode) -> None:
    rows = read_rows(whole.folder / "mot.txt")
    assert len(rows) == 6 * 48
    assert {row.id for row in rows} == set(whole.members)
    assert rows[0].frame == 1
    for number, portrait in whole.portraits.items():
        index = [whole.embeddings.rows[row] for row in whole.memory.rows[number]]
        assert [row.frame for row in index] == list(portrait.frames)
        assert {row.track for row in index} == {number}
        np.testing.assert_allclose(np.linalg.norm(portrait.vectors.numpy(), axis=1), 1, atol=1e-5)
    saved = json.loads((whole.folder / "memory.json").read_text())
    one = saved["identities"][0]
    assert one["spans"][0]["first_frame"] == one["first_frame"] == 0
    assert one["last_s"] == pytest.approx(5.3)
    assert sum(len(identity["prototypes"]) for identity in saved["identities"]) == len(whole.embeddings.rows)
    together = {tuple(pair) for *pair, why in saved["apart"] if why == "together"}
    assert len(together) == 2 * 15
    head, *lines = [json.loads(line) for line in (whole.folder / "tracks.jsonl").read_text().splitlines()]
    assert (head["format"], head["version"], head["episode"]) == ("patchatlas.tracks", 1, "street")
    assert [line["frame"] for line in lines] == sorted(line["frame"] for line in lines)
    assert lines[-1]["time_s"] == pytest.approx(5.3)
    assert whole.run["stamp"]["digest"] == whole.stamp.digest == saved["stamp"]
    assert whole.size_hw == (96, 256)
    assert whole.video.name == "street.mp4"


@pytest.mark.parametrize("way", ["crops", "frame"])
def test_a_row_is_the_embedding_of_its_own_box(scene: Scene, whole: Episode, tmp_path: Path, way: str) -> None:
    video, boxes = scene
    network = {"backend": "dinov3", "dinov3_weights_dir": DINOV3, "crop_size": 64, "regions": "frame"}
    config = settings(boxes, embedding={"crops_per_track": 3, **network} if way == "frame" else {})
    engine = PerceptionEngine(config)
    one = whole if way == "crops" else engine.process_video(video, output=tmp_path)
    assert one.embeddings.about["way"] == way
    vectors = np.load(one.folder / "embeddings.npy")
    frames = {frame.number: frame.pixels for frame in open_video(video).frames(config.fps)}
    for number, row in enumerate(one.embeddings.rows):
        pixels = frames[row.frame]
        if way == "crops":
            found, _ = engine.backend.crops.embed_crops([crops_module.cut(pixels, row.box)])
        else:
            assert engine.backend.regions is not None
            found, _ = engine.backend.regions.embed_boxes(pixels, torch.tensor([row.box], dtype=torch.float64))
        np.testing.assert_allclose(vectors[number], found[0].numpy(), rtol=0, atol=1e-5)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, 0)
    assert likeness.max() < 1 - 1e-6  # no row could stand for another


def test_a_second_run_is_the_same_bytes(scene: Scene, whole: Episode, tmp_path: Path) -> None:
    video, boxes = scene
    again = PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
    assert content(again.folder) == content(whole.folder)


def test_a_finished_episode_is_left_alone(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, boxes = scene
    first = PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
    before = content(first.folder)
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(Video, "frames", lambda *_: pytest.fail("it was decoded again"))
        PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == stamps
    for name in ("embeddings.npy", "detections.jsonl", "mot.txt"):
        (first.folder / name).write_bytes(b"damaged")
        PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
        assert content(first.folder) == before, name


def test_other_settings_are_refused_with_what_differs(scene: Scene, tmp_path: Path) -> None:
    video, boxes = scene
    first = PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
    before, stages = content(first.folder), (first.folder / "detections.jsonl").stat().st_mtime_ns
    other = PerceptionEngine(settings(boxes, link={"threshold": 0.7}, embedding={"crops_per_track": 4}))
    with pytest.raises(InputError, match=r"config\.link\.threshold: 0\.5 before, 0\.7 now(.|\n)*--restart") as told:
        other.process_video(video, output=tmp_path)
    assert "config.embedding.crops_per_track: 6 before, 4 now" in str(told.value)
    assert content(first.folder) == before
    anew = other.process_video(video, output=tmp_path, restart=True)
    assert (first.folder / "detections.jsonl").stat().st_mtime_ns == stages  # they did not change
    assert len(anew.embeddings.rows) == 4 * 12
    changed = boxes.with_name("more.jsonl")
    changed.write_text(boxes.read_text() + '{"frame": 0, "box": [200, 5, 220, 40]}\n')
    with pytest.raises(InputError, match=r"inputs\.detection\.boxes"):
        PerceptionEngine(settings(changed)).process_video(video, output=tmp_path)


def test_the_same_boxes_by_another_way_to_name_them(scene: Scene, tmp_path: Path) -> None:
    video, boxes = scene
    first = PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
    before = content(first.folder)
    other = boxes.parent / "more" / ".." / boxes.name
    other.parent.parent.mkdir(exist_ok=True)
    PerceptionEngine(settings(other)).process_video(video, output=tmp_path)
    assert content(first.folder) == before
    boxes_made = (first.folder / "detections.jsonl").stat().st_mtime_ns
    changed = settings(other, link={"threshold": 0.7})
    PerceptionEngine(changed).process_video(video, output=tmp_path, restart=True)
    assert (first.folder / "detections.jsonl").stat().st_mtime_ns == boxes_made


@pytest.mark.parametrize(
    ("package", "made_anew"),
    [
        ("av", {"detections.jsonl", "embeddings.json"}),
        ("trackers", {"embeddings.json"}),
        ("scipy", {"embeddings.json"}),
    ],
)
def test_what_another_version_of_a_package_changes(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, made_anew: set[str]
) -> None:
    video, boxes = scene
    engine = PerceptionEngine(settings(boxes))
    monkeypatch.setattr(engine_module, "version", lambda _: "1.0")
    folder = engine.process_video(video, output=tmp_path).folder
    stamps = {name: (folder / name).stat().st_mtime_ns for name in ("detections.jsonl", "embeddings.json")}
    monkeypatch.setattr(engine_module, "version", lambda name: "2.0" if name == package else "1.0")
    with pytest.raises(InputError, match=rf"versions\.{package}: '1\.0' before, '2\.0' now"):
        engine.process_video(video, output=tmp_path)
    engine.process_video(video, output=tmp_path, restart=True)
    assert {name for name in stamps if (folder / name).stat().st_mtime_ns != stamps[name]} == made_anew


@pytest.mark.parametrize("stage", ["detect", "embed"])
def test_one_run_at_a_time(scene: Scene, whole: Episode, tmp_path: Path, stage: str) -> None:
    """Two runs wrote one journal, and no later run could be made."""
    video, boxes = scene
    refused: list[str] = []

    def report(name: str, done: int, _total: int) -> None:
        if (name, done) == (stage, 5):
            for restart in (False, True):
                with pytest.raises(InputError, match=r"another run is at work in .*street") as told:
                    PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path, restart=restart)
                refused.append(str(told.value))

    episode = PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path, report=report)
    assert len(refused) == 2
    assert content(episode.folder) == content(whole.folder)


def test_a_run_that_ended_while_another_began_is_taken(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, boxes = scene
    alone_in = engine_module.alone_in

    def late(folder: Path) -> Any:
        monkeypatch.setattr(engine_module, "alone_in", alone_in)
        PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
        monkeypatch.setattr(engine_module, "write_run", lambda *_: pytest.fail("it was made again"))
        return alone_in(folder)

    monkeypatch.setattr(engine_module, "alone_in", late)
    assert PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path).run["finished"]


def unfinished(folder: Path) -> None:
    run = folder / "run.json"
    run.write_text(run.read_text().replace('"finished": true', '"finished": false'))


def twice(text: str) -> str:
    """As two runs at once left it: all frames a second time."""
    head, *lines = text.splitlines(keepends=True)
    told = json.loads(head)
    return json.dumps({**told, "frames": told["frames"] * 2}) + "\n" + "".join(lines * 2)


def without_frames(text: str) -> str:
    head, *lines = text.splitlines(keepends=True)
    return json.dumps({**json.loads(head), "frames": []}) + "\n" + "".join(lines)


DAMAGE = {
    "twice": twice,
    "without frames": without_frames,
    "cut off": lambda text: text[: len(text) // 2],
    "three numbers": lambda text: re.sub(r'("box": \[)[^,]*, ', r"\1", text),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_boxes_that_cannot_be_read_are_found_anew(scene: Scene, tmp_path: Path, damage: str) -> None:
    """The head, with the right key, was all that was looked at."""
    video, boxes = scene
    folder = PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path).folder
    before = content(folder)
    damaged = DAMAGE[damage](before["detections.jsonl"].decode())
    assert damaged.encode() != before["detections.jsonl"]
    (folder / "detections.jsonl").write_text(damaged)
    unfinished(folder)
    PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
    assert content(folder) == before


@pytest.mark.parametrize("order", ["one after the other", "interleaved"])
def test_a_journal_of_two_runs_at_once(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    video, boxes = scene
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        folder = PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path).folder
    before = content(folder)
    head, *lines = (folder / "detections.part.jsonl").read_text().splitlines(keepends=True)
    both = lines + lines if order == "one after the other" else [line for line in lines for _ in range(2)]
    (folder / "detections.part.jsonl").write_text("".join([head, *both]))
    (folder / "detections.jsonl").unlink()
    unfinished(folder)
    PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
    assert content(folder) == before


@pytest.mark.parametrize("second", [(4, 0.5), (5, 0.4), (3, 0.3)])
def test_frames_are_written_down_in_order(tmp_path: Path, second: tuple[int, float]) -> None:
    journal = Journal(tmp_path, "key")
    for number, time_s in ((4, 0.4), second):
        journal.add(SeenFrame(number, time_s, Detections.none(), (), {}))
    with pytest.raises(FormatError, match=rf"frame {second[0]} at {second[1]} s after frame 4 at 0\.4 s"):
        write_detections(tmp_path, {}, journal)
    journal.close()
    assert not (tmp_path / "detections.jsonl").exists()


class Killed(BaseException):
    """As an interrupt: nothing in the package catches it."""


def points(patch: pytest.MonkeyPatch, *, at: int | None) -> list[str]:
    """Count the moments at which a run may be killed: each frame decoded and each file put in place, before and after.

    Args:
        at: the one at which it is killed, from 0.
    """
    passed: list[str] = []

    def here(what: str) -> None:
        if len(passed) == at:
            raise Killed(what)
        passed.append(what)

    decode, replace = Video._decode, os.replace

    def decoding(self: Video, chosen: Any) -> Iterator[Any]:
        for frame in decode(self, chosen):
            here(f"frame {frame.number}")
            yield frame

    def replacing(source: Any, target: Any) -> None:
        here(f"before {Path(target).name}")
        replace(source, target)
        here(f"after {Path(target).name}")

    patch.setattr(Video, "_decode", decoding)
    patch.setattr(files_module.os, "replace", replacing)
    return passed


def test_killed_anywhere_it_ends_in_the_same_bytes(scene: Scene, tmp_path: Path) -> None:
    video, boxes = scene
    quick = settings(boxes, fps=2, embedding={"crops_per_track": 2, "batch_size": 1})

    def attempt(output: Path, at: int | None = None) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            passed = points(patch, at=at)
            PerceptionEngine(quick).process_video(video, output=output)
        return passed

    moments = attempt(tmp_path / "whole")
    before = content(tmp_path / "whole" / "street")
    assert len(moments) >= 30
    assert {"before run.json", "after detections.jsonl", "before embeddings.json", "after mot.txt"} <= set(moments)
    for at in range(len(moments)):
        output = tmp_path / f"{at}"
        with pytest.raises(Killed):
            attempt(output, at)
        run = output / "street" / "run.json"
        if not run.is_file() or not json.loads(run.read_text())["finished"]:
            with pytest.raises(InputError, match=r"broken off|holds no episode"):
                read_episode(output / "street")
        PerceptionEngine(quick).process_video(video, output=output)
        assert content(output / "street") == before, moments[at]


MOVING = """
seen = 0

def boxes(picture, time_s):
    \"\"\"What it finds depends on the frames before.\"\"\"
    global seen
    seen += 1
    return [[10 + seen, 20, 30 + seen, 64]], [0.9], ["thing"]
"""


@pytest.mark.parametrize("detector", ["motion", "saliency", "plug-in"])
def test_every_detector_goes_on_and_ends(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detector: str
) -> None:
    """An episode of the motion detector could be neither continued nor read again: its facts held a tuple."""
    video, _ = scene
    code = tmp_path / "moving.py"
    code.write_text(MOVING, encoding="utf-8")
    network = {"backend": "dinov3", "dinov3_weights_dir": DINOV3, "crop_size": 64}
    config = make_config(
        {
            "fps": 5,
            "detection": {"detector": f"{code}:boxes" if detector == "plug-in" else detector, "least_score": 0},
            "tracking": {"start": 0, "sure": 0, "least_boxes": 2},
            "embedding": {"device": "cpu", "dtype": "fp32", "crops_per_track": 2},
        },
        {"embedding": network} if detector == "saliency" else {},
    )
    before = content(PerceptionEngine(config).process_video(video, output=tmp_path / "whole").folder)
    assert json.loads(before["run.json"])["counts"]["crops"] > 0
    for at in (20, 45):  # while boxes are found, and while crops are cut
        output = tmp_path / f"{at}"
        with pytest.MonkeyPatch.context() as patch:
            points(patch, at=at)
            with pytest.raises(Killed):
                PerceptionEngine(config).process_video(video, output=output)
        assert content(PerceptionEngine(config).process_video(video, output=output).folder) == before
    monkeypatch.setattr(Video, "frames", lambda *_: pytest.fail("it was decoded again"))
    assert content(PerceptionEngine(config).process_video(video, output=tmp_path / "whole").folder) == before
    if detector == "plug-in":
        code.write_text(MOVING.replace("[[10 +", "[[12 +"), encoding="utf-8")
        with pytest.raises(InputError, match=r"detector\.sha256: .* before, .* now"):
            PerceptionEngine(config).process_video(video, output=tmp_path / "whole")


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3])
def test_a_real_kill(scene: Scene, whole: Episode, tmp_path: Path, seconds: float) -> None:
    """SIGKILL, so that nothing can be tidied up."""
    video, boxes = scene
    script = (
        "from patchatlas.reid.config import make_config\nfrom patchatlas.reid.engine import PerceptionEngine\n"
        "import json, sys\nconfig = make_config(json.loads(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "PerceptionEngine(config).process_video(sys.argv[2], output=sys.argv[3])\n"
    )
    given = json.dumps(settings(boxes).model_dump(mode="json"))
    with subprocess.Popen(
        [sys.executable, "-c", script, given, str(video), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        waited = time.monotonic() + 20
        while not (tmp_path / "street" / "run.json").is_file() and time.monotonic() < waited:
            time.sleep(0.002)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    assert process.returncode in (-signal.SIGKILL, 0)
    again = PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
    assert content(again.folder) == content(whole.folder)


def test_a_detector_that_remembers_nothing_is_not_asked_again(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes of a slow detector are kept as they are found."""
    from patchatlas.io.video import VideoFrame
    from patchatlas.reid.detect import loading
    from patchatlas.reid.detect.boxes_file import BoxesFile

    video, boxes = scene
    asked: list[int] = []

    class Slow(BoxesFile):
        def __call__(self, frame: VideoFrame, /) -> Any:
            if len(asked) == 40:
                raise Killed
            asked.append(frame.number)
            return super().__call__(frame)

    monkeypatch.setattr(loading, "HogDetector", lambda: Slow(boxes))
    engine = PerceptionEngine(settings(boxes).model_copy(update={"detection": make_config(
        {"detection": {"detector": "hog"}}).detection}))  # fmt: skip
    with pytest.raises(Killed):
        engine.process_video(video, output=tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(loading, "HogDetector", lambda: Counted(boxes, again))
    again: list[int] = []

    class Counted(BoxesFile):
        def __init__(self, path: Path, numbers: list[int]) -> None:
            super().__init__(path)
            self.numbers = numbers

        def __call__(self, frame: VideoFrame, /) -> Any:
            self.numbers.append(frame.number)
            return super().__call__(frame)

    episode = engine.process_video(video, output=tmp_path)
    assert again == list(range(40, FRAMES))
    assert episode.run["counts"]["boxes"] == 6 * 48


def test_frames_are_let_go(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect 17: every sampled frame was held."""
    video, boxes = scene
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0
    made = video_module.VideoFrame

    class Watched(made):  # type: ignore[valid-type, misc]
        def __init__(self, *parts: Any) -> None:
            nonlocal most
            super().__init__(*parts)
            alive.add(self)
            most = max(most, len(alive))

    monkeypatch.setattr(video_module, "VideoFrame", Watched)
    PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
    assert 1 <= most <= 3


def test_the_switch_reaches_the_files(scene: Scene, whole: Episode, tmp_path: Path) -> None:
    """Defect 1: the flag was accepted, and V-JEPA 2 ran all the same."""
    video, boxes = scene
    network = {"backend": "dinov3", "dinov3_weights_dir": DINOV3, "crop_size": 64}
    made = {
        way: PerceptionEngine(settings(boxes, embedding={**network, **more})).process_video(
            video, output=tmp_path, episode=way
        )
        for way, more in {
            "auto": {},
            "crops": {"regions": "crops"},
            "frame": {"regions": "frame"},
            "token": {"pooling": "cls+mean"},
        }.items()
    }
    assert {way: (one.embeddings.about["way"], one.embeddings.vectors.shape[1]) for way, one in made.items()} == {
        "auto": ("crops", 128),
        "crops": ("crops", 128),
        "frame": ("frame", 128),
        "token": ("crops", 256),
    }
    assert len({one.stamp.digest for one in (whole, *made.values())}) == 4
    for one in made.values():
        assert one.run["encoder"]["family"] == one.embeddings.about["encoder"]["family"] == "dinov3"
        assert dict(one.stamp.facts)["weights_sha256"] == one.run["encoder"]["weights_sha256"]
        assert json.loads((one.folder / "memory.json").read_text())["stamp"] == one.stamp.digest
    assert "crops cost no more" in made["auto"].embeddings.about["reason"] or "patches" in str(
        made["auto"].embeddings.about["reason"]
    )
    assert whole.run["encoder"]["family"] == "lab"


def test_v_jepa_2_is_fed_clips(scene: Scene, tmp_path: Path) -> None:
    video, boxes = scene
    weights = tiny.saved(tiny.vjepa2(), tmp_path / "weights")
    more = {"backend": "vjepa2", "model": str(weights), "clip_frames": 4, "crop_size": 64}
    config = settings(boxes, embedding=more)
    one = PerceptionEngine(config).process_video(video, output=tmp_path / "one")
    assert one.embeddings.about["way"] == "clips"
    assert len(one.embeddings.rows) == 6 * 12
    assert bool(one.embeddings.valid.all())
    again = PerceptionEngine(config).process_video(video, output=tmp_path / "two")
    assert content(one.folder) == content(again.folder)


def test_vectors_are_not_made_twice(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, boxes = scene
    network = {"backend": "dinov3", "dinov3_weights_dir": DINOV3, "crop_size": 64, "regions": "frame"}
    first = PerceptionEngine(settings(boxes, embedding=network)).process_video(video, output=tmp_path)
    before = content(first.folder)
    (first.folder / "embeddings.json").unlink()
    (first.folder / "run.json").write_text(
        (first.folder / "run.json").read_text().replace('"finished": true', '"finished": false')
    )
    monkeypatch.setattr(embed_stage.RegionEmbedder, "embed_boxes", lambda *_: pytest.fail("a frame was encoded again"))
    PerceptionEngine(settings(boxes, embedding=network)).process_video(video, output=tmp_path)
    assert content(first.folder) == before
    assert json.loads((first.folder / "run.log.json").read_text())["known_to_cache"] > 0


def test_a_crop_that_cannot_be_embedded_is_a_masked_row(scene: Scene, tmp_path: Path) -> None:
    """Defects 6 to 8: one empty crop spoilt its batch, or moved the vectors after it."""
    video, boxes = scene
    thin = tmp_path / "thin.jsonl"
    extra = [f'{{"frame": {n}, "box": [250, 10, 251, 60], "score": 0.9}}' for n in range(24)]
    thin.write_text(boxes.read_text() + "\n".join(extra) + "\n")
    config = settings(thin, detection={"detector": "boxes", "boxes": thin, "least_side": 0})
    one = PerceptionEngine(config).process_video(video, output=tmp_path)
    assert (one.run["counts"]["masked"], one.run["counts"]["crops"]) == (6, 12 * 6 + 6)
    assert bool(one.embeddings.vectors[~one.embeddings.valid].isnan().all())
    assert one.run["notes"] == ["6 crops could not be embedded; they count for nothing"]
    assert one.run["counts"]["identities"] == 6
    assert one.run["counts"]["unknown"] == 1


def test_a_short_video_says_that_nothing_can_be_learnt(scene: Scene, tmp_path: Path) -> None:
    video, boxes = scene
    few = tmp_path / "few.jsonl"
    few.write_text("".join(line for line in boxes.read_text().splitlines(True) if json.loads(line)["box"][1] == 20))
    one = PerceptionEngine(settings(few)).process_video(video, output=tmp_path)
    assert one.calibration is None
    assert "give link.cosine" in one.run["notes"][0]
    assert one.run["counts"]["identities"] == one.run["counts"]["tracks"] == 4
    told = PerceptionEngine(settings(few, link={"cosine": 0.9})).process_video(video, output=tmp_path, episode="told")
    assert told.run["counts"]["identities"] == 2
    assert told.memory.links.threshold == 0.9


def test_neighbours_can_be_asked(scene: Scene, tmp_path: Path) -> None:
    video, boxes = scene
    one = PerceptionEngine(settings(boxes, link={"rerank": True})).process_video(video, output=tmp_path)
    assert one.run["counts"]["identities"] == 6
    assert "shared neighbours" in one.run["notes"][0]


def test_frames_are_numbered_as_in_the_video(scene: Scene, tmp_path: Path) -> None:
    """Every third frame is looked at: numbers have gaps, and the tracks have none."""
    video, boxes = scene
    rare = settings(boxes, fps=10 / 3, tracking={"patience_s": 1.0}, link={"cosine": 0.8, "least_seen_s": 0})
    one = PerceptionEngine(rare).process_video(video, output=tmp_path)
    frames = [number for number, _ in read_head(one.folder)["frames"]]
    assert frames == list(range(0, FRAMES, 3))
    assert {seen.frame for own in one.tracklets for seen in own.observations} <= set(frames)
    assert one.memory.cuts == ()
    assert one.run["counts"]["identities"] == 6
    assert "boxes of the file lie at frames that were not looked at" in one.run["notes"][-1]


def test_nothing_is_found(scene: Scene, tmp_path: Path) -> None:
    video, _ = scene
    empty = tmp_path / "none.jsonl"
    empty.write_text("")
    one = PerceptionEngine(settings(empty)).process_video(video, output=tmp_path)
    assert one.tracklets == ()
    assert one.embeddings.vectors.shape == (0, one.run["encoder"]["dim"])
    assert one.run["notes"] == ["nothing was found in any frame that was looked at"]
    assert (one.folder / "mot.txt").read_bytes() == b""


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a\\b"])
def test_an_episode_is_named_like_a_folder(scene: Scene, tmp_path: Path, name: str) -> None:
    video, boxes = scene
    with pytest.raises(UsageError, match="named like a folder"):
        PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path, episode=name)


def test_another_folder_is_not_taken_for_an_episode(scene: Scene, tmp_path: Path) -> None:
    video, boxes = scene
    (tmp_path / "street").mkdir()
    (tmp_path / "street" / "thesis.txt").write_text("dear")
    with pytest.raises(InputError, match="other files in it"):
        PerceptionEngine(settings(boxes)).process_video(video, output=tmp_path)
    with pytest.raises(InputError, match="holds no episode"):
        read_episode(tmp_path / "street")


def test_the_rows_follow_their_tracks_through_a_cut(scene: Scene, tmp_path: Path) -> None:
    """A false box in the pause leads the tracker from one person to another; both parts keep their own crops."""
    video, boxes = scene
    bridge = tmp_path / "bridge.jsonl"
    place = (14, 20, 34, 64)
    extra = [json.dumps({"frame": frame, "box": place, "score": 0.9, "label": "person"}) for frame in (26, 27)]
    bridge.write_text(boxes.read_text() + "\n".join(extra) + "\n")
    config = settings(bridge, embedding={"crops_per_track": 12}, tracking={"patience_s": 0.5})
    one = PerceptionEngine(config).process_video(video, output=tmp_path)
    assert one.run["counts"]["tracks"] == 11
    assert one.memory.cuts
    for cut in one.memory.cuts:
        assert cut.frame >= 24
        for number, good in ((cut.tracklet, lambda frame, cut=cut: frame < cut.frame),
                             (cut.new, lambda frame, cut=cut: frame >= cut.frame)):  # fmt: skip
            frames = [one.embeddings.rows[row].frame for row in one.memory.rows[number]]
            assert frames
            assert all(map(good, frames))
            assert set(frames) <= {seen.frame for seen in one.portraits[number].tracklet.observations}
    assert one.identities[cut.tracklet] != one.identities[cut.new]
