"""`patchatlas reid run`, `link` and `eval`: flags, results, bad input and exit codes."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchatlas.cli.main import main
from patchatlas.reid.config import make_config
from patchatlas.reid.engine import FILES, PerceptionEngine
from patchatlas.reid.episode import read_episode
from patchatlas.reid.motchallenge import MotRow, write_rows
from tests.disk_limit import no_file_may_grow
from tests.io.video_files import MATRICES, every, make_sound, make_video, turn
from tests.reid.scene import FRAMES, SIZE_HW, boxes_at, write_scene

DINOV3 = Path(__file__).parents[1] / "golden" / "dino" / "dinov3_mlp_d128h2.weights.safetensors"
TENTH = Fraction(1, 10)

Scene = tuple[Path, Path]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: object) -> tuple[int, str, str]:
        code = main(["reid", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return command


def flags(scene: Scene, output: Path, *more: object) -> list[object]:
    video, boxes = scene
    few = ("--set", "embedding.crops_per_track=6", "--set", "tracking.patience_s=0.3")
    return ["run", "--video", video, "--boxes", boxes, "--fps", 10, "--output", output, *few, *more]


@pytest.fixture(scope="module")
def episode(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("results")
    assert main(["reid", *map(str, flags(scene, output, "--episode", "monday"))]) == 0
    return output / "monday"


def test_python_gives_the_same_bytes(scene: Scene, episode: Path, tmp_path: Path) -> None:
    video, boxes = scene
    config = make_config(
        {"fps": 10, "detection": {"detector": "boxes", "boxes": boxes}},
        {"embedding": {"crops_per_track": 6}, "tracking": {"patience_s": 0.3}},
    )
    made = PerceptionEngine(config).process_video(video, episode="monday", output=tmp_path)
    for name in (*FILES, "run.json"):
        assert (made.folder / name).read_bytes() == (episode / name).read_bytes(), name


def test_the_result_for_people_and_for_scripts(scene: Scene, episode: Path, run: Run) -> None:
    again = flags(scene, episode.parent, "--episode", "monday")
    code, out, err = run(*again)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].endswith(f"{FRAMES} frames of 6.0 s, 288 boxes, 12 tracks, 6 identities")
    assert "    1 person: 0.0-2.3 s, 3.0-5.3 s" in out
    code, out, _ = run(*again, "--format", "json")
    assert json.loads(out)["counts"]["identities"] == 6
    assert json.loads(out)["folder"] == str(episode)


def test_what_is_left_out_is_said(scene: Scene, tmp_path: Path, run: Run) -> None:
    code, out, _ = run(*flags(scene, tmp_path), "--set", "tracking.least_boxes=25")
    assert code == 0
    assert "left out: 12 tracks too short to say anything; 100 % of all boxes are in no track, a higher --fps" in out


def test_a_showcase_of_an_earlier_run_is_named(scene: Scene, tmp_path: Path, run: Run) -> None:
    code, out, _ = run(*flags(scene, tmp_path, "--episode", "one"))
    (tmp_path / "one" / "showcase").mkdir()
    code, out, _ = run(*flags(scene, tmp_path, "--episode", "one"))
    assert "showcase/" not in out
    code, out, _ = run(*flags(scene, tmp_path, "--episode", "one"), "--set", "link.threshold=0.6", "--restart")
    assert code == 0
    assert "showcase/ is of an earlier run" in out


def test_settings_come_from_preset_file_and_flags(scene: Scene, tmp_path: Path, run: Run) -> None:
    video, boxes = scene
    file = tmp_path / "c.yaml"
    file.write_text("perception:\n  fps: 5\n  link:\n    threshold: 0.6\n    margin: 0.1\n")
    code, out, _ = run(
        "run", "--video", video, "--boxes", boxes, "--preset", "fast", "--config", file, "--output", tmp_path,
        "--set", "link.threshold=0.7", "--format", "json",
    )  # fmt: skip
    assert code == 0
    config = json.loads(out)["config"]
    assert (config["fps"], config["link"]["threshold"], config["link"]["margin"]) == (5, 0.7, 0.1)
    assert (config["embedding"]["crops_per_track"], config["detection"]["detector"]) == (4, "boxes")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--preset", "dinov4"], "there is no preset 'dinov4'"),
        (["--set", "link.treshold=0.5"], "perception.link.treshold is no setting; allowed are threshold"),
        (["--set", "link.threshold"], "write SETTING=VALUE"),
        (["--set", "embedding.pooling=gem"], "bundled has no tokens"),
        (["--dinov3-weights", "weights"], "dinov3_weights_dir is for backend dinov3, given backend bundled"),
        (["--detector", "yolo"], "there is no detector 'yolo'"),
        (["--episode", "a/b"], "named like a folder"),
        (["--fps", "0"], "greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(scene: Scene, tmp_path: Path, run: Run, words: list[str], told: str) -> None:
    code, _, err = run("run", "--video", scene[0], "--output", tmp_path, *words)
    assert code == 2
    assert told in err
    assert not list(tmp_path.iterdir())


def test_other_settings_and_restart(scene: Scene, tmp_path: Path, run: Run) -> None:
    assert run(*flags(scene, tmp_path))[0] == 0
    code, _, err = run(*flags(scene, tmp_path, "--set", "link.sure=0.9"))
    assert code == 4
    assert "config.link.sure: 0.8 before, 0.9 now" in err
    assert run(*flags(scene, tmp_path, "--set", "link.sure=0.9", "--restart"))[0] == 0


def test_weights_that_are_not_there_or_of_another_family(scene: Scene, tmp_path: Path, run: Run) -> None:
    """Defect 4: another model was loaded, under the name that was asked for."""
    code, _, err = run(*flags(scene, tmp_path, "--embedding-backend", "dinov3", "--dinov3-weights", tmp_path / "none"))
    assert code == 5
    assert "none" in err
    code, _, err = run(*flags(scene, tmp_path, "--embedding-backend", "dinov2", "--embedding-model", DINOV3))
    assert code == 5
    assert "backend dinov2 was asked for" in err
    assert not list(tmp_path.iterdir())


# -- videos that are none, or not whole ----------------------------------------------------------------------------


def pictures(count: int = 20, size_hw: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Something bright and coarse that moves over a dark ground after a while."""
    cloth = np.kron(np.random.default_rng(0).integers(120, 256, (8, 5, 3)), np.ones((3, 3, 1))).astype(np.uint8)
    out = []
    for number in range(count):
        pixels = np.full((*size_hw, 3), 40, np.uint8)
        if number >= 8:
            x = 4 * (number - 8)
            pixels[10:34, x : x + 15] = cloth
        out.append(pixels)
    return out


