"""What lossy storage costs: numbers that can be worked out, and one report whoever measures in whatever order."""

import json
import math

import pytest
import torch

from patchatlas.datasets.fidelity import (
    NOT_ASKED,
    QUERIES,
    FidelityLog,
    choose_sample,
    describe,
    measure,
    read_report,
    summarise,
)
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import FormatError, ShapeError
from patchatlas.io.codecs import decode_array, encode_array
from patchatlas.io.feature_store import FeatureStore
from patchatlas.stamp import Stamp

SPEC = FakeEncoder().spec
STAMP = Stamp.of(SPEC, storage="int8")
KIND = "fake_patches"


def noise(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def stored(values: torch.Tensor, dtype) -> torch.Tensor:
    return decode_array(encode_array(values, dtype), dtype)


def with_outlier(values: torch.Tensor) -> torch.Tensor:
    """One channel at 30 sigma, as DINO models have (facebookresearch/dinov2#373)."""
    values = values.clone()
    values[:, 7] += 30
    return values


def per_token_int8(values: torch.Tensor) -> torch.Tensor:
    """What is not done: one scale a token."""
    scale = values.abs().amax(dim=1, keepdim=True) / 127
    return (values / scale).round() * scale


def others(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values[:, :7], values[:, 8:]], dim=1)


def test_measure_by_hand():
    original = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    changed = torch.tensor([[4.0, 3.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [5.0, 0.0]])
    loss, norm_error, _ = measure(original, changed).T
    torch.testing.assert_close(loss, torch.tensor([1 - 24 / 25, 0, 1, 0, 1], dtype=torch.float64))
    torch.testing.assert_close(norm_error, torch.tensor([0, 1, 0.5, 0, 1], dtype=torch.float64))


def test_small_losses_keep_their_digits():
    """A rotation by 1e-6 loses 5e-13 of the cosine, which 1 - cosine in float32 could not tell from nothing."""
    angle = 1e-6
    loss = measure(torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(angle), angle]]))[0, 0]
    assert loss.item() == pytest.approx(angle**2 / 2, rel=1e-3)


def test_nearest_neighbours_by_hand():
    """Tokens at angles 0, 10, 30, 90 degrees; moving the second to 25 gives the third another nearest, no one else."""

    def at(*degrees: float) -> torch.Tensor:
        angles = torch.deg2rad(torch.tensor(degrees))
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    same = measure(at(0, 12, 30, 50), at(0, 12, 38, 50))[:, 2]
    assert same.tolist() == [1, 1, 0, 1]
    assert measure(at(0), at(0))[0, 2] == NOT_ASKED


def test_no_token_is_its_own_neighbour():
    values = noise(50, 8)
    assert measure(values, values)[:, 2].eq(1).all()
    swapped = values[torch.randperm(50, generator=torch.Generator().manual_seed(1))]
    assert measure(values, swapped)[:, 2].mean() < 0.2


def test_queries_are_bounded_and_spread():
    same = measure(noise(1000, 4), noise(1000, 4))[:, 2]
    asked = (same != NOT_ASKED).nonzero().flatten()
    assert len(asked) == QUERIES
    assert asked[0] == 0
    assert asked[-1] == 999
    assert asked.diff().max() <= 4


@pytest.mark.parametrize(("dtype", "bits", "bound"), [("fp16", 10, 5e-7), ("bf16", 7, 2e-6)])
def test_losses_of_floats(dtype, bits, bound):
    """Rounding to steps of 2^-bits of the mantissa m in 1..2 errs by step^2 / 12 in the mean square.

    Were the mantissas spread evenly in their logarithm, mean m^2 would be 3 / (2 ln 2); half the relative square is
    lost of the cosine.
    """
    original = noise(512, 256)
    found = measure(original, stored(original, dtype))[:, 0].mean().item()
    assert found == pytest.approx(2 ** (-2 * bits) / 12 / (3 / (2 * math.log(2))) / 2, rel=0.2)
    assert found < bound


def test_a_30_sigma_channel_costs_the_others_nothing_with_a_scale_a_channel():
    """Steps of s err by s^2 / 12; s is 3.84 / 127, the largest of 4096 Gaussian numbers, or else 30 / 127."""
    plain, loud = noise(4096, 64), with_outlier(noise(4096, 64))
    before = measure(others(plain), others(stored(plain, "int8")))[:, 0].mean().item()
    after = measure(others(loud), others(stored(loud, "int8")))[:, 0].mean().item()
    assert after == pytest.approx(before, rel=1e-6)
    assert after == pytest.approx(3.8e-5, rel=0.1)
    a_scale_a_token = measure(others(loud), others(per_token_int8(loud)))[:, 0].mean().item()
    assert a_scale_a_token == pytest.approx(2.3e-3, rel=0.15)
    assert a_scale_a_token > 50 * after


def test_matches_survive_int8_beside_an_outlier_channel():
    """Clusters of ten alike tokens: a scale a channel keeps their nearest neighbours, however loud one channel is."""
    clusters = noise(40, 64).repeat_interleave(10, dim=0) + 0.1 * noise(400, 64, seed=1)
    loud = with_outlier(clusters)
    same = measure(loud, stored(loud, "int8"))[:, 2]
    assert same[same != NOT_ASKED].mean() > 0.95
    coarse = measure(loud, per_token_int8(loud))[:, 2]
    assert coarse[coarse != NOT_ASKED].mean() < 0.8


