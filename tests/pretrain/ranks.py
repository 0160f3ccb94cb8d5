"""A tiny run as one of several processes, or killed on the way. Run in processes of its own."""

import os
import signal
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from patchatlas.pretrain import checkpoint
from patchatlas.pretrain.run_folder import RunFolder
from patchatlas.pretrain.trainer import train
from tests.pretrain.tiny import photo_config

EXACT = {"drop_path": 0.0, "rope_rescale": 1.0}
"""Of `model`: nothing that differs from process to process."""


def one_of_two(rank: int, folder: str, pictures: str, strategy: str) -> None:
    """Three steps as one of two processes; a second start goes on from the second step's checkpoint."""
    torch.set_num_threads(1)
    os.environ.update(WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank))
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=120))
    try:
        for steps, run in ((3, "run"), (2, "resumed"), (3, "resumed")):
            config = photo_config(
                Path(pictures),
                model=EXACT,
                loss={"koleo": {"across_ranks": True}, "sinkhorn": {"queue_rows": 8}},
                train={"batch": 2, "steps": 3, "strategy": strategy, "save_every": 1},
            )
            if steps == 2:
                _until(config, Path(folder) / run, 2)
            else:
                train(config, Path(folder) / run)
    finally:
        dist.destroy_process_group()


class Interrupted(Exception):
    """A run that ends early."""


def _until(config, folder: Path, done: int) -> None:
    """Drop out of all processes after the checkpoint of a step."""
    kept = checkpoint.prune

    def stop(states: Path, *, keep: int, good: int | None) -> None:
        kept(states, keep=keep, good=good)
        if checkpoint.steps(states)[-1] == done:
            raise Interrupted

    checkpoint.prune = stop
    from patchatlas.pretrain.distributed import Process

    wait = Process.wait
    waited = []

    def count(self: Process) -> None:
        waited.append(1)
        if len(waited) > done and not self.first:  # the first process is gone
            raise Interrupted
        wait(self)

    Process.wait = count
    try:
        train(config, folder)
    except Interrupted:
        pass
    finally:
        checkpoint.prune, Process.wait = kept, wait
    dist.barrier()


def killed(folder: str, pictures: str, after: int, *, in_save: bool) -> None:
    """Train until SIGKILL: after a step, or with a checkpoint half written."""
    torch.set_num_threads(1)
    config = photo_config(Path(pictures), train={"steps": 6, "workers": 0})
    if in_save:
        whole = os.replace

        def half(source, path):
            if str(path) == str(checkpoint.path_of(RunFolder(Path(folder)).states, after)):
                os.truncate(source, 1000)
                os.kill(os.getpid(), signal.SIGKILL)
            whole(source, path)

        os.replace = half

    def stop(done: int, numbers: dict[str, float], level: str) -> None:
        del numbers, level
        if done == after and not in_save:
            os.kill(os.getpid(), signal.SIGKILL)

    train(config, Path(folder), on_step=stop)


def killed_at(folder: str, pictures: str, calls: list[int]) -> None:
    """Train again and again, in a process each, with SIGKILL at a call that changes what lies on the disk.

    Args:
        folder: of the runs, one for each call.
        pictures: to learn from.
        calls: which call of those, counted from 1 through a run.
    """
    torch.set_num_threads(1)
    config = photo_config(Path(pictures), train={"steps": 3, "save_every": 1, "keep": 1})
    for call in calls:
        child = os.fork()  # of a process that has done nothing with torch yet
        if not child:
            _kill_at(call)
            train(config, Path(folder) / str(call))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"a run has less than {call} such calls"


def _kill_at(call: int) -> None:
    counted = []

    def wrapped(function):
        def counting(*args, **options):
            counted.append(function)
            if len(counted) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return counting

    for name in ("replace", "fsync", "unlink", "mkdir", "rename"):
        setattr(os, name, wrapped(getattr(os, name)))
