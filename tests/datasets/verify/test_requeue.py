"""--fix: exactly what is wrong is made again, and the result equals a set that never was wrong."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from patchatlas.datasets.build.journal import open_journal
from patchatlas.datasets.build.run import build
from patchatlas.datasets.verify.report import Finding
from patchatlas.datasets.verify.requeue import BAD, requeue
from patchatlas.errors import ResourceError
from tests.datasets.verify.planting import CLS, PATCHES, Built, noise


def content(built: Built, snapshot: Callable[..., dict[str, bytes]]) -> dict[str, bytes]:
    """Manifest and features, without what was moved aside."""
    files = snapshot(built.manifest, built.derived)
    return {name: data for name, data in files.items() if BAD not in name.split("/") and "_journal" not in name}


def spoil(built: Built) -> set[str]:
    """Four wrong pictures, each in its own way; their paths."""
    path = built.path("wide.jpg")
    path.write_bytes(path.read_bytes()[:-7])
    path = built.path("tall.jpg", CLS)
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    built.change_entry("x/y.jpg", stamp="0" * 64)
    built.path("a.png").unlink()
    return {"wide.jpg", "tall.jpg", "x/y.jpg", "a.png"}


def test_a_build_makes_exactly_the_wrong_ones_again(built, healthy, snapshot):
    wrong = spoil(built)
    before = built.records
    requeued = requeue(built.verify().findings, built.manifest, built.derived)
    assert set(requeued.records) == {before[path].image_id for path in wrong}
    assert requeued.left == ()
    assert len(requeued.files) == 3 * 4 - 1  # patches, CLS and registers of four pictures, one file was gone
    after = built.records
    assert {path for path in before if after[path] != before[path]} == wrong
    assert all(after[path].features == {} for path in wrong)
    report = build(built.settings)
    assert [(one.done, one.there) for one in report.passes] == [(4, 10)]
    assert content(built, snapshot) == content(healthy, snapshot)
    assert built.verify().healthy


def test_nothing_is_deleted(built):
    path = built.path("wide.jpg")
    path.write_bytes(b"spoilt")
    for name in (path.name, f"{path.stem}.1.npy"):
        requeue(built.verify().findings, built.manifest, built.derived)
        assert (built.derived / BAD / path.parent.name / name).read_bytes() == b"spoilt"
        build(built.settings)
        path.write_bytes(b"spoilt")


def test_a_wrong_bucket_is_mended_by_migrating(built, healthy, snapshot):
    built.change("wide.jpg", aspect_bucket=(64, 64), resized=(107, 64), crop=(21, 0, 64, 64), crop_source=None)
    findings = built.verify().findings
    assert {finding.fault for finding in findings} == {"wrong_bucket", "other_bucket"}
    requeue(findings, built.manifest, built.derived)
    build(replace(built.settings, passes=("migrate", "encoder")))
    assert content(built, snapshot) == content(healthy, snapshot)


def test_a_file_that_another_picture_has_a_right_to_stays(built):
    built.change("a.png", features=built.records["a.jpg"].features)
    findings = [finding for finding in built.verify().findings if finding.record == built.records["a.png"].image_id]
    kept = built.path("a.jpg")
    requeue(findings, built.manifest, built.derived)
    assert kept.is_file()
    assert built.records["a.png"].features == {}


def test_what_building_does_not_mend_is_left(built):
    (built.folder() / "notes.txt").write_text("mine")
    before = built.manifest.read_bytes()
    requeued = requeue(built.verify().findings, built.manifest, built.derived)
    assert [finding.fault for finding in requeued.left] == ["stray_file"]
    assert requeued.records == ()
    assert built.manifest.read_bytes() == before


def test_a_build_at_work_is_not_disturbed(built):
    finding = Finding(fault="changed_file", sentence="x", record=built.records["wide.jpg"].image_id, kind=PATCHES)
    before = built.manifest.read_bytes()
    with open_journal(built.derived, manifest=built.manifest), pytest.raises(ResourceError, match="a build is at work"):
        requeue([finding], built.manifest, built.derived)
    assert built.manifest.read_bytes() == before
    assert built.path("wide.jpg").is_file()


def test_a_kill_between_manifest_and_files_loses_nothing(built, healthy, snapshot, monkeypatch):
    """The manifest is written, no file is moved yet: a build still makes the picture again."""
    built.put("wide.jpg", noise(15, 32))
    monkeypatch.setattr("patchatlas.datasets.verify.requeue._move", lambda *_: False)
    finding = Finding(fault="changed_file", sentence="x", record=built.records["wide.jpg"].image_id, kind=PATCHES)
    requeue([finding], built.manifest, built.derived)
    assert built.verify().counts() == {"missing_features": 3, "orphan_file": 3}
    build(built.settings)
    assert content(built, snapshot) == content(healthy, snapshot)
