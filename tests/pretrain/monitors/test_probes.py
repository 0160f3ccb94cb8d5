"""Numbers of features with known spectra, known alignment and known amounts of air."""

import math

import pytest
import torch

from patchatlas.errors import ShapeError
from patchatlas.pretrain.losses.sigreg import epps_pulley, expected_statistic, random_directions
from patchatlas.pretrain.monitors import probes


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_directions_at_random_and_all_alike() -> None:
    assert probes.spread(normal(2000, 32)) == pytest.approx(1, abs=0.02)
    assert probes.mean_cosine(normal(2000, 32)) == pytest.approx(0, abs=0.01)
    alike = torch.ones(50, 32) + 0.01 * normal(50, 32)
    assert probes.spread(alike) < 0.02
    assert probes.mean_cosine(alike) > 0.99
    assert math.isnan(probes.mean_cosine(normal(1, 4)))


def test_mean_cosine_is_over_pairs() -> None:
    assert probes.mean_cosine(torch.tensor([[1.0, 0], [0, 2], [-3, 0]])) == pytest.approx(-1 / 3)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rankme_counts_directions(rank: int) -> None:
    basis = torch.eye(16)[:rank] * 5
    rows = torch.cat([basis, -basis]).repeat(10, 1)
    assert probes.rankme(rows + 7) == pytest.approx(rank, rel=1e-3)  # centred, so an offset does not count
    assert probes.rankme(normal(4000, 16)) > 15.9


def test_rankme_weighs_singular_values() -> None:
    rows = torch.tensor([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]])  # singular values as 3 to 1
    assert probes.rankme(rows) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_rankme_of_nothing_and_of_what_is_not_finite() -> None:
    assert probes.rankme(torch.ones(8, 4)) == 0
    assert math.isnan(probes.rankme(torch.full((8, 4), torch.nan)))


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_slope_of_eigenvalues(slope: float) -> None:
    scale = torch.arange(1, 65).double() ** (-slope / 2)
    directions = torch.linalg.qr(normal(4000, 64, seed=1).double())[0]
    directions = directions - directions.mean(0)
    assert probes.alpha_req((directions * scale).float()) == pytest.approx(slope, abs=0.02)


def test_no_slope_where_there_is_too_little_to_fit() -> None:
    assert math.isnan(probes.alpha_req(normal(10, 64)))
    assert math.isnan(probes.alpha_req(torch.ones(100, 64)))
    assert math.isnan(probes.alpha_req(normal(200, 2).double() @ normal(2, 64).double()))
    assert math.isnan(probes.alpha_req(normal(200, 64) * torch.nan))


def test_lidar_counts_directions_that_views_agree_on() -> None:
    samples = normal(400, 1, 16)
    agree = samples + 0.01 * normal(400, 4, 16, seed=1)
    assert probes.lidar(agree) > 15
    two = samples.clone()
    two[..., 2:] = 0  # other directions hold only what views do not share
    assert probes.lidar(two + 0.01 * normal(400, 4, 16, seed=1)) < 2.5
    # What views agree on counts beside how far they are apart: both stretched alike change nothing.
    noisy = normal(400, 1, 8) + 0.5 * normal(400, 4, 8, seed=2)
    stretched = noisy * torch.tensor([10.0, 5, 1, 1, 1, 1, 1, 0.5])
    assert probes.lidar(stretched) == pytest.approx(probes.lidar(noisy), rel=0.01)
    assert math.isnan(probes.lidar(agree * torch.nan))
    with pytest.raises(ShapeError, match="two samples of two views"):
        probes.lidar(normal(5, 1, 4))


def test_alignment_and_uniformity() -> None:
    views = normal(200, 1, 8).repeat(1, 3, 1)
    assert probes.alignment(views) == pytest.approx(0, abs=1e-6)
    opposite = torch.cat([views[:, :1], -views[:, :1]], 1)
    assert probes.alignment(opposite) == pytest.approx(4)
    assert probes.uniformity(torch.ones(10, 8)) == pytest.approx(0, abs=1e-6)
    assert -4 < probes.uniformity(normal(1000, 64)) < -3.7
    assert math.isnan(probes.uniformity(normal(1, 4)))


def test_a_gaussian_of_any_size_and_place_passes_its_test() -> None:
    assert probes.gaussian_test(normal(500, 16) * 3 + 2) == pytest.approx(0.55, abs=0.15)
    rows = normal(500, 16).double()
    rows = (rows - rows.mean(0)) / (rows - rows.mean(0)).square().mean().sqrt()
    along = rows @ random_directions(16, 64, generator=torch.Generator().manual_seed(0)).double()
    assert probes.gaussian_test(rows) == pytest.approx(float(epps_pulley(along).mean()) / expected_statistic())
    assert probes.gaussian_test(normal(500, 16).sign() * torch.tensor([5.0, *[0.1] * 15])) > 10
    assert probes.gaussian_test(torch.ones(500, 16)) > 10


def test_how_much_class_tokens_say_about_air() -> None:
    ratio = torch.rand(400, generator=torch.Generator().manual_seed(0))
    tokens = normal(400, 16)
    assert probes.foreground_r2(tokens, ratio) < 0.1
    knowing = torch.cat([tokens, ratio[:, None]], 1)
    assert probes.foreground_r2(knowing, ratio) > 0.95
    assert math.isnan(probes.foreground_r2(knowing[:20], ratio[:20]))
    assert math.isnan(probes.foreground_r2(knowing, torch.ones(400)))
    assert math.isnan(probes.foreground_r2(knowing * torch.nan, ratio))


def test_how_much_of_patch_tokens_is_air_or_not() -> None:
    body, air = normal(300, 16), normal(200, 16, seed=1)
    assert probes.background_share(body, air) < 0.05
    step = torch.zeros(16)
    step[0] = 30
    assert probes.background_share(body + step, air - step) > 0.95
    # Unit vectors (1, 0), (0, 1) against (-1, 0), (0, -1): between 1/4 * 2, within 1/2.
    assert probes.background_share(torch.eye(2), -torch.eye(2)) == pytest.approx(0.5)
    assert math.isnan(probes.background_share(body, air[:0]))


def test_drift_of_similarities_and_size_of_variation() -> None:
    tokens = normal(2, 20, 8)
    assert probes.gram_drift(tokens, tokens * 2) == pytest.approx(0, abs=1e-9)
    assert probes.gram_drift(tokens, normal(2, 20, 8, seed=1)) > 0.2
    assert probes.relative_std(torch.ones(5, 4)) == 0
    assert probes.relative_std(torch.zeros(5, 4)) == 0
    assert probes.relative_std(torch.tensor([[1.0], [3.0]])) == pytest.approx(1 / math.sqrt(5))


def test_lidar_does_not_see_views_that_agree_on_nothing_and_alignment_does() -> None:
    # What the manual says of it: noise is as high as views that agree on all directions.
    agreeing = normal(600, 1, 32) + 0.1 * normal(600, 2, 32, seed=1)
    few = agreeing.clone()
    few[..., 5:] = 0.1 * normal(600, 2, 27, seed=2)
    noise = normal(600, 2, 32, seed=3)
    assert probes.lidar(noise) == pytest.approx(30, abs=1.5)
    assert probes.lidar(agreeing) == pytest.approx(30, abs=1.5)
    assert probes.lidar(few) == pytest.approx(5.5, abs=0.5)
    assert probes.alignment(noise) == pytest.approx(2, abs=0.05)
    assert probes.alignment(agreeing) < 0.1