def test_a_summary_pools_all_tokens():
    first = torch.tensor([[0.1, 0.0, 1.0]] * 99 + [[0.5, 0.2, 0.0]], dtype=torch.float64)
    second = torch.tensor([[0.3, 0.4, NOT_ASKED]] * 100, dtype=torch.float64)
    report = summarise({"b": second, "a": first}, dtype="int8")
    assert (report.images, report.tokens, report.match_queries) == (2, 200, 100)
    assert report.cosine_mean == pytest.approx(1 - (9.9 + 0.5 + 30) / 200)
    assert report.cosine_p1 == pytest.approx(0.7)  # 2 of 200 tokens may be worse, and one is
    assert report.cosine_min == pytest.approx(0.5)
    assert report.worst_image == "a"
    assert report.match_agreement == pytest.approx(0.99)
    assert report.norm_error_mean == pytest.approx((0.2 + 40) / 200)
    assert report.norm_error_max == pytest.approx(0.4)
    assert "patch match 99.00 % of 100" in describe(report)
    with pytest.raises(ShapeError, match="nothing was measured"):
        summarise({}, dtype="int8")


def test_a_summary_does_not_depend_on_the_order_of_pictures():
    """1e16 + 1 - 1e16 is 0 or 1 in float64, as the order has it."""
    parts = {
        name: torch.tensor([[value, 0, 1]], dtype=torch.float64)
        for name, value in zip("abc", (1e16, 1, -1e16), strict=True)
    }
    assert summarise({name: parts[name] for name in "acb"}, dtype="int8") == summarise(parts, dtype="int8")


@pytest.mark.parametrize(("total", "chosen"), [(0, 0), (3, 3), (8, 8), (500, 8), (1000, 10), (1001, 11), (99_999, 64)])
def test_the_sample_is_one_part_in_a_hundred_within_bounds(total, chosen):
    ids = [f"image-{k}" for k in range(total)]
    sample = choose_sample(ids)
    assert len(sample) == chosen
    assert sample == choose_sample(reversed(ids))
    if chosen:
        assert sample == choose_sample(sample | set(ids[: total // 2]) | set(ids))


def open_set(folder) -> FeatureStore:
    store = FeatureStore(folder)
    store.open_set(KIND, STAMP, spec=SPEC, config={})
    return store


def build(folder, ids: list[str], mine: list[str]) -> FidelityLog:
    """One worker that has the pictures `mine` of `ids`."""
    with open_set(folder) as store:
        log = FidelityLog(store, KIND, STAMP, dtype="int8", sample=choose_sample(ids))
        for image_id in mine:
            values = noise(12, 16, seed=ids.index(image_id))
            if log.wants(image_id):
                log.add(image_id, values, encode_array(values, "int8"))
        log.save()
    return log


def test_any_workers_in_any_order_after_any_restart_end_in_one_report(tmp_path):
    ids = [f"image-{k}" for k in range(40)]
    alone = build(tmp_path / "one", ids, ids)
    for part in (ids[1::2], ids[::-2], ids[7:9], ids[::2]):
        build(tmp_path / "many", ids, part)
    reports = [open_set(tmp_path / name).folder(KIND, STAMP) / "_fidelity.json" for name in ("one", "many")]
    assert reports[0].read_bytes() == reports[1].read_bytes()
    content = json.loads(reports[0].read_text())
    assert content["stamp_sha256"] == STAMP.digest
    assert content["report"]["images"] == 8
    assert read_report(reports[0].parent) == alone.report()
    assert 0.9999 < alone.report().cosine_min <= alone.report().cosine_p1 < alone.report().cosine_mean < 1


def test_the_pixels_of_latents_count_as_tokens(tmp_path):
    latents = noise(4, 48).reshape(4, 6, 8)
    content = encode_array(latents, "int8", channel_axis=0)
    with open_set(tmp_path) as store:
        log = FidelityLog(store, KIND, STAMP, dtype="int8", sample=frozenset("a"))
        log.add("a", latents, content)
        report = log.report()
    tokens, back = latents.reshape(4, 48).T, decode_array(content, "int8").reshape(4, 48).T
    assert report.tokens == 48
    assert report.cosine_mean == pytest.approx(torch.cosine_similarity(tokens, back).mean().item(), abs=1e-6)


def test_fp32_has_nothing_to_measure(tmp_path):
    with open_set(tmp_path) as store:
        log = FidelityLog(store, KIND, STAMP, dtype="fp32", sample=frozenset("ab"))
        assert not log.wants("a")
        assert log.save() is None
        assert read_report(store.folder(KIND, STAMP)) is None


def test_a_report_that_cannot_be_read_is_named(tmp_path):
    log = build(tmp_path, ["a"], ["a"])
    assert log.report() is not None
    path = open_set(tmp_path).folder(KIND, STAMP) / "_fidelity.json"
    for content in ("{", "{}", path.read_text().replace('"version": 1', '"version": 2')):
        path.write_text(content)
        with pytest.raises(FormatError, match=r"_fidelity\.json"):
            read_report(path.parent)
