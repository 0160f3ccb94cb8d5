"""Manifests of earlier projects become version 3: nothing is lost, nothing happens twice, nothing half."""

import copy
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchatlas import files
from patchatlas.datasets.ids import image_id
from patchatlas.datasets.migrate import migrate
from patchatlas.datasets.placement import bucket_frame
from patchatlas.datasets.scan import scan_folder
from patchatlas.errors import FormatError, InputError
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS
from patchatlas.io.manifest import FeatureEntry, ManifestRows, read_manifest, to_line, write_manifest
from tests.datasets.conftest import PHOTOS, SMALL_BUCKETS

SHA = "ab" * 32


@pytest.fixture
def folder(tmp_path, photos, monkeypatch):
    """A project as the earlier one laid it out, with us in it: data/approved with pictures, data/derived empty."""
    shutil.copytree(photos, tmp_path / "data" / "approved")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def old_row(name: str, **fields) -> dict:
    """A line as the earlier project wrote it at version 2."""
    height, width = dict(PHOTOS)[name]
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return {
        "image_path": f"data/approved/{name}",
        "image_id": stem,
        "width": width,
        "height": height,
        "aspect_bucket": "96x64",
        "caption": f"about {stem}",
        "t5_attention_mask": [1, 1, 0],
        "format_version": 2,
        **fields,
    }


def write(path, *rows):
    path.write_bytes(b"".join(to_line(row) for row in rows))
    return path


def run(path, **options):
    options = {"input_dir": "data/approved", "derived_dir": "data/derived", "table": SMALL_BUCKETS, **options}
    records = migrate(ManifestRows(path), **options)
    write_manifest(path, records)
    return records


def test_version_2_gets_sizes_buckets_and_hashes_and_keeps_the_rest(folder):
    path = write(
        folder / "m.jsonl", old_row("wide.jpg", score=0.5), old_row("sub/deep/turned.jpg", width=130, height=75)
    )
    wide, turned = run(path)
    assert read_manifest(path) == [wide, turned]
    scanned = {r.image_path: r for r in scan_folder("data/approved", table=SMALL_BUCKETS)}
    for record, name in ((wide, "wide.jpg"), (turned, "sub/deep/turned.jpg")):
        same = scanned[name]
        assert record.image_path == f"data/approved/{name}"  # as it was
        for field in (
            "width",
            "height",
            "aspect_bucket",
            "sha256",
            "exif_orientation",
            "resized",
            "crop",
            "crop_source",
        ):
            assert getattr(record, field) == getattr(same, field)
        assert record.extra["t5_attention_mask"] == [1, 1, 0]
    assert (wide.image_id, wide.caption) == ("wide", "about wide")
    assert wide.extra["score"] == 0.5
    # The old size was that of the stored raster (bug 10); what it said is kept.
    assert (turned.width, turned.height, turned.exif_orientation) == (75, 130, 6)
    assert turned.extra["old_values"] == {"width": 130, "height": 75, "aspect_bucket": "96x64"}
    assert wide.aspect_bucket == (48, 80)
    assert wide.extra["old_values"] == {"aspect_bucket": "96x64"}


def test_lines_without_a_version_and_with_nothing_but_a_path(folder):
    path = write(folder / "m.jsonl", {"image_path": "a.jpg"}, {"image_path": str(folder / "data/approved/a.png")})
    first, second = run(path)
    assert first.image_id == image_id("a.jpg")
    assert second.status == first.status == "ok"
    assert first.extra == {}


def test_bug_9_ids_stay_if_they_are_unique_and_dot_free(folder):
    path = write(
        folder / "m.jsonl",
        old_row("a.jpg"),
        old_row("a.png"),
        old_row("b.v2.final.jpg"),
        old_row("wide.jpg", image_id="TALL"),
        old_row("tall.jpg"),
        old_row("x_y.jpg"),
        old_row("x/y.jpg", image_id="x/y"),
        old_row("tiny.png", image_id=7),
        old_row("grey.png", image_id="g" * 300),
    )
    records = {r.image_path.removeprefix("data/approved/"): r for r in run(path)}
    kept = {name for name, record in records.items() if record.image_id == record.image_path[14:].rsplit(".")[0]}
    assert kept == {"x_y.jpg"}
    for name, record in records.items():
        assert "." not in record.image_id
        if name not in kept:
            assert record.image_id == image_id(f"data/approved/{name}")
    assert records["a.jpg"].extra["old_values"]["image_id"] == records["a.png"].extra["old_values"]["image_id"] == "a"
    assert records["tiny.png"].extra["old_values"]["image_id"] == 7
    assert len({r.image_id.casefold() for r in records.values()}) == 9


