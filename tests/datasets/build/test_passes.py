"""Passes: the grids of the published tables, the kinds and stamps of each, and latents beside patches."""

import pytest
import torch

from patchatlas.datasets.build.passes import encoder_pass, latents_pass
from patchatlas.datasets.build.run import build
from patchatlas.datasets.latents import load_vae
from patchatlas.datasets.recipe import Recipe, stamp_for
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import ShapeError, UsageError
from patchatlas.geometry.buckets import parse_bucket
from patchatlas.io.feature_store import FeatureStore
from patchatlas.io.manifest import read_manifest
from tests.datasets.conftest import PHOTOS, SMALL_BUCKETS
from tests.datasets.test_latents import tiny_vae

# Bucket WxH: columns and rows of patches, and their number, for patch 14 and 16.
PUBLISHED = {
    "1024x1024": ((73, 73, 5329), (64, 64, 4096)),
    "1216x832": ((87, 59, 5133), (76, 52, 3952)),
    "832x1216": ((59, 87, 5133), (52, 76, 3952)),
    "1280x768": ((91, 55, 5005), (80, 48, 3840)),
    "768x1280": ((55, 91, 5005), (48, 80, 3840)),
    "1344x704": ((96, 50, 4800), (84, 44, 3696)),
    "704x1344": ((50, 96, 4800), (44, 84, 3696)),
}


@pytest.mark.parametrize(("patch", "which"), [(14, 0), (16, 1)])
def test_the_published_tables(patch, which):
    made = encoder_pass(FakeEncoder(patch=(patch, patch)), Recipe())
    patches = made.kinds[0]
    assert {name for name in PUBLISHED} == {f"{w}x{h}" for h, w in Recipe().buckets}
    for name, tables in PUBLISHED.items():
        columns, rows, count = tables[which]
        assert patches.grids[parse_bucket(name)] == (rows, columns)
        assert patches.shapes[parse_bucket(name)] == (count, 3)
        assert made.cost(parse_bucket(name)) == count


@pytest.mark.parametrize(
    ("encoder", "kinds"),
    [
        (FakeEncoder(), ["fake_patches", "fake_cls", "fake_registers"]),
        (FakeEncoder(registers=0), ["fake_patches", "fake_cls"]),
        (FakeEncoder(registers=0, has_cls=False), ["fake_patches"]),
    ],
)
def test_kinds_are_those_that_the_encoder_has(encoder, kinds):
    made = encoder_pass(encoder, Recipe(storage="int8"))
    assert [kind.name for kind in made.kinds] == kinds
    assert [kind.dtype for kind in made.kinds] == ["int8", "fp32", "fp32"][: len(kinds)]


@pytest.mark.parametrize("encoder", [FakeEncoder(patch=(2, 16, 16)), FakeEncoder(channels=1)])
def test_encoders_that_do_not_take_colour_pictures_are_refused(encoder):
    with pytest.raises(UsageError, match="pictures are 2-D with 3"):
        encoder_pass(encoder, Recipe())


def test_every_fact_of_the_recipe_is_in_the_stamp():
    spec = FakeEncoder().spec
    usual = Recipe(buckets=SMALL_BUCKETS)
    others = [
        Recipe(buckets=SMALL_BUCKETS[::-1]),
        Recipe(buckets=SMALL_BUCKETS, rule="linear"),
        Recipe(buckets=SMALL_BUCKETS, decode="fast"),
        Recipe(buckets=SMALL_BUCKETS, storage="fp32"),
    ]
    digests = {stamp_for(spec, recipe).digest for recipe in [usual, *others]}
    assert len(digests) == 5
    facts = dict(stamp_for(spec, usual).facts)
    assert facts["buckets"] == "64x64,96x64,64x96,80x48"
    assert {name: facts[name] for name in ("bucket_rule", "decode", "fill", "rounding", "storage")} == {
        "bucket_rule": "log", "decode": "pillow", "fill": "edge", "rounding": "half-up", "storage": "fp16",
    }  # fmt: skip


def test_buckets_that_are_no_whole_latent_tokens_are_refused():
    with pytest.raises(ShapeError, match="not whole latent tokens"):
        encoder_pass(FakeEncoder(), Recipe(buckets=((64, 72),)), latent_stride=8)


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    tiny_vae().save_pretrained(folder)
    return folder


def test_latents_of_the_bucket_are_stored(settings, vae_folder):
    made = settings(passes=("latents",), vae=str(vae_folder), recipe=Recipe(buckets=SMALL_BUCKETS, storage="fp32"))
    assert build(made).passes[0].done == len(PHOTOS)
    store = FeatureStore(made.derived_dir)
    for record in read_manifest(made.manifest):
        entry = record.features["vae_latents"]
        h, w = record.aspect_bucket
        assert (entry.grid, entry.dim) == ((h // 8, w // 8), 4)
        assert store.read(entry).shape == (4, h // 8, w // 8)


def test_patches_and_latents_of_one_picture_share_their_frame(settings, vae_folder, use_encoder):
    """Two passes in one run; the latent of a white patch on black is where that patch is."""
    use_encoder(FakeEncoder())
    made = settings(passes=("encoder", "latents"), vae=str(vae_folder), latent_stride=8)
    report = build(made)
    assert [one.name for one in report.passes] == ["encoder", "latents"]
    for record in read_manifest(made.manifest):
        rows, columns = record.features["vae_latents"].grid
        assert record.features["fake_patches"].grid == (rows // 2, columns // 2)


def test_buckets_that_do_not_fit_the_autoencoder_are_refused(vae_folder):
    with pytest.raises(ShapeError, match="no multiple of the stride 8"):
        latents_pass(load_vae(vae_folder, device="cpu"), Recipe(buckets=((64, 60),)))


def test_latents_in_int8_have_a_scale_a_channel(settings, vae_folder):
    made = settings(passes=("latents",), vae=str(vae_folder), recipe=Recipe(buckets=SMALL_BUCKETS, storage="int8"))
    build(made)
    exact = settings(
        "exact", passes=("latents",), vae=str(vae_folder), recipe=Recipe(buckets=SMALL_BUCKETS, storage="fp32")
    )
    build(exact)
    pairs = zip(read_manifest(made.manifest), read_manifest(exact.manifest), strict=True)
    for lossy, whole in pairs:
        a = FeatureStore(made.derived_dir).read(lossy.features["vae_latents"])
        b = FeatureStore(exact.derived_dir).read(whole.features["vae_latents"])
        step = b.abs().amax((1, 2), keepdim=True) / 127
        assert torch.all((a - b).abs() <= 0.51 * step)
