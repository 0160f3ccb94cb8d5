"""Bugs of the earlier project that a build must not have again, by their number in its record."""

import json
import shutil
import threading

import pytest
import torch
from PIL import Image

from patchatlas.datasets.build.run import build
from patchatlas.datasets.placement import patch_box
from patchatlas.datasets.reading import feature_map
from patchatlas.datasets.recipe import Recipe
from patchatlas.encoders.fake import CLS_VALUE, FakeEncoder
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import ShapeError
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.images import read_image
from patchatlas.io.manifest import read_manifest
from tests.datasets.build.conftest import Noting
from tests.datasets.conftest import PHOTOS, SMALL_BUCKETS, write_photos

FP32 = Recipe(buckets=SMALL_BUCKETS, storage="fp32")


def stored(made, kind):
    store = FeatureStore(made.derived_dir)
    return {r.image_path: store.read(r.features[kind]) for r in read_manifest(made.manifest)}


def test_bug_1_nothing_is_cropped_after_the_bucket(settings, use_encoder, tmp_path):
    """A crop to 224 px in the middle: here the corner pixels of the bucket make the corner tokens."""
    use_encoder(FakeEncoder())
    folder = tmp_path / "corners"
    folder.mkdir()
    picture = Image.new("RGB", (480, 320))  # the bucket 96 x 64, five times
    for x, y, colour in ((0, 0, "red"), (400, 0, "lime"), (0, 240, "blue"), (400, 240, "white")):
        picture.paste(colour, (x, y, x + 80, y + 80))  # a patch
    picture.save(folder / "corners.png")
    made = settings(input_dir=folder, passes=("encoder",), recipe=FP32)
    build(made)
    grid = stored(made, "fake_patches")["corners.png"].reshape(4, 6, 3)
    assert grid[[0, 0, -1, -1], [0, -1, 0, -1]].round().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]
    assert grid[1:-1].max() < 0.02


@pytest.mark.parametrize("patch", [14, 16, 8])
def test_bug_2_the_patch_is_that_of_the_encoder(settings, use_encoder, patch):
    """A patch of 14 px was taken for an encoder with 16."""
    use_encoder(FakeEncoder(patch=(patch, patch)))
    made = settings(passes=("encoder",), recipe=FP32)
    build(made)
    for record in read_manifest(made.manifest):
        rows, columns = (int(side / patch + 0.5) for side in record.aspect_bucket)
        assert record.features["fake_patches"].grid == (rows, columns)


def test_bug_3_registers_are_not_stored_as_patches(settings, use_encoder, photos):
    """Tokens 1 to n were taken for patches, although the registers come first: everything was shifted by four."""
    use_encoder(FakeEncoder(registers=4))
    made = settings(passes=("encoder",), recipe=FP32)
    build(made)
    patches, registers = stored(made, "fake_patches"), stored(made, "fake_registers")
    for record in read_manifest(made.manifest):
        x0, y0, x1, y1 = (float(edge) for edge in patch_box(record, (16, 16), 0, 0))
        picture = torch.from_numpy(read_image(photos / record.image_path)).float() / 255
        seen = picture[round(y0) : max(round(y0) + 1, round(y1)), round(x0) : max(round(x0) + 1, round(x1))]
        torch.testing.assert_close(patches[record.image_path][0], seen.mean((0, 1)), rtol=0, atol=0.08)
        assert patches[record.image_path].min() >= 0  # CLS and registers are negative
        assert registers[record.image_path][:, 0].tolist() == [CLS_VALUE - 1 - n for n in range(4)]


def test_bug_4_cls_comes_from_the_same_forward_as_the_patches(settings, use_encoder, tiny_dinov3):
    """CLS came from a second forward at another resolution."""
    noting = use_encoder(Noting(load_encoder(tiny_dinov3, device="cpu", dtype="fp32")))
    made = settings(recipe=FP32)
    build(made)
    assert sum(shape[0] for shape in noting.shapes) == len(PHOTOS)  # each picture went through once
    assert {shape[2:] for shape in noting.shapes} == set(SMALL_BUCKETS)
    cls = torch.cat([noting.inner(pixels).cls for pixels in noting.pixels])
    found = torch.stack(list(stored(made, "dinov3_cls").values()))
    assert torch.cdist(found, cls).min(dim=1).values.max() < 1e-4


