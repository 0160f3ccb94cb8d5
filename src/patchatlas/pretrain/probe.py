"""What frozen features know: organs of patches by neighbours and by a linear map, both balanced, and how much is air.

Axes: c channels, size = (h, w) or (z, h, w), n patches, d features, k classes, m crops.

Scores are balanced accuracies: the mean over classes of the share of their patches that is named rightly, so 1 / k is
chance whatever the classes' sizes. Labels come per voxel and belong to volumes that no encoder was trained to tell;
fit and test on different volumes, for neighbouring patches of one volume are nearly copies.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Integer
from scipy.optimize import minimize
from torch import Tensor

from patchatlas.encoders.forward import BATCH, forward
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import InputError, ShapeError
from patchatlas.pretrain.monitors.probes import background_share, foreground_r2

UNSURE = -1
"""Label of a patch of which no class has enough."""

_TEMPERATURE = 0.07
"""Of neighbours' votes, as DINO's kNN probe has it (arXiv 2104.14294, section 4.1)."""


@dataclass(frozen=True)
class Case:
    """A volume or picture with the truth about it."""

    pixels: Float[Tensor, "c *size"]
    """0..1, as the encoder takes them."""
    labels: Integer[np.ndarray, "*size"]
    """Class of each voxel, 0 or more."""
    foreground: Bool[np.ndarray, "*size"]


@dataclass(frozen=True)
class Patches:
    """Tokens of all crops of some cases, and what there was in each."""

    tokens: Float[Tensor, "n d"]
    labels: Int64[Tensor, " n"]
    """Class of the patch, or `UNSURE`."""
    foreground: Float[Tensor, " n"]
    cls: Float[Tensor, "m d"] | None
    ratio: Float[Tensor, " m"]
    """Foreground of each crop."""


@dataclass(frozen=True)
class Scores:
    """Balanced accuracies of the two probes, and how much of the features is air."""

    knn: float
    linear: float
    knn_recall: dict[int, float]
    linear_recall: dict[int, float]
    foreground_r2: float
    """Of a crop's foreground from its class token; NaN where it cannot be told."""
    background_share: float
    """Part of the variance of tokens that foreground or background explains; NaN without both."""


def encode_cases(
    encoder: Encoder, cases: Sequence[Case], *, crop: Sequence[int], purity: float = 0.5, batch: int = BATCH
) -> Patches:
    """Tokens of crops that tile each case from its first corner; what is left over at the far sides is left out.

    Args:
        encoder: frozen.
        cases: of the axes and channels of the encoder.
        crop: size of the crops; multiples of the patch, best that of training.
        purity: part of a patch that a class must have for the patch to be of it.
        batch: crops a forward, of any cases; it changes nothing beyond float rounding.

    Raises:
        ShapeError: crops that are not multiples of the patch, a case smaller than a crop, or a batch of none.
    """
    if batch < 1:
        raise ShapeError(f"a batch of {batch} crops is not positive; give at least 1")
    patch = encoder.spec.patch
    places = [(case, cut) for case in cases for cut in _cuts(case.labels.shape, crop)]
    tokens, cls = [], []
    for first in range(0, len(places), batch):
        pixels = torch.stack([case.pixels[(slice(None), *cut)] for case, cut in places[first : first + batch]])
        seen = forward(encoder, pixels.to(encoder.device))
        tokens.append(seen.patches.float().cpu().flatten(0, 1))  # b n d -> (b n) d
        if seen.cls is not None:
            cls.append(seen.cls.float().cpu())
    labels = [patch_labels(case.labels[cut], patch=patch, purity=purity) for case, cut in places]
    shares = [torch.from_numpy(_blocks(case.foreground[cut], patch).mean(1)).float() for case, cut in places]
    return Patches(
        tokens=torch.cat(tokens),
        labels=torch.cat(labels),
        foreground=torch.cat(shares),
        cls=torch.cat(cls) if cls else None,
        ratio=torch.tensor([float(case.foreground[cut].mean()) for case, cut in places]),
    )


