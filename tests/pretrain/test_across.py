"""Numbers over micro-batches and processes are those of all their crops and rows in one."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from patchatlas.geometry.frame import Frame
from patchatlas.pretrain.across import crops_of_step, target_numbers
from patchatlas.pretrain.crops.records import ANYWHERE, BELOW_MIN, PADDED, Batch, CropRecord
from patchatlas.pretrain.losses.ranks import ALONE, Ranks
from patchatlas.pretrain.losses.weights import PairWeights

G, L, N, CPU = 2, 1, 4, torch.device("cpu")


@dataclass(frozen=True)
class Beside(Ranks):
    """The first of two processes, of which the other has given this."""

    size: int = 2
    theirs: list[Tensor] = field(default_factory=list)

    def gather(self, values: Tensor) -> Tensor:
        return torch.stack([values, self.theirs.pop(0)])


@dataclass(frozen=True)
class Telling(Ranks):
    """The other one, which keeps what it gives; what it gets back is its own."""

    size: int = 2
    told: list[Tensor] = field(default_factory=list)

    def gather(self, values: Tensor) -> Tensor:
        self.told.append(values)
        return values[None]


def record(start: int, flags: tuple[str, ...]) -> CropRecord:
    return CropRecord(
        volume="v",
        start_zyx=(0, start),
        size_zyx=(8, 8),
        spacing=(),
        fg_ratio=0.0,
        n_valid=1,
        flags=flags,
        parent=-1,
        flips=(),
        frame=Frame.whole((8, 8)),
        threshold="body",
    )


def batch(ratios: list[list[float]], starts: list[int], flags: list[tuple[str, ...]]) -> Batch:
    """Samples of two globals, the second moved by `start`, and a local; flags are of the local."""
    b = len(ratios)
    ratio = torch.tensor(ratios).T
    return Batch(
        globals=torch.zeros(G, b, 1, 8, 8),
        locals=torch.zeros(L, b, 1, 4, 4),
        global_ratio=ratio[:G],
        local_ratio=ratio[G:],
        global_foreground=torch.ones(G, b, N),
        local_foreground=torch.ones(L, b, 1),
        local_pad=torch.zeros(L, b, 1, dtype=torch.bool),
        global_pad=torch.zeros(G, b, N, dtype=torch.bool),
        parent=torch.zeros(L, b, dtype=torch.int64),
        records=tuple(
            (record(0, ()), record(start, (ANYWHERE,)), record(0, flag))
            for start, flag in zip(starts, flags, strict=True)
        ),
    )


def weights(*values: float) -> PairWeights:
    """Of every view of each sample, with one teacher view."""
    each = torch.tensor(values, dtype=torch.float32).expand(G + L, 1, -1)
    return PairWeights(values=each, total=each.sum())


FIRST = batch([[0.1, 0.9, 0.4], [1.0, 0.6, 0.0]], [2, 4], [(BELOW_MIN, PADDED), ()])
SECOND = batch([[0.3, 0.3, 1.0], [0.2, 0.8, 0.7]], [8, 0], [(), (PADDED,)])
BOTH = batch(
    [[0.1, 0.9, 0.4], [1.0, 0.6, 0.0], [0.3, 0.3, 1.0], [0.2, 0.8, 0.7]],
    [2, 4, 8, 0],
    [(BELOW_MIN, PADDED), (), (), (PADDED,)],
)


def test_crops_of_all_micro_batches_count():
    whole = crops_of_step([BOTH], [weights(1, 2, 3, 4)], device=CPU, ranks=ALONE)
    parts = crops_of_step([FIRST, SECOND], [weights(1, 2), weights(3, 4)], device=CPU, ranks=ALONE)
    assert parts == pytest.approx(whole)
    assert whole["globals_foreground"] == pytest.approx(4.2 / 8)
    assert whole["locals_foreground_min"] == 0
    assert whole["below_ratio"] == pytest.approx(1 / 12)
    assert whole["flagged"] == pytest.approx(6 / 12)
    assert whole["overlap"] == pytest.approx((0.75 + 0.5 + 0 + 1) / 4)
    assert whole["locals_weight_even"] == pytest.approx(100 / 30 / 4)


def test_crops_of_all_processes_count():
    other = Telling()
    crops_of_step([SECOND], [weights(3, 4)], device=CPU, ranks=other)
    both = crops_of_step([FIRST], [weights(1, 2)], device=CPU, ranks=Beside(theirs=other.told))
    assert both == pytest.approx(crops_of_step([BOTH], [weights(1, 2, 3, 4)], device=CPU, ranks=ALONE))


def test_targets_of_all_processes_count():
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 5, generator=generator), torch.rand(6, 5, generator=generator)
    targets /= targets.sum(1, keepdim=True)
    whole = target_numbers(targets, (logits, targets), student_temp=0.1, ranks=ALONE)
    assert set(whole) == {"row_entropy", "dino_share", "target_entropy", "kl"}
    other = Telling()
    target_numbers(targets[3:], (logits[3:], targets[3:]), student_temp=0.1, ranks=other)
    mine = target_numbers(targets[:3], (logits[:3], targets[:3]), student_temp=0.1, ranks=Beside(theirs=other.told))
    assert mine == pytest.approx(whole, rel=1e-9)
    assert target_numbers(None, None, student_temp=0.1, ranks=ALONE) == {}
