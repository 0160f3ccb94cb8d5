"""All terms on one batch, whole or as one of two ranks: what `test_ranks` compares. Run in processes of its own."""

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from patchatlas.pretrain.losses.config import DinoConfig, ForegroundConfig
from patchatlas.pretrain.losses.dino import dino_loss
from patchatlas.pretrain.losses.gram import gram_loss
from patchatlas.pretrain.losses.ibot import ibot_loss, patch_targets
from patchatlas.pretrain.losses.koleo import koleo_loss
from patchatlas.pretrain.losses.ranks import ALONE, Ranks
from patchatlas.pretrain.losses.sigreg import random_directions, sigreg_terms
from patchatlas.pretrain.losses.sinkhorn import sinkhorn
from patchatlas.pretrain.losses.weights import counted_tokens, crop_weights, mean_total, pair_weights, token_weights

G, L, B, N, D, K = 2, 2, 6, 5, 4, 7
SPLIT = 3
"""Samples of the first rank. Both have three, but not the same weight, masked tokens or foreground."""


def losses_and_gradient(part: slice, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Each term on some samples of the batch and the gradient of their sum on a shared matrix of weights."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    network = drawn(D, K).requires_grad_()
    inputs, teacher = drawn(G + L, B, D)[:, part], drawn(G, B, K)[:, part] * 0.2
    patches, patch_teacher = drawn(G, B, N, D)[:, part], drawn(G, B, N, K)[:, part] * 0.2
    ratio = torch.rand(G + L, B, generator=generator)[:, part]
    share = torch.rand(G, B, N, generator=generator)[:, part]
    masked = torch.rand(G, B, N, generator=generator)[:, part] < 0.5
    directions = random_directions(K, 8, generator=generator)
    foreground = ForegroundConfig(weighting="pair", patches="foreground", patch_threshold=0.3)

    weights = pair_weights(ratio[:G], ratio[G:], dino=DinoConfig(), foreground=foreground)
    crops = crop_weights(ratio, foreground).double()
    counted = counted_tokens(share, foreground)
    tokens = token_weights(masked, counted)
    targets = sinkhorn(teacher.flatten(0, 1), temperature=0.05, ranks=ranks).reshape(teacher.shape)
    rows = patch_targets(patch_teacher[masked], temperature=0.07, counted=counted[masked], ranks=ranks)
    student, patch_student = inputs @ network, patches @ network
    sigreg = sigreg_terms(student, directions, n_globals=G, weights=crops, ranks=ranks)
    terms = {
        "dino": dino_loss(student, targets, weights, total=mean_total(weights.total, ranks=ranks)),
        "ibot": ibot_loss(
            patch_student[masked], rows, tokens.values[masked], total=mean_total(tokens.total, ranks=ranks)
        ),
        "koleo": koleo_loss(student[0], weights=crops[0], ranks=ranks, across_ranks=True),
        "gram": gram_loss(
            patch_student.flatten(0, 1), patch_teacher.flatten(0, 1), weights=counted.flatten(0, 1), ranks=ranks
        ),
        "normality": sigreg.normality,
        "agreement": sigreg.agreement,
    }
    gradients = {}
    for name, term in terms.items():
        (gradients[f"{name} gradient"],) = torch.autograd.grad(term, network, retain_graph=True)
    return {name: term.detach() for name, term in terms.items()} | gradients | {"targets": targets.detach()}


def whole() -> dict[str, torch.Tensor]:
    """The batch in one process."""
    return losses_and_gradient(slice(None), ALONE)


def one_of_two(rank: int, folder: str) -> None:
    """The part of one rank; both write what they got, the terms averaged as DDP averages gradients."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    try:
        found = losses_and_gradient(slice(0, SPLIT) if rank == 0 else slice(SPLIT, B), Ranks.here())
        targets = found.pop("targets")
        for value in found.values():
            dist.all_reduce(value)
            value /= 2
        torch.save(found | {"targets": targets}, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
