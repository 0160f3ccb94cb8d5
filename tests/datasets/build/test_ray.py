"""A build on a Ray cluster of this machine alone ends in the bytes of one process; its errors are ours."""

import logging
import os
from dataclasses import replace

import pytest
import ray

from patchatlas.datasets.build.executors.ray import Share, share
from patchatlas.datasets.build.merge import journals_of
from patchatlas.datasets.build.run import build
from patchatlas.errors import InputError
from tests.datasets.conftest import PHOTOS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield ray
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_two_cpus_end_in_the_bytes_of_one_process(settings, snapshot):
    whole, spread = settings("whole"), settings("spread")
    build(whole)
    report = build(spread, executor="ray")
    assert report.passes[0].done == len(PHOTOS)
    assert snapshot(spread.manifest, spread.derived_dir) == snapshot(whole.manifest, whole.derived_dir)
    assert journals_of(spread.derived_dir) == []


@pytest.mark.usefixtures("cluster")
def test_errors_of_actors_are_ours(settings):
    made = settings("table")
    build(replace(made, limit=1))
    moved = made.manifest.read_text().replace('"crop": [0, 4, 96, 64]', '"crop": [0, 3, 96, 64]')
    made.manifest.write_text(moved)
    with pytest.raises(InputError, match=r"a\.jpg"):
        build(made, executor="ray")


@pytest.mark.parametrize(
    ("units", "slots", "threads", "shared"),
    [
        (64, 2, 2, Share(actors=2, decode=1, units=8)),
        (64, 2, 16, Share(actors=2, decode=8, units=8)),
        (64, 8, 3, Share(actors=3, decode=1, units=8)),
        (64, 1, 16, Share(actors=1, decode=16, units=8)),
        (8, 2, 2, Share(actors=2, decode=1, units=2)),
        (1, 8, 8, Share(actors=1, decode=8, units=1)),
    ],
)
def test_workers_are_the_threads_of_all_actors_together(units, slots, threads, shared):
    assert share(units=units, slots=slots, threads=threads) == shared
    assert shared.actors * shared.decode <= threads
