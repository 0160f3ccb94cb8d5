"""Exports: the same numbers in each format, placed, stamped, and complete or absent."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr
from safetensors import safe_open

from patchatlas.datasets.export import export_feature_maps, export_safetensors, export_zarr
from patchatlas.datasets.reading import feature_map
from patchatlas.datasets.recipe import Recipe
from patchatlas.errors import FormatError, InputError, MissingExtraError, StampError
from patchatlas.features import FeatureMap
from patchatlas.io.feature_store import FeatureStore
from tests.datasets.stored import TABLE, stored_ramps

KIND = "fake_patches"


@pytest.fixture(params=["fp32", "fp16", "bf16", "int8"])
def storage(request):
    return request.param


def test_feature_maps_are_what_reading_gives(tmp_path, storage):
    records = stored_ramps(tmp_path, Recipe(buckets=TABLE, storage=storage))
    store = FeatureStore(tmp_path / "derived")
    seen: list[tuple[int, int]] = []
    report = export_feature_maps(records, store, tmp_path / "maps", kind=KIND, on_progress=lambda *a: seen.append(a))
    assert seen == [(k, 6) for k in range(1, 7)]
    assert sorted(report.written) == sorted((tmp_path / "maps").iterdir())
    for record in records:
        wanted = feature_map(record, store, KIND)
        loaded = FeatureMap.load(tmp_path / "maps" / f"{record.image_id}.safetensors", expect=wanted.stamp)
        assert torch.equal(loaded.tokens, wanted.tokens)
        assert torch.equal(loaded.registers, wanted.registers)
        assert loaded.grid == wanted.grid


def test_safetensors_have_a_tensor_an_image_over_its_grid(tmp_path, storage):
    records = stored_ramps(tmp_path, Recipe(buckets=TABLE, storage=storage))
    store = FeatureStore(tmp_path / "derived")
    report = export_safetensors(records, store, tmp_path / "out", kind=KIND)
    assert [p.name for p in report.written] == [
        f"bucket_{b}-00000.safetensors" for b in ("64x64", "64x96", "80x48", "96x64")
    ]
    found = {}
    for path in report.written:
        with safe_open(path, framework="pt") as opened:
            facts = opened.metadata()
            assert facts["format"] == "patchatlas.export"
            assert facts["stamp_sha256"] == records[0].features[KIND].stamp
            assert path.name.startswith(f"bucket_{facts['bucket']}-")
            assert set(json.loads(facts["images"])) == set(opened.keys())
            found |= {name: opened.get_tensor(name) for name in opened.keys()}
    for record in records:
        entry = record.features[KIND]
        assert found[record.image_id].shape == (*entry.grid, 3)
        assert found[record.image_id].dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}.get(
            storage, torch.float32
        )
        assert torch.equal(found[record.image_id].reshape(-1, 3).float(), store.read(entry))


def test_safetensors_are_cut_by_size_and_equal_on_every_run(tmp_path):
    records = stored_ramps(tmp_path)
    store = FeatureStore(tmp_path / "derived")
    first = export_safetensors(records, store, tmp_path / "a", kind=KIND, max_mb=2 * 24 * 3 * 4 / 1e6)
    again = export_safetensors(records[::-1], store, tmp_path / "b", kind=KIND, max_mb=2 * 24 * 3 * 4 / 1e6)
    assert [p.name for p in first.written if "96x64" in p.name] == ["bucket_96x64-00000.safetensors"]
    single = export_safetensors(records, store, tmp_path / "c", kind=KIND, max_mb=1e-9)
    assert len(single.written) == 6
    for mine, theirs in zip(first.written, again.written, strict=True):
        assert mine.name == theirs.name
        assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("kind", [KIND, "fake_cls", "fake_registers", "vae_latents"])
def test_zarr_has_a_group_a_bucket(tmp_path, kind):
    records = stored_ramps(tmp_path, Recipe(buckets=TABLE, storage="fp16"))
    store = FeatureStore(tmp_path / "derived")
    report = export_zarr(records, store, tmp_path / "out.zarr", kind=kind)
    assert report.written == (tmp_path / "out.zarr",)
    root = zarr.open_group(tmp_path / "out.zarr", mode="r")
    assert root.attrs["stamp_sha256"] == records[0].features[kind].stamp
    assert sorted(name for name, _ in root.groups()) == ["bucket_64x64", "bucket_64x96", "bucket_80x48", "bucket_96x64"]
    for record in records:
        h, w = record.aspect_bucket
        array = root[f"bucket_{w}x{h}/{kind}"]
        values = array[array.attrs["image_id"].index(record.image_id)]
        stored = store.read(record.features[kind]).numpy()
        np.testing.assert_array_equal(values.reshape(stored.shape), stored)
        assert array.dtype == (np.float16 if kind == KIND else np.float32)
        assert len(array.metadata.dimension_names) == array.ndim
    places = root["bucket_64x64"].attrs["images"]
    assert places["image-2"] == {"image_path": "image-2.jpg", "crop_source": ["0", "0", "70", "70"]}


def test_zarr_rows_and_columns_are_named_and_lie_as_in_the_picture(tmp_path):
    records = stored_ramps(tmp_path)
    export_zarr(records, FeatureStore(tmp_path / "derived"), tmp_path / "out.zarr", kind=KIND)
    array = zarr.open_group(tmp_path / "out.zarr", mode="r")["bucket_96x64/fake_patches"]
    assert array.metadata.dimension_names == ("image", "y", "x", "feature")
    assert array.shape[1:] == (4, 6, 3)
    assert np.all(np.diff(array[0, ..., 0], axis=1) > 0)  # channel 0 of a ramp grows with x
    assert np.all(np.diff(array[0, ..., 1], axis=0) > 0)


def test_a_zarr_store_is_whole_or_absent(tmp_path):
    records = stored_ramps(tmp_path)
    store = FeatureStore(tmp_path / "derived")
    output = tmp_path / "out.zarr"

    def stop(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_zarr(records, store, output, kind=KIND, on_progress=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dataset.jsonl", "derived"]
    export_zarr(records, store, output, kind=KIND)
    with pytest.raises(InputError, match="there already"):
        export_zarr(records, store, output, kind=KIND)


def test_zarr_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"patchatlas\[zarr\]"):
        export_zarr(stored_ramps(tmp_path), FeatureStore(tmp_path / "derived"), tmp_path / "out.zarr", kind=KIND)


@pytest.mark.parametrize("export", [export_feature_maps, export_safetensors, export_zarr])
def test_images_without_the_feature_are_listed_and_the_rest_exported(tmp_path, export):
    records = stored_ramps(tmp_path, skipped=1)
    store = FeatureStore(tmp_path / "derived")
    path = store.path(records[0].features[KIND])
    path.write_bytes(path.read_bytes()[:-1])
    report = export(records, store, tmp_path / "out", kind=KIND)
    assert report.images == 5
    assert [name for name, _ in report.left_out] == ["bad-0.jpg", "image-0.jpg"]
    assert "it ends early" in report.left_out[0][1]
    assert "bytes, the manifest says" in report.left_out[1][1]
    with pytest.raises(InputError, match="bad-0"):
        export(records, store, tmp_path / "strict", kind=KIND, strict=True)
    with pytest.raises(FormatError, match="build again"):
        export(records[:-1], store, tmp_path / "strict", kind=KIND, strict=True)
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize("export", [export_feature_maps, export_safetensors, export_zarr])
def test_a_mixed_manifest_is_refused_by_field(tmp_path, export):
    records = stored_ramps(tmp_path, Recipe(buckets=TABLE))
    other = stored_ramps(tmp_path / "other", Recipe(buckets=TABLE, decode="fast"))
    (tmp_path / "other" / "derived" / other[0].features[KIND].file).parent.rename(
        tmp_path / "derived" / other[0].features[KIND].file.split("/")[0]
    )
    mixed = [*records[:3], *other[3:]]
    with pytest.raises(StampError, match="decode: 'pillow' and 'pillow-draft'"):
        export(mixed, FeatureStore(tmp_path / "derived"), tmp_path / "out", kind=KIND)
    wrong = replace(records[0].features[KIND], stamp=other[0].features[KIND].stamp)
    planted = [replace(records[0], features={KIND: wrong}), *records[1:]]
    with pytest.raises(StampError, match="was made under stamp"):
        export(planted, FeatureStore(tmp_path / "derived"), tmp_path / "out", kind=KIND)


def test_a_kind_that_is_not_there_is_said(tmp_path):
    records = stored_ramps(tmp_path)
    with pytest.raises(InputError, match=r"no image of the manifest has dinov3_patches \(the first: .*fake_cls"):
        export_safetensors(records, FeatureStore(tmp_path / "derived"), tmp_path / "out")
