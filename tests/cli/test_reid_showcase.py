"""The showcase of an episode made by hand: what is drawn where, what the sheets say, and what is refused."""

import base64
import hashlib
import io
import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchatlas.cli.main import main
from patchatlas.io.video import open_video
from patchatlas.io.video_writer import writing_video
from patchatlas.reid.boxes import Box, Observation, Tracklet
from patchatlas.reid.calibrate import Calibration
from patchatlas.reid.config import make_config
from patchatlas.reid.files.embeddings import Row, write_embeddings
from patchatlas.reid.files.memory import Memory, write_memory
from patchatlas.reid.files.run import write_log, write_run
from patchatlas.reid.files.tracks import write_tracks
from patchatlas.reid.link import Doubt, Links, Reason
from patchatlas.stamp import Stamp
from patchatlas.viz.tracks import identity_colour

RED, GREEN, BLUE = (220, 20, 20), (20, 200, 20), (20, 20, 220)
LEFT, MIDDLE, RIGHT = (10.0, 30.0, 40.0, 90.0), (64.0, 36.0, 94.0, 96.0), (110.0, 30.0, 140.0, 90.0)

# Track: colour, box, frames, vector, identity. Red comes again on the right, green is there all the time, blue briefly;
# a second box lies on green.
TRACKS: dict[int, tuple[tuple[int, int, int], Box, range, tuple[float, float] | None, int | None]] = {
    1: (RED, LEFT, range(0, 8, 2), (1.0, 0.0), 1),
    2: (GREEN, MIDDLE, range(0, 20, 2), (0.6, 0.8), 2),
    3: (RED, RIGHT, range(12, 20, 2), (0.96, 0.28), 1),
    4: (BLUE, LEFT, range(12, 16, 2), None, None),
    5: (GREEN, (70.0, 50.0, 88.0, 80.0), range(6, 12, 2), (0.6, 0.8), None),
}


def frame(number: int) -> np.ndarray:
    pixels = np.full((120, 160, 3), 90, dtype=np.uint8)
    for colour, (x0, y0, x1, y1), frames, _, _ in list(TRACKS.values())[:4]:
        if frames.start <= number <= frames[-1]:
            pixels[int(y0) : int(y1), int(x0) : int(x1)] = colour
    return pixels


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "hall.mp4"
    with writing_video(path, (120, 160), rate=10) as writer:
        for number in range(20):
            writer.write(frame(number), Fraction(number, 10))
    return path


@pytest.fixture
def episode(tmp_path: Path, video: Path) -> Path:
    return made(tmp_path / "hall", video)


