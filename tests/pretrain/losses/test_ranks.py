"""Two gloo ranks, whose halves of a batch weigh unlike, give the losses, targets and gradients of one process."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from patchatlas.pretrain.losses.ranks import ALONE, Ranks
from tests.pretrain.losses.two_ranks import one_of_two, whole


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    mp.spawn(one_of_two, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("term", ["dino", "ibot", "koleo", "gram", "normality", "agreement"])
def test_two_ranks_are_one(ranks: list[dict[str, torch.Tensor]], term: str) -> None:
    alone = whole()
    for name in (term, f"{term} gradient"):
        assert bool((alone[name] != 0).any())
        for rank in ranks:
            torch.testing.assert_close(rank[name], alone[name], rtol=1e-6, atol=1e-9)


def test_targets_are_shared_out_over_both_ranks(ranks: list[dict[str, torch.Tensor]]) -> None:
    together = torch.cat([rank["targets"] for rank in ranks], dim=1)
    torch.testing.assert_close(together, whole()["targets"])


def test_alone_there_is_nothing_to_gather() -> None:
    assert Ranks.here() is ALONE
    values = torch.arange(3.0)
    assert torch.equal(ALONE.gather(values), values[None])
    assert torch.equal(ALONE.mean(values), values)
