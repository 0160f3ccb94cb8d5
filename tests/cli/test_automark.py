"""The command: what it says and writes, its exit codes, and what it refuses."""

import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from patchatlas.cli.main import main
from patchatlas.locate.automark import run as session_module
from tests.disk_limit import no_file_may_grow
from tests.locate.automark.conftest import SHIFTS, make_session, mark, marked, moved, snapshot, write_marks

SIFT = ["--encoder", "bundled:sift", "--image-size", "128", "--include-uncertain"]
"""Uncertain ones too, so that these tests do not hang on where a calibration draws its lines."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A session whose part of the body is the current folder."""
    make_session(tmp_path)
    monkeypatch.chdir(tmp_path / "rotomaps" / "parts" / "back" / "upper")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def automark(*args: str) -> int:
    return main(["automark", "2026_01_31", "--from", "2025_01_31", *SIFT, *args])


class Page(HTMLParser):
    """Text, links and pictures of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img":
            self.sources.append(given["src"] or "")
        if tag == "section" and "id" in given:
            self.ids.append(given["id"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_proposals_audit_review_and_what_is_said(root, capsys):
    assert automark("--audit", "audit.json", "--review", "review.html") == 0
    said = capsys.readouterr().out
    assert said.startswith("1.jpg   6 proposed -> 1.jpg.automark.json; ")
    assert said.endswith("2026_01_31: 10 proposed in 3 photos, 0 skipped\n")
    assert "nothing missing" in said
    audit = json.loads(Path("audit.json").read_text())
    assert (audit["format"], audit["version"]) == ("patchatlas.automark-audit", 1)
    assert audit["counts"]["proposed"] == 10
    assert audit["settings"]["stem"] == "automark"
    first = audit["photos"][0]
    assert first["name"] == "rotomaps/parts/back/upper/2026_01_31/1.jpg"
    assert {one["uuid"] for one in first["marks"] if one["proposed"]} == moved(SHIFTS["1.jpg"]).keys()
    assert str(root) not in Path("audit.json").read_text()
    page = Page(Path("review.html").read_text())
    assert len(page.ids) == 10
    assert len(page.sources) == 30
    assert all(source.startswith("data:image/jpeg;base64,/9j/") for source in page.sources)
    assert str(root) not in Path("review.html").read_text()
    doubt = [float(line) for line in page.text.split() if line.startswith("0.") and len(line) == 5][:10]
    assert doubt == sorted(doubt, key=lambda p: -p * (1 - p))
    assert (root / ".patchatlas" / ".gitignore").read_text() == "*\n"


def test_json_on_stdout_is_the_audit_and_a_rerun_says_the_same(root, capsys):
    assert automark("--format", "json", "--audit", "audit.json") == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads(Path("audit.json").read_text())
    before = snapshot(root)
    assert automark("--format", "json", "--audit", "audit.json") == 0
    assert capsys.readouterr().out == printed
    assert snapshot(root) == before


def test_merge(root):
    assert automark("--merge") == 0
    assert len(json.loads(Path("2026_01_31/1.jpg.json").read_text())) == 6
    assert not list(root.rglob("*.automark.json"))
    before = snapshot(root)
    assert automark("--merge") == 0
    assert snapshot(root) == before


@pytest.mark.usefixtures("root")
@pytest.mark.skipif(os.name != "posix", reason="modes and links are those of POSIX")
def test_merge_keeps_permissions_and_links():
    kept = Path("kept.json").resolve()
    kept.write_text("[]")
    kept.chmod(0o600)
    path = Path("2026_01_31/1.jpg.json")
    path.symlink_to(kept)
    assert automark("--merge") == 0
    assert path.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(json.loads(kept.read_text())) == 6


@pytest.mark.usefixtures("root")
def test_merge_skips_mark_files_that_may_not_be_written(capsys, monkeypatch):
    path, access = Path("2026_01_31/1.jpg.json"), os.access
    path.write_text("[]")
    monkeypatch.setattr(os, "access", lambda name, mode: Path(name).name != path.name and access(name, mode))
    assert automark("--merge", "--audit", "audit.json") == 3
    assert path.read_text() == "[]"
    assert "1.jpg.json may not be written; change its permissions" in capsys.readouterr().out
    audit = json.loads(Path("audit.json").read_text())
    assert [one["file"] for one in audit["skipped"]] == ["rotomaps/parts/back/upper/2026_01_31/1.jpg"]
    assert audit["counts"]["proposed"] == 4
    assert automark("--merge", "--strict") == 4
    assert automark("--merge", "--dry-run") == 0


@pytest.mark.usefixtures("root")
def test_another_stem():
    assert automark("--stem", "sift") == 0
    assert Path("2026_01_31/1.jpg.sift.json").exists()


def test_a_dry_run_leaves_no_trace(root, capsys):
    before = snapshot(root)
    assert automark("--dry-run") == 0
    assert capsys.readouterr().out.endswith("10 proposed in 3 photos, 0 skipped; dry run, no mark was written\n")
    assert snapshot(root) == before
    assert automark("--dry-run", "--cache", "kept") == 0
    assert list(Path("kept/features").iterdir())
    assert not list(Path("2026_01_31").glob("*automark*"))


@pytest.mark.usefixtures("root")
def test_skipped_photos_give_code_3_and_are_all_named(capsys):
    Path("2026_01_31/3.jpg").write_bytes(Path("2026_01_31/1.jpg").read_bytes()[:2000])
    Path("2026_01_31/2.jpg.json").write_text("{")
    Path("2025_01_31/2.jpg.json").write_text("[3]")
    assert automark("--review", "review.html") == 3
    said = capsys.readouterr().out
    for name in ("2026_01_31/3.jpg", "2026_01_31/2.jpg", "2025_01_31/2.jpg"):
        assert f"skipped rotomaps/parts/back/upper/{name}: " in said
        assert name in Page(Path("review.html").read_text()).text
    assert len(json.loads(Path("2026_01_31/1.jpg.automark.json").read_text())) == 6
    assert automark("--strict") == 4


@pytest.fixture
def damaged_later(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photo of the target that loses its end after its marks are written."""
    done = session_module.run_session
    photo = root / "rotomaps/parts/back/upper/2026_01_31/1.jpg"

    def run_session(*args: Any, **options: Any) -> Any:
        session = done(*args, **options)
        photo.write_bytes(photo.read_bytes()[:2000])
        return session

    monkeypatch.setattr(session_module, "run_session", run_session)
    return photo


