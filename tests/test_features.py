"""Feature maps: reading at points, cosine, PCA signs, files that refuse what does not belong together."""

import json
from dataclasses import replace

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import FormatError, InputError, ShapeError, StampError
from patchatlas.features import Descriptors, FeatureMap, fit_pca
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.stamp import Stamp

spec = FakeEncoder(channels=4, registers=2).spec


def feature_map(tokens: torch.Tensor, shape: tuple[int, int], frame: Frame | None = None, **recipe) -> FeatureMap:
    grid = PatchGrid.on(frame or Frame.whole((16 * shape[0], 16 * shape[1])), (16, 16))
    return FeatureMap(tokens, grid, spec, Stamp.of(spec, **recipe), torch.ones(4), torch.zeros(2, 4))


def random_map(seed: int = 0, **recipe) -> FeatureMap:
    tokens = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    return feature_map(tokens, (2, 3), **recipe)


def test_at_reads_between_patch_centres_in_source_pixels():
    tokens = torch.arange(6.0)[:, None].expand(6, 4).contiguous()
    # The source is twice as large as the input: patch centres lie at 16, 48, 80.
    features = feature_map(tokens, (2, 3), Frame.whole((64, 96)).resize((32, 48)))
    read = features.at(torch.tensor([[16.0, 16.0], [80.0, 48.0], [32.0, 16.0], [16.0, 40.0]])).vectors[:, 0]
    torch.testing.assert_close(read, torch.tensor([0, 5, 0.5, 2.25]))


def test_as_grid_is_rows_by_columns():
    tokens = torch.arange(6.0)[:, None].expand(6, 4).contiguous()
    assert feature_map(tokens, (2, 3)).as_grid()[0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_similarity_is_the_cosine_on_the_grid():
    tokens = torch.tensor([[2.0, 0, 0, 0], [0, 3, 0, 0], [1, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 0], [5, 0, 0, 5]])
    features = feature_map(tokens, (2, 3))
    found = features.similarity(Descriptors(torch.tensor([[7.0, 0, 0, 0], [0, 1, 0, 0]]), features.stamp))
    half = 0.5**0.5
    torch.testing.assert_close(found[0], torch.tensor([[1, 0, half], [-1, 0, half]]))
    torch.testing.assert_close(found[1], torch.tensor([[0, 1, half], [0, 0, 0]]))


def test_mixed_stamps_are_refused_by_name():
    one, other = random_map(fill="edge"), random_map(fill="mean")
    with pytest.raises(StampError, match=r"fill: 'mean' and 'edge'"):
        other.similarity(one.at(torch.zeros(1, 2)))
    bf16 = replace(one, stamp=Stamp.of(replace(spec, dtype="bf16"), fill="edge"))
    with pytest.raises(StampError, match="dtype"):
        fit_pca([one, bf16])


def test_pca_has_the_known_basis_and_fixed_signs():
    # Variance 9 along -e2, 4 along e0, nothing else; the largest entry of each row must come out positive.
    tokens = torch.tensor([[2.0, 0, -3, 0], [2, 0, 3, 0], [-2, 0, -3, 0], [-2, 0, 3, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    features = feature_map(tokens + 5, (2, 3))
    pca = features.pca(2)
    torch.testing.assert_close(pca.basis, torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(pca.variance, torch.tensor([36 / 5, 16 / 5]))
    torch.testing.assert_close(pca.project(features)[0], torch.tensor([[-3.0, 3, -3], [3, 0, 0]]))
    assert (random_map().pca(3).basis.abs().max(dim=1).values == random_map().pca(3).basis.max(dim=1).values).all()


def test_a_shared_basis_gives_equal_colours_to_equal_features():
    one, other = random_map(0), random_map(1)
    pca = fit_pca([one, other], 3)
    swapped = replace(other, tokens=one.tokens)
    torch.testing.assert_close(pca.project(one), pca.project(swapped))
    with pytest.raises(ShapeError, match="5 components"):
        one.pca(5)


def test_save_and_load_keep_everything(tmp_path):
    features = feature_map(torch.randn(6, 4), (2, 3), Frame.whole((61, 97)).resize((32, 48)), fill="edge")
    features.save(tmp_path / "a.safetensors")
    read = FeatureMap.load(tmp_path / "a.safetensors", expect=features.stamp)
    assert (read.grid, read.spec, read.stamp) == (features.grid, features.spec, features.stamp)
    for name in ("tokens", "cls", "registers"):
        assert torch.equal(getattr(read, name), getattr(features, name))
    replace(features, cls=None, registers=None).save(tmp_path / "b.safetensors")
    assert FeatureMap.load(tmp_path / "b.safetensors").cls is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_the_file_names_its_format_and_stamp(tmp_path):
    features = random_map()
    features.save(tmp_path / "a.safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as stored:
        header = stored.metadata()
    assert (header["format"], header["version"]) == ("patchatlas.features", "1")
    assert json.loads(header["stamp"])["weights_sha256"] == spec.weights_sha256


def test_load_refuses_what_is_not_its_own(tmp_path):
    features = random_map(fill="edge")
    features.save(tmp_path / "a.safetensors")
    with pytest.raises(StampError, match="fill"):
        FeatureMap.load(tmp_path / "a.safetensors", expect=random_map(fill="mean").stamp)
    with pytest.raises(InputError, match="no feature map"):
        FeatureMap.load(tmp_path / "absent.safetensors")
    save_file({"tokens": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(FormatError, match="not a patchatlas feature map"):
        FeatureMap.load(tmp_path / "foreign.safetensors")
    save_file(
        {"tokens": torch.zeros(1)}, tmp_path / "newer.safetensors", {"format": "patchatlas.features", "version": "2"}
    )
    with pytest.raises(FormatError, match="version 2"):
        FeatureMap.load(tmp_path / "newer.safetensors")
    cut = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(FormatError, match=r"cut\.safetensors cannot be read"):
        FeatureMap.load(tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match=r"\.safetensors, given a\.pt"):
        features.save(tmp_path / "a.pt")


def test_tokens_must_fill_the_grid():
    with pytest.raises(ShapeError, match="5 tokens"):
        feature_map(torch.zeros(5, 4), (2, 3))
