"""The command: what it writes and says, and that nothing is written when anything is wrong."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patchatlas.cli.main import main

UUID = "47eaa0992cb6416d86dc283cf0480ff9"
SIFT = ["--encoder", "bundled:sift", "--image-size", "96"]

opened: list[str] = []
watching = False


def watch(event: str, args: tuple[Any, ...]) -> None:
    if watching and event == "open":
        opened.append(str(args[0]))


sys.addaudithook(watch)  # hooks cannot be taken off; `watching` turns this one on


@pytest.fixture
def opened_files() -> Iterator[list[str]]:
    """Every file that this process opens during the test."""
    global watching
    opened.clear()
    watching = True
    yield opened
    watching = False


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source with marks and a target that shows the same 3 px to the right and 2 px up, with marks of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PATCHATLAS_WEIGHTS", str(tmp_path / "no-weights"))
    noise = np.random.default_rng(3).integers(0, 256, (14, 18, 3), dtype=np.uint8)
    scene = np.array(Image.fromarray(noise).resize((108, 84), Image.Resampling.BICUBIC))
    Image.fromarray(scene[4:76, 6:102]).save("source.png")
    Image.fromarray(scene[6:78, 3:99]).save("target.png")
    write_marks("source.png", [mark(UUID, 50, 40), mark("other", 10, 10)])
    Path("target.png.json").write_text("this must never be read")
    return tmp_path


def mark(uuid: Any, x: Any, y: Any) -> dict[str, Any]:
    return {"uuid": uuid, "x": x, "y": y, "is_uuid_canonical": True}


def write_marks(picture: str, marks: list[dict[str, Any]]) -> None:
    Path(f"{picture}.json").write_text(json.dumps(marks))


def test_finds_the_mark_and_writes_both_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locate", "out.jpg", "target.png", UUID, "source.png", *SIFT, "--json", "out.json"]) == 0
    stored = json.loads(Path("out.json").read_text())
    assert stored["uuid"] == UUID
    assert stored["source_xy"] == [50.5, 40.5]
    assert stored["target_xy"] == pytest.approx([53.5, 38.5], abs=1.0)
    assert stored["mel"] == [int(stored["target_xy"][0]), int(stored["target_xy"][1])]
    assert (stored["source"], stored["target"]) == ("source.png", "target.png")
    with Image.open("out.jpg") as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 96
    said = capsys.readouterr().out
    assert said.startswith(f"{stored['state']}: {stored['reason']}\n")
    assert f"{UUID}: x {stored['target_xy'][0]:.1f}" in said
    assert said.endswith("written: out.jpg, out.json\n")
    assert len(said.splitlines()) == 4
    assert not list(folder.glob(".*"))


def test_json_on_stdout_is_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["locate", "out.png", "target.png", UUID, "source.png", *SIFT, "--json", "out.json", "--format", "json"]
    assert main(args) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("out.json").read_text())
    with Image.open(folder / "out.png") as picture:
        assert picture.format == "PNG"


def test_the_targets_own_marks_are_never_opened(folder: Path, opened_files: list[str]) -> None:
    assert main(["locate", "out.jpg", "target.png", UUID, "source.png", *SIFT]) == 0
    names = [Path(name).name for name in opened_files]
    assert "source.png.json" in names
    assert "target.png" in names
    assert not [name for name in names if name.startswith("target.png.")]
    assert (folder / "target.png.json").read_text() == "this must never be read"


def test_a_point_on_the_command_line_needs_no_marks(folder: Path, opened_files: list[str]) -> None:
    """--mark is continuous: 50.5,40.5 is the centre of the pixel that mel calls 50, 40."""
    assert main(["locate", "a.jpg", "target.png", UUID, "source.png", *SIFT, "--json", "a.json"]) == 0
    opened_files.clear()
    assert (
        main(["locate", "b.jpg", "target.png", UUID, "source.png", *SIFT, "--json", "b.json", "--mark", "50.5,40.5"])
        == 0
    )
    assert not [name for name in opened_files if name.endswith("source.png.json")]
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()
    assert Path("a.jpg").read_bytes() == (folder / "b.jpg").read_bytes()


def test_marks_live_in_the_upright_picture(folder: Path) -> None:
    """The source stored on its side, with the orientation that turns it upright again."""
    with Image.open("source.png") as upright:
        stored = upright.transpose(Image.Transpose.ROTATE_90)  # to the left; orientation 6 turns it to the right
        exif = Image.Exif()
        exif[0x0112] = 6
        stored.save("turned.png", exif=exif)
    write_marks("turned.png", [mark(UUID, 50, 40)])
    for name in ("source", "turned"):
        assert (
            main(["locate", f"{name}.out.png", "target.png", UUID, f"{name}.png", *SIFT, "--json", f"{name}.out"]) == 0
        )
    one, other = (json.loads((folder / f"{name}.out").read_text()) for name in ("source", "turned"))
    assert one["source"] == one["views"][0].pop("view") == "source.png"
    assert other["views"][0].pop("view") == "turned.png"
    assert {**one, "source": ""} == {**other, "source": ""}


def test_several_sources_vote_and_the_wrong_one_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Image.open("source.png") as picture:
        for name, left in (("second", 4), ("third", 8), ("wrong", 8)):
            picture.crop((left, 0, 96, 72)).save(f"{name}.png")
            write_marks(f"{name}.png", [mark(UUID, 50 - left, 40) if name != "wrong" else mark(UUID, 10, 60)])
    sources = ["source.png", "second.png", "third.png", "wrong.png"]
    assert main(["locate", "out.jpg", "target.png", UUID, *sources, *SIFT, "--json", "out.json"]) == 0
    stored = json.loads((folder / "out.json").read_text())
    assert stored["target_xy"] == pytest.approx([53.5, 38.5], abs=1.0)
    assert stored["source"] in sources[:3]
    assert [vote["view"] for vote in stored["views"]] == sources
    assert [vote["agrees"] for vote in stored["views"]] == [True, True, True, False]
    assert stored["views"][0]["source_xy"] == [50.5, 40.5]
    said = capsys.readouterr().out
    assert "3 of 4 views agree" in said
    (line,) = [line for line in said.splitlines() if line.startswith("  wrong.png")]
    assert line.endswith("left out")


def test_a_turned_source_is_found_with_tta(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Image.open("source.png") as picture:
        picture.transpose(Image.Transpose.ROTATE_90).save("turned.png")  # (x, y) to (y, 96 - x)
    write_marks("turned.png", [mark(UUID, 40, 96 - 1 - 50)])
    asked = ["locate", "out.jpg", "target.png", UUID, "turned.png", *SIFT, "--json", "out.json"]
    assert main([*asked, "--tta", "flip,rot90"]) == 0
    stored = json.loads((folder / "out.json").read_text())
    assert stored["turn"] == stored["views"][0]["turn"] == "rot90"
    assert stored["recipe"]["turns"] == ["flip", "rot90"]
    assert stored["target_xy"] == pytest.approx([53.5, 38.5], abs=1.0)
    assert "turned.png matches best turned: rot90" in capsys.readouterr().out
    assert main(asked) == 0
    stored = json.loads((folder / "out.json").read_text())
    assert (stored["turn"], stored["recipe"]["turns"]) == ("upright", [])
    assert stored["target_xy"] != pytest.approx([53.5, 38.5], abs=4.0)


def test_a_mask_beside_the_target_keeps_answers_out(folder: Path) -> None:
    """The right place lies outside the mask, so the answer is another one; --no-masks finds it again."""
    mask = np.full((72, 96), 255, np.uint8)
    mask[20:56, 36:70] = 0
    Image.fromarray(mask).save("target.png.mask.png")
    asked = ["locate", "out.jpg", "target.png", UUID, "source.png", *SIFT, "--json", "out.json"]
    assert main(asked) == 0
    x, y = json.loads((folder / "out.json").read_text())["target_xy"]
    assert mask[int(y), int(x)] or not (40 < x < 66 and 24 < y < 52)
    assert main([*asked, "--no-masks"]) == 0
    assert json.loads((folder / "out.json").read_text())["target_xy"] == pytest.approx([53.5, 38.5], abs=1.0)


def test_options_reach_the_search(folder: Path) -> None:
    """Each changes the numbers (or, for memory, nothing) and is written down."""
    asked = ["locate", "out.jpg", "target.png", UUID, "source.png", *SIFT, "--json", "out.json"]
    stored = {}
    for options in (
        "",
        "--windows 48",
        "--windows 48 --no-global-view",
        "--peak soft-argmax",
        "--max-memory 2GB",
        "--zoom 2",
    ):
        assert main([*asked, *options.split()]) == 0
        stored[options] = json.loads((folder / "out.json").read_text())
        assert stored[options]["target_xy"] == pytest.approx([53.5, 38.5], abs=2.0)
    places = {options: tuple(one["target_xy"]) for options, one in stored.items()}
    assert len(set(places.values())) == 5
    assert places[""] == places["--max-memory 2GB"]
    assert stored["--max-memory 2GB"]["recipe"]["max_memory"] == 2_000_000_000
    assert stored["--peak soft-argmax"]["recipe"]["peak"] == "soft-argmax"
    assert stored["--windows 48"]["encoder"]["dim"] == 2 * stored[""]["encoder"]["dim"]
    assert stored["--windows 48 --no-global-view"]["recipe"]["global_view"] is False


def test_the_largest_picture_is_an_option(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = 72 * 96
    asked = ["locate", "out.jpg", "target.png", UUID, "source.png", *SIFT]
    assert main([*asked, "--max-pixels", str(pixels - 1)]) == 4
    assert (
        f"allowed are {pixels - 1}; scale it down first, or raise max_pixels (--max-pixels)" in capsys.readouterr().err
    )
    assert not (folder / "out.jpg").exists()
    assert main([*asked, "--max-pixels", str(pixels)]) == 0
    assert main([*asked, "--max-pixels", "0"]) == 2


def test_outputs_are_replaced(folder: Path) -> None:
    (folder / "out.jpg").write_text("old")
    (folder / "out.json").write_text("old")
    assert main(["locate", "out.jpg", "target.png", UUID, "source.png", *SIFT, "--json", "out.json"]) == 0
    assert json.loads((folder / "out.json").read_text())["uuid"] == UUID


def set_marks(*marks: dict[str, Any]) -> Callable[[], None]:
    return lambda: write_marks("source.png", list(marks))


def set_text(name: str, text: str) -> Callable[[], None]:
    return lambda: Path(name).write_text(text) and None


def cut_short(name: str) -> Callable[[], None]:
    return lambda: Path(name).write_bytes(Path(name).read_bytes()[:300]) and None


def set_size(name: str, columns: int, rows: int) -> Callable[[], None]:
    return lambda: Image.new("RGB", (columns, rows), (90, 80, 70)).save(name)


def make_folder(name: str) -> Callable[[], None]:
    return lambda: Path(name).mkdir()


def nothing() -> None:
    pass


GOOD = ("out.jpg", "target.png", UUID, "source.png")
AT = [*SIFT, "--json", "out.json"]
BAD: dict[str, tuple[Callable[[], None], tuple[str, ...], list[str], int, str]] = {
    "no target": (nothing, ("out.jpg", "no.png", UUID, "source.png"), AT, 4, "no picture file no.png"),
    "no source": (nothing, ("out.jpg", "target.png", UUID, "no.png"), AT, 4, "no picture file no.png"),
    "target cut short": (cut_short("target.png"), GOOD, AT, 4, "target.png is cut short"),
    "source is text": (set_text("source.png", "text"), GOOD, AT, 4, "source.png is no picture"),
    "no mark file": (lambda: Path("source.png.json").unlink(), GOOD, AT, 4, "source.png.json has no marks"),
    "mark file is no JSON": (set_text("source.png.json", "[{"), GOOD, AT, 4, "source.png.json is not JSON"),
    "null uuid": (set_marks(mark(None, 5, 5)), GOOD, AT, 4, "uuid null"),
    "absent uuid": (nothing, ("out.jpg", "target.png", "zzz", "source.png"), AT, 4, f"it has '{UUID}', 'other'"),
    "double uuid": (set_marks(mark(UUID, 5, 5), mark(UUID, 6, 6)), GOOD, AT, 4, "2 marks with the uuid"),
    "mark right of the picture": (set_marks(mark(UUID, 96, 5)), GOOD, AT, 4, "outside the picture of 96 x 72"),
    "mark above the picture": (set_marks(mark(UUID, 5, -1)), GOOD, AT, 4, "x 5, y -1, outside"),
    "mark far beyond float": (set_marks(mark(UUID, 10**400, 5)), GOOD, AT, 4, "outside the picture"),
    # Without weights: what is cheap is checked before they are looked for.
    "--mark outside": (nothing, GOOD, ["--mark", "96,5"], 4, "(96, 5) lies outside the picture"),
    "--mark with several sources": (
        nothing,
        GOOD,
        ["second.png", *AT, "--mark", "5,5"],
        2,
        "names a point of one SOURCE, 2 were given",
    ),
    "a source twice": (nothing, GOOD, ["./source.png", *AT], 2, "source.png is given twice"),
    "--mark of one number": (nothing, GOOD, [*AT, "--mark", "96"], 2, "give two numbers"),
    "--mark of words": (nothing, GOOD, [*AT, "--mark", "a,b"], 2, "give two numbers"),
    "--mark nan": (nothing, GOOD, [*AT, "--mark", "nan,3"], 2, "give two numbers"),
    "size no multiple": (
        nothing,
        GOOD,
        [*AT, "--image-size", "100"],
        4,
        "100 is not a multiple of the patch 8; take 96 or 104",
    ),
    "size zero": (nothing, GOOD, [*AT, "--image-size", "0"], 2, "image_size"),
    "target below a patch": (
        set_size("target.png", 96, 7),
        GOOD,
        AT,
        4,
        "the target is 96 x 7 px, smaller than one patch",
    ),
    "target below a patch once scaled": (set_size("target.png", 900, 40), GOOD, AT, 4, "smaller than one patch (8 px)"),
    "no output folder": (nothing, ("no/out.jpg", *GOOD[1:]), AT, 4, "the folder no does not exist"),
    "no json folder": (
        nothing,
        GOOD,
        [*SIFT, "--json", "no/out.json"],
        4,
        "--json no/out.json: the folder no does not exist",
    ),
    "output is a folder": (make_folder("out.jpg"), GOOD, AT, 4, "it is a folder"),
    "output suffix": (nothing, ("out.gif", *GOOD[1:]), AT, 2, "ends in '.gif'; use .jpg, .jpeg, .png"),
    "output is the target": (nothing, ("target.png", *GOOD[1:]), AT, 2, "would overwrite"),
    "output is the source": (nothing, ("./source.png", *GOOD[1:]), AT, 2, "would overwrite"),
    "json is the target's marks": (nothing, GOOD, [*SIFT, "--json", "target.png.json"], 2, "would overwrite"),
    "json is other marks": (nothing, GOOD, [*SIFT, "--json", "source.png.automark.json"], 2, "would overwrite"),
    "json is the source's marks": (nothing, GOOD, [*SIFT, "--json", "source.png.json"], 2, "would overwrite"),
    "json is the marks of any picture": (
        lambda: Path("out.jpg").touch(),
        GOOD,
        [*SIFT, "--json", "out.jpg.json"],
        2,
        "would overwrite the marks or the mask of out.jpg",
    ),
    "json is a link to marks": (
        lambda: Path("link.json").symlink_to("source.png.json"),
        GOOD,
        [*SIFT, "--json", "link.json"],
        2,
        "would overwrite",
    ),
    "json is the output": (nothing, GOOD, [*SIFT, "--json", "out.jpg"], 2, "two different names"),
    "output is the target's mask": (nothing, ("target.png.mask.png", *GOOD[1:]), AT, 2, "would overwrite"),
    "mask of another size": (
        lambda: Image.new("L", (9, 9), 255).save("source.png.mask.png"),
        GOOD,
        AT,
        4,
        "source.png.mask.png has 9 x 9 pixels",
    ),
    "mask of nothing": (
        lambda: Image.new("L", (96, 72), 0).save("target.png.mask.png"),
        GOOD,
        AT,
        4,
        "no patch",
    ),
    "windows as large as the picture": (nothing, GOOD, [*AT, "--windows", "96"], 2, "windows of 96 px see all"),
    "windows no multiple": (nothing, GOOD, [*AT, "--windows", "50"], 4, "50 px are not a multiple of the patch 8"),
    "global view of nothing": (nothing, GOOD, [*AT, "--no-global-view"], 2, "give windows too"),
    "memory of words": (nothing, GOOD, [*AT, "--max-memory", "much"], 2, "--max-memory 'much' is no size"),
    "memory too small": (nothing, GOOD, [*AT, "--max-memory", "1kB"], 6, "use (smaller) windows"),
    "layers of words": (nothing, GOOD, [*AT, "--layers", "a"], 2, "--layers 'a' are no blocks"),
    "layers of sift": (nothing, GOOD, [*AT, "--layers", "3"], 2, "bundled:sift is none: leave layers out"),
    "layers and debias": (nothing, GOOD, [*AT, "--layers", "3", "--debias", "2"], 2, "leave out one of the two"),
    "debias everything": (nothing, GOOD, [*AT, "--debias", "384"], 2, "take 1 to 383"),
    "a turn of 45": (nothing, GOOD, [*AT, "--tta", "rot45"], 2, "--tta 'rot45' is not known"),
    "jitter no part": (nothing, GOOD, [*AT, "--jitter", "3"], 2, "take one of 1, 2, 4"),
    "zoom below 1": (nothing, GOOD, [*AT, "--zoom", "0.5"], 2, "zoom 0.5 does not magnify"),
    "candidates of nothing": (nothing, GOOD, [*AT, "--candidates", "2"], 2, "give jitter or zoom too"),
    "two encoders": (nothing, GOOD, [*AT, "--dino-size", "small"], 2, "not both"),
    "no weights": (nothing, GOOD, ["--json", "out.json"], 5, "dinov3-vitb16"),
    "no weights, small": (nothing, GOOD, ["--dino-size", "small"], 5, "dinov3-vits16"),
    "no weights, what works": (
        nothing,
        GOOD,
        ["--dino-size", "large"],
        5,
        "--encoder bundled:sift or bundled:vit-tiny16 works",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_nothing_is_written(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, positional, options, code, said = BAD[name]
    prepare()
    before = {path.name: path.read_bytes() if path.is_file() else b"" for path in folder.iterdir()}
    assert main(["locate", *positional, *options]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert {path.name: path.read_bytes() if path.is_file() else b"" for path in folder.iterdir()} == before


def test_when_the_picture_cannot_be_written_neither_is_the_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    before = sorted(folder.iterdir())
    assert main(["locate", *GOOD, *AT]) == 6
    assert "No space left" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
