"""How much every pair of views, and every patch token, counts: one mechanism for foreground in the losses.

Axes: s student views and t teacher views, both globals first, then locals; b samples; v global views; n tokens; g
globals, l locals. Weights are float32, carry no gradient, and stand inside the sum,

    L = sum(w * CE) / sum over all ranks and micro-batches (w),

so a crop of weight 0 has a gradient of exactly 0, shapes never change, and a rank without a crop that counts does the
same calls as the others. (An average ratio in front of the sum would be one number a batch: it cannot tell an air crop
from a body crop.)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.pretrain.losses.config import DinoConfig, ForegroundConfig
from patchatlas.pretrain.losses.ranks import ALONE, Ranks


@dataclass(frozen=True)
class PairWeights:
    """Weights of all pairs and what their weighted sum is divided by."""

    values: Float[Tensor, "s t b"]
    total: Float[Tensor, ""]
    """Of this rank and these samples. `mean_total` makes it one for all ranks and micro-batches."""


@dataclass(frozen=True)
class TokenWeights:
    """Weights of all patch tokens and what their weighted sum is divided by."""

    values: Float[Tensor, "v b n"]
    total: Float[Tensor, ""]


def mean_total(*totals: Tensor, ranks: Ranks = ALONE) -> Float[Tensor, ""]:
    """What every micro-batch of every rank divides its sum by: the total of all micro-batches, as a mean over ranks.

    Never 0: sums over nothing are 0, and stay so.
    """
    total = ranks.mean(torch.stack([total.detach().float() for total in totals]).sum())
    return torch.where(total > 0, total, torch.ones_like(total))


def ramp(ratio: Float[Tensor, "*any"], low: float, high: float) -> Float[Tensor, "*any"]:
    """0 up to `low`, 1 from `high` on, straight between."""
    return ((ratio - low) / (high - low)).clamp(0, 1)


@torch.no_grad()
def pair_weights(
    global_ratio: Float[Tensor, "g b"],
    local_ratio: Float[Tensor, "l b"],
    *,
    dino: DinoConfig,
    foreground: ForegroundConfig,
    parent: Int[Tensor, "l b"] | None = None,
    mean_ratio: Float[Tensor, ""] | None = None,
) -> PairWeights:
    """w[s, t, b] = g(r_s) g(r_t) m[s, t, b] for every student view s and teacher view t of sample b.

    The teacher views are the globals, and with `foreground.hierarchical` the locals after them. m is 0 where s and t
    are the same view, 1 between globals, `dino.local_scale` from a local to a global; then hierarchical matching moves
    what a local with too little foreground had with globals, in equal parts, to the other locals with enough. Where a
    sample has none of those it stays where it was.

    Args:
        global_ratio: foreground shares of the globals.
        local_ratio: of the locals; "0 b" without any.
        dino: how local pairs count.
        foreground: the switches.
        parent: the global that each local was cut from, for `local_pairs="parent"`.
        mean_ratio: over all crops of the step, of all micro-batches and processes, for `weighting="mean"`; if not
            given, over those that are.

    Raises:
        ShapeError: parents are wanted and not given.
    """
    g, l = len(global_ratio), len(local_ratio)  # noqa: E741  # the axes of this file
    ratios = torch.cat([global_ratio, local_ratio]).float()
    teachers = g + l if foreground.hierarchical else g
    match = ratios.new_zeros(g + l, teachers, ratios.shape[1])
    match[:g, :g] = 1 - torch.eye(g, device=ratios.device)[:, :, None]
    match[g:, :g] = dino.local_scale
    if dino.local_pairs == "parent" and l:
        if parent is None:
            raise ShapeError("local_pairs=parent needs to be told the parent of every local")
        match[g:, :g] *= parent[:, None] == torch.arange(g, device=ratios.device)[None, :, None]
    if foreground.hierarchical and l:
        poor = ratios[g:] < foreground.hierarchical_below  # l b
        partners = poor[:, None] & ~poor[None]  # student local, teacher local, sample
        found = partners.sum(1)  # l b
        moved = torch.where(found > 0, match[g:, :g].sum(1), 0)
        match[g:, g:] = partners * (moved / found.clamp(min=1))[:, None]
        match[g:, :g] *= (found == 0)[:, None]
    if foreground.weighting == "none":
        return PairWeights(values=match, total=match.sum())
    if foreground.weighting == "mean":
        mean = ratios.mean() if mean_ratio is None else mean_ratio
        return PairWeights(values=match * mean, total=match.sum())
    each = ramp(ratios, *foreground.ramp)
    values = each[:, None] * each[None, :teachers] * match
    return PairWeights(values=values, total=values.sum())


def crop_weights(ratio: Float[Tensor, "v b"], foreground: ForegroundConfig) -> Float[Tensor, "v b"]:
    """How much a crop counts in terms that have no pairs (KoLeo, SIGReg): the ramp with weighting pair, else 1."""
    return ramp(ratio.float(), *foreground.ramp) if foreground.weighting == "pair" else torch.ones_like(ratio.float())


def counted_tokens(
    token_foreground: Float[Tensor, "v b n"],
    foreground: ForegroundConfig,
    *,
    pad: Bool[Tensor, "v b n"] | None = None,
) -> Bool[Tensor, "v b n"]:
    """Which tokens take part in patch terms: not padding and, with patches foreground, enough of it."""
    counted = torch.ones_like(token_foreground, dtype=torch.bool) if pad is None else ~pad
    if foreground.patches == "foreground":
        counted = counted & (token_foreground >= foreground.patch_threshold)
    return counted


def background_tokens(
    token_foreground: Float[Tensor, "v b n"], foreground: ForegroundConfig
) -> Bool[Tensor, "v b n"] | None:
    """Which tokens are assigned the background prototype; None unless patches is prototype."""
    return token_foreground < foreground.patch_threshold if foreground.patches == "prototype" else None


@torch.no_grad()
def token_weights(masked: Bool[Tensor, "v b n"], counted: Bool[Tensor, "v b n"]) -> TokenWeights:
    """Every masked token that counts weighs 1 over their number in its crop, so that crops count alike.

    The total is the number of crops, as DINOv2 has it: one without a mask counts with a loss of 0. A crop none of whose
    masked tokens counts is left out of it, for background only.
    """
    used = masked & counted
    each = used.sum(-1, keepdim=True)
    left_out = masked.any(-1) & ~used.any(-1)
    return TokenWeights(values=used / each.clamp(min=1).float(), total=(~left_out).sum().float())
