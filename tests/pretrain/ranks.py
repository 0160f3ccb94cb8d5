"""A tiny run as one of several processes, or killed on the way. Run in processes of its own."""

import os
import signal
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from patchatlas.pretrain import checkpoint
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
        whole = torch.save

        def half(state, path):
            whole(state, path)
            if state["step"] == after:
                with open(path, "r+b") as handle:
                    handle.truncate(1000)
                os.kill(os.getpid(), signal.SIGKILL)

        torch.save = half

    def stop(done: int, numbers: dict[str, float], level: str) -> None:
        del numbers, level
        if done == after and not in_save:
            os.kill(os.getpid(), signal.SIGKILL)

    train(config, Path(folder), on_step=stop)
