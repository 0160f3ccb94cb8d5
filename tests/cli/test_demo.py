"""`patchatlas demo` end to end on the shipped photographs, the page it writes, and what it refuses."""

import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import resources
from io import StringIO
from pathlib import Path
from urllib.parse import urlparse

import pytest

from patchatlas.cli.main import main
from patchatlas.cli.page import Entry, page
from patchatlas.io.images import read_image
from patchatlas.io.landmarks import marks_path, read_marks

DATA = Path(str(resources.files("patchatlas") / "demo_data"))
VOID = {"meta", "img", "br", "hr", "link"}


@dataclass(frozen=True)
class Run:
    """One run of the command: where it wrote, its exit code, what it printed."""

    folder: Path
    code: int
    printed: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole demo at half its size, which is quick; folders on the way are made."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "output"
    with redirect_stdout(StringIO()) as printed:
        code = main(["demo", str(folder), "--image-size", "448", "--format", "json"])
    return Run(folder, code, printed.getvalue())


class Page(HTMLParser):
    """Collects links and ids, and checks that tags are closed in order and pictures are described."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [value for name in ("src", "href") if (value := given.get(name))]
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag == "img":
            assert given["alt"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_finds_what_is_there(run: Run) -> None:
    assert run.code == 0
    landmarks = json.loads(run.printed)["landmarks"]
    assert len(landmarks) == 7
    for landmark in landmarks:
        if landmark["truth_xy"] is None:
            assert landmark["error_px"] is None
        else:
            assert landmark["state"] != "absent"
            assert landmark["error_px"] < 6.6  # half a patch of this size
    assert sum(landmark["state"] == "found" for landmark in landmarks) >= 5  # one of six is not sure at this size


@pytest.mark.slow
def test_at_its_own_size_every_answer_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path), "--format", "json"]) == 0
    for landmark in json.loads(capsys.readouterr().out)["landmarks"]:
        assert (landmark["state"] == "found") == (landmark["truth_xy"] is not None)
        assert landmark["error_px"] is None or landmark["error_px"] < 3.3  # half a patch


def test_every_file_it_names_is_there_and_reads(run: Run) -> None:
    stored = json.loads((run.folder / "demo.json").read_text())
    assert json.loads(run.printed) == {**stored, "output": str(run.folder)}
    assert (stored["format"], stored["version"], stored["encoder"]) == ("patchatlas.demo", 1, "bundled:sift")
    named = {"demo.json", "index.html"}
    for landmark in stored["landmarks"]:
        files = landmark["files"]
        assert read_image(run.folder / files["source.jpg"]).shape == (500, 741, 3)
        heatmap = read_image(run.folder / files["heatmap.jpg"])
        assert heatmap.shape[0] > 500
        assert heatmap.shape[1] == 741
        result = json.loads((run.folder / files["result.json"]).read_text())
        assert (result["uuid"], result["state"]) == (landmark["uuid"], landmark["state"])
        assert result["target_xy"] == landmark["target_xy"]
        named |= set(files.values())
    assert {path.name for path in run.folder.iterdir()} == named


def test_the_page_stands_alone(run: Run) -> None:
    html = (run.folder / "index.html").read_text(encoding="utf-8")
    parsed = Page(html)
    assert len(set(parsed.ids)) == len(parsed.ids) == 7
    assert len(parsed.links) == 7 * 4
    for link in parsed.links:
        parts = urlparse(link)
        assert not parts.scheme
        assert not parts.netloc
        if parts.path:
            assert (run.folder / parts.path).is_file()
        else:
            assert parts.fragment in parsed.ids
    assert "url(" not in html
    assert "@import" not in html
    assert "Middlebury" in parsed.text
    for landmark in json.loads(run.printed)["landmarks"]:
        assert landmark["uuid"] in parsed.text
        assert landmark["reason"] in parsed.text


def test_one_mark_again_in_the_same_folder(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Its files are replaced by the same bytes, the others stay, and the lines say where things are."""
    landmark = json.loads(run.printed)["landmarks"][1]
    before = {name: (run.folder / name).read_bytes() for name in landmark["files"].values()}
    everything = {path.name for path in run.folder.iterdir()}
    assert main(["demo", str(run.folder), "--image-size", "448", "--uuid", landmark["uuid"]]) == 0
    printed = capsys.readouterr().out
    assert {name: (run.folder / name).read_bytes() for name in before} == before
    assert {path.name for path in run.folder.iterdir()} == everything
    assert f"2  {landmark['name']}  found" in printed
    assert "1 of 1 visible landmarks found, at most" in printed
    assert f"page: {run.folder / 'index.html'}" in printed
    assert len(Page((run.folder / "index.html").read_text()).ids) == 1


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--uuid", "nobody"], 4, "no mark with the uuid 'nobody'"),
        (["--image-size", "450"], 4, "not a multiple of the patch 8"),
        (["--encoder", "bundled:nothing"], 5, "bundled:nothing"),
        (["--image-size", "0"], 2, "greater than 0"),
    ],
)
def test_refusals_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert main(["demo", str(tmp_path / "output"), *options]) == code
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "output").write_text("mine")
    assert main(["demo", str(tmp_path / "output")]) == 4
    assert "is a file; name a folder" in capsys.readouterr().err
    assert (tmp_path / "output").read_text() == "mine"


def test_what_is_shipped_fits_together() -> None:
    truth = json.loads((DATA / "truth.json").read_text(encoding="utf-8"))
    source, target = (read_image(DATA / truth[name]) for name in ("source", "target"))
    assert source.shape == target.shape == (500, 741, 3)
    marks = {mark.uuid: mark for mark in read_marks(DATA / truth["source"])}
    assert not marks_path(DATA / truth["target"]).exists()
    assert [known["uuid"] for known in truth["landmarks"]] == list(marks)
    for known in truth["landmarks"]:
        mark = marks[known["uuid"]]
        assert mark.is_uuid_canonical is True
        if known["target_xy"] is not None:
            expected = [mark.x + 0.5 - known["disparity_px"], mark.y + 0.5]
            assert known["target_xy"] == pytest.approx(expected, abs=1e-9)
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 600_000
    assert "Scharstein" in (DATA / "README.md").read_text(encoding="utf-8")


def test_text_on_the_page_is_escaped() -> None:
    entry = Entry(
        number=1,
        name='<b>"a" & b</b>',
        uuid="<u>",
        state="absent",
        reason="<r>",
        compared="<c>",
        facts=[("<f>", "<v>")],
        source_picture="s.jpg",
        heatmap="h.jpg",
        result="r.json",
    )
    text = Page(page([entry], lead="<l>", notes=["<n>"], colours={"absent": (1, 2, 3)})).text
    for part in ('<b>"a" & b</b>', "<u>", "<r>", "<c>", "<f>", "<v>", "<l>", "<n>", "rgb(1, 2, 3)"):
        assert part in text
