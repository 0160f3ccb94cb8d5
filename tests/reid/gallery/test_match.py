"""Linking episodes to a gallery: who is known, new or unknown, and an episode that is linked again."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from patchatlas.errors import StampError, UsageError
from patchatlas.reid.config import LinkConfig
from patchatlas.reid.gallery import events, looks
from patchatlas.reid.gallery.catalogue import identities_of, waiting
from patchatlas.reid.gallery.match import link_read
from patchatlas.reid.gallery.store import dump, open_gallery
from patchatlas.stamp import Stamp
from tests.reid.gallery.cast import Walk, crowd, episode, face

PEOPLE = range(6)


def who(report, place=0):
    """Verdict and identity of each sighting, by local number."""
    return [(one.verdict, one.identity) for one in report.episodes[place].sightings]


def test_people_keep_their_numbers_and_strangers_get_new_ones(tmp_path):
    report = link_read(tmp_path / "g", [episode("one", crowd(*PEOPLE)), episode("two", crowd(5, 4, 9, 1, 0, 8))])
    assert who(report) == [("new", number) for number in range(1, 7)]
    assert who(report, 1) == [("known", 6), ("known", 5), ("new", 7), ("known", 2), ("known", 1), ("new", 8)]
    known = report.episodes[1].sightings[0]
    assert known.chance > 0.9
    assert known.likeness > known.margin > 0.03
    third = link_read(tmp_path / "g", [episode("three", crowd(9, 8, 7, 3, 2, 1))])
    assert who(third) == [("known", 7), ("known", 8), ("new", 9), ("known", 4), ("known", 3), ("known", 2)]
    json.dumps(third.to_json(), allow_nan=False)


def test_the_same_again_changes_nothing(tmp_path):
    episodes = [episode("one", crowd(*PEOPLE)), episode("two", crowd(*PEOPLE))]
    link_read(tmp_path / "g", episodes)
    with open_gallery(tmp_path / "g") as store:
        before = dump(store)
    again = link_read(tmp_path / "g", episodes)
    assert [one.state for one in again.episodes] == ["unchanged", "unchanged"]
    assert who(again, 1) == [("known", number) for number in range(1, 7)]
    with open_gallery(tmp_path / "g") as store:
        assert dump(store) == before


def test_a_second_gallery_of_the_same_episodes_is_the_same(tmp_path):
    for name in ("a", "b"):
        link_read(tmp_path / name, [episode("one", crowd(*PEOPLE)), episode("two", crowd(*PEOPLE))])
    with open_gallery(tmp_path / "a") as one, open_gallery(tmp_path / "b") as other:
        assert dump(one) == dump(other)
    files = [sorted((tmp_path / name / "vectors").glob("*/*")) for name in ("a", "b")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_between_two_people_is_unknown_and_waits(tmp_path):
    def faces(person):
        return normalize(face(0) + face(1), dim=0) if person == 20 else face(person)

    report = link_read(
        tmp_path / "g", [episode("one", crowd(*PEOPLE)), episode("two", crowd(20, 2, 3, 4, 5, 7), faces=faces)]
    )
    assert who(report, 1)[0] == ("unknown", None)
    assert who(report, 1)[1:] == [("known", 3), ("known", 4), ("known", 5), ("known", 6), ("new", 7)]
    with open_gallery(tmp_path / "g") as store:
        (asked,) = waiting(store)
        assert (asked.name, {asked.candidate, asked.rival}) == ("two:1", {1, 2})
        with store.writing():
            events.assign(store, asked.tracklets, 2)
        assert not waiting(store)
        assert identities_of(store)[1].episodes == ("one", "two")


def test_with_too_little_to_learn_from_nobody_is_named(tmp_path):
    episodes = [episode("one", crowd(0, 1)), episode("two", crowd(1, 0))]
    report = link_read(tmp_path / "g", episodes)
    assert [verdict for verdict, _ in who(report, 1)] == ["unknown", "unknown"]
    assert "too short to say" in report.episodes[1].notes[0]
    told = link_read(tmp_path / "h", episodes, LinkConfig(cosine=0.7))
    assert who(told, 1) == [("known", 2), ("known", 1)]


def test_where_tracks_change_from_one_to_another_nobody_is_named(tmp_path):
    # Every track is two people, so parts of one track are less alike than those who are together.
    def turned(person):
        turned.calls = getattr(turned, "calls", 0) + 1
        return face(person if turned.calls % 6 in (1, 2, 3) else person + 30)

    episodes = [episode(name, crowd(*PEOPLE), faces=turned) for name in ("one", "two")]
    report = link_read(tmp_path / "g", episodes)
    assert {verdict for verdict, _ in who(report, 1)} == {"unknown"}
    assert "do not tell the same from others" in report.episodes[1].notes[0]


def test_those_seen_together_are_never_one_identity(tmp_path):
    # Two look like number 1, and are there at the same time; a third one comes later.
    walks = [Walk(0, row=1), Walk(0, row=5, noise=0.2), Walk(0, first=60, row=7), *crowd(2, 3, 4)]
    report = link_read(tmp_path / "g", [episode("one", crowd(*PEOPLE)), episode("two", walks)])
    given = who(report, 1)
    assert given[0] == given[2] == ("known", 1)
    assert given[1][1] != 1


def test_a_video_linked_under_two_names_keeps_apart_who_is_together(tmp_path):
    first = episode("run-a", crowd(*PEOPLE), source="video")
    # The same video again: the first person is the same boxes; another one looks like them and is seen with them.
    again = [Walk(0), Walk(0, row=9, noise=0.1), *crowd(1, 2, 3, 4)]
    report = link_read(tmp_path / "g", [first, episode("run-b", again, source="video")])
    assert who(report, 1)[0] == ("known", 1)
    assert who(report, 1)[1][1] != 1
    assert who(report, 1)[2:] == [("known", 2), ("known", 3), ("known", 4), ("known", 5)]


def test_classes_are_not_mixed(tmp_path):
    cats = [Walk(0, label="cat"), *crowd(1, 2, 3, 4, 5)]
    episodes = [episode("one", crowd(*PEOPLE)), episode("two", cats)]
    assert who(link_read(tmp_path / "g", episodes), 1)[0] == ("new", 7)
    assert who(link_read(tmp_path / "h", episodes, LinkConfig(same_label=False)), 1)[0] == ("known", 1)


@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_either_index_finds_the_same_people(tmp_path, index):
    episodes = [episode("one", crowd(*range(12))), episode("two", crowd(*range(6, 18)))]
    report = link_read(tmp_path / "g", episodes, index=index)
    assert who(report, 1) == [("known", n) for n in range(7, 13)] + [("new", n) for n in range(13, 19)]


def test_other_vectors_are_refused_before_anything_is_written(tmp_path):
    link_read(tmp_path / "g", [episode("one", crowd(*PEOPLE))])
    with open_gallery(tmp_path / "g") as store:
        before, stamp = dump(store), store.stamp
    other = Stamp(tuple((name, 768 if name == "dim" else value) for name, value in stamp.facts))
    two, three = episode("two", crowd(*PEOPLE)), episode("three", crowd(*PEOPLE), stamp=other)
    with pytest.raises(StampError, match=r"gallery .* and the episode three .*dim: \d+ and 768.*give --gallery OTHER"):
        link_read(tmp_path / "g", [three])
    with pytest.raises(StampError, match=r"the episode two and the episode three .* link them apart"):
        link_read(tmp_path / "g", [two, three])
    with open_gallery(tmp_path / "g") as store:
        assert dump(store) == before


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ([], "no episode to link"),
        ([("a", "v"), ("a", "v")], "have the same name"),
        ([("one", "another video")], "of another video"),
    ],
)
def test_episodes_that_cannot_be_told_apart(tmp_path, episodes, message):
    link_read(tmp_path / "g", [episode("one", crowd(*PEOPLE))])
    with pytest.raises(UsageError, match=message):
        link_read(tmp_path / "g", [episode(name, crowd(*PEOPLE), source=source) for name, source in episodes])


def test_linked_again_people_keep_numbers_and_what_was_said(tmp_path):
    first, second = episode("one", crowd(*PEOPLE)), episode("two", crowd(0, 1, 2, 7, 8, 9))
    link_read(tmp_path / "g", [first, second])
    with open_gallery(tmp_path / "g") as store, store.writing():
        events.rename(store, 8, "anna")
        three = [number for (number,) in store.rows("SELECT id FROM tracklets WHERE identity = 3 ORDER BY id")]
        events.split(store, 3, three[1:])  # who of `two` was taken for number 3 is somebody else, number 10
        events.rename(store, 10, "bela")
    # The tracker found other tracks: other numbers, one of them in two parts, every other frame only.
    walks = [
        Walk(9, track=1),
        Walk(8, track=2),
        Walk(2, track=3, frames=20),
        Walk(7, track=4),
        Walk(1, track=5),
        Walk(0, track=6),
    ]
    report = link_read(tmp_path / "g", [episode("two", walks, step=2)])
    assert report.episodes[0].state == "linked again"
    assert who(report) == [("new", 9), ("new", 8), ("known", 10), ("new", 7), ("known", 2), ("known", 1)]
    assert not report.episodes[0].notes
    with open_gallery(tmp_path / "g") as store:
        assert {one.number: one.name for one in identities_of(store) if one.name} == {8: "anna", 10: "bela"}
        assert store.rows("SELECT name FROM episodes ORDER BY id") == [("one",), ("two",)]
        with store.writing():
            events.undo(store, 4)  # the split: event 3 named anna
        assert identities_of(store)[2].episodes == ("one", "two")


def test_what_was_said_about_boxes_that_are_gone_is_listed(tmp_path):
    link_read(tmp_path / "g", [episode("one", crowd(*PEOPLE)), episode("two", crowd(0, 1, 2, 7, 8, 9))])
    with open_gallery(tmp_path / "g") as store, store.writing():
        three = [number for (number,) in store.rows("SELECT id FROM tracklets WHERE identity = 3 ORDER BY id")]
        events.split(store, 3, three[1:])
    report = link_read(tmp_path / "g", [episode("two", crowd(0, 1, 7, 8, 9))])
    assert "event 3 has no effect any more: its tracklets are gone" in report.episodes[0].notes[0]


def test_other_settings_link_again(tmp_path):
    one = episode("one", crowd(*PEOPLE))
    link_read(tmp_path / "g", [one])
    assert link_read(tmp_path / "g", [one], LinkConfig(accept=0.95)).episodes[0].state == "linked again"


def test_many_small_files_are_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr(looks, "MOST_SEGMENTS", 5)
    for k in range(6):
        report = link_read(tmp_path / "g", [episode(f"e{k}", crowd(*range(k, k + 6)))])
    assert [identity for _, identity in who(report)] == [6, 7, 8, 9, 10, 11]
    with open_gallery(tmp_path / "g") as store:
        segments = store.value("SELECT count(*) FROM segments")
        assert segments <= 6
        with store.writing():  # the next writer removes what is not in use
            pass
        assert len(list((tmp_path / "g" / "vectors").glob("*/*"))) == segments


def test_tracks_without_identity_stay_out(tmp_path):
    one = episode("one", crowd(*PEOPLE))
    links = replace(one.memory.links, identities={track: track for track in range(1, 6)}, unknown=(6,))
    report = link_read(tmp_path / "g", [replace(one, memory=replace(one.memory, links=links))])
    assert report.episodes[0].left_out == 1
    assert len(who(report)) == 5


def test_an_empty_episode_is_linked(tmp_path):
    one = episode("one", crowd(0))
    nobody = replace(one.memory, links=replace(one.memory.links, identities={}), rows={})
    report = link_read(tmp_path / "g", [replace(one, tracklets=(), memory=nobody)])
    assert report.episodes[0].sightings == ()
    assert torch.is_tensor(one.embeddings.vectors)