def moving(path: Path, **more: Any) -> Path:
    return make_video(path, every(TENTH, 20), pictures=more.pop("pictures", pictures()), **more)


def no_video(folder: Path) -> tuple[Path, str]:
    (folder / "notes.mp4").write_text("dear diary")
    return folder / "notes.mp4", "is not a video that can be read"


def empty(folder: Path) -> tuple[Path, str]:
    (folder / "empty.mp4").write_bytes(b"")
    return folder / "empty.mp4", "is empty (0 bytes)"


def missing(folder: Path) -> tuple[Path, str]:
    return folder / "none.mp4", "there is no video file"


def sound(folder: Path) -> tuple[Path, str]:
    return make_sound(folder / "sound.mp4"), "holds sound and no moving pictures"


def no_frames(folder: Path) -> tuple[Path, str]:
    return make_video(folder / "none.mkv", [], pictures=[]), "none.mkv"


def broken_off(folder: Path) -> tuple[Path, str]:
    path = moving(folder / "cut.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path, "is cut short"


@pytest.mark.parametrize("make", [no_video, empty, missing, sound, no_frames, broken_off])
def test_what_is_no_video(tmp_path: Path, run: Run, make: Callable[[Path], tuple[Path, str]]) -> None:
    path, told = make(tmp_path)
    code, out, err = run("run", "--video", path, "--output", tmp_path / "results")
    assert (code, out) == (4, "")
    assert told in err
    assert not (tmp_path / "results").exists()


def test_a_truncated_video_gives_what_it_has_and_one_reason(tmp_path: Path, run: Run) -> None:
    path = moving(tmp_path / "cut.mp4", muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-400])
    code, out, _ = run("run", "--video", path, "--fps", 10, "--output", tmp_path)
    assert code == 3
    assert sum(line.startswith("not used: the video is truncated: cut short") for line in out.splitlines()) == 1
    done = read_episode(tmp_path / "cut")
    assert 0 < done.run["counts"]["frames"] < 20
    assert list(done.run["problems"]) == ["truncated"]