def test_inline_vectors_become_files(folder):
    exact = np.random.default_rng(0).standard_normal(1024).astype(np.float32)
    path = write(
        folder / "m.jsonl",
        old_row("wide.jpg", dinov3_embedding=exact.tolist()),
        old_row("tall.jpg", dinov3_embedding=[0.1, 2, 1e300]),
        old_row("tiny.png", dinov3_embedding=None),
        old_row("grey.png", dinov3_embedding=["x"]),
    )
    wide, tall, tiny, grey = run(path)
    assert "dinov3_embedding" not in wide.extra
    facts = wide.extra["migrated_vectors"]["dinov3_embedding"]
    assert facts["file"] == "migrated/dinov3_embedding/wide.npy"
    assert (facts["dim"], facts["dtype"]) == (1024, "fp32")
    stored = np.load(folder / "data/derived" / facts["file"], allow_pickle=False)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, exact)
    assert facts["bytes"] == (folder / "data/derived" / facts["file"]).stat().st_size
    # Numbers that float32 does not hold stay exact.
    facts = tall.extra["migrated_vectors"]["dinov3_embedding"]
    assert facts["dtype"] == "fp64"
    assert np.load(folder / "data/derived" / facts["file"]).tolist() == [0.1, 2, 1e300]
    # What is no vector stays where it is; none of it counts as a feature, for nothing says what made it.
    assert tiny.extra["dinov3_embedding"] is None
    assert grey.extra["dinov3_embedding"] == ["x"]
    assert wide.features == {}


def test_a_second_run_changes_nothing(folder):
    path = write(
        folder / "m.jsonl",
        old_row("wide.jpg", dinov3_embedding=[0.5, 1.5]),
        old_row("a.jpg"),
        old_row("a.png", caption=["not", "text"]),
        {"image_path": "gone.jpg", "width": 3, "height": 4, "status": "approved"},
    )
    first = run(path)
    files_then = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert run(path) == first
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == files_then


def test_missing_pictures_are_skipped_and_read_when_they_are_back(folder):
    lost = folder / "data/approved/wide.jpg"
    lost.rename(folder / "wide.away")
    path = write(folder / "m.jsonl", old_row("wide.jpg", width=83, height=50, status="approved"), old_row("tall.jpg"))
    wide, tall = run(path)
    assert (wide.status, wide.error and wide.error.type, tall.status) == ("skipped", "missing", "ok")
    assert wide.extra["old_values"] == {"width": 83, "height": 50, "aspect_bucket": "96x64", "status": "approved"}
    assert wide.caption == "about wide"
    (folder / "wide.away").rename(lost)
    wide, _ = run(path)
    assert (wide.status, wide.error, wide.width) == ("ok", None, 83)
    assert wide.extra["old_values"] == {"aspect_bucket": "96x64", "status": "approved"}


def entry(grid):
    return FeatureEntry(file="x@0/y.npy", grid=grid, dim=3, dtype="fp32", bytes=9, sha256=SHA, stamp=SHA)


def test_bug_14_a_record_whose_bucket_moves_loses_the_features_of_the_old_crop(folder):
    path = folder / "m.jsonl"
    records = scan_folder("data/approved", table=SMALL_BUCKETS)
    with_features = [
        type(r)(**{**vars(r), "features": {"dinov3_patches": entry((4, 4)), "dinov3_cls": entry(None)}})
        for r in records
    ]
    write_manifest(path, with_features)
    before = path.read_bytes()
    run(path)  # the same table: nothing moves, nothing is lost
    assert path.read_bytes() == before
    moved = run(path, table=((64, 64), (96, 64), (48, 80)))
    lost = {r.image_path for r in moved if not r.features}
    assert lost == {r.image_path for r in records if r.aspect_bucket == (64, 96)}
    assert lost
    for record in moved:
        assert bucket_frame(record).size == record.aspect_bucket


def test_features_of_a_picture_that_was_replaced_while_skipped_are_dropped(folder):
    path = folder / "m.jsonl"
    record = next(r for r in scan_folder("data/approved", table=SMALL_BUCKETS) if r.image_path == "wide.jpg")
    row = {**record.to_json(), "features": {"x": entry(None).to_json()}}
    row |= {"status": "skipped", "error": {"type": "missing", "message": "gone"}}
    write(path, row)
    assert run(path)[0].features != {}
    write(path, row)
    Image.new("RGB", (83, 50)).save("data/approved/wide.jpg")
    assert run(path)[0].features == {}


