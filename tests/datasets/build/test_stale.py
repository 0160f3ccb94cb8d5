"""Features of a picture as it was are never taken for those of the picture as it is."""

import shutil
from dataclasses import replace

import pytest

from patchatlas.datasets.build import run as run_module
from patchatlas.datasets.build.merge import journals_of
from patchatlas.datasets.build.run import build
from patchatlas.io.manifest import read_manifest, write_manifest
from tests.datasets.conftest import write_photos

WAS, IS = (64, 64), (66, 70)  # both in the bucket 64x64


@pytest.fixture
def folder(tmp_path):
    return write_photos(tmp_path / "editable", (("a.jpg", WAS), ("b.png", WAS)))


@pytest.fixture
def edited(tmp_path, folder):
    """Call it to edit b.png; gives settings of builds of pictures that were never others."""

    def edit(settings):
        write_photos(tmp_path / "edited", (("a.jpg", WAS), ("c.png", IS)))
        shutil.copy(tmp_path / "edited" / "c.png", folder / "b.png")
        return settings("fresh", input_dir=folder)

    return edit


@pytest.mark.parametrize("passes", [[("migrate",), ("dinov3",)], [("migrate", "dinov3")], [("dinov3",)]])
def test_a_journal_of_the_picture_as_it_was_does_not_count(settings, folder, edited, snapshot, monkeypatch, passes):
    made = settings(input_dir=folder)
    with monkeypatch.context() as killed:
        killed.setattr(run_module, "absorb", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(made)
    assert len(journals_of(made.derived_dir)) == 1
    fresh = edited(settings)
    made.manifest.unlink()
    done = [one.done for names in passes for one in build(replace(made, passes=names)).passes]
    build(fresh)
    assert snapshot(made.manifest, made.derived_dir) == snapshot(fresh.manifest, fresh.derived_dir)
    assert sum(done) == (2 if len(passes) == 1 else 1)


def test_migrate_takes_an_edited_picture_up_in_one_run(settings, folder, edited, snapshot):
    made = settings(input_dir=folder)
    build(made)
    fresh = edited(settings)
    assert build(replace(made, passes=("migrate", "dinov3"))).passes[0].done == 1
    build(fresh)
    assert snapshot(made.manifest, made.derived_dir) == snapshot(fresh.manifest, fresh.derived_dir)


def test_migrate_mends_an_orientation_that_is_not_that_of_the_picture(settings, folder, snapshot):
    made = settings(input_dir=folder)
    build(made)
    before = snapshot(made.manifest, made.derived_dir)
    records = read_manifest(made.manifest)
    write_manifest(made.manifest, [replace(records[0], exif_orientation=3), records[1]])
    assert build(replace(made, passes=("migrate", "dinov3"))).passes[0].done == 1
    assert snapshot(made.manifest, made.derived_dir) == before


def test_migrate_keeps_what_is_stored_of_a_picture_that_is_not_here(settings, folder):
    made = settings(input_dir=folder)
    build(made)
    before = made.manifest.read_bytes()
    (folder / "b.png").unlink()
    report = build(replace(made, passes=("migrate", "dinov3")))
    assert (report.passes[0].there, report.skipped) == (2, ())
    assert made.manifest.read_bytes() == before


def test_migrate_skips_a_picture_that_is_no_picture_any_more(settings, folder):
    made = settings(input_dir=folder)
    build(made)
    (folder / "b.png").write_bytes(b"no picture")
    report = build(replace(made, passes=("migrate", "dinov3")))
    assert [(one.image_path, one.error.type) for one in report.skipped] == [("b.png", "not_a_picture")]
    record = read_manifest(made.manifest)[1]
    assert (record.status, record.features, record.aspect_bucket) == ("skipped", {}, None)
