"""Every other fault that can be seen without an encoder, and that the report depends on nothing but the disk."""

import json
import shutil

import pytest
import torch

from patchatlas.datasets.verify.expected import explain_grid, grid_of, recipe_of
from patchatlas.datasets.verify.faults import FAULTS, MEANINGS
from patchatlas.errors import FormatError, InputError
from patchatlas.geometry.buckets import MEGAPIXEL_BUCKETS
from patchatlas.io.feature_store import HEADER
from tests.datasets.verify.planting import CLS, PATCHES, REGISTERS, noise, only


def test_every_fault_says_what_to_do():
    assert set(MEANINGS) == set(FAULTS)
    assert all(meaning.advice.endswith(".") for meaning in MEANINGS.values())


@pytest.mark.parametrize(("patch", "counts"), [(16, (4096, 3952, 3840, 3696)), (14, (5329, 5133, 5005, 4800))])
def test_the_seven_buckets_have_the_published_counts(patch, counts):
    for bucket, count in zip([MEGAPIXEL_BUCKETS[0], *MEGAPIXEL_BUCKETS[1::2]], counts, strict=True):
        rows, columns = grid_of(bucket, (patch, patch))
        assert rows * columns == count
        assert explain_grid((rows, columns), bucket, (patch, patch), MEGAPIXEL_BUCKETS) is None


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        ((76, 52), "transposed_grid"),
        ((59, 87), "other_patch"),
        ((64, 64), "other_bucket"),
        ((14, 14), "wrong_grid"),
        ((3951,), "wrong_grid"),
        ((5133,), "other_patch"),
    ],
)
def test_wrong_grids_of_1216x832_are_named(found, fault):
    assert explain_grid(found, (832, 1216), (16, 16), MEGAPIXEL_BUCKETS).fault == fault


def test_the_recipe_of_a_stamp(healthy):
    stamp = healthy.store.stamp_of(healthy.folder())
    assert recipe_of(stamp) == healthy.settings.recipe
    other = type(stamp)(tuple((k, "bicubic" if k == "resample" else v) for k, v in stamp.facts))
    with pytest.raises(FormatError, match=r"what this version does not know: \{'resample': 'bicubic'\}"):
        recipe_of(other)


@pytest.mark.parametrize("workers", [1, 5])
def test_the_report_does_not_depend_on_threads(built, workers):
    built.path("wide.jpg").unlink()
    built.path("tall.jpg", CLS).unlink()
    built.put("x/y.jpg", torch.zeros(16, 32))
    report = built.verify()
    assert [f.fault for f in report.findings] == ["missing_file", "missing_file", "empty_tokens"]
    from patchatlas.datasets.verify.verify import verify

    assert verify(built.manifest, built.derived, workers=workers).to_json() == report.to_json()
    json.dumps(report.to_json(), allow_nan=False)


def test_constant_and_empty_tokens(built):
    built.put("x/y.jpg", torch.ones(16, 32) * 0.6)
    (finding,) = only(built.verify(), "constant")
    assert finding.sentence == "All 16 tokens are equal."
    values = noise(16, 32) * 0.6
    values[10:] = 0
    built.put("x/y.jpg", values)
    (finding,) = only(built.verify(), "empty_tokens")
    assert finding.sentence == "6 of 16 tokens are all zeros."


@pytest.mark.parametrize(
    ("times", "fault"), [(76, "other_norm"), (1 / 76, "other_norm"), (1.8, "outlier"), (1.02, None)]
)
def test_lengths_of_other_pictures(built, times, fault):
    """Before and after the last LayerNorm tokens differ 76 times; a stray picture differs less."""
    record = built.records["x/y.jpg"]
    built.put("x/y.jpg", built.store.read(record.features[PATCHES]) * times)
    report = built.verify()
    if fault is None:
        assert report.healthy
    else:
        (finding,) = only(report, fault)
        assert finding.record == record.image_id
        assert finding.evidence["times"] == pytest.approx(times, rel=0.3)
        assert finding.severity == ("error" if fault == "other_norm" else "warning")


