"""Statistics that do not depend on order or sharing, and a file that the loader can use."""

import json
import random
from dataclasses import replace
from functools import reduce

import pytest
import torch

from patchatlas.datasets.loader import Normalisation
from patchatlas.datasets.recipe import Recipe
from patchatlas.datasets.stats import Moments, Statistics, dataset_statistics, merge_statistics, statistics_of
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import FormatError, InputError, StampError, UsageError
from patchatlas.io.feature_store import FeatureStore
from patchatlas.stamp import Stamp
from tests.datasets.stored import TABLE, stored_ramps

STAMP = Stamp.of(FakeEncoder().spec)


def tokens(n: int, seed: int, *, far: float = 0.0) -> torch.Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)) + far


def of(values: torch.Tensor) -> Statistics:
    return statistics_of(values, kind="fake_patches", stamp=STAMP)


def test_moments_by_hand():
    found = Moments.of(torch.tensor([[1.0, 2.0], [3.0, 2.0], [8.0, 2.0]]))
    assert found.count == 3
    assert found.mean.tolist() == [4, 2]
    assert found.squares.tolist() == [9 + 1 + 16, 0]
    assert found.std.tolist() == [pytest.approx((26 / 3) ** 0.5), 0]


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_merged_moments_are_those_of_all_tokens_even_far_from_zero(far):
    parts = [tokens(n, seed, far=far) for seed, n in enumerate((1, 7, 300, 2, 64))]
    together = torch.cat(parts).double()
    merged = reduce(Moments.merge, map(Moments.of, parts))
    torch.testing.assert_close(merged.mean, together.mean(dim=0), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(merged.std, together.std(dim=0, correction=0), rtol=1e-12, atol=0)


def test_any_order_and_any_sharing_agree_to_1e_12():
    parts = [of(tokens(50 + k, k, far=3.0)) for k in range(40)]
    forwards = merge_statistics(parts)
    shuffled = list(parts)
    random.Random(0).shuffle(shuffled)
    workers = merge_statistics([merge_statistics(shuffled[k::3]) for k in range(3)])
    for mine, theirs in ((forwards.channels, workers.channels), (forwards.norms, workers.norms)):
        assert mine.count == theirs.count
        torch.testing.assert_close(mine.mean, theirs.mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(mine.squares, theirs.squares, rtol=1e-12, atol=0)
    assert (forwards.norm_min, forwards.norm_max, forwards.images) == (workers.norm_min, workers.norm_max, 40)


def test_norms_by_hand():
    found = of(torch.tensor([[3.0, 4, 0, 0, 0], [0, 0, 0, 0, 1]])).to_json()
    assert found["norm"] == {"mean": 3, "std": 2, "squares": 8, "min": 1, "max": 5}
    assert (found["tokens"], found["images"]) == (2, 1)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_file_gives_back_every_bit(tmp_path, suffix):
    found = merge_statistics([of(tokens(9, 0)), of(tokens(5, 1))])
    path = tmp_path / f"stats{suffix}"
    found.save(path)
    before = path.read_bytes()
    again = Statistics.load(path)
    assert torch.equal(again.channels.mean, found.channels.mean)
    assert torch.equal(again.channels.squares, found.channels.squares)
    assert again.to_json() == found.to_json()
    again.save(path)
    assert path.read_bytes() == before
    assert again.merge(found).channels.count == 28


def double(numbers) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_the_loader_takes_them():
    found = of(tokens(100, 0, far=2.0))
    given = found.normalisation()
    assert isinstance(given, Normalisation)
    scaled = (tokens(100, 0, far=2.0).double() - double(given.mean)) / double(given.std)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(5, dtype=torch.float64), atol=1e-7, rtol=0)
    torch.testing.assert_close(scaled.std(dim=0, correction=0), torch.ones(5, dtype=torch.float64), atol=1e-6, rtol=0)
    assert given.stamp == STAMP


def test_parts_of_two_recipes_or_kinds_do_not_add_up():
    part = of(tokens(9, 0))
    with pytest.raises(StampError, match="storage"):
        part.merge(replace(part, stamp=Stamp.of(FakeEncoder().spec, storage="int8")))
    with pytest.raises(InputError, match="do not add up"):
        part.merge(replace(part, kind="fake_cls"))
    with pytest.raises(InputError, match="no statistics"):
        merge_statistics([])


@pytest.mark.parametrize(
    ("before", "after"),
    [('"version": 1', '"version": 2'), ('"mean": [', '"moan": ['), ("patchatlas.statistics", "other"), ("{", "")],
)
def test_a_damaged_file_is_refused(tmp_path, before, after):
    path = tmp_path / "stats.json"
    of(tokens(9, 0)).save(path)
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(FormatError, match=r"stats\.json"):
        Statistics.load(path)
    path.rename(tmp_path / "stats.safetensors")
    with pytest.raises(FormatError):
        Statistics.load(tmp_path / "stats.safetensors")
    with pytest.raises(InputError, match="no file"):
        Statistics.load(path)


def test_statistics_have_two_kinds_of_file(tmp_path):
    with pytest.raises(UsageError, match=r"\.json or \.safetensors"):
        of(tokens(9, 0)).save(tmp_path / "stats.npz")


@pytest.mark.parametrize(
    ("kind", "count"), [("fake_patches", 24 + 24 + 16 + 15 + 24 + 24), ("fake_cls", 6), ("fake_registers", 24)]
)
def test_all_tokens_of_a_manifest_count(tmp_path, kind, count):
    records = stored_ramps(tmp_path, skipped=2)
    store = FeatureStore(tmp_path / "derived")
    seen: list[int] = []
    found = dataset_statistics(records, store, kind, on_progress=seen.append)
    values = torch.cat([store.read(r.features[kind]).reshape(-1, 3) for r in records if r.status == "ok"]).double()
    assert (found.channels.count, found.images) == (count, 6)
    torch.testing.assert_close(found.channels.mean, values.mean(dim=0), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found.channels.std, values.std(dim=0, correction=0), rtol=1e-12, atol=1e-15)
    assert seen == [1, 2, 3, 4, 5, 6]
    json.dumps(found.to_json())


def test_latents_have_their_channels_first(tmp_path):
    records = stored_ramps(tmp_path)
    found = dataset_statistics(records, FeatureStore(tmp_path / "derived"), "vae_latents")
    assert found.channels.count == 6 * 48
    latents = torch.linspace(-1, 1, 4 * 6 * 8).reshape(4, 48).double()
    torch.testing.assert_close(found.channels.mean, latents.mean(dim=1), rtol=1e-6, atol=1e-9)


def test_a_kind_that_is_not_there_and_a_mixed_manifest_are_refused(tmp_path):
    records = stored_ramps(tmp_path / "a", Recipe(buckets=TABLE, storage="fp32"))
    store = FeatureStore(tmp_path / "a" / "derived")
    with pytest.raises(InputError, match="it has: fake_cls"):
        dataset_statistics(records, store, "dinov3_patches")
    with pytest.raises(InputError, match="no picture has"):
        dataset_statistics([], store, "dinov3_patches")
