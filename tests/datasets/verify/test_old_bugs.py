"""The twenty bugs of the project that came before, planted on disk: each is caught, and by its name.

The numbers are those of the list in docs/features-verify.md. Bugs 16 (speed), 17 (shards) and 18 (loader) leave no
trace in a feature store; the tests of build, shards and loader have them.
"""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from patchatlas.datasets.verify.probe import probe_stored
from patchatlas.datasets.verify.report import Finding
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample, resample_picture
from patchatlas.io.feature_store import HEADER
from patchatlas.io.images import read_picture
from patchatlas.io.manifest import Record
from tests.datasets.verify.conftest import make
from tests.datasets.verify.planting import CLS, PATCHES, Built, noise, only


def everything(tokens: Tokens) -> Tensor:
    """CLS, registers and patches of one picture, as networks give them."""
    assert tokens.cls is not None
    assert tokens.registers is not None
    return torch.cat([tokens.cls, tokens.registers[0], tokens.patches[0]])


def probed(built: Built, encoder: Encoder, count: int = 4) -> tuple[Finding, ...]:
    findings, _ = probe_stored(
        list(built.records.values()), built.store, input_dir=built.settings.input_dir, encoder=encoder, count=count
    )
    assert findings
    return tuple(findings)


def test_a_healthy_set_gives_no_finding(healthy, network, photos):
    report = healthy.verify(input_dir=photos, latent_stride=8)
    assert report.healthy, report.findings
    assert (report.records, report.files) == (14, 42)
    findings, probe = probe_stored(
        list(healthy.records.values()), healthy.store, input_dir=photos, encoder=network, count=20
    )
    assert findings == []
    assert probe.hits == probe.cells == 4 * 8  # eight for each size of input
    assert len(probe.records) == 14
    assert probe.worst < probe.allowed


def test_bug_01_centre_crop_to_one_size(built, network):
    """CenterCrop before the encoder, whatever the bucket: grids are all alike."""

    def middle(_: str, record: Record) -> Tensor:
        pixels = built.pixels(record)
        return network(resample(pixels, Frame.whole(pixels.shape[1:]).crop((0, 8), (48, 48)))[None]).patches[0]

    built.put_all(middle, grid=lambda _: (3, 3))
    report = built.verify()
    assert report.findings[0].fault == "one_size_for_all"
    assert "All 14 pictures have a grid of 3 x 3, their buckets give 4 different ones" in report.findings[0].sentence


