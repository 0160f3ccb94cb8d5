"""Stored features as maps: the same tokens, in the same places, as encoding the picture anew."""

from dataclasses import replace

import pytest
import torch

from patchatlas.datasets.placement import bucket_frame, encoder_frame, patch_box, place
from patchatlas.datasets.reading import entry_of, feature_map, only_patches
from patchatlas.datasets.recipe import Recipe, stamp_for
from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder, ramp
from patchatlas.errors import FormatError, InputError, StampError
from patchatlas.features import FeatureMap
from patchatlas.geometry.area import resample_area
from patchatlas.io.codecs import encode_array
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.manifest import FeatureEntry, Record, RecordError

TABLE = ((64, 64), (64, 96), (96, 64), (48, 80))
SIZES = ((90, 120), (120, 90), (70, 70), (50, 83), (130, 75))


def build(
    store: FeatureStore, record: Record, encoder: FakeEncoder, recipe: Recipe, **more: int
) -> tuple[Record, FeatureMap]:
    """Encode one ramp picture and store it, as a build would; also the map that encoding gives."""
    stamp = stamp_for(encoder.spec, recipe, **more)
    frame = encoder_frame(record, (encoder.patch[0], encoder.patch[1]))
    encoded = encode(ramp((record.height, record.width)), encoder, frame=frame)
    entries = {}
    parts = {"patches": encoded.tokens, "cls": encoded.cls, "registers": encoded.registers}
    for name, values in parts.items():
        kind, dtype = f"fake_{name}", recipe.storage if name == "patches" else "fp32"
        store.open_set(kind, stamp, spec=encoder.spec, config={})
        entries[kind] = store.write(
            kind,
            stamp,
            record.image_id,
            encode_array(values, dtype),
            grid=encoded.grid.shape if name == "patches" else None,
            dim=encoder.spec.dim,
            dtype=dtype,
        )
    return replace(record, features=entries), encoded


def record_of(h: int, w: int) -> Record:
    return place(Record(image_path="a.jpg", image_id="a", height=h, width=w, exif_orientation=1), TABLE)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", [16, 14])
def test_a_stored_map_is_the_map_that_encoding_gives(tmp_path, size, patch):
    encoder = FakeEncoder(patch=(patch, patch))
    with FeatureStore(tmp_path) as store:
        record, encoded = build(store, record_of(*size), encoder, Recipe(buckets=TABLE, storage="fp32"))
        stored = feature_map(record, store, "fake_patches", check_hash=True)
    assert torch.equal(stored.tokens, encoded.tokens)
    assert torch.equal(stored.cls, encoded.cls)
    assert torch.equal(stored.registers, encoded.registers)
    assert stored.grid == encoded.grid
    assert stored.spec == encoder.spec
    boxes = [
        tuple(map(float, patch_box(record, (patch, patch), r, c)))
        for r in range(stored.grid.shape[0])
        for c in range(stored.grid.shape[1])
    ]
    torch.testing.assert_close(stored.grid.boxes(), torch.tensor(boxes, dtype=torch.float64))


@pytest.mark.parametrize("size", SIZES)
def test_a_point_asked_for_is_found_where_it_was_asked(tmp_path, size):
    """What `locate` does with maps, on stored ones; the map says its place, since its tokens are those of a ramp."""
    h, w = size
    with FeatureStore(tmp_path) as store:
        record, _ = build(store, record_of(h, w), FakeEncoder(), Recipe(buckets=TABLE, storage="fp32"))
        stored = feature_map(record, store, "fake_patches")
    centres = stored.grid.centres()
    at = stored.at(centres).vectors[:, :2] * torch.tensor([w, h])
    torch.testing.assert_close(at.double(), centres, atol=0.35, rtol=0)
    asked = stored.grid.shape[1] + 2  # row 1, column 2: in these small grids no other patch lies in its direction
    peak = stored.similarity(stored.at(centres[asked : asked + 1])).flatten().argmax()
    assert peak == asked


def test_a_stored_map_travels_as_a_feature_map(tmp_path):
    with FeatureStore(tmp_path / "derived") as store:
        record, _ = build(store, record_of(90, 120), FakeEncoder(), Recipe(buckets=TABLE, storage="fp16"))
        stored = feature_map(record, store, "fake_patches")
    stored.save(tmp_path / "a.safetensors")
    loaded = FeatureMap.load(tmp_path / "a.safetensors", expect=stored.stamp)
    assert torch.equal(loaded.tokens, stored.tokens)
    assert loaded.grid == stored.grid


def test_maps_of_two_recipes_are_not_compared(tmp_path):
    maps = []
    for storage in ("fp32", "int8"):
        with FeatureStore(tmp_path / storage) as store:
            record, _ = build(store, record_of(90, 120), FakeEncoder(), Recipe(buckets=TABLE, storage=storage))
            maps.append(feature_map(record, store, "fake_patches"))
    with pytest.raises(StampError, match="storage: 'fp32' and 'int8'"):
        maps[0].similarity(maps[1].at(torch.ones(1, 2)))