def test_one_picture_in_two_files_is_no_copy(tmp_path, photos, tiny_dinov3):
    from tests.datasets.verify.conftest import make

    twice = tmp_path / "twice"
    twice.mkdir()
    shutil.copy(photos / "a.jpg", twice / "one.jpg")
    shutil.copy(photos / "a.jpg", twice / "two.jpg")
    assert make(tmp_path, twice, tiny_dinov3).verify().healthy


def test_a_file_that_is_no_array(built):
    built.put_bytes("wide.jpg", b"\x93NUMPY but not really" * 20)
    (finding,) = only(built.verify(), "damaged_file")
    assert str(built.root) not in finding.sentence


def test_the_file_of_another_kind(built):
    features = built.records["wide.jpg"].features
    built.change("wide.jpg", features={**features, CLS: features[REGISTERS]})
    assert built.verify().counts()["wrong_file"] >= 1


def test_an_entry_that_leads_out_of_the_folder(built):
    built.change_entry("wide.jpg", file="../set.jsonl")
    faults = built.verify().counts()
    assert faults == {"wrong_file": 1, "orphan_file": 1}


def test_an_entry_of_other_features(built):
    built.put("wide.jpg", noise(15, 16), dim=16)
    (finding,) = only(built.verify(), "wrong_file")
    assert "the encoder gives 32 features" in finding.sentence


def test_pictures_without_features(built):
    features = built.records["wide.jpg"].features
    built.change("wide.jpg", features={PATCHES: features[PATCHES], CLS: features[CLS]})
    report = built.verify()
    assert report.counts() == {"missing_features": 1, "orphan_file": 1}
    assert "has no dinov3_registers, 13 of 14 pictures have" in report.findings[0].sentence


def test_a_record_without_a_bucket(built):
    built.edit_line("wide.jpg", aspect_bucket=None)
    finding = built.verify().findings[0]
    assert finding.fault == "no_bucket"
    assert "aspect_bucket not found for wide.jpg, run with --pass-filter migrate" in finding.sentence


def test_a_line_of_another_version(built):
    built.edit_line("wide.jpg", format_version=2)
    finding = built.verify().findings[0]
    assert finding.fault == "no_bucket"
    assert "format_version 2 is not 3; run with --pass-filter migrate" in finding.sentence


def test_a_line_that_contradicts_the_format(built):
    built.edit_line("wide.jpg", width=-3)
    assert built.verify().findings[0].fault == "bad_record"


def test_sets_that_nobody_knows(built):
    (built.folder(REGISTERS) / HEADER).unlink()
    (finding,) = only(built.verify(), "unknown_set")
    assert "nobody knows what made its features" in finding.sentence


@pytest.mark.parametrize(
    ("part", "told"),
    [("stamp", "its stamp was changed by hand"), ("spec", "its spec and its stamp contradict each other: norm")],
)
def test_a_header_changed_by_hand(built, part, told):
    path = built.folder() / HEADER
    header = json.loads(path.read_text())
    header[part]["norm"] = "none"
    path.write_text(json.dumps(header))
    (finding,) = only(built.verify(), "unknown_set")
    assert told in finding.sentence


def test_files_that_no_record_names(built):
    folder = built.folder()
    (folder / "notes.txt").write_text("mine")
    (folder / "gone-01234567.npy").write_bytes(b"")
    (folder / ".wide.npy.0a1b2c3d.part.npy").write_bytes(b"half")
    report = built.verify()
    assert report.counts() == {"orphan_file": 1, "stray_file": 1, "leftover_file": 1}
    assert report.errors == ()


def test_sources_that_changed_or_are_gone(built, photos, tmp_path):
    copy = shutil.copytree(photos, tmp_path / "photos")
    (copy / "wide.jpg").write_bytes((photos / "tall.jpg").read_bytes())
    (copy / "tall.jpg").unlink()
    report = built.verify(input_dir=copy)
    assert report.counts() == {"source_changed": 1, "source_unusable": 1}
    assert report.findings[1].sentence == "tall.jpg: missing."


def test_a_journal_that_cannot_be_read(built):
    (built.derived / "_journal").mkdir(exist_ok=True)
    (built.derived / "_journal" / "0123456789abcdef.jsonl").write_text("{}\n")
    (finding,) = only(built.verify(), "bad_journal")
    assert str(built.root) not in finding.sentence


