"""The organ probe: labels of patches by hand, two probes with known answers, balance, and what air does to them."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.random_vit import random_vit
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.vit import ViTConfig
from patchatlas.errors import InputError, ShapeError
from patchatlas.pretrain.probe import (
    UNSURE,
    Case,
    Patches,
    encode_cases,
    knn_classes,
    linear_classes,
    patch_labels,
    raw_cases,
    score,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_patch_is_of_the_class_that_has_enough_of_it() -> None:
    labels = np.array([[1, 1, 0, 2], [1, 0, 3, 4], [5, 5, 2, 2], [5, 5, 2, 2]])
    assert patch_labels(labels, patch=(2, 2)).tolist() == [1, UNSURE, 5, 2]
    assert patch_labels(labels, patch=(2, 2), purity=0.8).tolist() == [UNSURE, UNSURE, 5, 2]
    half = np.array([[1, 1, 2, 2]])
    assert patch_labels(half, patch=(1, 4)).tolist() == [1]


def test_patches_of_a_volume_are_in_the_order_of_tokens() -> None:
    labels = np.arange(8).reshape(2, 2, 2).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert patch_labels(labels, patch=(2, 2, 2)).tolist() == list(range(8))


def case(seed: int = 0, *, size: tuple[int, ...] = (8, 12, 8)) -> Case:
    """A body of two organs, of brightness 0.2 and 0.8, in air of 0."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, dtype=np.int16)
    labels[:, : size[1] // 3] = 1
    labels[:, size[1] // 3 : size[1] * 2 // 3] = 2
    pixels = np.array([0.0, 0.2, 0.8])[labels] + 0.02 * rng.random(size)
    return Case(torch.from_numpy(pixels[None].astype(np.float32)), labels, labels > 0)


def test_crops_tile_a_case_and_tokens_meet_their_truth() -> None:
    one = case(size=(9, 12, 8))  # the ninth slice is left over
    found = encode_cases(FakeEncoder(patch=(4, 4, 4), channels=1), [one, case(1)], crop=(8, 4, 8))
    assert found.tokens.shape == (2 * 3 * 4, 1)
    assert found.labels.tolist() == ([1] * 4 + [2] * 4 + [0] * 4) * 2
    assert found.foreground.tolist() == ([1] * 8 + [0] * 4) * 2
    assert found.ratio.tolist() == [1, 1, 0] * 2
    assert found.cls is not None
    assert found.cls.shape == (6, 1)
    means = [float(found.tokens[found.labels == name].mean()) for name in (0, 1, 2)]
    assert means == pytest.approx([0.01, 0.21, 0.81], abs=0.005)


def test_batches_change_nothing() -> None:
    """A batch may end within a case; crops of a network that looks around differ from one another."""
    small = ViTConfig(family="vit3d", patch=(4, 4, 4), dim=24, depth=2, heads=2, ffn_hidden=48)
    encoder = random_vit(small, name="small")
    cases = [case(size=(8, 12, 8)), case(1, size=(8, 20, 8))]
    cases = [replace(one, pixels=one.pixels.expand(3, -1, -1, -1)) for one in cases]
    alone = encode_cases(encoder, cases, crop=(8, 4, 8), batch=1)
    for batch in (3, 8, 100):
        together = encode_cases(encoder, cases, crop=(8, 4, 8), batch=batch)
        for name in ("tokens", "labels", "foreground", "cls", "ratio"):
            torch.testing.assert_close(getattr(together, name), getattr(alone, name), atol=1e-6, rtol=0)
    with pytest.raises(ShapeError, match="batch of 0 crops"):
        encode_cases(encoder, cases, crop=(8, 4, 8), batch=0)


def test_without_a_network_there_are_mean_deviation_and_histogram() -> None:
    raw = raw_cases([case()], patch=(4, 4, 4), crop=(8, 12, 8))
    network = encode_cases(FakeEncoder(patch=(4, 4, 4), channels=1, has_cls=False), [case()], crop=(8, 12, 8))
    torch.testing.assert_close(raw.tokens[:, :1], network.tokens)
    assert torch.equal(raw.labels, network.labels)
    assert network.cls is None
    assert 0 < float(raw.tokens[:, 1].max()) < 0.01
    histogram = raw_cases([case()], patch=(4, 4, 4), crop=(8, 12, 8), bins=5).tokens
    assert histogram[raw.labels == 2].unique(dim=0).tolist() == [[0, 0, 0, 0, 1]]


@pytest.mark.parametrize(("crop", "message"), [((8, 16, 8), "holds no crop"), ((6, 4, 4), "no grid of patches")])
def test_crops_that_do_not_fit_are_refused(crop: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        raw_cases([case()], patch=(4, 4, 4), crop=crop)


def test_neighbours_vote_by_cosine() -> None:
    fit = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 5.0], [0.1, 9.0], [-1.0, 0.2]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    asked = torch.tensor([[100.0, 1.0], [0.0, 0.1], [-3.0, 0.0]])
    assert knn_classes(fit, labels, asked, neighbours=2).tolist() == [0, 1, 2]
    # By product, the long row would outvote the two that point the same way; by length, a short one asked about none.
    fit = torch.tensor([[1.0, 0.0], [0.95, 0.05], [60.0, 60.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1, 1])
    for length in (1e-3, 1.0, 1e3):
        assert knn_classes(fit, labels, length * torch.tensor([[1.0, 0.02]]), neighbours=3).tolist() == [0]
    # Votes weigh by cosine at a temperature of 0.07: one at hand counts more than two far off, for a row of any length.
    fit = torch.tensor([[1.0, 0.0], [0.5, 0.866], [0.5, -0.866]])
    for length in (0.01, 1.0):
        assert knn_classes(fit, torch.tensor([0, 1, 1]), torch.tensor([[length, 0.0]]), neighbours=3).tolist() == [0]


def test_accuracy_is_of_what_is_so_not_of_what_is_said() -> None:
    # Tokens of class 1 are told from 0 half of the time, and those of class 0 always.
    fit = patches(torch.tensor([[1.0, 0.0]] * 20 + [[0.0, 1.0]] * 20), torch.tensor([0] * 20 + [1] * 20))
    asked = torch.tensor([[1.0, 0.0]] * 60 + [[0.0, 1.0]] * 10 + [[1.0, 0.0]] * 10)
    scores = score(fit, patches(asked, torch.tensor([0] * 60 + [1] * 20)))
    assert scores.knn_recall == {0: 1.0, 1: 0.5}
    assert scores.linear_recall == {0: 1.0, 1: 0.5}
    assert scores.knn == 0.75


def test_the_linear_probe_is_at_the_minimum_of_its_loss() -> None:
    # Against a plain gradient descent on the loss as the docstring has it.
    x, labels = normal(40, 3), torch.arange(40) % 2 + (torch.arange(40) % 7 == 0)
    x = x + 2 * F.one_hot(labels, 3)
    k, penalty = 3, 0.1
    z = (x.double() - x.double().mean(0)) / x.double().std(0, correction=0)
    weights = torch.zeros(4, k, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-10)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        log_probs = torch.log_softmax(z @ weights[:3] + weights[3], 1)
        each = torch.stack([-log_probs[labels == name, name].mean() for name in range(k)])
        value = each.mean() + penalty / 2 / k * weights[:3].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    asked = normal(300, 3, seed=1) * 3
    y = (asked.double() - x.double().mean(0)) / x.double().std(0, correction=0)
    want = (y @ weights[:3] + weights[3]).argmax(1)
    assert linear_classes(x, labels, asked, penalty=penalty).tolist() == want.tolist()
    assert len(set(want.tolist())) == 3


def patches(tokens: torch.Tensor, labels: torch.Tensor) -> Patches:
    share = (labels > 0).float()
    return Patches(tokens=tokens, labels=labels, foreground=share, cls=None, ratio=torch.zeros(0))


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    # Tokens say nothing; naming everything by the common class would be right in 95 % of patches.
    labels = (torch.arange(2000) % 20 == 0).long()
    scores = score(patches(normal(2000, 8), labels), patches(normal(2000, 8, seed=1), labels))
    assert scores.knn == pytest.approx(0.5, abs=0.1)
    assert scores.linear == pytest.approx(0.5, abs=0.1)
    assert scores.knn == pytest.approx(sum(scores.knn_recall.values()) / 2)


def test_what_features_know_is_found() -> None:
    labels = torch.arange(600) % 3
    centres = torch.tensor([[4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 4.0, 0]])
    fit = patches(centres[labels] + normal(600, 4), labels)
    test = patches(centres[labels] + normal(600, 4, seed=1), labels)
    scores = score(fit, test, per_class=50)
    assert scores.knn > 0.95
    assert scores.linear > 0.95
    assert list(scores.linear_recall) == [0, 1, 2]
    assert math.isnan(scores.foreground_r2)
    assert 0.1 < scores.background_share < 0.9
    assert list(score(fit, test, classes=[1, 2]).knn_recall) == [1, 2]


def test_patches_without_a_class_are_not_asked_about_and_one_class_is_no_probe() -> None:
    labels = torch.tensor([UNSURE, 1] * 50)
    with pytest.raises(InputError, match=r"two classes or more that both sides hold, found \[1\]"):
        score(patches(normal(100, 4), labels), patches(normal(100, 4), labels))


def test_more_to_learn_from_helps_and_the_draw_is_from_the_seed() -> None:
    labels = torch.arange(1200) % 4
    centres = normal(4, 16, seed=3)
    fit = patches(centres[labels] + 1.5 * normal(1200, 16), labels)
    test = patches(centres[labels] + 1.5 * normal(1200, 16, seed=1), labels)
    scores = [score(fit, test, per_class=count).linear for count in (3, 300)]
    assert all(fewer < more for fewer, more in pairwise(scores))
    assert score(fit, test, per_class=30, seed=1).knn_recall == score(fit, test, per_class=30, seed=1).knn_recall
    assert score(fit, test, per_class=30, seed=1).knn_recall != score(fit, test, per_class=30, seed=2).knn_recall
