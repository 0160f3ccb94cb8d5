"""Generated videos, cut between episodes: people keep their numbers, by colours alone."""

from benchmarks.reid.gallery import scores, told
from benchmarks.reid.generator import World, make
from patchatlas.reid.config import LinkConfig


def test_people_of_three_videos_keep_their_numbers():
    world = World(
        seed=21, people=6, episodes=3, frames=130, size_hw=(280, 480), visit=(60, 90), away=(10, 25), pan_px=15.0
    )
    report, episodes, truth = told([(video, range(6)) for video in make(world)], LinkConfig())
    found = scores(world.seed, 0, report, episodes, truth)
    assert found.known >= 9
    assert found.precision >= 0.95
    assert found.recall >= 0.8
    assert (found.wrong, found.co_visible) == (0, 0)
    numbers = {one.identity for episode in report.episodes for one in episode.sightings if one.identity is not None}
    assert abs(len(numbers) - 6) <= 2