def test_what_a_killed_build_left_in_its_journal_counts(built):
    """Entries that are in a journal but not yet in the manifest are as good as there."""
    from patchatlas.datasets.build.journal import Finished, open_journal

    record = built.records["wide.jpg"]
    with open_journal(built.derived, manifest=built.manifest) as journal:
        journal.append(Finished({record.image_id: record.features}, sources={record.image_id: record.sha256}))
    built.change("wide.jpg", features={})
    assert built.verify().healthy


def test_quick_looks_at_headers_only(built):
    path = built.path("wide.jpg")
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    assert built.verify(values=False).healthy
    assert built.verify().counts()["changed_file"] == 1
    path.write_bytes(path.read_bytes()[:-4])
    assert built.verify(values=False).counts() == {"truncated_file": 1}


def test_skipped_pictures_are_passed_over(built, photos):
    record = built.records["wide.jpg"]
    for kind, entry in record.features.items():
        built.store.path(entry).unlink()
        assert kind
    built.edit_line("wide.jpg", status="skipped", features={}, error={"type": "empty", "message": "0 bytes"})
    assert built.verify(input_dir=photos).healthy


def test_folders_and_manifests_that_are_not_there(built):
    from patchatlas.datasets.verify.verify import verify

    with pytest.raises(InputError, match="there is no folder"):
        verify(built.manifest, built.root / "nowhere")
    with pytest.raises(InputError, match=r"there is no .*nothing\.jsonl"):
        verify(built.root / "nothing.jsonl", built.derived)


def test_entries_of_two_pictures_exchanged(built):
    """Every file is whole and of the right set, stamp and shape; only its name says that it is another picture's."""
    one, other = built.records["a.jpg"], built.records["x/y.jpg"]
    built.change("a.jpg", features=other.features)
    built.change("x/y.jpg", features=one.features)
    for values in (True, False):
        findings = [f for f in built.verify(values=values).findings if f.fault == "exchanged_file"]
        assert len(findings) == 6
        assert {finding.record for finding in findings} == {one.image_id, other.image_id}
        assert f"as that of {one.image_id}; by its name it is that of {other.image_id}" in findings[0].sentence


def test_a_copy_is_a_warning_with_its_two_pictures(tmp_path, tiny_dinov3):
    """A PNG and a BMP of the same pixels: other bytes, the same features, and nothing wrong."""
    from PIL import Image

    from tests.datasets.verify.conftest import make

    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = Image.effect_noise((70, 70), 60).convert("RGB")
    pixels.save(folder / "001.png")
    pixels.save(folder / "twin.bmp")
    built = make(tmp_path, folder, tiny_dinov3)
    ids = {record.image_id for record in built.records.values()}
    report = built.verify(input_dir=folder)
    findings = only(report, "copied")
    assert report.errors == ()
    assert {ids.pop() for _ in range(2)} == {findings[0].record, findings[0].evidence["other"]}
    assert "--probe" in findings[0].advice
    assert not MEANINGS["copied"].requeue


def test_a_manifest_without_features(built):
    """Nothing is wrong with nothing, which is not what was asked."""
    for path in built.records:
        built.change(path, features={})
    shutil.rmtree(built.derived)
    built.derived.mkdir()
    (finding,) = only(built.verify(), "nothing_to_verify")
    assert finding.severity == "warning"
    assert finding.sentence == "None of 14 pictures has features."


@pytest.mark.parametrize("kind", [REGISTERS, PATCHES])
def test_a_kind_that_no_picture_has_though_there_is_a_set(built, kind):
    for path, record in built.records.items():
        built.change(path, features={name: entry for name, entry in record.features.items() if name != kind})
    findings = [finding for finding in built.verify().findings if finding.fault == "missing_features"]
    assert len(findings) == 14
    assert f"has no {kind}, 0 of 14 pictures have" in findings[0].sentence


def test_pictures_larger_than_the_default_limit(built, photos):
    report = built.verify(input_dir=photos, max_pixels=100)
    assert report.counts() == {"source_unusable": 13}  # tiny.png has 15
    assert built.verify(input_dir=photos, max_pixels=1_000_000).healthy


def test_files_beside_the_sets_are_no_matter_of_verify(built):
    (built.derived / "_owner.json").write_text("{}")
    assert built.verify().healthy