def test_a_version_3_line_without_its_bucket_gets_it_back(folder):
    path = folder / "m.jsonl"
    records = scan_folder("data/approved", table=SMALL_BUCKETS)
    rows = [r.to_json() for r in records]
    del rows[0]["aspect_bucket"]
    write(path, *rows)
    with pytest.raises(FormatError, match=r"aspect_bucket not found for 'a\.jpg'; run with --pass-filter migrate"):
        bucket_frame(read_manifest(path)[0])
    assert run(path) == records


def test_version_3_ids_that_collide_are_parted_and_their_shared_features_dropped(folder):
    path = folder / "m.jsonl"
    records = scan_folder("data/approved", table=SMALL_BUCKETS)[:3]
    rows = [{**r.to_json(), "features": {"x": entry(None).to_json()}} for r in records]
    rows[0]["image_id"] = rows[1]["image_id"] = "same"
    write(path, *rows)
    with pytest.raises(FormatError, match="have the same image_id 'same'"):
        read_manifest(path)
    first, second, third = run(path)
    assert [r.image_id for r in (first, second)] == [image_id(r.image_path) for r in (first, second)]
    assert first.features == second.features == {}
    assert third.features != {}
    assert first.extra["old_values"] == {"image_id": "same"}


def test_the_linear_rule_is_an_option(folder):
    Image.new("RGB", (50, 60)).save("data/approved/five-six.png")
    path = write(folder / "m.jsonl", {"image_path": "five-six.png"})
    assert run(path, table=MEGAPIXEL_BUCKETS)[0].aspect_bucket == (1024, 1024)
    assert run(path, table=MEGAPIXEL_BUCKETS, rule="linear")[0].aspect_bucket == (1216, 832)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"caption": "x"}], "record 1: image_path must be text, given None"),
        ([{"image_path": "a.jpg"}, {"image_path": ""}], "record 2: image_path must be text"),
        ([{"image_path": "a.jpg", "format_version": 4}], "record 1: format_version 4 is later than 3"),
        ([{"image_path": "a.jpg", "format_version": 3}], "record 1: "),
        ([{"image_path": "a.jpg"}, {"image_path": "a.jpg", "image_id": "b"}], r"'a\.jpg' has two records"),
    ],
)
def test_what_cannot_be_migrated_is_named_and_the_file_stays(rows, message, folder):
    path = write(folder / "m.jsonl", *rows)
    before = path.read_bytes()
    with pytest.raises(FormatError, match=message):
        run(path)
    assert path.read_bytes() == before


def test_a_run_that_dies_leaves_the_old_manifest(folder, monkeypatch):
    path = write(folder / "m.jsonl", old_row("wide.jpg", dinov3_embedding=[0.5]), old_row("tall.jpg"))
    before = path.read_bytes()

    def die(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        run(path)
    assert path.read_bytes() == before
    assert not list(folder.rglob("*.part*"))
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert len(run(path)) == 2


def test_no_such_manifest(folder):
    with pytest.raises(InputError, match="there is no file"):
        run(folder / "gone.jsonl")


@pytest.mark.usefixtures("folder")
def test_results_do_not_depend_on_threads():
    rows = [old_row(name, image_id=str(n), dinov3_embedding=[n, 0.25]) for n, (name, _) in enumerate(PHOTOS)]
    told = []
    options = {"input_dir": "data/approved", "derived_dir": "d", "table": SMALL_BUCKETS}
    one = migrate(rows, **options, workers=1)
    many = migrate(
        rows, **options, workers=6, on_progress=lambda done, total, record: told.append((done, total, record))
    )
    assert one == many
    assert told == [(n, len(PHOTOS), record) for n, record in enumerate(one, start=1)]


values = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values |= st.lists(st.integers(), max_size=4)
OURS = (
    "image_id width height aspect_bucket caption sha256 exif_orientation resized crop crop_source features status "
    "error old_values migrated_vectors dinov3_embedding"
).split()


@settings(max_examples=60)
@given(fields=st.dictionaries(st.sampled_from(OURS) | st.text(max_size=4), values, max_size=8))
def test_no_value_is_ever_lost(fields, tmp_path_factory):
    derived = tmp_path_factory.mktemp("derived")
    row = {"image_path": "gone.jpg", **fields, "format_version": 2}
    (record,) = migrate([copy.deepcopy(row)], input_dir=derived, derived_dir=derived, table=SMALL_BUCKETS)
    text = json.dumps(record.to_json())
    vectors = record.extra.get("migrated_vectors", {})
    for key, value in row.items():
        places = [record.extra, record.extra.get("old_values", {}), record.to_json()]
        kept = any(isinstance(place, dict) and key in place and place[key] == value for place in places)
        if key == "dinov3_embedding" and not kept:
            kept = np.load(derived / vectors[key]["file"]).tolist() == value
        assert kept or value is None or key == "format_version", (key, value, text)
