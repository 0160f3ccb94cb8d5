"""Which part of the work is ours: as asked, else as torchrun or SLURM say."""

import logging

import pytest

from patchatlas.datasets.build.sharding import Shard, choose_shard, local_rank, parse_shard
from patchatlas.errors import UsageError

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize("text", ["0/1", "3/4", "11/12"])
def test_a_shard_is_index_of_count(text):
    assert str(parse_shard(text)) == text


@pytest.mark.parametrize("text", ["4/4", "1/0", "-1/2", "1", "1/", "a/b", "1/2/3", "1 / 2", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match="0/"):
        parse_shard(text)


def test_a_shard_takes_every_nth():
    assert [Shard(n, 3).of("abcdefgh") for n in range(3)] == [list("adg"), list("beh"), list("cf")]


def test_without_anything_all_is_ours():
    assert choose_shard(None, {}) == Shard(0, 1)


@pytest.mark.parametrize(("environment", "shard"), [(TORCHRUN, "1/4"), (SLURM, "2/3"), ({**SLURM, **TORCHRUN}, "1/4")])
def test_launchers_are_obeyed_and_it_is_said(environment, shard, caplog):
    with caplog.at_level(logging.WARNING):
        assert str(choose_shard(None, environment)) == shard
    assert shard in caplog.text
    assert "--shard 0/1" in caplog.text


def test_the_flag_wins_over_launchers(caplog):
    assert choose_shard("0/2", TORCHRUN) == Shard(0, 2)
    assert not caplog.text


def test_one_process_of_a_launcher_is_nothing_to_speak_of(caplog):
    assert choose_shard(None, {"RANK": "0", "WORLD_SIZE": "1"}) == Shard(0, 1)
    assert not caplog.text


@pytest.mark.parametrize(("environment", "rank"), [({}, None), (TORCHRUN, 1), (SLURM, 0), ({"LOCAL_RANK": "x"}, None)])
def test_the_place_on_this_machine(environment, rank):
    assert local_rank(environment) == rank