def raw_cases(
    cases: Sequence[Case], *, patch: Sequence[int], crop: Sequence[int], bins: int = 0, purity: float = 0.5
) -> Patches:
    """What is known without any network: mean and standard deviation of each patch, or a histogram of its pixels.

    Args:
        cases: as for `encode_cases`.
        patch: size of a patch.
        crop: as there, so that both are asked about the same patches.
        bins: of the histogram over 0..1; 0 for mean and standard deviation.
        purity: as there.
    """
    tokens, labels, shares = [], [], []
    for case in cases:
        for cut in _cuts(case.labels.shape, crop):
            values = np.concatenate([_blocks(band[cut], patch) for band in case.pixels.numpy()], axis=1)
            if bins:
                places = (values * bins).astype(np.int64).clip(0, bins - 1) + bins * np.arange(len(values))[:, None]
                counts = np.bincount(places.ravel(), minlength=bins * len(values)).reshape(-1, bins)
                tokens.append(torch.from_numpy(counts / values.shape[1]).float())
            else:
                tokens.append(torch.from_numpy(np.stack([values.mean(1), values.std(1)], axis=1)).float())
            labels.append(patch_labels(case.labels[cut], patch=patch, purity=purity))
            shares.append(torch.from_numpy(_blocks(case.foreground[cut], patch).mean(1)).float())
    return Patches(
        tokens=torch.cat(tokens),
        labels=torch.cat(labels),
        foreground=torch.cat(shares),
        cls=None,
        ratio=torch.zeros(0),
    )


def patch_labels(
    labels: Integer[np.ndarray, "*size"], *, patch: Sequence[int], purity: float = 0.5
) -> Int64[Tensor, " n"]:
    """The class that has at least `purity` of a patch, the lowest of equals; `UNSURE` where there is none."""
    blocks = torch.from_numpy(_blocks(labels, patch).astype(np.int64))
    counts = torch.zeros(len(blocks), int(blocks.max()) + 1, dtype=torch.int64)
    counts.scatter_add_(1, blocks, torch.ones_like(blocks))
    most, which = counts.max(1)
    return torch.where(most >= purity * blocks.shape[1], which, UNSURE)


def score(
    fit: Patches,
    test: Patches,
    *,
    classes: Sequence[int] | None = None,
    per_class: int = 500,
    neighbours: int = 20,
    penalty: float = 1e-2,
    seed: int = 0,
) -> Scores:
    """Both probes, fitted on some volumes and asked about others.

    Args:
        fit: patches of the volumes to learn from.
        test: of others.
        classes: those that are asked about; if not given, all that both hold.
        per_class: patches of a class to learn from, at most, drawn from the seed.
        neighbours: that vote.
        penalty: on the squared weights of the linear map.
        seed: of the draw.

    Raises:
        InputError: fewer than two classes in both.
    """
    found = sorted(set(fit.labels.tolist()) & set(test.labels.tolist()) - {UNSURE})
    used = found if classes is None else [name for name in found if name in classes]
    if len(used) < 2:
        raise InputError(f"a probe needs two classes or more that both sides hold, found {used}; give it more volumes")
    rng = np.random.default_rng(seed)
    rows = torch.cat([_some((fit.labels == name).nonzero()[:, 0], per_class, rng) for name in used])
    tokens, truth = fit.tokens[rows], torch.searchsorted(torch.tensor(used), fit.labels[rows])
    asked = torch.isin(test.labels, torch.tensor(used))
    others, wanted = test.tokens[asked], torch.searchsorted(torch.tensor(used), test.labels[asked])
    knn = _recall(knn_classes(tokens, truth, others, neighbours=neighbours), wanted)
    linear = _recall(linear_classes(tokens, truth, others, penalty=penalty), wanted)
    body, air = (test.tokens[chosen] for chosen in (test.foreground > 0.5, test.foreground < 0.05))
    known = math.nan
    if fit.cls is not None and test.cls is not None:
        known = foreground_r2(torch.cat([fit.cls, test.cls]), torch.cat([fit.ratio, test.ratio]))
    return Scores(
        knn=sum(knn) / len(knn),
        linear=sum(linear) / len(linear),
        knn_recall=dict(zip(used, knn, strict=True)),
        linear_recall=dict(zip(used, linear, strict=True)),
        foreground_r2=known,
        background_share=background_share(body, air),
    )


