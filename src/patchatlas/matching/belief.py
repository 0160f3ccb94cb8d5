"""What a similarity map and a prediction say together: one score a cell, in which places far and near can be compared.

Axes: k maps (one a landmark) over n cells, row-major; v predictions a landmark. Scores are log-odds: by how much (in
nats) the cell is likelier than a cell of which nothing is known, so likenesses and predictions add up. The likeness of
a cell counts in standard deviations of its own map, which makes encoders with wide and narrow similarities alike.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64
from torch import Tensor

PER_DEVIATION = 4.0
"""Nats that a standard deviation of the map is worth. Of 2 to 6 the likeliest on 150 development cases of
benchmarks/locate (dense SIFT; 2304 landmarks, a quarter of them absent); what is found with 2.5 to 5 hardly differs."""

ASTRAY = 0.05
"""How often a landmark is not at all where its neighbours say: it has moved by itself, or the map is wrong. Between
0.02 and 0.15 what is found on the development cases hardly differs."""

_EVEN = 1e-6  # float32 cosines of equal vectors differ by some 1e-7


def in_deviations(similarity: Float[Tensor, "k n"], scored: Bool[Tensor, " n"]) -> Float[Tensor, "k n"]:
    """Maps less their mean, over their standard deviation, both of the scored cells; an even map is zero."""
    counted = similarity if scored.all() else similarity[:, scored]
    mean = counted.mean(dim=1, keepdim=True)
    deviation = torch.linalg.vector_norm(counted - mean, dim=1, keepdim=True) / math.sqrt(counted.shape[1])
    return torch.where(deviation > _EVEN, (similarity - mean) / deviation.clamp(min=_EVEN), 0.0)


def views_together(maps: Float[Tensor, "v n"], scored: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """One map of what several views say, in standard deviations: between the mean of theirs and the largest.

    The log of the mean of exponentials. A plain mean lets the views that see the mark badly drown the one that sees it
    well; the largest alone lets the worst of them speak. On 30 development rotomaps of benchmarks/locate with four
    views each, the best patch is right for 41 % of the landmarks so, for 36 % by the mean and for 24 % by the largest.

    Args:
        maps: one a view, in standard deviations.
        scored: cells that count.
    """
    if len(maps) == 1:
        return maps[0]
    return in_deviations(torch.logsumexp(maps, dim=0, keepdim=True), scored)[0]


def prediction_density(
    places: Float64[Tensor, "k n 2"],
    predicted: Float64[Tensor, "k v 2"],
    deviation: Float64[Tensor, "k v"],
    *,
    area: float,
) -> Float[Tensor, "k n"]:
    """What predictions say for each place: how many times denser than anywhere in the target a landmark is there.

    The mean of a Gaussian about each prediction, and with a chance of `ASTRAY` anywhere: so a place far off loses 3
    nats and no more, and a landmark that has moved can still be found.

    Args:
        places: to be judged, in target pixels.
        predicted: where a landmark should be; NaN for none. Without any, every place has density 1.
        deviation: of the place about the prediction, along each axis, in pixels.
        area: of the target, in square pixels.
    """
    x, y = places.unbind(2)
    peaks = (
        _gaussian(x, at[:, 0], sigma) * _gaussian(y, at[:, 1], sigma)
        for at, sigma in zip(predicted.unbind(1), deviation.unbind(1), strict=True)
    )
    return _over_a_floor(sum(peaks, torch.zeros(1)), deviation, area)


def prediction_density_on_grid(
    columns_x: Float64[Tensor, " cols"],
    rows_y: Float64[Tensor, " rows"],
    predicted: Float64[Tensor, "k v 2"],
    deviation: Float64[Tensor, "k v"],
    *,
    area: float,
) -> Float[Tensor, "k rows cols"]:
    """`prediction_density` at all crossings of columns and rows, at a fraction of the cost: a Gaussian factors.

    Lengths may be in any unit, the same for all.
    """
    peaks = (
        _gaussian(rows_y[None], at[:, 1], sigma)[:, :, None] * _gaussian(columns_x[None], at[:, 0], sigma)[:, None]
        for at, sigma in zip(predicted.unbind(1), deviation.unbind(1), strict=True)
    )
    return _over_a_floor(sum(peaks, torch.zeros(1)), deviation[:, :, None], area)


def _gaussian(values: Tensor, middle: Tensor, sigma: Tensor) -> Tensor:
    """Density along one axis, (k, n); 0 where there is no prediction."""
    sigma = sigma[:, None]
    density = torch.exp(-(((values - middle[:, None]) / sigma) ** 2) / 2) / (math.sqrt(2 * math.pi) * sigma)
    return density.nan_to_num().float()


def _over_a_floor(total: Tensor, deviation: Tensor, area: float) -> Tensor:
    count = (~deviation.isnan()).sum(dim=1, keepdim=True)
    return torch.where(count > 0, total * ((1 - ASTRAY) * area / count.clamp(min=1)) + ASTRAY, 1.0)


def local_maxima(
    values: Float[Tensor, "k rows cols"], scored: Bool[Tensor, "rows cols"]
) -> Bool[Tensor, "k rows cols"]:
    """Scored cells that none of their eight scored neighbours is above."""
    open_ = F.pad(values.masked_fill(~scored, -torch.inf), (1, 1, 1, 1), value=-torch.inf)
    # Rows, then columns: four times as fast as `max_pool2d`.
    columns = torch.maximum(torch.maximum(open_[:, :, :-2], open_[:, :, 1:-1]), open_[:, :, 2:])
    highest = torch.maximum(torch.maximum(columns[:, :-2], columns[:, 1:-1]), columns[:, 2:])
    return (open_[:, 1:-1, 1:-1] >= highest) & scored
