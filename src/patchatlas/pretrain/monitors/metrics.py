"""Numbers of one step: how sharp targets are, what the student has yet to learn from them, doubles among prototypes.

Axes: n rows, k prototypes, v views, b samples, d features. All in float64: near a collapse the last digits count.

What these cannot see: Sinkhorn makes all columns equal, so the entropy of the *mean* target is ln K whatever happens;
rows that are all equal still count as many prototypes as there are rows. Only the entropy of each row tells. For the
mean, see `window.RowWindow`, which looks at logits before Sinkhorn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.pretrain.losses.koleo import FLOOR

EQUAL = 14.0
"""KoLeo of two unit tokens that differ by rounding errors only, 1e-6 apart; above."""

_ROWS = 1024  # prototypes compared at a time with all others


@torch.no_grad()
def row_entropy(targets: Float[Tensor, "n k"]) -> float:
    """Mean entropy of rows of targets over ln K: 1 if every row says nothing, 0 if all are one-hot."""
    return float(_entropies(targets.double()).mean()) / math.log(targets.shape[1])


@torch.no_grad()
def divergence(
    student_logits: Float[Tensor, "n k"],
    targets: Float[Tensor, "n k"],
    *,
    student_temp: float,
) -> dict[str, float]:
    """The cross-entropy of pairs of rows and its two parts: what targets leave open, and what is still to be learnt.

    Returns:
        `dino_share`, cross-entropy over ln K; `target_entropy`, nats; `kl`, divergence of student from teacher, nats.
    """
    targets = targets.double()
    log_probs = torch.log_softmax(student_logits.double() / student_temp, dim=-1)
    cross = float(-(targets * log_probs).sum(-1).mean())
    entropy = float(_entropies(targets).mean())
    return {"dino_share": cross / math.log(targets.shape[1]), "target_entropy": entropy, "kl": cross - entropy}


@torch.no_grad()
def koleo_of_closest(class_tokens: Float[Tensor, "v b d"]) -> float:
    """KoLeo of the one sample that lies closest to another: -log of the least distance of two unit tokens of a view.

    The mean over a batch, which is the loss, hides two equal samples among many others. 18.4 if two are equal, as
    KoLeo counts it; -inf for a single sample, NaN where a token is not finite.
    """
    if not bool(class_tokens.isfinite().all()):
        return math.nan
    unit = torch.nn.functional.normalize(class_tokens.double(), dim=-1)
    likeness = unit @ unit.mT
    likeness.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    nearest = likeness.argmax(-1)
    others = torch.take_along_dim(unit, nearest[..., None], 1)
    least = float((unit - others).norm(dim=-1).min()) if unit.shape[1] > 1 else math.inf
    return -math.log(max(least, FLOOR))


@torch.no_grad()
def duplicate_share(prototypes: Float[Tensor, "k d"], *, above: float = 0.975, at_most: int = 4096) -> float:
    """Share of prototypes to which another one has a cosine above `above`.

    Of more than `at_most`, so many are asked about, spread evenly; all are compared with.
    """
    unit = torch.nn.functional.normalize(prototypes.float(), dim=-1)
    asked = torch.linspace(0, len(unit) - 1, min(at_most, len(unit)), dtype=torch.float64).long().to(unit.device)
    doubles = 0
    for some in asked.split(_ROWS):
        likeness = unit[some] @ unit.T
        likeness[torch.arange(len(some), device=unit.device), some] = -torch.inf
        doubles += int((likeness.amax(1) > above).sum())
    return doubles / len(asked)


@torch.no_grad()
def ema_gap(student: Iterable[Tensor], teacher: Iterable[Tensor]) -> float:
    """Distance of student and teacher over the length of the teacher, all parameters as one vector.

    Raises:
        ValueError: other numbers of parameters.
    """
    apart = length = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        apart += float((ours.double() - theirs.double()).square().sum())
        length += float(theirs.double().square().sum())
    return math.sqrt(apart / length) if length else math.nan


@torch.no_grad()
def grad_norms(parameters: Iterable[tuple[str, Tensor]], *, depth: int = 2) -> dict[str, float]:
    """Norm of the gradient of each module, `grad/NAME`, and of all, `grad/all`, as they are now.

    Args:
        parameters: names and parameters; those without a gradient are left out.
        depth: parts of the name that make a module: of `blocks.3.attn.qkv.weight`, 2 give `blocks.3`.

    All processes must call it where parameters are sharded.
    """
    squares: dict[str, float] = {}
    for name, parameter in parameters:
        if parameter.grad is not None:
            module = ".".join(name.split(".")[:-1][:depth]) or name
            square = parameter.grad.double().square().sum()
            whole = square.full_tensor() if hasattr(square, "full_tensor") else square  # shards of several processes
            squares[module] = squares.get(module, 0.0) + float(whole)
    norms = {f"grad/{module}": math.sqrt(square) for module, square in squares.items()}
    return norms | {"grad/all": math.sqrt(sum(squares.values()))}


def crop_numbers(
    ratios: Mapping[str, Sequence[float]],
    *,
    flags: Sequence[str | None] = (),
    overlaps: Sequence[float] = (),
    weights: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, float]:
    """What the crops of a step hold: foreground, flags, overlap, and how evenly the losses weigh them.

    Args:
        ratios: foreground shares of the crops by kind, `globals` and `locals`.
        flags: of all crops; None or "" for one that met everything asked of it.
        overlaps: of pairs of globals, shares of a crop.
        weights: sums of pair weights by crop, by kind.

    Returns:
        For each kind `KIND_foreground` (mean), `KIND_foreground_min` and the shares of ten equal bins of foreground,
        `KIND_foreground_bin0` to `9`; `below_ratio`, share of crops flagged below_min; `flagged`, share of any flag;
        `overlap`; `KIND_weight_even`, the number of equal weights that would vary as little over the number of crops.
    """
    numbers: dict[str, float] = {}
    for kind, shares in ratios.items():
        if not len(shares):
            continue
        values = torch.as_tensor(shares, dtype=torch.float64)
        numbers[f"{kind}_foreground"] = float(values.mean())
        numbers[f"{kind}_foreground_min"] = float(values.min())
        bins = (values * 10).long().clamp(0, 9).bincount(minlength=10)
        numbers |= {f"{kind}_foreground_bin{place}": int(count) / len(values) for place, count in enumerate(bins)}
    if len(flags):
        numbers["below_ratio"] = sum(flag is not None and "below_min" in flag for flag in flags) / len(flags)
        numbers["flagged"] = sum(bool(flag) for flag in flags) / len(flags)
    if len(overlaps):
        numbers["overlap"] = sum(overlaps) / len(overlaps)
    for kind, given in (weights or {}).items():
        share = torch.as_tensor(given, dtype=torch.float64)
        if not len(share):
            raise ShapeError(f"weights of {kind} are empty; leave them out")
        square = float(share.square().sum())
        numbers[f"{kind}_weight_even"] = float(share.sum()) ** 2 / square / len(share) if square else 0.0
    return numbers


def _entropies(rows: Tensor) -> Tensor:
    """Entropy of each row, nats."""
    entropies: Tensor = torch.special.entr(rows).sum(-1)
    return entropies