def test_patches_on_latent_tokens_lie_on_the_bucket(tmp_path):
    encoder, recipe = FakeEncoder(patch=(14, 14)), Recipe(buckets=TABLE, storage="fp32")
    with FeatureStore(tmp_path) as store:
        record, encoded = build(store, record_of(90, 120), encoder, recipe)
        values = resample_area(encoded.tokens.reshape(*encoded.grid.shape, -1), (4, 6)).flatten(0, 1)
        stamp = stamp_for(encoder.spec, recipe, latent_stride=8, latent_patch=2)
        kind = "fake_latent_patches"
        store.open_set(kind, stamp, spec=encoder.spec, config={})
        entry = store.write(kind, stamp, "a", encode_array(values, "fp32"), grid=(4, 6), dim=3, dtype="fp32")
        stored = feature_map(replace(record, features={kind: entry}), store, kind)
    assert stored.grid.patch == (16, 16)
    assert stored.grid.frame == bucket_frame(record)
    assert stored.cls is None
    at = stored.tokens[:, :2] * torch.tensor([120, 90])
    torch.testing.assert_close(at.double(), stored.grid.centres(), atol=2.5, rtol=0)


def test_a_transposed_grid_is_refused(tmp_path):
    with FeatureStore(tmp_path) as store:
        record, _ = build(store, record_of(90, 120), FakeEncoder(), Recipe(buckets=TABLE))
        entry = record.features["fake_patches"]
        turned = replace(entry, grid=entry.grid[::-1])
        with pytest.raises(FormatError, match=r"grid of \(6, 4\).*give \(4, 6\)"):
            feature_map(replace(record, features={"fake_patches": turned}), store, "fake_patches")


def test_cls_of_another_recipe_is_refused(tmp_path):
    with FeatureStore(tmp_path) as store:
        record, _ = build(store, record_of(90, 120), FakeEncoder(), Recipe(buckets=TABLE))
        other = stamp_for(FakeEncoder().spec, Recipe(buckets=TABLE, decode="fast"))
        store.open_set("fake_cls", other, spec=FakeEncoder().spec, config={}, backup_old=True)
        entry = store.write("fake_cls", other, "a", encode_array(torch.ones(3), "fp32"), grid=None, dim=3, dtype="fp32")
        mixed = replace(record, features={**record.features, "fake_cls": entry})
        with pytest.raises(StampError, match=r"patches and cls.*decode"):
            feature_map(mixed, store, "fake_patches")


def test_sets_of_no_encoder_have_no_places(tmp_path):
    with FeatureStore(tmp_path) as store:
        record, _ = build(store, record_of(90, 120), FakeEncoder(), Recipe(buckets=TABLE))
        path = store.path(record.features["fake_patches"]).parent / "_features.json"
        header = store.header(path.parent)
        path.write_text(replace(header, spec=None).to_json())
        with pytest.raises(FormatError, match="which encoder"):
            feature_map(record, FeatureStore(tmp_path), "fake_patches")


def test_what_a_record_lacks_is_said(tmp_path):
    record = record_of(90, 120)
    with pytest.raises(InputError, match="has no dinov3_patches; it has: none"):
        feature_map(record, FeatureStore(tmp_path))
    with pytest.raises(InputError, match="ends in _patches"):
        feature_map(record, FeatureStore(tmp_path), "dinov3_cls")
    skipped = replace(record, status="skipped", error=RecordError(type="truncated", message="it ends early"))
    with pytest.raises(InputError, match="it was skipped: it ends early"):
        entry_of(skipped, "dinov3_patches")


def test_the_entry_of_another_picture_or_kind_is_refused(tmp_path):
    encoder, recipe = FakeEncoder(), Recipe(buckets=TABLE, storage="fp32")
    with FeatureStore(tmp_path) as store:
        one, _ = build(store, record_of(70, 70), encoder, recipe)
        other, _ = build(store, replace(record_of(70, 70), image_id="b"), encoder, recipe)
    with pytest.raises(FormatError, match=r"/b\.npy as fake_patches of a; .* build again"):
        feature_map(replace(one, features=other.features), store, "fake_patches")
    with pytest.raises(FormatError, match=r"/b\.npy as fake_cls of a"):
        feature_map(
            replace(one, features={**one.features, "fake_cls": other.features["fake_cls"]}), store, "fake_patches"
        )
    with pytest.raises(FormatError, match="as fake_cls of a"):
        entry_of(replace(one, features={"fake_cls": one.features["fake_registers"]}), "fake_cls")


def test_the_only_kind_of_patches_is_found_and_several_are_asked_about():
    entry = FeatureEntry(file="a@0/i.npy", grid=(1, 1), dim=1, dtype="fp16", bytes=1, sha256="0" * 64, stamp="0" * 64)
    one = Record(image_path="i.jpg", image_id="i", features={"sift_patches": entry, "sift_cls": entry})
    two = Record(image_path="i.jpg", image_id="i", features={"dinov3_patches": entry})
    assert only_patches([one, one]) == "sift_patches"
    for records, named in (([one, two], "dinov3_patches and sift_patches"), ([], "no patches")):
        with pytest.raises(InputError, match=f"{named}; name what to take with --kind"):
            only_patches(records)
