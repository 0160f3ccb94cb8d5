"""`patchatlas reid gallery`: every action, in words and as JSON, and what it refuses."""

import json
import shutil
import subprocess
import sys

import pytest
from torch.nn.functional import normalize

from patchatlas.cli.main import main
from patchatlas.cli.reid_link import describe
from patchatlas.reid.config import make_config
from patchatlas.reid.engine import PerceptionEngine
from patchatlas.reid.gallery.match import link_read
from tests.reid.gallery.cast import crowd, episode, face
from tests.reid.scene import write_scene


@pytest.fixture(scope="module")
def linked(tmp_path_factory):
    """Six people; then four of them, one between numbers 1 and 2, and one who is new."""

    def faces(person):
        return normalize(face(0) + face(1), dim=0) if person == 20 else face(person)

    folder = tmp_path_factory.mktemp("linked") / "people"
    return link_read(folder, [episode("one", crowd(*range(6))), episode("two", crowd(20, 2, 3, 4, 5, 7), faces=faces)])


@pytest.fixture
def gallery(tmp_path, linked):
    """A copy of that gallery."""
    return shutil.copytree(linked.gallery, tmp_path / "people")


@pytest.fixture
def say(gallery, capsys):
    """Run an action; gives the exit code and what was printed: words, or the JSON object."""

    def run(*args, code=0, words=False):
        form = [] if words else ["--format", "json"]
        assert main(["reid", "gallery", args[0], "--gallery", str(gallery), *form, *args[1:]]) == code
        printed = capsys.readouterr()
        if code:
            return printed.err
        return printed.out if words else json.loads(printed.out)

    return run


def numbers(listed):
    return [one["number"] for one in listed["identities"]]


def test_list_and_show(say):
    listed = say("list")
    assert numbers(listed) == [1, 2, 3, 4, 5, 6, 7]
    assert listed["episodes"] == ["one", "two"]
    assert [one["sighting"] for one in listed["to_review"]] == ["two:1"]
    assert "7 identities in 2 episodes, 1 sightings to review" in say("list", words=True)
    shown = say("show", "3")
    assert [(span["episode"], span["track"], span["verdict"]) for span in shown["spans"]] == [
        ("one", 3, "new"),
        ("two", 2, "known"),
    ]
    assert "known: alike enough, and more than anybody else, cosine 0.9" in say("show", "3", words=True)


def test_merge_split_rename_and_undo(say):
    assert say("rename", "3", "anna")["identity"] == 3
    assert say("show", "anna")["number"] == 3
    assert say("split", "anna", "two:2")["to"] == 8
    assert say("show", "3")["episodes"] == ["one"]
    assert say("merge", "1", "7") == {"event": 5, "keep": 1, "gone": 7}
    assert numbers(say("list")) == [1, 2, 3, 4, 5, 6, 8]
    assert say("undo")["undone"] == 5
    assert say("undo", "4")["kind"] == "split"
    assert say("show", "anna")["episodes"] == ["one", "two"]
    told = say("list", "--events", words=True)
    assert "linked two: 4 known, 1 new, 1 unknown" in told
    assert "split two:2 from 3, as 8, undone by 7" in told
    assert "merged 7 into 1, undone by 6" in told
    assert "said by hand" not in say("show", "3", words=True)


def test_review(say):
    (asked,) = say("review")["to_review"]
    assert (asked["sighting"], asked["candidate"] in (1, 2)) == ("two:1", True)
    assert "may be" in say("review", words=True)
    assert "give one of --accept" in say("review", "two:1", code=2)
    assert "say which sighting" in say("review", "--accept", code=2)
    assert say("review", "two:1", "--accept")["identity"] == asked["candidate"]
    assert say("review")["to_review"] == []
    assert "these do: none" in say("review", "two:1", "--new", code=2)
    say("undo")
    assert say("review", "two:1", "--be", "2")["identity"] == 2
    assert "said by hand" in say("show", "2", words=True)
    assert "said that two:1 is 2" in say("list", "--events", words=True)
    say("undo")
    assert say("review", "two:1", "--new")["identity"] == 8


def test_link_names_whom_an_unknown_one_may_be(linked, say):
    """As `review` does."""
    (line,) = [line for line in describe(linked) if "unknown" in line]
    (asked,) = say("review")["to_review"]
    assert line.endswith(f"; may be person {asked['candidate']} or {asked['rival']}")
    assert {asked["candidate"], asked["rival"]} == {1, 2}


def test_corrections_do_not_wait_for_torch(gallery):
    """Who is never in the same frames as somebody is told from them by the tables alone."""
    script = f"""
import sys
from patchatlas.cli.main import main
def say(*args):
    assert main(["reid", "gallery", args[0], "--gallery", {str(gallery)!r}, *args[1:]]) == 0
say("rename", "1", "anna"), say("split", "3", "two:2"), say("review", "two:1", "--accept"), say("undo")
say("merge", "8", "3"), say("undo"), say("list")
print("loaded:", sorted({{"torch", "scipy"}} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["show", "99"], 2, "no identity 99"),
        (["show", "bob"], 2, "nobody is called 'bob'"),
        (["merge", "1", "2"], 2, "seen together"),
        (["split", "1", "one"], 2, "is no track of the gallery"),
        (["undo"], 2, "nothing to undo"),
    ],
)
def test_refusals(say, args, code, message):
    assert message in say(*args, code=code)


def test_no_gallery(tmp_path, capsys):
    assert main(["reid", "gallery", "list", "--gallery", str(tmp_path / "none")]) == 4
    assert "holds no gallery" in capsys.readouterr().err
    assert main(["reid", "gallery", "explode"]) == 2


def test_from_videos_to_people(tmp_path, capsys):
    """Two videos of six people, run, linked and listed by the command line alone."""
    episodes = []
    for name, frames in (("monday", 60), ("tuesday", 48)):
        (tmp_path / name).mkdir()
        video, boxes = write_scene(tmp_path / name, count=frames)
        result = PerceptionEngine(
            make_config(
                {
                    "fps": 10,
                    "detection": {"detector": "boxes", "boxes": boxes},
                    "tracking": {"patience_s": 0.3},
                    "embedding": {"crops_per_track": 6, "device": "cpu"},
                }
            )
        ).process_video(video, episode=name, output=tmp_path / "results")
        episodes.append(str(result.folder))
    assert main(["reid", "link", *episodes, "--set", "link.least_seen_s=0.5"]) == 0
    capsys.readouterr()
    gallery = str(tmp_path / "results" / "gallery")
    assert main(["reid", "gallery", "list", "--gallery", gallery, "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["number"], one["episodes"]) for one in listed["identities"]] == [
        (number, ["monday", "tuesday"]) for number in range(1, 7)
    ]
    assert listed["to_review"] == []
