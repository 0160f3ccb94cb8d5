"""What was embedded once is not embedded again, and nothing is ever taken for what it is not."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import ResourceError
from patchatlas.reid.embed.cache import CachedEmbedder, VectorCache, key_of
from patchatlas.reid.embed.crops import CropEmbedder
from patchatlas.reid.embed.lab import LabEmbedder
from patchatlas.reid.embed.regions import RegionEmbedder
from tests.disk_limit import no_file_may_grow


class Counting(LabEmbedder):
    """Says how many crops it was given."""

    seen = 0

    def embed_crops(self, crops: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen += len(crops)
        return super().embed_crops(crops)


def crops(*seeds: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).integers(0, 256, (30, 20, 3), np.uint8) for seed in seeds]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_the_second_time_nothing_is_embedded(tmp_path: Path) -> None:
    asked = [*crops(1, 2), crops(1)[0][:0], *crops(3, 1)]
    plain, valid = LabEmbedder().embed_crops(asked)
    first = Counting()
    cached = CachedEmbedder(first, tmp_path)
    found = cached.embed_crops(asked)
    assert (first.seen, cached.misses, cached.hits) == (4, 4, 1)  # one crop stands twice
    again = Counting()
    known = CachedEmbedder(again, tmp_path)
    found_again = known.embed_crops(asked)
    assert (again.seen, known.misses, known.hits) == (0, 0, 5)
    for vectors, good in (found, found_again):
        assert torch.equal(vectors[valid], plain[valid])
        assert good.tolist() == valid.tolist() == [True, True, False, True, True]
        assert bool(vectors[2].isnan().all())


def test_only_what_is_new_is_embedded_and_order_is_kept(tmp_path: Path) -> None:
    CachedEmbedder(LabEmbedder(), tmp_path).embed_crops(crops(1, 2))
    counting = Counting()
    found, _ = CachedEmbedder(counting, tmp_path).embed_crops(crops(3, 2, 4, 1))
    assert counting.seen == 2
    assert torch.equal(found, LabEmbedder().embed_crops(crops(3, 2, 4, 1))[0])


def test_each_row_is_written_once(tmp_path: Path) -> None:
    cached = CachedEmbedder(LabEmbedder(), tmp_path)
    for asked in (crops(1, 2), crops(2, 3), crops(3)):
        cached.embed_crops(asked)
    assert sorted(len(load_file(path)["keys"]) for path in files(tmp_path)) == [1, 2]


def test_the_same_work_is_the_same_bytes(tmp_path: Path) -> None:
    for name, order in (("a", (1, 2, 3)), ("b", (3, 1, 2))):
        CachedEmbedder(LabEmbedder(), tmp_path / name).embed_crops(crops(*order))
    (one,), (other,) = files(tmp_path / "a"), files(tmp_path / "b")
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    assert json.loads((one.parent / "stamp.json").read_text()) == json.loads(LabEmbedder().stamp.to_json())


def test_another_stamp_is_another_folder(tmp_path: Path) -> None:
    """Vectors of one encoder under two settings never meet."""
    made = [
        CachedEmbedder(CropEmbedder(FakeEncoder(), pooling="mean", size=32), tmp_path),
        CachedEmbedder(CropEmbedder(FakeEncoder(), pooling="gem", size=32), tmp_path),
        CachedEmbedder(LabEmbedder(), tmp_path),
    ]
    for one in made:
        one.embed_crops(crops(1))
        assert one.misses == 1
    assert len({path.parent for path in files(tmp_path)}) == 3


def test_a_file_of_another_stamp_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    CachedEmbedder(CropEmbedder(FakeEncoder(), pooling="mean", size=32), tmp_path).embed_crops(crops(1))
    (path,) = files(tmp_path)
    other = RegionEmbedder(FakeEncoder()).stamp
    (tmp_path / other.digest[:16]).mkdir()
    path.rename(tmp_path / other.digest[:16] / path.name)
    with caplog.at_level(logging.WARNING):
        assert len(VectorCache(tmp_path, other, 3)) == 0
    assert "has another stamp" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "changed", "junk"])
def test_a_damaged_file_is_passed_over_and_said(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    CachedEmbedder(LabEmbedder(), tmp_path).embed_crops(crops(1))
    (path,) = files(tmp_path)
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-8], "changed": content[:-8] + bytes(8), "junk": b"junk"}[damage])
    counting = Counting()
    with caplog.at_level(logging.WARNING):
        found, _ = CachedEmbedder(counting, tmp_path).embed_crops(crops(1))
    assert counting.seen == 1
    assert "made anew" in caplog.text
    assert torch.equal(found, LabEmbedder().embed_crops(crops(1))[0])
    assert len(VectorCache(tmp_path, LabEmbedder().stamp, LabEmbedder().dim)) == 1  # and it was put right


def test_a_newer_version_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    CachedEmbedder(LabEmbedder(), tmp_path).embed_crops(crops(1))
    (path,) = files(tmp_path)
    save_file(load_file(path), path, {"format": "patchatlas.reid-cache", "version": "2"})
    with caplog.at_level(logging.WARNING):
        assert len(VectorCache(tmp_path, LabEmbedder().stamp, LabEmbedder().dim)) == 0
    assert "has another version than 1" in caplog.text


def test_keys_tell_shape_order_and_pixels() -> None:
    one, other = crops(1, 2)
    keys = {
        key_of(one),
        key_of(other),
        key_of(one, other),
        key_of(other, one),
        key_of(one.reshape(20, 30, 3)),
        key_of(one[..., ::-1]),
    }
    assert len(keys) == 6
    assert key_of(one[:, ::2]) == key_of(np.ascontiguousarray(one[:, ::2]))


def test_a_full_disk_says_so_and_leaves_what_was_there(tmp_path: Path) -> None:
    cached = CachedEmbedder(LabEmbedder(), tmp_path)
    cached.embed_crops(crops(1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with no_file_may_grow(), pytest.raises(ResourceError, match="larger than files may be here"):
        cached.embed_crops(crops(2))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    cached.embed_crops(crops(3))  # what could not be written is still written with the next
    assert len(VectorCache(tmp_path, cached.stamp, cached.dim)) == 3