def variable(folder: Path) -> Path:
    times = [Fraction(n, 10) + (Fraction(1, 5) if n > 10 else 0) for n in range(20)]
    return make_video(folder / "v.mkv", times, pictures=pictures())


def portrait(folder: Path) -> Path:
    return turn(moving(folder / "v.mp4"), MATRICES[6])


def odd(folder: Path) -> Path:
    return moving(folder / "v.mkv", size_hw=(47, 63), codec="ffv1", pix_fmt="yuv444p", pictures=pictures(20, (47, 63)))


def grey(folder: Path) -> Path:
    return moving(folder / "v.mkv", codec="ffv1", pix_fmt="gray")


@pytest.mark.parametrize(
    ("make", "size_hw"), [(variable, (48, 64)), (portrait, (64, 48)), (odd, (47, 63)), (grey, (48, 64))]
)
def test_videos_of_all_kinds(tmp_path: Path, run: Run, make: Callable[[Path], Path], size_hw: tuple[int, int]) -> None:
    code, _, err = run("run", "--video", make(tmp_path), "--fps", 10, "--output", tmp_path)
    assert (code, err) == (0, "")
    done = read_episode(tmp_path / "v")
    assert done.size_hw == size_hw
    assert done.run["counts"]["tracks"] == 1
    seen = done.tracklets[0].observations
    tall = [y1 - y0 > x1 - x0 for x0, y0, x1, y1 in (one.box for one in seen)]
    assert sum(tall) > len(tall) / 2 if make is not portrait else sum(tall) < len(tall) / 2
    if make is variable:
        assert done.run["video"]["variable_rate"]
        assert {round(one.time_s, 3) for one in seen if one.frame > 10} <= {round(n / 10 + 0.2, 3) for n in range(20)}


def test_nothing_is_found(tmp_path: Path, run: Run) -> None:
    still = moving(tmp_path / "still.mp4", pictures=[np.full((48, 64, 3), 40, np.uint8)] * 20)
    code, out, _ = run("run", "--video", still, "--output", tmp_path)
    assert code == 0
    assert "note: nothing was found in any frame that was looked at" in out
    assert (tmp_path / "still" / "mot.txt").read_bytes() == b""


def test_boxes_that_are_none_are_listed(scene: Scene, tmp_path: Path, run: Run) -> None:
    video, boxes = scene
    more = [
        {"frame": 0, "box": [300, 10, 320, 40]},
        {"frame": 1, "box": [10, 10, 10, 40]},
        {"frame": 2, "box": [10, 10, float("nan"), 40]},
        {"frame": 3, "box": [10, 10, 40, 60], "score": float("nan")},
        {"frame": 4, "box": [10, 10, 40, 60], "score": 7},
        {"frame": 999, "box": [10, 10, 40, 60]},
    ]
    bad = tmp_path / "bad.jsonl"
    bad.write_text(boxes.read_text() + "".join(json.dumps(one) + "\n" for one in more))
    code, out, _ = run(*flags((video, bad), tmp_path))
    assert code == 3
    for line in ("1 boxes left out: empty", "2 boxes left out: not a number", "1 boxes left out: outside the frame",
                 "1 boxes left out: score not in 0..1"):  # fmt: skip
        assert f"not used: {line}" in out
    assert "1 boxes of the file lie at frames that were not looked at" in out
    assert read_episode(tmp_path / "street").run["counts"]["identities"] == 6


