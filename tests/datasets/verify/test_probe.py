"""The probe on disk: mistakes in what was encoded are told apart, and a wrong encoder is refused."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from patchatlas.datasets.verify import probe
from patchatlas.datasets.verify.probe import choose, probe_latents, probe_stored
from patchatlas.encoders import sift
from patchatlas.encoders.loading import load_encoder
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.encoders.vit_encoder import VitEncoder
from patchatlas.errors import InputError, StampError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample, resample_picture
from patchatlas.io.images import read_picture
from patchatlas.io.manifest import Record
from tests.datasets.verify.planting import PATCHES, REGISTERS, Built, noise


def faults(built: Built, encoder, count: int = 4) -> set[str]:
    findings, _ = probe_stored(
        list(built.records.values()), built.store, input_dir=built.settings.input_dir, encoder=encoder, count=count
    )
    return {finding.fault for finding in findings}


@pytest.mark.parametrize("by", [(8, 0), (0, -8), (8, 8)])
def test_half_a_patch(built, network, by):
    def moved(_: str, record: Record) -> Tensor:
        pixels = built.pixels(record)
        frame = Frame.whole(pixels.shape[1:]).crop(by, pixels.shape[1:])
        return network(resample(pixels, frame)[None]).patches[0]

    built.put_all(moved)
    assert built.verify().healthy
    assert faults(built, network) == {"half_patch_shift"}


def test_aspect_not_kept(built, network, photos):
    def squashed(path: str, record: Record) -> Tensor:
        picture = read_picture(photos / path)
        frame = Frame.whole(picture.size_hw).resize(record.aspect_bucket)
        return network(resample_picture(picture.pixels, frame)[None]).patches[0]

    built.put_all(squashed)
    records = [r for r in built.records.values() if r.image_path in ("tall.jpg", "a.png", "palette.png")]
    findings, _ = probe_stored(records, built.store, input_dir=photos, encoder=network, count=3)
    assert {finding.fault for finding in findings} == {"squashed"}


LAYOUTS = {
    "mirrored": lambda tokens, entry: tokens.patches[0].reshape(*entry.grid, -1).flip(1).reshape(-1, 32),
    "token_shift": lambda tokens, _: torch.cat([tokens.patches[0][2:], noise(2, 32)]),
    "rescaled": lambda tokens, _: torch.nn.functional.normalize(tokens.patches[0], dim=1),
    "unlike": lambda tokens, _: noise(*tokens.patches[0].shape),
}


@pytest.mark.parametrize("fault", LAYOUTS)
def test_what_was_done_to_the_tokens(built, network, fault):
    built.encoded_all(network, LAYOUTS[fault])
    assert faults(built, network) == {fault}


def test_tokens_before_the_last_norm(built, network):
    twin = VitEncoder(network.network, replace(network.spec, norm="none"))
    built.put_all(lambda _, record: twin(built.pixels(record)[None]).patches[0])
    assert faults(built, network) == {"other_norm"}


@pytest.mark.parametrize(
    ("fault", "spoil"),
    [
        ("swapped_channels", lambda pixels: pixels.flip(0)),
        ("no_normalisation", lambda pixels: pixels * 0.25 + 0.5),
        ("no_normalisation", lambda pixels: 255 * pixels * 0.25 + 0.5),
    ],
    ids=["BGR", "0..1", "0..255"],
)
def test_what_was_done_to_the_pixels(built, network, fault, spoil):
    built.put_all(lambda _, record: network(spoil(built.pixels(record))[None]).patches[0])
    assert faults(built, network) == {fault}


def test_two_pictures_whose_files_were_exchanged(built, network):
    one, other, *_ = (path for path, record in built.records.items() if record.aspect_bucket == (64, 64))
    arrays = {path: built.store.read(built.records[path].features[PATCHES]) for path in (one, other)}
    built.put(one, arrays[other])
    built.put(other, arrays[one])
    assert built.verify().healthy
    records = [built.records[one], built.records[other]]
    findings, _ = probe_stored(records, built.store, input_dir=built.settings.input_dir, encoder=network, count=2)
    assert {finding.fault for finding in findings} == {"other_picture"}
    assert f"are those of {built.records[other].image_id}" in " ".join(finding.sentence for finding in findings)


def test_registers_of_another_forward(built, network):
    built.encoded_all(network, lambda tokens, _: tokens.registers[0] + 0.1, REGISTERS)
    assert faults(built, network) == {"unlike"}


def test_an_encoder_whose_tokens_are_misplaced(built, network):
    """Stored and encoded agree, for the encoder itself is wrong; only replacing patches shows it."""

    class Turned:
        spec, device = network.spec, network.device

        def __call__(self, pixels: Tensor) -> Tokens:
            tokens = network(pixels)
            return replace(tokens, patches=tokens.patches.flip(1))

    turned = Turned()
    built.put_all(lambda _, record: turned(built.pixels(record)[None]).patches[0])
    assert faults(built, turned) == {"misaligned_encoder"}


@pytest.mark.parametrize(("late", "named"), [(0, set()), (1, {"misaligned_encoder"})])
def test_a_shift_by_one_token_is_seen_and_a_wide_view_is_none(built, network, late, named):
    """Dense SIFT reads 24 patches across; it is aligned, and the same one token late is not."""
    dense_sift = sift.load(device=torch.device("cpu"))
    strays = probe._strays(
        Rolled(dense_sift, late), (96, 64), cells=24, batch=8, generator=torch.Generator().manual_seed(0)
    )
    off = strays.nanquantile(0.5, dim=0).abs() > probe.SHIFT
    assert bool(off.any()) == bool(named)
    assert float((strays.abs() <= probe.NEAR).all(dim=1).double().mean()) >= probe.HITS * (not late)
    rolled = Rolled(network, late)
    built.put_all(lambda _, record: rolled(built.pixels(record)[None]).patches[0])
    assert faults(built, rolled) == named


class Rolled:
    """An encoder whose patch tokens come late."""

    def __init__(self, encoder: Encoder, late: int) -> None:
        self.encoder, self.late = encoder, late
        self.spec, self.device = encoder.spec, encoder.device

    def __call__(self, pixels: Tensor) -> Tokens:
        tokens = self.encoder(pixels)
        return replace(tokens, patches=tokens.patches.roll(self.late, dims=1))


def test_another_encoder_is_refused(built, tiny_dinov3, tiny_dinov2):
    with pytest.raises(StampError, match=r"layer: 1 and 0"):
        faults(built, load_encoder(tiny_dinov3, device="cpu", dtype="fp32", layer=0))
    with pytest.raises(InputError, match="needs one set of dinov2_patches"):
        faults(built, load_encoder(tiny_dinov2, device="cpu", dtype="fp32"))


def test_a_picture_that_is_gone_is_said(built, network, tmp_path):
    findings, probe = probe_stored(
        list(built.records.values()), built.store, input_dir=tmp_path, encoder=network, count=2
    )
    assert {finding.fault for finding in findings} == {"source_unusable"}
    assert probe.cells == 0


def test_pictures_are_chosen_from_every_bucket(healthy):
    records = list(healthy.records.values())

    def chosen(count: int, seed: int = 0) -> list[Record]:
        return choose(records, PATCHES, count, torch.Generator().manual_seed(seed))

    assert {record.aspect_bucket for record in chosen(4)} == {record.aspect_bucket for record in records}
    assert chosen(6) == chosen(6)
    assert len({record.image_id for record in chosen(99)}) == 14
    with pytest.raises(InputError, match="no picture has vae_latents"):
        choose(records, "vae_latents", 1, torch.Generator())


def test_latents_are_encoded_again(tmp_path, photos):
    from patchatlas.datasets.build.run import build
    from patchatlas.datasets.build.settings import Settings
    from patchatlas.datasets.latents import load_vae
    from patchatlas.datasets.recipe import Recipe
    from tests.datasets.conftest import SMALL_BUCKETS
    from tests.datasets.test_latents import tiny_vae

    tiny_vae().save_pretrained(tmp_path / "vae")
    settings = Settings(
        input_dir=photos,
        manifest=tmp_path / "set.jsonl",
        derived_dir=tmp_path / "derived",
        passes=("latents",),
        recipe=Recipe(buckets=SMALL_BUCKETS, storage="fp32"),
        vae=str(tmp_path / "vae"),
        device="cpu",
        workers=1,
    )
    build(settings)
    built = Built(tmp_path, settings)
    assert built.verify(input_dir=photos, latent_stride=8).healthy
    vae = load_vae(tmp_path / "vae", device="cpu")

    def found() -> set[str]:
        records = list(built.records.values())
        findings = probe_latents(records, built.store, input_dir=photos, vae=vae, count=14)
        return {finding.fault for finding in findings}

    assert found() == set()
    wide = built.store.read(built.records["wide.jpg"].features["vae_latents"])
    built.put("wide.jpg", wide / 0.18215, "vae_latents")
    assert found() == {"latents_unscaled"}
    built.put("wide.jpg", wide.transpose(1, 2).reshape(wide.shape), "vae_latents")
    assert found() == {"unlike"}
    with pytest.raises(StampError, match="latents_scaled: True and False"):
        probe_latents(list(built.records.values()), built.store, input_dir=photos, vae=vae.toggled(), count=1)