def made(folder: Path, video: Path, tracks=TRACKS) -> Path:
    folder.mkdir()
    tracklets, rows, vectors, memory_rows = [], [], [], {}
    for track, (_, box, frames, vector, _) in tracks.items():
        seen = tuple(Observation(track, number, number / 10, box, 0.9 - track / 100, "moving") for number in frames)
        tracklets.append(Tracklet(track, "moving", seen))
        kept = list(frames)[:: max(1, len(frames) // 2)][:2] if vector else []
        memory_rows[track] = tuple(range(len(rows), len(rows) + len(kept)))
        for k, number in enumerate(kept):
            rows.append(Row(track, number, number / 10, box, True, 0.5 + 0.1 * k, {"area": 0.5}))
            vectors.append(vector)
    identities = {track: identity for track, (*_, identity) in tracks.items() if identity is not None}
    about = {"episode": "hall", "video": {"name": "hall.mp4"}}
    write_tracks(folder, about, tracklets, identities)
    table = torch.tensor(vectors, dtype=torch.float32).reshape(-1, 2)
    write_embeddings(folder, {"episode": "hall"}, table, rows, Stamp((("dim", 2),)))
    links = Links(
        identities=identities,
        unknown=tuple(track for track in tracks if track == 4),
        second_boxes={track: 2 for track in tracks if track == 5},
        reasons=tuple(Reason(t, i, 0.96 if i == 1 else None, 0.97 if i == 1 else None, None, None)
                      for t, i in identities.items()),
        doubts=(Doubt(3, 1, 2, 0.8, 0.6, "looks as much like another identity"),) if tracks else (),
        threshold=0.9,
    )  # fmt: skip
    memory = Memory(
        links=links,
        cuts=(),
        apart={(1, 2): "together", (2, 3): "together"} if tracks else {},
        rows=memory_rows,
        calibration=Calibration((-1.0, 0.8, 1.0), (0.0, 0.5, 1.0), "logistic", 7, 9, 0.05) if tracks else None,
        fpir=0.125 if tracks else float("nan"),
        fnir=float("nan"),
        notes=("<b>a note</b>",),
    )
    write_memory(folder, about, tracklets, memory)
    counts = {"frames": 10, "boxes": 23, "tracks": len(tracks), "identities": 2, "unknown": 1, "second_boxes": 1}
    facts = {"name": "hall.mp4", "sha256": hashlib.sha256(video.read_bytes()).hexdigest(), "size_hw": [120, 160]}
    write_run(
        folder,
        {
            **about,
            "finished": True,
            "video": {**facts, "duration_s": 2.0},
            "config": make_config({"fps": 5.0}).model_dump(mode="json"),
            "detector": {"name": "motion"},
            "encoder": {"name": "bundled:lab"},
            "counts": counts,
            "problems": {},
            "notes": [],
        },
    )
    write_log(folder, {"video": str(video)})
    return folder


def shown(folder: Path) -> list[np.ndarray]:
    return [frame.pixels.astype(int) for frame in open_video(folder / "annotated.mp4").frames()]


def near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """A video keeps colours at half the resolution."""
    return bool(np.abs(pixel - np.array(colour)).max() < 60)


def page(folder: Path, name: str = "index.html") -> str:
    return (folder / name).read_text(encoding="utf-8")


def test_a_showcase_is_one_folder_with_a_video_and_a_page_an_identity(episode: Path, capsys):
    assert main(["reid", "showcase", str(episode), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    folder = episode / "showcase"
    assert told["identities"] == 2
    assert told["frames"] == 10
    names = ["annotated.mp4", "identity-001.html", "identity-002.html", "index.html", "showcase.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert sorted(json.loads((folder / "showcase.json").read_text())["files"]) == names[:-1]


def test_frames_that_were_looked_at_have_boxes_in_the_colours_of_identities(episode: Path):
    main(["reid", "showcase", str(episode)])
    frames = shown(episode / "showcase")
    assert len(frames) == 10
    assert frames[0].shape[1] == 160
    assert frames[0].shape[0] > 120
    border = {"left": (60, 10), "middle": (66, 64), "right": (60, 110)}  # on the left edges
    assert near(frames[0][border["left"]], identity_colour(1))
    assert near(frames[0][border["middle"]], identity_colour(2))
    assert not near(frames[0][border["right"]], identity_colour(1))
    assert near(frames[7][border["right"]], identity_colour(1))
    assert not near(frames[7][border["left"]], identity_colour(1))  # unknown


def test_the_strip_tells_who_is_seen_when(episode: Path):
    main(["reid", "showcase", str(episode)])
    last = shown(episode / "showcase")[-1]
    strip = last[120:].astype(float)

    def seen(identity: int) -> float:
        at = np.abs(strip - np.array(identity_colour(identity))).max(axis=2) < 40
        return float(at.any(axis=0).mean())

    assert 0.4 < seen(1) < 0.75
    assert seen(2) > 0.7


def test_smooth_shows_every_frame_and_moves_boxes_between(tmp_path: Path, video: Path):
    tracks = {1: (RED, LEFT, range(0, 19, 2), (1.0, 0.0), 1)}
    folder = made(tmp_path / "moved", video, tracks)
    head, *lines = (folder / "tracks.jsonl").read_text().splitlines()
    first, moved, last = json.loads(lines[0]), json.loads(lines[2]), json.loads(lines[9])  # frames 0, 4 and 18
    moved["box"] = last["box"] = [50.0, 30.0, 80.0, 90.0]
    (folder / "tracks.jsonl").write_text("\n".join([head, *map(json.dumps, (first, moved, last))]) + "\n")
    assert main(["reid", "showcase", str(folder), "--smooth"]) == 0
    frames = shown(folder / "showcase")
    assert len(frames) == 20
    assert near(frames[1][60, 20], identity_colour(1))  # a quarter of the way from 10 to 50
    assert not near(frames[0][60, 20], identity_colour(1))
    assert near(frames[4][60, 50], identity_colour(1))
    assert not near(frames[10][60, 50], identity_colour(1))  # too long a gap to say
    assert near(frames[18][60, 50], identity_colour(1))


def test_a_second_box_is_not_drawn(episode: Path):
    main(["reid", "showcase", str(episode)])
    frame = shown(episode / "showcase")[4]
    assert near(frame[65, 70], GREEN)
    assert near(frame[65, 87], GREEN)


def test_the_sheet_says_why_tracks_were_merged_and_others_kept_apart(episode: Path):
    main(["reid", "showcase", str(episode)])
    sheet = page(episode / "showcase", "identity-001.html")
    merged = sheet[sheet.index("Why merged") : sheet.index("Kept apart")]
    assert "0.900 or more" in merged
    assert "cosine 0.960, p(same) 0.90" in merged
    assert "may be</span> never seen at the same time" in merged
    assert "may be</span> both moving" in merged
    apart = sheet[sheet.index("Kept apart") :]
    assert "cosine 0.800, p(same) 0.50" in apart
    assert "cannot be</span> seen at the same time in 4 frames" in apart
    assert "Track 2 (identity 2)" in apart
    alone = page(episode / "showcase", "identity-002.html")
    assert "nothing to merge" in alone
    assert "cosine 0.800" in alone


def test_crops_show_whom_they_should(episode: Path):
    main(["reid", "showcase", str(episode)])
    sheet = page(episode / "showcase", "identity-001.html")
    looks = re.findall(r"data:image/jpeg;base64,([^\"]+)", sheet[: sheet.index("Why merged")])
    assert len(looks) == 4
    for look in looks:
        with Image.open(io.BytesIO(base64.b64decode(look))) as picture:
            assert picture.height == 2 * picture.width
            assert near(np.asarray(picture)[picture.height // 2, picture.width // 2].astype(int), RED)


def test_the_index_names_everybody_and_what_to_look_at(episode: Path):
    main(["reid", "showcase", str(episode)])
    index = page(episode / "showcase")
    assert re.findall(r'href="(identity-\d+.html)"', index) == ["identity-001.html", "identity-002.html"]
    assert "0.0 to 1.8 s" in index
    assert "track 3, identity 1" in index
    assert "looks as much like another identity: identity 2" in index
    unknown = index[index.index("<h2>Unknown") :]
    assert "Track 4" in unknown
    assert unknown.count("<img") == 1
    assert "Track 5" not in index
    assert "&lt;b&gt;a note&lt;/b&gt;" in index
    assert "<b>a note" not in index
    assert "12.5%" in index
    assert "http" not in index
    assert 'src="annotated.mp4"' in index


def test_sheets_only_writes_no_video(episode: Path):
    assert main(["reid", "showcase", str(episode), "--sheets-only"]) == 0
    assert not (episode / "showcase" / "annotated.mp4").exists()
    assert "<video" not in page(episode / "showcase")
    assert "<img" in page(episode / "showcase", "identity-001.html")
    assert main(["reid", "showcase", str(episode), "--sheets-only", "--smooth"]) == 2


def test_an_episode_of_nobody_has_a_showcase_too(tmp_path: Path, video: Path):
    folder = made(tmp_path / "empty", video, {})
    assert main(["reid", "showcase", str(folder)]) == 0
    assert "0 identities" in page(folder / "showcase")
    assert len(shown(folder / "showcase")) == 10


def test_the_same_episode_gives_the_same_bytes_and_replaces_its_showcase(episode: Path, tmp_path: Path):
    assert main(["reid", "showcase", str(episode)]) == 0
    before = {path.name: path.read_bytes() for path in (episode / "showcase").iterdir()}
    (episode / "showcase" / "identity-099.html").write_text("of an earlier run")
    assert main(["reid", "showcase", str(episode)]) == 0
    assert {path.name: path.read_bytes() for path in (episode / "showcase").iterdir()} == before
    assert main(["reid", "showcase", str(episode), "--output", str(tmp_path / "elsewhere")]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == before
    assert not list(tmp_path.glob(".*"))


def test_a_folder_with_other_things_is_not_replaced(episode: Path, tmp_path: Path, capsys):
    other = tmp_path / "photos"
    other.mkdir()
    (other / "1.jpg").write_bytes(b"dear")
    assert main(["reid", "showcase", str(episode), "--output", str(other)]) == 2
    assert "would be lost" in capsys.readouterr().err
    assert (other / "1.jpg").read_bytes() == b"dear"
    assert main(["reid", "showcase", str(episode), "--output", str(other / "1.jpg")]) == 2
    assert main(["reid", "showcase", str(episode), "--output", str(tmp_path / "no" / "where")]) == 4


def test_the_video_must_be_there_and_be_the_same(episode: Path, video: Path, tmp_path: Path, capsys):
    moved = video.rename(tmp_path / "moved.mp4")
    assert main(["reid", "showcase", str(episode)]) == 4
    assert "--video" in capsys.readouterr().err
    assert main(["reid", "showcase", str(episode), "--video", str(moved)]) == 0
    with writing_video(video, (120, 160), rate=10) as writer:
        writer.write(frame(3), Fraction(0))
    assert main(["reid", "showcase", str(episode)]) == 4
    assert "contents differ" in capsys.readouterr().err


def test_what_is_no_finished_episode_is_refused(episode: Path, tmp_path: Path, capsys):
    assert main(["reid", "showcase", str(tmp_path)]) == 4
    assert "patchatlas reid run" in capsys.readouterr().err
    content = json.loads((episode / "run.json").read_text())
    (episode / "run.json").write_text(json.dumps({**content, "finished": False}))
    assert main(["reid", "showcase", str(episode)]) == 4
    assert not (episode / "showcase").exists()