def knn_classes(
    fit: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], asked: Float[Tensor, "m d"], *, neighbours: int = 20
) -> Int64[Tensor, " m"]:
    """The class that most of the nearest rows by cosine vote for, nearer ones with more weight; classes from 0."""
    unit = F.normalize(fit.float(), dim=-1)
    votes = []
    for rows in F.normalize(asked.float(), dim=-1).split(2048):
        likeness, nearest = (rows @ unit.T).topk(min(neighbours, len(unit)), dim=1)
        ballots = torch.zeros(len(rows), int(labels.max()) + 1)
        ballots.scatter_add_(1, labels[nearest], (likeness / _TEMPERATURE).exp())
        votes.append(ballots.argmax(1))
    return torch.cat(votes)


def linear_classes(
    fit: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], asked: Float[Tensor, "m d"], *, penalty: float = 1e-2
) -> Int64[Tensor, " m"]:
    """Logistic regression on standardised features, every class of the same weight, fitted to convergence.

    The loss is the mean over classes of the mean cross-entropy of their rows, plus penalty / 2 times the squared
    weights over their number of classes; biases are free.
    """
    mean, std = fit.double().mean(0), fit.double().std(0, correction=0)
    scale = torch.where(std > 0, std, 1)
    x = (fit.double() - mean) / scale
    k = int(labels.max()) + 1
    share = 1 / labels.bincount(minlength=k).double()[labels] / k
    onehot = F.one_hot(labels, k).double()

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.from_numpy(flat).reshape(x.shape[1] + 1, k)
        log_probs = torch.log_softmax(x @ weights[:-1] + weights[-1], dim=1)
        value = -(share * (onehot * log_probs).sum(1)).sum() + penalty / 2 / k * weights[:-1].square().sum()
        wrong = share[:, None] * (log_probs.exp() - onehot)
        gradient = torch.cat([x.T @ wrong + penalty / k * weights[:-1], wrong.sum(0, keepdim=True)])
        return float(value), gradient.numpy().ravel()

    found = minimize(loss, np.zeros((x.shape[1] + 1) * k), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    weights = torch.from_numpy(found.x).reshape(x.shape[1] + 1, k)
    return ((asked.double() - mean) / scale @ weights[:-1] + weights[-1]).argmax(1)


def _cuts(size: Sequence[int], crop: Sequence[int]) -> list[tuple[slice, ...]]:
    """The boxes of crops that tile a case."""
    if len(size) != len(crop) or any(side < wanted for side, wanted in zip(size, crop, strict=True)):
        raise ShapeError(f"a case of {tuple(size)} holds no crop of {tuple(crop)}; take smaller crops")
    starts = (range(0, side - wanted + 1, wanted) for side, wanted in zip(size, crop, strict=True))
    return [
        tuple(slice(at, at + wanted) for at, wanted in zip(corner, crop, strict=True))
        for corner in itertools.product(*starts)
    ]


def _blocks(values: np.ndarray, patch: Sequence[int]) -> np.ndarray:
    """Voxels of every patch, row-major over the grid: (patches, voxels of a patch)."""
    if len(patch) != values.ndim or any(side % p for side, p in zip(values.shape, patch, strict=True)):
        raise ShapeError(f"a crop of {values.shape} is no grid of patches {tuple(patch)}; take multiples of the patch")
    shape = [part for side, p in zip(values.shape, patch, strict=True) for part in (side // p, p)]
    split = values.reshape(shape)  # (cells, patch) of each axis in turn
    order = [*range(0, split.ndim, 2), *range(1, split.ndim, 2)]
    return split.transpose(order).reshape(-1, math.prod(patch))


def _some(rows: Tensor, at_most: int, rng: np.random.Generator) -> Tensor:
    return rows[torch.from_numpy(np.sort(rng.permutation(len(rows))[:at_most]))]


def _recall(named: Tensor, truth: Tensor) -> list[float]:
    """Share of each class's rows that is named rightly."""
    return [float((named[truth == name] == name).double().mean()) for name in range(int(truth.max()) + 1)]