def test_a_full_disk_loses_nothing(scene: Scene, tmp_path: Path, run: Run) -> None:
    with no_file_may_grow():
        code, _, err = run(*flags(scene, tmp_path))
    assert code == 6
    assert "run again" in err
    assert run(*flags(scene, tmp_path))[0] == 0
    before = (tmp_path / "street" / "memory.json").read_bytes()
    with no_file_may_grow():
        assert run(*flags(scene, tmp_path, "--set", "link.sure=0.9", "--restart"))[0] == 6
    assert (tmp_path / "street" / "memory.json").read_bytes() == before


# -- linking and scores ------------------------------------------------------------------------------------------


def test_linking_episodes(scene: Scene, tmp_path: Path, run: Run) -> None:
    for name in ("monday", "tuesday"):
        assert run(*flags(scene, tmp_path, "--episode", name))[0] == 0
    code, out, _ = run("link", tmp_path / "monday", tmp_path / "tuesday", "--format", "json")
    assert code == 0
    report = json.loads(out)
    assert Path(report["gallery"]) == tmp_path / "gallery"
    assert [one["episode"] for one in report["episodes"]] == ["monday", "tuesday"]
    assert "monday: unchanged" in run("link", tmp_path / "monday")[1]
    network = ("--embedding-backend", "dinov3", "--dinov3-weights", DINOV3, "--set", "embedding.crop_size=64")
    assert run(*flags(scene, tmp_path, "--episode", "other", *network))[0] == 0
    code, _, err = run("link", tmp_path / "other", "--gallery", tmp_path / "gallery")
    assert code == 4
    assert "dim" in err
    assert run("link")[0] == 2


def truth() -> list[MotRow]:
    return [
        MotRow(frame + 1, person + 1, box, 1.0, 1, 1.0) for frame in range(FRAMES) for person, box in boxes_at(frame)
    ]


def test_scores_of_an_episode_and_of_a_file(episode: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "seq" / "gt").mkdir(parents=True)
    write_rows(tmp_path / "seq" / "gt" / "gt.txt", truth())
    code, out, _ = run("eval", tmp_path / "seq", episode, "--format", "json")
    assert code == 0
    scores = json.loads(out)
    assert scores["tracking"]["idf1"] == pytest.approx(1.0)
    assert scores["tracking"]["id_switches"] == 0
    linking = scores["linking"]
    assert {name: linking[name] for name in ("identities", "true_identities", "co_visible_merges")} == {
        "identities": 6,
        "true_identities": 6,
        "co_visible_merges": 0,
    }
    assert (linking["purity"], linking["pair_f1"], linking["rank1"], linking["mean_ap"]) == (1, 1, 1, 1)
    code, out, _ = run("eval", tmp_path / "seq" / "gt" / "gt.txt", episode / "mot.txt", "--max-frame", "30")
    assert code == 0
    assert out.startswith("HOTA 100.0  IDF1 100.0  MOTA 100.0  switches 0\n")
    assert "144 boxes found, 144 true ones" in out
    assert "Rank" not in out


def test_scores_need_truth_of_the_same_video(episode: Path, tmp_path: Path, run: Run) -> None:
    write_rows(tmp_path / "late.txt", [MotRow(9999, 1, (0.0, 0.0, 10.0, 10.0), 1.0, 1, 1.0)])
    code, _, err = run("eval", tmp_path / "late.txt", episode)
    assert code == 4
    assert "are they of one video?" in err
    assert run("eval", tmp_path / "none.txt", episode)[0] == 4
    assert SIZE_HW == read_episode(episode).size_hw