def test_bug_01_centre_crop_that_the_grid_does_not_show(built, network):
    """The middle 7/8 enlarged to the right size: every header is right, the probe names it."""

    def cropped(_: str, record: Record) -> Tensor:
        pixels = built.pixels(record)
        size = (pixels.shape[1], pixels.shape[2])
        kept = [n * 7 // 8 for n in size]
        frame = Frame.whole(size).crop([(n - k) // 2 for n, k in zip(size, kept, strict=True)], kept).resize(size)
        return network(resample(pixels, frame)[None]).patches[0]

    built.put_all(cropped)
    assert built.verify().healthy
    findings = probed(built, network)
    assert {finding.fault for finding in findings} == {"centre_crop"}
    assert "only the middle 84x56 of 96x64 pixels was seen" in " ".join(finding.sentence for finding in findings)


def test_bug_02_rounded_to_the_patch_of_another_model(built):

    def grid(record: Record) -> tuple[int, int]:
        h, w = record.aspect_bucket
        return (h + 7) // 14, (w + 7) // 14

    built.put_all(lambda path, record: noise(grid(record)[0] * grid(record)[1], 32, seed=sum(path.encode())), grid=grid)
    findings = only(built.verify(), "other_patch")
    assert len(findings) == 14
    assert "that is the grid of patch 14, the encoder has patch 16" in findings[0].sentence


def test_bug_03_registers_taken_for_patches(built, network):
    """The slice 1:n+1: counts, grids and hashes are right."""
    built.encoded_all(network, lambda tokens, _: everything(tokens)[1 : 1 + tokens.patches.shape[1]])
    findings = only(built.verify(), "registers_in_patches")
    assert len(findings) == 14
    assert "every patch stands 4 places too late and the last 4 are lost" in findings[0].sentence
    assert {finding.fault for finding in probed(built, network)} == {"register_shift"}


def test_bug_03_without_registers_on_disk(built, network):
    """The probe sees it even where nobody stored the registers."""
    built.encoded_all(network, lambda tokens, _: everything(tokens)[1 : 1 + tokens.patches.shape[1]])
    for path, record in built.records.items():
        built.change(path, features={PATCHES: record.features[PATCHES]})
    shutil.rmtree(built.folder(CLS))
    shutil.rmtree(built.folder("dinov3_registers"))
    assert built.verify().healthy
    findings = probed(built, network)
    assert {finding.fault for finding in findings} == {"register_shift"}
    assert "the registers are stored as patches, and the last 4 are lost" in findings[0].sentence


def test_bug_03_slice_from_the_cls_token(built, network):
    built.encoded_all(network, lambda tokens, _: everything(tokens)[: tokens.patches.shape[1]])
    only(built.verify(), "cls_in_patches")
    assert {finding.fault for finding in probed(built, network)} == {"token_shift"}


def test_bug_04_cls_of_another_resolution(built, network, photos):
    """CLS of the whole picture squashed to 224 x 224, patches of the bucket."""

    def squashed(path: str, _: object) -> Tensor:
        picture = read_picture(photos / path)
        square = resample_picture(picture.pixels, Frame.whole(picture.size_hw).resize((224, 224)))
        return network(square[None]).cls[0]

    built.put_all(squashed, CLS)
    assert built.verify().healthy
    findings = probed(built, network)
    assert {(finding.fault, finding.kind) for finding in findings} == {("cls_of_other_input", CLS)}
    assert "it is that of the whole picture squashed to 224x224" in findings[0].sentence


def test_bug_05_recomputed_behind_the_manifests_back(built):
    """A later run overwrote the CLS of a record that it took for incomplete."""
    path = built.path("wide.jpg", CLS)
    path.write_bytes(path.read_bytes()[: -32 * 4] + (0.6 * noise(32)).numpy().tobytes())
    (finding,) = only(built.verify(), "changed_file")
    assert finding.record == built.records["wide.jpg"].image_id
    assert finding.kind == CLS


def test_bug_06_old_and_new_features_in_one_set(built):
    """Patches that were not wiped with the rest: the manifest knows their stamp, and the old set which fact differs."""
    old = built.second_set(PATCHES, {"layer": 0}, below="_old")
    built.change_entry("wide.jpg", stamp=old)
    (finding,) = only(built.verify(), "mixed_stamps")
    assert "layer: 1 and 0" in finding.sentence


def test_bug_06_patches_of_one_run_and_cls_of_another(built):
    """Wiped and made again, all but the patches."""
    content, digest = built.restamp(PATCHES, {"buckets": "64x64,96x64", "norm": "none"})
    moved = built.folder().rename(built.derived / f"{PATCHES}@{digest[:8]}")
    (moved / HEADER).write_text(content)
    for path, record in built.records.items():
        entry = record.features[PATCHES]
        built.change_entry(path, file=f"{moved.name}/{entry.file.partition('/')[2]}", stamp=digest)
    sentences = [finding.sentence for finding in built.verify().findings if finding.fault == "mixed_stamps"]
    assert sentences
    assert "were not made in one forward: " in sentences[0]
    assert "norm: 'final' and 'none'" in sentences[0]


def test_bug_06_two_sets_side_by_side(built):
    built.second_set(PATCHES, {"weights_sha256": "0" * 64})
    findings = built.verify().findings
    assert {finding.fault for finding in findings} == {"two_sets", "mixed_stamps"}
    assert "weights_sha256: " in findings[0].sentence


def test_bug_07_what_a_count_does_not_see(built):
    """The right number of tokens, none of them usable."""
    record = built.records["wide.jpg"]
    values = noise(*[record.features[PATCHES].grid[0] * record.features[PATCHES].grid[1], 32])
    content = bytearray(built.path("wide.jpg").read_bytes())
    values[3, 5] = float("nan")
    content[-values.numel() * 4 :] = values.numpy().tobytes()
    built.put_bytes("wide.jpg", bytes(content))
    (finding,) = only(built.verify(), "not_finite")
    assert finding.sentence == "1 of 480 numbers are NaN or infinite."


def test_bug_08_cut_short_by_a_crash(built):
    path = built.path("wide.jpg")
    path.write_bytes(path.read_bytes()[:-100])
    (finding,) = only(built.verify(), "truncated_file")
    assert (finding.record, finding.kind) == (built.records["wide.jpg"].image_id, PATCHES)


def test_bug_09_two_pictures_with_one_id(built):
    """a.jpg and a.png: the features of one overwrote those of the other."""
    other = built.records["a.jpg"]
    rows = {kind: entry.to_json() for kind, entry in other.features.items()}
    built.edit_line("a.png", image_id=other.image_id, features=rows)
    findings = built.verify().findings
    assert "duplicate_id" in {finding.fault for finding in findings}
    assert f"a.jpg and a.png have the same id {other.image_id}" in findings[0].sentence


def test_bug_09_an_id_with_a_dot(built):
    """WebDataset would take `photo.v2` for the sample `photo`."""
    built.edit_line("b.v2.final.jpg", image_id="b.v2.final")
    findings = built.verify().findings
    assert findings[0].fault == "bad_id"
    assert findings[0].record == "b.v2.final"


def test_bug_09_one_file_for_two_pictures(built):
    built.change("a.png", features=built.records["a.jpg"].features)
    faults = built.verify().counts()
    assert faults["shared_file"] == 6
    shutil.copy(built.path("wide.jpg"), built.path("wider.png"))
    built.put_bytes("wider.png", built.path("wide.jpg").read_bytes())
    assert "copied" in built.verify().counts()


def test_bug_09_overwritten_by_another_and_proved(built, network):
    """The same features twice may be the same pixels twice; encoding both pictures again says which is wrong."""
    built.put_bytes("tall.jpg", built.path("a.png").read_bytes(), grid=built.records["a.png"].features[PATCHES].grid)
    (finding,) = (one for one in built.verify().findings if one.fault == "copied")
    records = built.records
    suspects = {finding.record, finding.evidence["other"]}
    assert suspects == {records["a.png"].image_id, records["tall.jpg"].image_id}
    findings, probed = probe_stored(
        list(records.values()),
        built.store,
        input_dir=built.settings.input_dir,
        encoder=network,
        count=2,
        first=suspects,
    )
    assert set(probed.records) == suspects
    (wrong,) = findings
    assert (wrong.fault, wrong.severity, wrong.record) == ("other_picture", "error", records["tall.jpg"].image_id)


def test_bug_10_orientation_not_obeyed_in_the_manifest(built, photos):
    """75 x 130 as it lies in the file, 130 x 75 as it is seen."""
    built.change("sub/deep/turned.jpg", exif_orientation=1, width=130, height=75)
    findings = built.verify(input_dir=photos).findings
    assert {"not_upright"} <= {finding.fault for finding in findings}
    told = next(finding.sentence for finding in findings if finding.fault == "not_upright")
    assert "has EXIF orientation 6 and is 75x130 upright; the manifest says orientation 1 and 130x75" in told


def test_bug_10_encoded_sideways(built, network, photos):
    """The manifest is right, but the pixels were not turned."""
    path = "sub/deep/turned.jpg"
    picture, bucket = read_picture(photos / path), built.records[path].aspect_bucket
    raster = resample_picture(picture.pixels, picture.frame.inverse())
    h, w = raster.shape[1:]
    # To cover a portrait bucket the landscape raster is scaled to its height and cut at both sides.
    scaled = -(-w * bucket[0] // h)
    frame = Frame.whole((h, w)).resize((bucket[0], scaled)).crop((0, (scaled - bucket[1]) // 2), bucket)
    built.put(path, network(resample(raster, frame)[None]).patches[0])
    findings = [finding for finding in probed(built, network, 14) if finding.kind == PATCHES]
    assert [finding.fault for finding in findings] == ["sideways"]
    assert "not turned as its EXIF orientation 6 says" in findings[0].sentence


def test_bug_11_one_pixel_too_many(built):
    """A float ceil scaled the picture to 97 instead of 96 columns, so the crop begins elsewhere."""
    path, record = next((path, r) for path, r in built.records.items() if r.resized[0] == r.aspect_bucket[1])
    w, h = record.resized
    built.change(path, resized=(w + 1, h), crop_source=None)
    (finding,) = only(built.verify(), "inexact_crop")
    assert f"was scaled to ({w + 1}, {h})" in finding.sentence


def test_bug_12_bucket_by_the_linear_rule(built):
    """830 x 1000: the square keeps more of it, the difference of ratios prefers 64x96."""
    path = next(path for path, record in built.records.items() if record.aspect_bucket == (96, 64))
    built.change(path, width=830, height=1000)
    (finding,) = only(built.verify(), "wrong_bucket")
    assert "log rule give 64x64; 64x96 is what the linear rule gives" in finding.sentence


def test_bug_13_halves_to_the_even_side(tmp_path, photos, tiny_dinov3):
    """72 / 16 = 4.5: half-up 5, Python's round 4."""
    built = make(tmp_path, photos, tiny_dinov3, buckets=((40, 72),))
    assert built.records["wide.jpg"].features[PATCHES].grid == (3, 5)
    built.put_all(lambda path, _: noise(2 * 4, 32, seed=sum(path.encode())), grid=lambda _: (2, 4))
    findings = only(built.verify(), "other_rounding")
    assert "that is the bucket with halves rounded to the even side" in findings[0].sentence


def test_bug_14_bucket_changed_under_the_files(built):
    """The manifest was bucketed again, the patches kept the shape of the bucket before."""
    path = next(path for path, record in built.records.items() if record.aspect_bucket == (64, 96))
    built.put(path, noise(15, 32), grid=(3, 5))
    (finding,) = only(built.verify(), "other_bucket")
    assert "gives 4 x 6: that is the grid of bucket 80x48" in finding.sentence


def test_bug_14_only_the_file_kept_its_shape(built):
    path = next(path for path, record in built.records.items() if record.aspect_bucket == (64, 96))
    built.put(path, noise(15, 32))
    (finding,) = only(built.verify(), "other_bucket")
    assert "holds fp32 of shape (15, 32), the manifest says fp32, grid (4, 6)" in finding.sentence


def test_bug_15_patches_that_do_not_meet_the_latents(tmp_path, photos, tiny_dinov2):
    """Patch 14 under 8 x 2 latents; a loss that cuts both lists to one length pairs the wrong places."""
    built = make(tmp_path, photos, tiny_dinov2)
    assert built.verify().healthy
    (finding,) = only(built.verify(latent_stride=8), "latents_do_not_meet")
    assert "do not meet one to one: resample by area" in finding.sentence


def test_bug_19_columns_before_rows(built):
    """52x76 and 76x52 both have 3952 patches."""
    path = next(path for path, record in built.records.items() if record.aspect_bucket == (64, 96))
    built.change_entry(path, grid=(6, 4))
    (finding,) = only(built.verify(), "transposed_grid")
    assert "has a grid of 6 x 4 (rows x columns), its bucket 96x64 gives 4 x 6: rows and columns are swapped" in (
        finding.sentence
    )


def test_bug_19_tokens_column_by_column(built, network):
    """Headers are right, only the order of the rows is not."""

    def by_columns(tokens: Tokens, entry: object) -> Tensor:
        return tokens.patches[0].reshape(*entry.grid, -1).transpose(0, 1).reshape(-1, 32)

    built.encoded_all(network, by_columns)
    assert built.verify().healthy
    assert {finding.fault for finding in probed(built, network)} == {"transposed"}


@pytest.mark.parametrize("missing", [2, 5])
def test_bug_20_nearly_the_right_number_is_wrong(built, missing):
    """The earlier check let any count from 3600 to 5500 pass with a warning."""
    count = built.records["x/y.jpg"].features[PATCHES].grid
    built.put("x/y.jpg", noise(count[0] * count[1] - missing, 32))
    (finding,) = built.verify().errors
    assert finding.fault in ("wrong_file", "wrong_grid")
    assert "the manifest says fp32, grid (4, 4)" in finding.sentence


def test_all_of_it_at_once_is_all_reported(built, photos: Path):
    """One fault does not hide another."""
    built.path("wide.jpg").unlink()
    path = built.path("tall.jpg")
    path.write_bytes(path.read_bytes()[:-1])
    built.change_entry("x/y.jpg", CLS, stamp="0" * 64)
    assert set(built.verify(input_dir=photos).counts()) == {"missing_file", "truncated_file", "mixed_stamps"}
