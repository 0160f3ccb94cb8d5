"""Out of memory: the batch is halved down to one picture, it is said once, and the result is the same."""

import logging

import pytest
import torch

from patchatlas.datasets.build.memory import Halving, is_out_of_memory
from patchatlas.errors import ResourceError

CPU_SAYS = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ...")


class Network:
    """Twice the pixels, for at most `most` pictures at a time."""

    def __init__(self, most, error=CPU_SAYS):
        self.most, self.error, self.asked = most, error, []

    def __call__(self, pixels):
        self.asked.append(len(pixels))
        if len(pixels) > self.most:
            raise self.error
        return {"twice": 2 * pixels, "sum": pixels.sum((1, 2, 3))}


@pytest.fixture
def batch():
    return torch.arange(8 * 3 * 2 * 2, dtype=torch.float32).reshape(8, 3, 2, 2)


@pytest.mark.parametrize(
    "error", [CPU_SAYS, torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("not enough memory")]
)
def test_memory_errors_are_known(error):
    assert is_out_of_memory(error)


def test_other_errors_are_not():
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize(
    ("most", "asked"), [(8, [8]), (4, [8, 4, 4]), (3, [8, 4, 2, 2, 2, 2]), (1, [8, 4, 2] + [1] * 8)]
)
def test_the_batch_is_halved_until_it_fits(batch, most, asked):
    network = Network(most, torch.OutOfMemoryError("no"))
    made = Halving()(network, batch, where="cpu")
    assert network.asked == asked
    assert torch.equal(made["twice"], 2 * batch)
    assert torch.equal(made["sum"], batch.sum((1, 2, 3)))


def test_what_did_not_fit_is_not_tried_again_and_said_once(batch, caplog):
    network, halving = Network(4), Halving()
    with caplog.at_level(logging.WARNING):
        halving(network, batch, where="cuda:0")
        network.asked.clear()
        halving(network, batch, where="cuda:0")
    assert network.asked == [4, 4]
    assert [record.getMessage() for record in caplog.records] == [
        "cuda:0 ran out of memory on 8 pictures of 2x2 px; taking 4 at a time from now on"
    ]


def test_other_shapes_start_from_the_whole_batch(batch):
    network, halving = Network(4), Halving()
    halving(network, batch, where="cpu")
    network.asked.clear()
    halving(network, batch[:4, :, :1], where="cpu")
    assert network.asked == [4]


def test_one_picture_that_does_not_fit_is_a_clear_error(batch):
    with pytest.raises(ResourceError, match="cpu ran out of memory on one picture of 2x2 px"):
        Halving()(Network(0), batch, where="cpu")


def test_other_errors_pass(batch):
    with pytest.raises(RuntimeError, match="shape"):
        Halving()(Network(0, RuntimeError("shape mismatch")), batch, where="cpu")
