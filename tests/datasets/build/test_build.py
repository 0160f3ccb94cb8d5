"""Whole builds in this process: what is stored, that it is the same however it was made, and what is refused."""

import json
import logging
import shutil
import threading

import pytest
import torch

from patchatlas.datasets.build.merge import journals_of
from patchatlas.datasets.build.run import build
from patchatlas.datasets.build.sharding import Shard
from patchatlas.datasets.placement import encoder_frame
from patchatlas.datasets.reading import feature_map
from patchatlas.datasets.recipe import Recipe
from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.loading import load_encoder
from patchatlas.errors import FormatError, InputError, StampError, UsageError, WeightsError
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.images import read_image
from patchatlas.io.manifest import read_manifest
from patchatlas.io.reasons import PictureError
from tests.datasets.build.conftest import Noting
from tests.datasets.conftest import PHOTOS, SMALL_BUCKETS, write_photos, write_tiny


def files(settings, snapshot):
    return snapshot(settings.manifest, settings.derived_dir)


# -- what is stored ---------------------------------------------------------------------------------------------------


def test_stored_features_are_those_of_one_forward_over_the_whole_bucket(settings, photos, tiny_dinov3):
    made = settings(recipe=Recipe(buckets=SMALL_BUCKETS, storage="fp32"))
    build(made)
    encoder = load_encoder(tiny_dinov3, device="cpu", dtype="fp32")
    store = FeatureStore(made.derived_dir)
    records = read_manifest(made.manifest)
    assert [record.image_path for record in records] == sorted(name for name, _ in PHOTOS)
    for record in records:
        stored = feature_map(record, store)
        direct = encode(read_image(photos / record.image_path), encoder, frame=encoder_frame(record, (16, 16)))
        assert stored.grid == direct.grid
        for name in ("tokens", "cls", "registers"):
            torch.testing.assert_close(getattr(stored, name), getattr(direct, name), rtol=1e-4, atol=1e-4)


def test_patch_14_rounds_each_side_and_cuts_nothing(settings, photos, tiny_dinov2):
    made = settings(passes=("dinov2",), encoder=str(tiny_dinov2), recipe=Recipe(buckets=SMALL_BUCKETS, storage="fp32"))
    build(made)
    encoder = load_encoder(tiny_dinov2, device="cpu", dtype="fp32")
    grids = {(64, 64): (5, 5), (64, 96): (5, 7), (96, 64): (7, 5), (48, 80): (3, 6)}  # 64 / 14 = 4.57, 80 / 14 = 5.71
    for record in read_manifest(made.manifest):
        assert record.features["dinov2_patches"].grid == grids[record.aspect_bucket]
        assert set(record.features) == {"dinov2_patches", "dinov2_cls"}  # it has no registers
        frame = encoder_frame(record, (14, 14))
        assert frame.scale[0] * frame.size[0] == record.crop_source[3] - record.crop_source[1]
        direct = encode(read_image(photos / record.image_path), encoder, frame=frame)
        stored = feature_map(record, FeatureStore(made.derived_dir), kind="dinov2_patches")
        torch.testing.assert_close(stored.tokens, direct.tokens, rtol=1e-4, atol=1e-4)


def test_two_passes_fill_one_manifest(settings, tiny_dinov2):
    build(settings())
    build(settings(passes=("dinov2",), encoder=str(tiny_dinov2)))
    kinds = {kind for record in read_manifest(settings().manifest) for kind in record.features}
    assert kinds == {"dinov3_patches", "dinov3_cls", "dinov3_registers", "dinov2_patches", "dinov2_cls"}


def test_fast_decoding_sees_the_same_picture_and_has_its_own_stamp(tmp_path, settings):
    folder = write_photos(tmp_path / "large", (("large.jpg", (640, 960)), ("turned-large.jpg", (900, 600))))
    maps = {}
    for decode in ("full", "fast"):
        made = settings(decode, input_dir=folder, recipe=Recipe(buckets=SMALL_BUCKETS, decode=decode, storage="fp32"))
        build(made)
        for record in read_manifest(made.manifest):
            maps[decode, record.image_path] = feature_map(record, FeatureStore(made.derived_dir))
    for name in ("large.jpg", "turned-large.jpg"):
        full, fast = maps["full", name], maps["fast", name]
        assert torch.nn.functional.cosine_similarity(full.tokens, fast.tokens).min() > 0.98
        assert not torch.equal(full.tokens, fast.tokens)
        with pytest.raises(StampError, match="decode: 'pillow' and 'pillow-draft'"):
            full.stamp.require(fast.stamp)


