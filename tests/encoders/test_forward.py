"""What a forward holds: the estimate is above what a network was seen to take, and the budget is kept."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.forward import WORKSPACE, activation_bytes, affordable, forward
from patchatlas.encoders.protocol import Tokens
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import ResourceError, ShapeError
from patchatlas.spec import EncoderSpec
from tests.encoders.test_vit import encoder

PLAIN = ViTConfig(family="dinov3", patch=(16, 16), dim=384, depth=2, heads=6, registers=4, ffn_hidden=1536)
GATED = ViTConfig(
    family="dinov3", patch=(16, 16), dim=384, depth=2, heads=6, registers=4, ffn_hidden=1024, ffn="swiglu"
)
SOLID = ViTConfig(family="vit3d", patch=(8, 16, 16), dim=192, depth=2, heads=3, registers=4, ffn_hidden=768)


def peak_bytes(work: Callable[[], object], folder: Path) -> int:
    """The most memory that tensors made by `work` held at any time, as torch's own allocator tells its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    trace = json.loads((folder / "trace.json").read_text())
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in trace["traceEvents"] if e.get("name") == "[memory]")
    held = top = 0
    for _, change in changes:
        held += change
        top = max(top, held)
    return top


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize(
    ("config", "size"),
    [(PLAIN, (64, 64)), (PLAIN, (368, 368)), (GATED, (208, 320)), (SOLID, (32, 64, 80))],
    ids=["small", "in blocks", "gated", "volume"],
)
def test_no_forward_takes_more_than_the_estimate(config, size, inputs, tmp_path):
    network = encoder(config, layer=1, norm="final")
    pixels = torch.rand(inputs, 3, *size, generator=torch.Generator().manual_seed(0))
    network(pixels)  # tables are made once
    taken = peak_bytes(lambda: network(pixels), tmp_path)
    cells = [n // p for n, p in zip(size, config.patch, strict=True)]
    estimate = activation_bytes(cells, network.spec, inputs=inputs)
    assert taken <= estimate
    assert taken >= (estimate - WORKSPACE) / 4  # no wild guess either


def test_the_batch_is_the_largest_that_the_budget_holds():
    spec, cells = encoder(PLAIN, layer=1, norm="final").spec, (4, 6)
    for inputs in range(1, 8):
        budget = activation_bytes(cells, spec, inputs=inputs)
        assert affordable(cells, spec, inputs=99, batch=None, budget=budget) == inputs
        assert affordable(cells, spec, inputs=99, batch=2, budget=budget) == min(2, inputs)
    assert affordable(cells, spec, inputs=99, batch=None, budget=None) == 8
    assert affordable(cells, spec, inputs=3, batch=None, budget=None) == 3
    with pytest.raises(ResourceError, match=r"encoding \(64, 96\) pixels at once takes about"):
        affordable(cells, spec, inputs=99, batch=None, budget=activation_bytes(cells, spec) - 1)
    with pytest.raises(ShapeError, match="a batch of 0"):
        affordable(cells, spec, inputs=99, batch=0, budget=None)


def test_the_estimate_grows_with_each_part():
    spec: EncoderSpec = encoder(PLAIN, layer=1, norm="final").spec
    assert activation_bytes((4, 6), spec) == (24 + 5) * 384 * 14 * 4 + 2 * 3 * 64 * 96 * 4 + WORKSPACE
    assert activation_bytes((4, 6), spec, inputs=5) - WORKSPACE == 5 * (activation_bytes((4, 6), spec) - WORKSPACE)


@pytest.mark.parametrize("registers", [0, 2])
def test_a_batch_that_was_halved_has_all_its_tokens(registers):
    class Small(FakeEncoder):
        """An accelerator that holds two inputs."""

        def __call__(self, pixels: torch.Tensor, /) -> Tokens:
            if len(pixels) > 2:
                raise torch.OutOfMemoryError("full")
            return super().__call__(pixels)

    pixels = torch.rand(5, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    halved, whole = (forward(kind(registers=registers), pixels) for kind in (Small, FakeEncoder))
    assert torch.equal(halved.patches, whole.patches)
    assert torch.equal(halved.cls, whole.cls)
    assert halved.registers is None if registers == 0 else torch.equal(halved.registers, whole.registers)