def test_bug_5_what_is_done_is_told_by_files_and_stamps_not_by_fields(settings, use_encoder):
    """A record without an inline vector counted as incomplete for ever, and its CLS was made again in another way."""
    made = settings(passes=("encoder",))
    use_encoder(FakeEncoder())
    build(made)
    rows = [json.loads(line) for line in made.manifest.read_text().splitlines()]
    made.manifest.write_text("".join(json.dumps({**row, "dinov3_embedding": None}) + "\n" for row in rows))
    before = {path: path.read_bytes() for path in made.derived_dir.rglob("*.npy")}
    noting = use_encoder(Noting())
    build(made)
    assert noting.shapes == []
    victim = sorted(path for path in before if "_cls@" in path.parent.name)[0]
    victim.unlink()  # the field is there, the file is not
    assert build(made).passes[0].done == 1
    assert {path: path.read_bytes() for path in made.derived_dir.rglob("*.npy")} == before


def test_bug_6_a_new_start_never_mixes_old_and_new_patches(settings, use_encoder):
    """Starting anew removed every kind of feature but the patches, so those of two encoders lay in one folder."""
    made = settings(passes=("encoder",), backup_old=True)
    use_encoder(FakeEncoder(registers=4))
    old = build(made).passes[0].sets
    use_encoder(FakeEncoder(registers=2))
    new = build(made).passes[0].sets
    assert set(old) == set(new)
    assert not set(old.values()) & set(new.values())
    for record in read_manifest(made.manifest):
        assert {entry.file.partition("/")[0] for entry in record.features.values()} == set(new.values())
    for folder in old.values():
        assert not (made.derived_dir / folder).exists()
        assert len(list((made.derived_dir / "_old" / folder).glob("*.npy"))) == len(PHOTOS)


def test_bug_6_aside_of_a_set_that_only_some_pictures_have(settings, use_encoder):
    """The same with a run that was stopped half way: nobody may take the old entries for new ones."""
    use_encoder(FakeEncoder(registers=4))
    build(settings(passes=("encoder",)))
    use_encoder(FakeEncoder(registers=2))
    made = settings(passes=("encoder",), backup_old=True, limit=3)
    sets = build(made).passes[0].sets
    files = [entry.file for record in read_manifest(made.manifest) for entry in record.features.values()]
    assert len(files) == 9
    assert {file.partition("/")[0] for file in files} == set(sets.values())


def test_bug_6_a_kill_between_moving_a_set_and_writing_the_manifest(settings, use_encoder, tmp_path, photos):
    """Old entries go even then, also that of a picture that can no longer be read."""
    folder = tmp_path / "spoilt"
    shutil.copytree(photos, folder)
    use_encoder(FakeEncoder(registers=4))
    made = settings(input_dir=folder, passes=("encoder",))
    for name in build(made).passes[0].sets.values():
        (made.derived_dir / "_old").mkdir(exist_ok=True)
        (made.derived_dir / name).rename(made.derived_dir / "_old" / name)
    (folder / "tall.jpg").write_bytes(b"")
    use_encoder(FakeEncoder(registers=2))
    report = build(made)
    assert [one.image_path for one in report.skipped] == ["tall.jpg"]
    files = {e.file.partition("/")[0] for r in read_manifest(made.manifest) for e in r.features.values()}
    assert files == set(report.passes[0].sets.values())


@pytest.mark.parametrize("left", [0, 1, 200])
def test_bug_8_a_file_cut_short_does_not_count_as_done(settings, use_encoder, left):
    """Files were written under their own names, and whatever was there counted as done."""
    use_encoder(FakeEncoder())
    made = settings(passes=("encoder",))
    build(made)
    victim = sorted(made.derived_dir.rglob("*_patches@*/*.npy"))[0]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:left])
    assert build(made).passes[0].done == 1
    assert victim.read_bytes() == whole


