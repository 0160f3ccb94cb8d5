"""KoLeo and SIGReg look at the samples of a micro-batch: what that keeps of the loss of a whole batch, and what not."""

import pytest
import torch
from torch import Tensor

from patchatlas.errors import UsageError
from patchatlas.pretrain.config import make_config
from patchatlas.pretrain.losses.config import LossConfig
from patchatlas.pretrain.losses.koleo import koleo_loss
from patchatlas.pretrain.losses.ranks import ALONE
from patchatlas.pretrain.losses.weights import PairWeights, TokenWeights
from patchatlas.pretrain.objective import Goal, Objective, Shares
from patchatlas.pretrain.student import Seen

G, N, D = 2, 3, 8

SPREAD = LossConfig.model_validate({"dino": {"weight": 0}, "ibot": {"weight": 0}, "sigreg": {"weight": 1}})


def terms_of_step(*micro_batches: Tensor) -> dict[str, Tensor]:
    """The terms of a step: class tokens and embeddings of its micro-batches, each (g, b, d), no locals."""
    objective = Objective(SPREAD, ALONE)
    totals: dict[str, Tensor] = {}
    for tokens in micro_batches:
        rows = tokens.flatten(0, 1)
        seen = Seen(rows, torch.zeros(len(rows), N, D), None, None, rows)
        found = objective.terms(seen, None, goal(tokens.shape[1], len(micro_batches)), gram=None, directions_seed=0)
        totals = {name: value + totals.get(name, 0) for name, value in found.items()}
    return totals


def goal(b: int, micro: int) -> Goal:
    """A goal in which all crops count alike."""
    none, zero = torch.zeros(G, b, N, dtype=torch.bool), torch.zeros(())
    shares = Shares(
        pairs=PairWeights(values=torch.zeros(G, G, b), total=zero),
        crops=torch.ones(G, b),
        tokens=TokenWeights(values=torch.zeros(G, b, N), total=zero),
        counted=~none,
        background=None,
        hidden=none,
    )
    totals = {name: torch.ones(()) for name in Goal.__dataclass_fields__ if name.endswith("_total")}
    return Goal(shares=shares, cls=None, patches=None, micro=micro, **totals)


@pytest.fixture
def halves() -> tuple[Tensor, Tensor]:
    drawn = torch.randn(G, 8, D, generator=torch.Generator().manual_seed(0)) + 0.3
    first, second = drawn.chunk(2, dim=1)
    return first, second


def test_a_step_is_the_mean_of_steps_of_its_micro_batches(halves):
    together = terms_of_step(*halves)
    alone = [terms_of_step(half) for half in halves]
    assert set(together) == {"koleo", "sigreg_normality", "sigreg_agreement"}
    for name, value in together.items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2)


def test_their_order_and_the_order_within_change_nothing(halves):
    first, second = halves
    order = torch.tensor([2, 0, 3, 1])
    for name, value in terms_of_step(second[:, order], first).items():
        torch.testing.assert_close(value, terms_of_step(first, second)[name])


def test_views_agree_as_much_however_samples_are_dealt_out(halves):
    whole = terms_of_step(torch.cat(halves, dim=1))
    torch.testing.assert_close(terms_of_step(*halves)["sigreg_agreement"], whole["sigreg_agreement"])


def test_the_gaussian_test_of_a_whole_sees_a_fault_as_many_times_as_clearly():
    half = torch.randn(G, 4, D, generator=torch.Generator().manual_seed(1)) + 1
    whole, parts = terms_of_step(torch.cat([half, half], dim=1)), terms_of_step(half, half)
    torch.testing.assert_close(whole["sigreg_normality"], 2 * parts["sigreg_normality"])


def test_samples_of_other_micro_batches_are_no_neighbours(halves):
    first, _ = halves
    apart, together = terms_of_step(first, first.clone()), terms_of_step(torch.cat([first, first], dim=1))
    torch.testing.assert_close(apart["koleo"], torch.stack([koleo_loss(view) for view in first]).sum())
    assert together["koleo"] > 2 * 18  # both views: each token has its like at distance 0
    assert apart["koleo"] < 2


def test_a_micro_batch_of_one_sample_has_no_neighbours():
    with pytest.raises(UsageError, match=r"train\.batch 1 gives none.*across_ranks"):
        make_config({"data": "cache", "train": {"batch": 1}})
    for loss in ({"weight": 0}, {"across_ranks": True}):
        make_config({"data": "cache", "train": {"batch": 1}, "loss": {"koleo": loss}})