def test_patches_on_the_grid_of_latents(settings, use_encoder):
    use_encoder(FakeEncoder(patch=(14, 14)))
    table = ((64, 64), (96, 64))
    made = settings(passes=("encoder",), latent_stride=8, recipe=Recipe(buckets=table, storage="fp32"))
    build(made)
    store = FeatureStore(made.derived_dir)
    for record in read_manifest(made.manifest):
        rows, columns = (side // 16 for side in record.aspect_bucket)
        assert record.features["fake_latent_patches"].grid == (rows, columns)
        patches, tokens = (store.read(record.features[f"fake_{kind}"]) for kind in ("patches", "latent_patches"))
        torch.testing.assert_close(patches.mean(0), tokens.mean(0))  # both grids span the bucket


def test_where_patches_and_latents_meet_nothing_is_added(settings):
    made = settings(latent_stride=8)
    report = build(made)
    assert set(report.passes[0].sets) == {"dinov3_patches", "dinov3_cls", "dinov3_registers"}


# -- the same bytes however made --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[0, 1], [1, 0], [0, 1, 2], [2, 0, 1]])
def test_shards_end_in_the_bytes_of_one_process(settings, snapshot, order):
    whole = settings("whole")
    build(whole)
    counts = []
    for index in order:
        part = settings("parts", shard=Shard(index, len(order)))
        counts.append(build(part).passes[0].done)
    assert sum(counts) == len(PHOTOS)
    assert max(counts) < len(PHOTOS)
    assert files(part, snapshot) == files(whole, snapshot)
    assert journals_of(part.derived_dir) == []


def test_two_workers_with_the_same_units_end_in_one_result(settings, snapshot):
    whole, same = settings("whole"), settings("same")
    build(whole)
    errors = []

    def work():
        try:
            build(same)
        except BaseException as error:
            errors.append(error)
            raise

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    assert files(same, snapshot) == files(whole, snapshot)


def test_a_rerun_does_nothing(settings, use_encoder):
    made = settings()
    build(made)
    before = {path: path.stat().st_mtime_ns for path in made.derived_dir.rglob("*.npy")}
    use_encoder(Noting(load_encoder(made.encoder, device="cpu", dtype="fp32"), most=0))
    report = build(made)
    assert (report.passes[0].done, report.passes[0].there) == (0, len(PHOTOS))
    assert {path: path.stat().st_mtime_ns for path in made.derived_dir.rglob("*.npy")} == before


@pytest.mark.parametrize("harm", ["removed", "cut short", "no entry", "another stamp"])
def test_what_is_missing_is_made_again_in_the_same_bytes(settings, snapshot, harm):
    made = settings()
    build(made)
    before = files(made, snapshot)
    victim = sorted(made.derived_dir.rglob("*patches*/a-*.npy"))[0]
    if harm == "removed":
        victim.unlink()
    elif harm == "cut short":
        victim.write_bytes(victim.read_bytes()[:-1])
    else:
        rows = [json.loads(line) for line in made.manifest.read_text().splitlines()]
        for row in rows:
            if row["image_id"] == victim.stem:
                patches = row["features"]["dinov3_patches"]
                row["features"] = (
                    {} if harm == "no entry" else {**row["features"], "dinov3_patches": {**patches, "stamp": "0" * 64}}
                )
        made.manifest.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert build(made).passes[0].done == 1
    assert files(made, snapshot) == before


def test_the_row_of_a_bad_picture_is_a_hole_and_the_others_keep_their_bits(settings, tmp_path, photos, snapshot):
    whole = settings("whole")
    build(whole)
    folder = tmp_path / "with-hole"
    shutil.copytree(photos, folder)
    build(settings("holed", input_dir=folder, limit=1))  # the manifest now knows all sizes
    (folder / "tall.jpg").write_bytes((folder / "tall.jpg").read_bytes()[:2000])
    holed = settings("holed", input_dir=folder)
    report = build(holed)
    assert [(one.image_path, one.error.type) for one in report.skipped] == [("tall.jpg", "truncated")]
    for name, content in files(holed, snapshot).items():
        if name.endswith(".npy"):
            assert files(whole, snapshot)[name] == content


def test_out_of_memory_halves_the_batch_and_ends_in_the_same_bytes(settings, snapshot, use_encoder, caplog):
    whole = settings("whole", token_budget=1000)
    build(whole)
    real = load_encoder(whole.encoder, device="cpu", dtype="fp32")
    noting = use_encoder(Noting(real, most=1))
    halved = settings("halved", token_budget=1000)
    with caplog.at_level(logging.WARNING):
        build(halved)
    assert "ran out of memory on 4 pictures of 64x64 px; taking 2 at a time" in caplog.text
    assert "taking 1 at a time" in caplog.text
    assert max(shape[0] for shape in noting.shapes) == 5
    assert files(halved, snapshot) == files(whole, snapshot)


def test_pictures_that_come_later_are_added(settings, tmp_path, photos):
    folder = tmp_path / "growing"
    shutil.copytree(photos, folder, ignore=shutil.ignore_patterns("x*", "sub"))
    made = settings(input_dir=folder)
    first = build(made)
    shutil.copytree(photos, folder, dirs_exist_ok=True)
    second = build(made)
    assert (first.passes[0].done, second.passes[0].done, second.pictures) == (10, 4, len(PHOTOS))


def test_limit_stops_early_and_the_rest_follows(settings, snapshot):
    whole, limited = settings("whole"), settings("limited", limit=5)
    build(whole)
    assert [build(limited).passes[0].done for _ in range(4)] == [5, 5, 4, 0]
    assert files(limited, snapshot) == files(whole, snapshot)


# -- pictures that cannot be used -------------------------------------------------------------------------------------


@pytest.fixture
def with_bad(tmp_path, photos):
    folder = tmp_path / "with-bad"
    shutil.copytree(photos, folder)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes((folder / "tall.jpg").read_bytes()[:2000])
    return folder


def test_bad_pictures_are_listed_with_a_reason_and_the_rest_is_finished(settings, with_bad):
    made = settings(input_dir=with_bad)
    report = build(made)
    assert {one.image_path: one.error.type for one in report.skipped} == {"cut.jpg": "truncated", "empty.jpg": "empty"}
    records = {record.image_path: record for record in read_manifest(made.manifest)}
    assert [name for name, record in records.items() if record.status == "skipped"] == ["cut.jpg", "empty.jpg"]
    assert str(with_bad) not in records["cut.jpg"].error.message
    assert all(len(record.features) == 3 for record in records.values() if record.status == "ok")
    again = build(made)
    assert (again.skipped, again.passes[0].done) == (report.skipped, 0)


@pytest.mark.parametrize("name", ["cut.jpg", "empty.jpg"])
def test_a_mended_picture_is_taken_up(settings, with_bad, photos, name):
    made = settings(input_dir=with_bad)
    build(made)
    shutil.copy(photos / "tall.jpg", with_bad / name)
    report = build(settings(input_dir=with_bad, passes=("migrate", "dinov3")))
    assert report.passes[0].done == 1
    assert name not in {one.image_path for one in report.skipped}


def test_a_picture_that_changed_since_the_scan_is_not_encoded_under_its_old_size(settings, with_bad, photos):
    made = settings(input_dir=with_bad, limit=1)
    build(made)
    shutil.copy(photos / "wide.jpg", with_bad / "tall.jpg")
    report = build(settings(input_dir=with_bad))
    assert {one.image_path: one.error.type for one in report.skipped}["tall.jpg"] == "changed"
    report = build(settings(input_dir=with_bad, passes=("migrate", "dinov3")))
    assert report.passes[0].done == 1
    tall = next(record for record in read_manifest(made.manifest) if record.image_path == "tall.jpg")
    assert (tall.status, tall.aspect_bucket) == ("ok", (48, 80))


@pytest.mark.parametrize("name", ["cut.jpg", "empty.jpg"])
def test_strict_stops_at_the_first(settings, with_bad, name):
    for other in {"cut.jpg", "empty.jpg"} - {name}:
        (with_bad / other).unlink()
    with pytest.raises(PictureError, match=name.replace(".", r"\.")):
        build(settings(input_dir=with_bad, strict=True))


# -- manifests --------------------------------------------------------------------------------------------------------


def old_manifest(path, **fields):
    rows = [{"image_path": name, "image_id": f"id{n}", "caption": f"of {name}", "rating": 7, **fields}
            for n, (name, _) in enumerate(PHOTOS[:4])]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("fields", [{}, {"format_version": 3, "aspect_bucket": None, "features": {}, "status": "ok"}])
def test_without_a_bucket_the_message_names_the_pass_to_run(settings, fields):
    made = settings()
    old_manifest(made.manifest, **fields)
    with pytest.raises(InputError, match=r"aspect_bucket not found.*run with --pass-filter migrate"):
        build(made)


def test_an_old_manifest_is_migrated_and_built_in_one_run(settings):
    made = settings(passes=("dinov3", "migrate"))
    old_manifest(made.manifest)
    build(made)
    records = read_manifest(made.manifest)
    assert [record.caption for record in records[:2]] == ["of a.jpg", "of a.png"]
    assert all(record.extra["rating"] == 7 for record in records[:4])
    assert len({record.image_id for record in records}) == len(PHOTOS)
    assert all(len(record.features) == 3 for record in records)


def test_migrate_alone_fills_in_the_manifest_and_needs_no_encoder(settings):
    made = settings(passes=("migrate",), encoder=None)
    report = build(made)
    assert (report.pictures, report.passes) == (len(PHOTOS), ())
    assert all(record.aspect_bucket in SMALL_BUCKETS for record in read_manifest(made.manifest))


def test_migrating_again_does_not_forget_why_a_picture_was_skipped(settings, with_bad):
    made = settings(input_dir=with_bad)
    build(made)
    before = made.manifest.read_bytes()
    build(settings(input_dir=with_bad, passes=("migrate",), encoder=None))
    assert made.manifest.read_bytes() == before


def test_captions_are_merged(settings, tmp_path, caplog):
    captions = tmp_path / "captions.jsonl"
    captions.write_text('{"image_path": "a.jpg", "caption": "noise"}\n{"image_path": "no.jpg", "caption": "none"}\n')
    made = settings(captions=captions)
    with caplog.at_level(logging.WARNING):
        build(made)
    assert read_manifest(made.manifest)[0].caption == "noise"
    assert "'no.jpg'" in caplog.text


def test_captions_may_name_a_picture_by_any_path_that_leads_to_it(settings, tmp_path, photos):
    captions = tmp_path / "captions.jsonl"
    captions.write_text(json.dumps({"image_path": str(photos / "a.jpg"), "caption": "noise"}) + "\n")
    build(settings(captions=captions))
    assert read_manifest(settings().manifest)[0].caption == "noise"


def test_a_learnt_table_is_kept_for_pictures_that_come_later(settings, tmp_path, use_encoder):
    use_encoder(FakeEncoder())
    folder = tmp_path / "growing"
    write_photos(folder, (("a.jpg", (100, 100)), ("b.jpg", (100, 101))))
    made = settings(input_dir=folder, learn_buckets=2, passes=("encoder",))
    build(made)
    buckets = {record.aspect_bucket for record in read_manifest(made.manifest)}
    assert buckets == {(1024, 1024)}
    write_photos(folder, (("wide.jpg", (100, 200)),))
    build(made)
    assert {record.aspect_bucket for record in read_manifest(made.manifest)} == buckets


def test_a_manifest_of_another_table_is_refused(settings):
    build(settings())
    other = settings(recipe=Recipe(buckets=((64, 64), (32, 48))), backup_old=True)
    with pytest.raises(FormatError, match="run with --pass-filter migrate"):
        build(other)


def test_migrating_to_another_table_asks_before_features_are_lost(settings, snapshot):
    made = settings()
    build(made)
    before, manifest = snapshot(made.derived_dir), made.manifest.read_bytes()
    other = Recipe(buckets=((32, 32),))
    for passes in (("migrate",), ("migrate", "dinov3")):
        with pytest.raises(InputError, match=r"would get another bucket .* -> 32x32\) and lose .* --backup-old"):
            build(settings(passes=passes, recipe=other))
        assert made.manifest.read_bytes() == manifest
        assert snapshot(made.derived_dir) == before
    report = build(settings(passes=("migrate", "dinov3"), recipe=other, backup_old=True))
    assert report.passes[0].done == report.pictures
    assert {record.aspect_bucket for record in read_manifest(made.manifest)} == {(32, 32)}
    assert list((made.derived_dir / "_old").iterdir())


def test_a_manifest_of_another_rule_is_refused(settings, tmp_path):
    # w / h = 0.831: by logarithm nearer to 1 (0.185 against 0.220), by difference nearer to 2/3 (0.164 against 0.169)
    folder = write_photos(tmp_path / "one", (("five-to-six.jpg", (65, 54)),))
    table = ((64, 64), (96, 64))
    build(settings(input_dir=folder, recipe=Recipe(buckets=table)))
    linear = settings(input_dir=folder, recipe=Recipe(buckets=table, rule="linear"), backup_old=True)
    with pytest.raises(FormatError, match="64x64, the table and the linear rule give 64x96"):
        build(linear)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_features_made_in_another_way_are_refused_and_the_fact_is_named(settings, snapshot):
    made = settings()
    build(made)
    before = files(made, snapshot)
    with pytest.raises(StampError, match=r"storage: 'fp16' and 'int8'.*--backup-old"):
        build(settings(recipe=Recipe(buckets=SMALL_BUCKETS, storage="int8")))
    assert files(made, snapshot) == before


def test_other_weights_are_another_set(settings, tmp_path):
    from patchatlas.encoders.vit import ViTConfig

    build(settings())
    config = ViTConfig(family="dinov3", patch=(16, 16), dim=32, depth=2, heads=2, registers=4, ffn_hidden=64)
    other = write_tiny(tmp_path / "other.safetensors", config, seed=1)
    with pytest.raises(StampError, match="weights_sha256"):
        build(settings(encoder=str(other)))


def test_the_pass_refuses_an_encoder_of_another_family(settings, tiny_dinov2):
    with pytest.raises(UsageError, match=r"--pass-filter dinov3 needs an encoder of the family dinov3.*dinov2"):
        build(made := settings(encoder=str(tiny_dinov2)))
    assert not made.manifest.exists()
    assert not made.derived_dir.exists()


def test_one_encoder_is_not_for_two_passes(settings):
    with pytest.raises(UsageError, match="--encoder is for one pass"):
        build(settings(passes=("dinov3", "dinov2")))


@pytest.mark.parametrize(
    ("name", "wanted"), [("encoder", "--encoder"), ("latents", "--latent-encoder")], ids=["encoder", "latents"]
)
def test_a_pass_without_a_default_says_what_it_needs(settings, name, wanted):
    with pytest.raises(UsageError, match=wanted):
        build(settings(passes=(name,), encoder=None))


@pytest.mark.parametrize(("name", "entry"), [("dinov3", "dinov3-vitl16"), ("dinov2", "dinov2-vitl14-reg")])
def test_defaults_come_from_the_catalogue_and_are_not_downloaded(settings, monkeypatch, name, entry):
    from patchatlas.encoders import hub

    monkeypatch.delenv("PATCHATLAS_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "cached", lambda _: None)
    monkeypatch.setattr(hub, "fetch", lambda _: pytest.fail("nothing is to be downloaded"))
    with pytest.raises(WeightsError, match=f"weights of {entry} are not on this machine"):
        build(settings(passes=(name,), encoder=None))


def test_a_folder_that_is_not_there(settings, tmp_path):
    with pytest.raises(InputError, match=r"no folder .*nowhere"):
        build(settings(input_dir=tmp_path / "nowhere"))
    with pytest.raises(InputError, match="create it first"):
        build(settings(manifest=tmp_path / "nowhere" / "m.jsonl"))


def test_values_that_the_storage_cannot_hold_name_the_picture(settings, use_encoder):
    class Huge(Noting):
        def __call__(self, pixels, /):
            from dataclasses import replace

            tokens = super().__call__(pixels)
            return replace(tokens, patches=tokens.patches + 70_000)

    use_encoder(Huge())
    with pytest.raises(FormatError, match=r"fake_patches of .*(jpg|png): .*fp16"):
        build(settings(passes=("encoder",)))
