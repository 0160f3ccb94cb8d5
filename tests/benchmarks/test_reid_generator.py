"""The generated videos that identities are measured on: the truth is exact, and a seed is a video."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.reid.generator import LEAST_VISIBLE, Episode, World, make
from patchatlas.reid.motchallenge import read_rows, read_sequence

SMALL = World(seed=5, people=5, frames=90, visit=(30, 50), away=(10, 25))


@pytest.fixture(scope="module")
def episode() -> Episode:
    return make(SMALL)[0]


def test_a_seed_is_a_video(episode: Episode, tmp_path: Path) -> None:
    again, other = make(SMALL)[0], make(replace(SMALL, seed=6))[0]
    assert again.truth == episode.truth != other.truth
    first, second = next(episode.frames()), next(again.frames())
    assert np.array_equal(first, second)
    for folder, one in (("a", episode), ("b", again)):
        one.write(tmp_path / folder)
    for name in ("gt/gt.txt", "det/det.txt", "seqinfo.ini"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert read_rows(tmp_path / "a" / "gt" / "gt.txt") == episode.truth
    assert read_sequence(tmp_path / "a" / "seqinfo.ini") == episode.sequence


def test_boxes_lie_in_the_picture_and_visibility_is_a_share(episode: Episode) -> None:
    h, w = SMALL.size_hw
    for row in episode.truth:
        x0, y0, x1, y1 = row.box
        assert 0 <= x0 < x1 <= w
        assert 0 <= y0 < y1 <= h
        assert row.visibility is not None
        assert 0 < row.visibility <= 1
        assert row.confidence == (row.visibility >= LEAST_VISIBLE)
    doubled = Counter((row.frame, row.id) for row in episode.truth)
    assert max(doubled.values()) == 1


def test_visibility_is_the_share_of_pixels_that_show(episode: Episode) -> None:
    said = {(row.frame, row.id): row.visibility for row in episode.truth}
    partly = [key for key, share in said.items() if share is not None and 0.3 < share < 0.9]
    assert partly
    for number, _ in partly[:5]:
        placed, owner = episode._owners(number - 1)
        for k, one in enumerate(placed):
            whole = int((episode._drawn(one.person, one.size_hw)[..., 3] > 0).sum())
            assert said.get((number, one.person + 1), 0) == pytest.approx((owner == k + 1).sum() / whole, abs=1e-6)


def test_people_leave_and_come_back(episode: Episode) -> None:
    frames = {number: sorted(r.frame for r in episode.truth if r.id == number) for number in range(1, 6)}
    gaps = {number: np.diff(seen).max(initial=0) for number, seen in frames.items()}
    assert max(gaps.values()) > SMALL.away[0]


def test_detections_are_the_truth_with_faults() -> None:
    clean = make(replace(SMALL, drop=0.0, false=0.0, jitter_px=0.0))[0]
    for frame, found in enumerate(clean.detections):
        boxes = [list(row.box) for row in clean.truth if row.frame == frame + 1 and row.confidence]
        assert found.boxes.tolist() == boxes
    none = make(replace(SMALL, drop=1.0, false=0.0))[0]
    assert sum(map(len, none.detections)) == 0
    more = make(replace(SMALL, frames=300, false=0.5, drop=0.0))[0]
    true = sum(int(row.confidence) for row in more.truth)
    assert 0.25 * true < sum(map(len, more.detections)) - true < 0.8 * true


def test_twins_differ_little_and_others_much() -> None:
    people = make(replace(SMALL, twins=1))[0]._people

    def apart(a: int, b: int) -> float:
        return float(np.abs(people[a][..., :3] - people[b][..., :3]).mean())

    assert 0 < apart(0, 1) < 0.1 < apart(0, 2)


def test_episodes_share_people_and_nothing_else() -> None:
    one, other = make(replace(SMALL, episodes=2))
    assert all(np.array_equal(a, b) for a, b in zip(one._people, other._people, strict=True))
    assert one.truth != other.truth
    assert not np.array_equal(one._ground, other._ground)


def test_people_drawn_from_a_folder_of_stamps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(6):
        picture = rng.integers(0, 256, (200, 120, 4), dtype=np.uint8)
        picture[..., 3] = 255 if k else 0  # the first has no outline
        Image.fromarray(picture).save(tmp_path / f"{k}.png")
    people = make(replace(SMALL, stamps=tmp_path))[0]._people
    assert len(people) == 5
    for sprite in people:
        assert set(np.unique(sprite[..., 3])) <= {0.0, 1.0}
        assert 0.8 < sprite[..., 3].size / (132 * 58) < 1.2
    with pytest.raises(SystemExit, match="5 usable stamps, 9 are needed"):
        make(replace(SMALL, people=9, stamps=tmp_path))