def test_bug_16_pictures_of_one_shape_are_encoded_together_and_read_and_stored_beside(
    settings, use_encoder, monkeypatch
):
    """One picture at a time, read and stored in the thread that encodes."""
    from patchatlas.datasets.build import drawing, pipeline

    seen = {"read": set(), "store": set()}
    read_picture, encode_array = drawing.read_picture, pipeline.encode_array

    def note(what, call):
        def noted(*args, **options):
            seen[what].add(threading.current_thread().name.partition("_")[0])
            return call(*args, **options)

        return noted

    monkeypatch.setattr(drawing, "read_picture", note("read", read_picture))
    monkeypatch.setattr(pipeline, "encode_array", note("store", encode_array))
    noting = use_encoder(Noting())
    build(settings(passes=("encoder",), token_budget=10_000))
    assert sorted(shape[0] for shape in noting.shapes) == [2, 3, 4, 5]  # one batch a bucket
    assert {name.partition("_")[0] for name in noting.threads} == {"encode"}
    assert seen == {"read": {"decode"}, "store": {"write"}}


def test_bug_18_every_picture_is_stored_or_listed(settings, use_encoder, tmp_path, photos):
    """Errors were swallowed, and small buckets vanished."""
    use_encoder(FakeEncoder())
    folder = tmp_path / "harmed"
    shutil.copytree(photos, folder)
    write_photos(folder, (("alone.png", (480, 800)),))  # the only one of its size
    for name in ("a.jpg", "x/y.jpg"):
        (folder / name).write_bytes((folder / name).read_bytes()[:1200])
    made = settings(input_dir=folder, passes=("encoder",))
    report = build(made)
    records = read_manifest(made.manifest)
    assert len(records) == len(PHOTOS) + 1 == report.passes[0].done + len(report.skipped)
    for record in records:
        assert (record.status == "ok") == ("fake_patches" in record.features) == (record.error is None)


@pytest.mark.parametrize("change", [-1, 1])
def test_bug_20_a_wrong_number_of_patches_is_an_error(settings, use_encoder, change):
    """Whatever lay between 3600 and 5500 patches passed, with a warning at most."""

    class Wrong(Noting):
        def __call__(self, pixels, /):
            tokens = super().__call__(pixels)
            patches = torch.cat([tokens.patches, tokens.patches], dim=1)[:, : tokens.patches.shape[1] + change]
            return Tokens(patches, tokens.cls, tokens.registers)

    use_encoder(Wrong())
    made = settings(passes=("encoder",))
    with pytest.raises(ShapeError, match="gave fake_patches of shape"):
        build(made)
    assert all(not record.features for record in read_manifest(made.manifest))


def test_bug_20_a_wrong_number_of_registers_is_an_error(settings, use_encoder):
    class Wrong(Noting):
        def __call__(self, pixels, /):
            tokens = super().__call__(pixels)
            return Tokens(tokens.patches, tokens.cls, tokens.registers[:, 1:])

    use_encoder(Wrong())
    with pytest.raises(ShapeError, match="gave fake_registers of shape"):
        build(settings(passes=("encoder",)))


def test_patches_lie_where_their_pixels_are(settings, use_encoder, photos):
    """Each stored patch is the mean colour of the rectangle of the picture that its place names."""
    use_encoder(FakeEncoder())
    made = settings(passes=("encoder",), recipe=FP32)
    build(made)
    store = FeatureStore(made.derived_dir)
    for record in read_manifest(made.manifest):
        if min(record.width, record.height) < 40:  # fewer pixels than patches
            continue
        picture = torch.from_numpy(read_image(photos / record.image_path)).float().permute(2, 0, 1)[None] / 255
        boxes = feature_map(record, store, "fake_patches").grid.boxes()
        means = []
        for x0, y0, x1, y1 in boxes.tolist():
            xs = torch.linspace(x0, x1, 33)[:-1] + (x1 - x0) / 64
            ys = torch.linspace(y0, y1, 33)[:-1] + (y1 - y0) / 64
            at = torch.stack(torch.meshgrid(2 * ys / record.height - 1, 2 * xs / record.width - 1, indexing="ij"), -1)
            values = torch.nn.functional.grid_sample(picture, at.flip(-1)[None], align_corners=False, mode="bilinear")
            means.append(values.mean((0, 2, 3)))
        torch.testing.assert_close(store.read(record.features["fake_patches"]), torch.stack(means), rtol=0, atol=0.03)
