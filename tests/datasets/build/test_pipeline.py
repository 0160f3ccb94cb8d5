"""The pipeline: few batches under way, nothing left behind, torch's threads as they were."""

import threading
import time

import pytest
import torch

from patchatlas.datasets.build.executors import local
from patchatlas.datasets.build.pipeline import AHEAD, Workers
from patchatlas.datasets.build.run import build
from tests.datasets.build.conftest import Noting
from tests.datasets.conftest import write_photos


class Slow(Noting):
    """Takes its time, and notes how many pictures were drawn when its first batch came."""

    def __call__(self, pixels, /):
        if not self.shapes:
            time.sleep(0.3)
            self.drawn_early = len(self.drawn)
        return super().__call__(pixels)


def test_only_so_many_pictures_are_drawn_ahead(settings, use_encoder, tmp_path, monkeypatch):
    folder = write_photos(tmp_path / "many", tuple((f"{n:02d}.png", (64, 64)) for n in range(40)))
    slow = use_encoder(Slow())
    slow.drawn = []
    draw = local.draw

    def noted(record, *args, **options):
        slow.drawn.append(record.image_id)
        return draw(record, *args, **options)

    monkeypatch.setattr(local, "draw", noted)
    build(settings(input_dir=folder, passes=("encoder",), token_budget=48))  # three pictures a batch
    assert len(slow.drawn) == 40
    assert 3 <= slow.drawn_early <= 3 * (1 + AHEAD)  # one encoder, for torch has one thread here


@pytest.mark.parametrize("fails", [False, True])
def test_threads_end_with_the_build_and_torch_has_its_own_again(settings, use_encoder, fails):
    class Failing(Noting):
        def __call__(self, pixels, /):
            if fails and len(self.shapes) == 2:
                raise RuntimeError("a bug")
            return super().__call__(pixels)

    use_encoder(Failing())
    before = torch.get_num_threads(), set(threading.enumerate())
    if fails:
        with pytest.raises(RuntimeError, match="a bug"):
            build(settings(passes=("encoder",)))
    else:
        build(settings(passes=("encoder",)))
    assert (torch.get_num_threads(), set(threading.enumerate())) == before


def test_an_interrupt_in_the_middle_ends_the_threads_and_keeps_what_was_finished(settings, use_encoder):
    use_encoder(Noting())
    before = set(threading.enumerate())

    def interrupt(progress):
        if progress.stage == "encoder" and progress.done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(settings(passes=("encoder",)), on_progress=interrupt)
    assert set(threading.enumerate()) == before
    assert build(settings(passes=("encoder",))).passes[0].there >= 6


@pytest.mark.parametrize(
    ("device", "cores", "workers"),
    [
        ("cpu", 1, Workers(decode=1, encode=1, encode_threads=1, write=3)),
        ("cpu", 2, Workers(decode=2, encode=2, encode_threads=1, write=4)),
        ("cpu", 64, Workers(decode=64, encode=8, encode_threads=8, write=8)),
        ("cuda", 16, Workers(decode=16, encode=2, encode_threads=8, write=8)),
    ],
)
def test_threads_for_a_machine(device, cores, workers):
    assert Workers.choose(torch.device(device), cores=cores) == workers


def test_the_number_of_readers_can_be_chosen():
    assert Workers.choose(torch.device("cpu"), cores=2, decode=7).decode == 7
