"""Numbers of features: are they all equal, how many directions do they use, and do they say more than "air or not".

Axes: n rows (tokens or samples), v views of a sample, d features. Float64 inside. Features with a number that is not
finite give NaN, which the verdict names. Rows above a few thousand cost time and change little.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.pretrain.losses.gram import gram_loss
from patchatlas.pretrain.losses.sigreg import epps_pulley, expected_statistic, random_directions

_FOLDS = 5


@torch.no_grad()
def spread(features: Float[Tensor, "n d"]) -> float:
    """Mean standard deviation of the entries of unit features x sqrt(D): 1 for directions at random, 0 if all equal."""
    unit = F.normalize(features.double(), dim=-1)
    return float(unit.std(0, correction=0).mean()) * math.sqrt(features.shape[1])


@torch.no_grad()
def mean_cosine(features: Float[Tensor, "n d"]) -> float:
    """Mean cosine over all pairs of different rows; NaN for fewer than two."""
    unit = F.normalize(features.double(), dim=-1)
    n = len(unit)
    return float((unit.sum(0).square().sum() - unit.square().sum()) / (n * (n - 1))) if n > 1 else math.nan


@torch.no_grad()
def rankme(features: Float[Tensor, "n d"]) -> float:
    """RankMe (Garrido et al. 2023, arXiv 2210.02885) of centred features: exp of the entropy of singular values.

    Between 1 and min(n - 1, d); only compares networks of one kind and numbers of rows.
    """
    values = _eigenvalues(features)
    return math.nan if values is None else _effective(values.sqrt())


@torch.no_grad()
def alpha_req(features: Float[Tensor, "n d"]) -> float:
    """Slope of log eigenvalues of the covariance over log place (alpha-ReQ, Agrawal et al. 2022): near 1 is healthy.

    Fitted from the third to the d/2-th, or n/4-th if that is less, where neither the first few directions nor noise
    rule, and only where they are above 1e-12 of the largest; NaN where that leaves fewer than four.
    """
    values = _eigenvalues(features)
    last = min(features.shape[1] // 2, len(features) // 4)
    if values is None:
        return math.nan
    last = min(last, int((values > 1e-12 * values[0]).sum()))
    if last < 6:
        return math.nan
    x, y = torch.arange(3, last + 1, dtype=torch.float64).log(), values[2:last].log().cpu()
    x = x - x.mean()
    return float(-(x * (y - y.mean())).sum() / x.square().sum())


@torch.no_grad()
def lidar(views: Float[Tensor, "n v d"], *, ridge: float = 1e-4) -> float:
    """LiDAR (Thilak et al. 2023, arXiv 2312.04000): effective rank of what views of a sample agree on.

    exp of the entropy of the eigenvalues of S_w^-1/2 S_b S_w^-1/2, with S_b the covariance of samples' means and S_w
    that of views about them, plus `ridge` times its mean diagonal entry.

    Raises:
        ShapeError: fewer than two samples or views.
    """
    n, v, d = views.shape
    if n < 2 or v < 2:
        raise ShapeError(f"LiDAR needs two samples of two views or more, given {n} of {v}")
    if not bool(views.isfinite().all()):
        return math.nan
    views = views.double()
    means = views.mean(1)
    centred = means - means.mean(0)
    between = centred.T @ centred / (n - 1)
    apart = (views - means[:, None]).reshape(n * v, d)
    within = apart.T @ apart / (n * (v - 1))
    level = float(within.diagonal().mean()) or float(between.diagonal().mean()) or 1.0
    within.diagonal().add_(ridge * level)
    values, vectors = torch.linalg.eigh(within)
    whiten = vectors / values.clamp(min=torch.finfo(torch.float64).tiny).sqrt()
    return _effective(torch.linalg.eigvalsh(whiten.T @ between @ whiten).clamp(min=0))


@torch.no_grad()
def alignment(views: Float[Tensor, "n v d"]) -> float:
    """Mean squared distance of two unit views of a sample (Wang and Isola 2020, arXiv 2005.10242): 0 if they agree."""
    unit = F.normalize(views.double(), dim=-1)
    v = unit.shape[1]
    cosine = (unit.sum(1).square().sum(-1) - unit.square().sum((1, 2))) / (v * (v - 1))
    return float((2 - 2 * cosine).mean())


@torch.no_grad()
def uniformity(features: Float[Tensor, "n d"], *, t: float = 2.0) -> float:
    """log mean exp(-t |x - y|^2) over pairs of unit rows (the same paper): 0 if all are equal, -4 at best for t = 2."""
    unit = F.normalize(features.double(), dim=-1)
    n = len(unit)
    if n < 2:
        return math.nan
    squared = (2 - 2 * unit @ unit.T).clamp(min=0)
    squared.fill_diagonal_(torch.inf)
    return float(torch.logsumexp(-t * squared.flatten(), 0)) - math.log(n * (n - 1))


@torch.no_grad()
def gaussian_test(features: Float[Tensor, "n d"], *, slices: int = 64, seed: int = 0) -> float:
    """SIGReg's statistic of features, centred and scaled to unit variance as a whole, over its mean on N(0, 1).

    About 0.6 for a round Gaussian, whose own mean is taken off; grows with the number of rows for anything else.
    """
    centred = features.double() - features.double().mean(0)
    scale = float(centred.square().mean().sqrt())
    directions = random_directions(features.shape[1], slices, generator=torch.Generator().manual_seed(seed))
    along = centred @ directions.to(centred) / (scale or 1.0)
    return float(epps_pulley(along).mean()) / expected_statistic()


@torch.no_grad()
def foreground_r2(features: Float[Tensor, "n d"], ratio: Float[Tensor, " n"], *, together: int = 1) -> float:
    """R^2 of the foreground ratio of crops from their class tokens: ridge regression, on rows left out of its fit.

    1 if the tokens say how much air there is, 0 or below if they do not; NaN for fewer rows than twice the features,
    or crops that all hold the same.

    Args:
        features: of crops.
        ratio: of the same.
        together: so many rows in a row are views of one sample, and left out together: a view says much of the other.
    """
    n, d = features.shape
    target = ratio.double()
    if n < max(2 * d, 2 * _FOLDS) or not bool(features.isfinite().all()) or float(target.std()) < 1e-6:
        return math.nan
    x = features.double()
    fold = torch.arange(n, device=x.device) // together % _FOLDS
    missed = torch.zeros((), dtype=torch.float64, device=x.device)
    for left_out in range(_FOLDS):
        fit, test = fold != left_out, fold == left_out
        middle, level = x[fit].mean(0), target[fit].mean()
        inputs = x[fit] - middle
        normal = inputs.T @ inputs
        normal.diagonal().add_(1e-3 * float(normal.diagonal().mean()) + torch.finfo(torch.float64).tiny)
        slope = torch.linalg.solve(normal, inputs.T @ (target[fit] - level))
        missed += (target[test] - level - (x[test] - middle) @ slope).square().sum()
    return float(1 - missed / (target - target.mean()).square().sum())


def left_open(r2: float, first: float) -> float:
    """What an R^2 leaves open over what the first one did: 1 for as much, 0 for nothing."""
    return (1 - r2) / max(1 - first, 1e-6)


@torch.no_grad()
def background_share(foreground: Float[Tensor, "n d"], background: Float[Tensor, "m d"]) -> float:
    """Share of the variance of unit patch tokens that lies between foreground and background, both counted alike.

    1 if all tokens of a kind are equal, 0 if their means are; NaN where there is none of a kind.
    """
    if not len(foreground) or not len(background):
        return math.nan
    kinds = [F.normalize(tokens.double(), dim=-1) for tokens in (foreground, background)]
    means = [kind.mean(0) for kind in kinds]
    between = float((means[0] - means[1]).square().sum()) / 4
    within = sum(float(kind.var(0, correction=0).sum()) for kind in kinds) / 2
    return between / (between + within) if between + within else math.nan


@torch.no_grad()
def gram_drift(now: Float[Tensor, "v n d"], then: Float[Tensor, "v n e"]) -> float:
    """Root mean square change of the cosine of two patches of a crop since an earlier teacher; 0 for none."""
    return math.sqrt(max(float(gram_loss(now.double(), then.double())), 0.0))


@torch.no_grad()
def relative_std(features: Float[Tensor, "n d"]) -> float:
    """Standard deviation of features over inputs over their root mean square: below 1e-3 the input hardly matters."""
    wide = features.double()
    size = float(wide.square().mean().sqrt())
    return float(wide.std(0, correction=0).square().mean().sqrt()) / size if size else 0.0


def _eigenvalues(features: Tensor) -> Tensor | None:
    """Those of the covariance, largest first; None where a number is not finite."""
    if not bool(features.isfinite().all()):
        return None
    centred = features.double() - features.double().mean(0)
    small = centred.T @ centred if centred.shape[0] > centred.shape[1] else centred @ centred.T
    values: Tensor = torch.linalg.eigvalsh(small / len(features)).clamp(min=0)
    return values.flip(0)


def _effective(values: Tensor) -> float:
    """exp of the entropy of values of any total; 0 if all are 0."""
    total = float(values.sum())
    return math.exp(float(torch.special.entr(values / total).sum())) if total else 0.0