@pytest.mark.usefixtures("damaged_later")
def test_a_photo_that_is_damaged_before_the_review_is_listed(capsys):
    assert automark("--audit", "audit.json", "--review", "review.html", "--format", "json") == 3
    audit = json.loads(Path("audit.json").read_text())
    assert audit == json.loads(capsys.readouterr().out)
    assert [one["file"] for one in audit["skipped"]] == ["rotomaps/parts/back/upper/2026_01_31/1.jpg"]
    assert "marked, but not shown in the review" in audit["skipped"][0]["reason"]
    assert audit["counts"]["proposed"] == 10
    page = Page(Path("review.html").read_text())
    assert len(page.ids) == 4
    assert "6 absent, or without pictures" in page.text
    assert "2026_01_31/1.jpg" in page.text


@pytest.mark.usefixtures("damaged_later")
def test_the_audit_is_there_though_a_strict_review_stops(capsys):
    assert automark("--audit", "audit.json", "--review", "review.html", "--strict") == 4
    assert "1.jpg" in capsys.readouterr().err
    assert json.loads(Path("audit.json").read_text())["counts"]["proposed"] == 10
    assert not Path("review.html").exists()


@pytest.mark.usefixtures("root")
@pytest.mark.skipif(os.name != "posix", reason="other systems have no names that are not UTF-8")
def test_a_name_that_is_not_utf_8_and_a_lone_surrogate_are_shown(capsys):
    os.rename("2026_01_31/1.jpg", b"2026_01_31/R\xfccken.jpg")
    path = Path("2025_01_31/1.jpg.json")
    marks = json.loads(path.read_text())
    marks[0]["uuid"] += "\ud83d"
    path.write_text(json.dumps(marks))
    assert automark("--review", "review.html") == 0
    assert "R\\udcfccken.jpg" in capsys.readouterr().out
    text = Page(Path("review.html").read_text(encoding="utf-8")).text
    assert "R\\udcfccken.jpg" in text
    assert marks[0]["uuid"].replace("\ud83d", "\\ud83d") in text


@pytest.mark.usefixtures("root")
def test_what_is_passed_over_is_noted(capsys):
    write_marks(Path("2025_01_31/1.jpg"), [*marked((0, 0)), mark("z9", 200, 5)])
    write_marks(Path("2025_01_31/2.jpg"), marked((2, 5)))
    assert automark("--review", "review.html") == 0
    assert "note rotomaps/parts/back/upper/2025_01_31/1.jpg: the mark 'z9'" in capsys.readouterr().out
    assert "'z9'" in Page(Path("review.html").read_text()).text


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--merge", "--stem", "x"], 2, "give one of them"),
        (["--min-confidence", "2"], 2, "min_confidence"),
        (["--audit", "audit.txt"], 2, "does not end in .json"),
        (["--review", "review.json"], 2, "does not end in .html"),
        (["--audit", "2026_01_31/1.jpg.json"], 2, "among the marks"),
        (["--audit", "other/1.jpg.json"], 2, "would overwrite the marks or the mask of 1.jpg"),
        (["--audit", "nowhere/audit.json"], 4, "create it first"),
        (["--review", "folder.html"], 4, "it is a folder"),
        (["--image-size", "100"], 2, "take 96"),
        (["--stem", "meta"], 2, "names no set of marks"),
        (["--encoder", "nothing-of-that-name"], 5, "nothing-of-that-name"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_written(root, capsys, args, code, message):
    Path("folder.html").mkdir()
    Path("other").mkdir()
    Path("other/1.jpg").touch()
    Path("other/1.jpg.json").write_text("[]")
    before = snapshot(root)
    assert automark(*args) == code
    assert message in capsys.readouterr().err
    assert {name for name in snapshot(root) if not name.startswith(".patchatlas")} == set(before)


@pytest.mark.usefixtures("root")
def test_folders_that_cannot_be_used(capsys):
    assert main(["automark", "2026_01_31", "--from", "nowhere", *SIFT]) == 4
    assert main(["automark", "nowhere", "--from", "2025_01_31", *SIFT]) == 4
    assert main(["automark", ".", "--from", "2025_01_31", *SIFT]) == 4
    assert "name one of the folders in it: 2025_01_31, 2026_01_31" in capsys.readouterr().err
    assert main(["automark", "2026_01_31", *SIFT]) == 2


def test_a_disk_that_takes_nothing(root, capsys, monkeypatch):
    before = snapshot(root)
    with no_file_may_grow():
        assert automark() == 6
    assert "run again" in capsys.readouterr().err
    assert snapshot(root) == before
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert automark() == 6
    assert "look only, with --dry-run" in capsys.readouterr().err
    assert snapshot(root) == before
    assert automark("--dry-run") == 0
