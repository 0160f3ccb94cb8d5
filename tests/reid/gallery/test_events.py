"""What people say about identities: merge, split, assign, rename, and taking any of it back."""

import shutil
from pathlib import Path

import pytest

from patchatlas.errors import UsageError
from patchatlas.reid.gallery import events
from patchatlas.reid.gallery.catalogue import identities_of
from patchatlas.reid.gallery.match import link_read
from patchatlas.reid.gallery.store import Store, dump, open_gallery
from tests.reid.gallery.cast import Walk, crowd, episode


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people in `one`, numbers 1 to 6; three of them and three others, 7 to 9, in `two`."""
    folder = tmp_path_factory.mktemp("linked") / "g"
    link_read(folder, [episode("one", crowd(*range(6))), episode("two", crowd(0, 1, 2, 7, 8, 9))])
    return folder


@pytest.fixture
def gallery(tmp_path: Path, linked: Path):
    """A copy of that gallery, open."""
    shutil.copytree(linked, tmp_path / "g")
    with open_gallery(tmp_path / "g") as store:
        yield store


def people(store: Store) -> dict[int, list[int]]:
    """Tracklets of each identity."""
    found: dict[int, list[int]] = {}
    for number, identity in store.rows("SELECT id, identity FROM tracklets ORDER BY id"):
        found.setdefault(identity, []).append(number)
    return found


def looks(store: Store) -> list[list]:
    return [row[:2] + row[-1:] for row in dump(store)["prototypes"]]


def test_a_merge_joins_tracks_and_looks_and_is_taken_back(gallery):
    before, looked = people(gallery), looks(gallery)
    with gallery.writing():
        event = events.merge(gallery, 4, 7)
    assert people(gallery)[4] == before[4] + before[7]
    assert 7 not in people(gallery)
    # What linking had put together stays one look each: a mean (no tracklet) and the tracklets.
    assert [row[1:] for row in looks(gallery) if row[0] == 4] == [
        [4, None],
        [4, *before[4]],
        [7, None],
        [7, *before[7]],
    ]
    with gallery.writing():
        assert events.undo(gallery).number == event
    assert (people(gallery), looks(gallery)) == (before, looked)


def test_people_seen_together_are_not_merged(gallery):
    before = dump(gallery)
    with pytest.raises(UsageError, match=r"1 and 2 cannot be one person: tracks one:1 and one:2 .*and 1 more"):
        with gallery.writing():
            events.merge(gallery, 1, 2)
    assert dump(gallery) == before


def test_a_split_makes_somebody_new_who_keeps_the_number(gallery):
    before = people(gallery)
    with gallery.writing():
        event, new = events.split(gallery, 1, before[1][1:])
    assert (people(gallery)[1], people(gallery)[new]) == (before[1][:1], before[1][1:])
    with gallery.writing():
        events.undo(gallery, event)
    assert people(gallery) == before
    with gallery.writing():
        assert events.split(gallery, 1, before[1][1:])[1] == new + 1  # numbers are never given twice


def test_events_are_taken_back_in_any_order(gallery):
    before = people(gallery)
    with gallery.writing():
        merged = events.merge(gallery, 4, 7)
        events.rename(gallery, 4, "anna")
        split, new = events.split(gallery, 4, before[7])
        events.undo(gallery, merged)
    # The split still holds: it says of those tracks who they are, whoever they were.
    assert people(gallery)[new] == before[7]
    assert people(gallery)[4] == before[4]
    with gallery.writing():
        events.undo(gallery, split)
    assert people(gallery) == before
    assert [one.name for one in identities_of(gallery) if one.number == 4] == ["anna"]


def test_an_undoing_can_be_undone(gallery):
    with gallery.writing():
        merged = events.merge(gallery, 4, 7)
        after = people(gallery)
        events.undo(gallery)
        undoing = events.log_of(gallery)[-1]
        events.undo(gallery, undoing.number)
    assert people(gallery) == after
    log = {event.number: event for event in events.log_of(gallery)}
    assert (log[merged].undone_by, log[undoing.number].undone_by) == (None, undoing.number + 1)


def test_what_has_lost_its_effect_is_said(gallery):
    with gallery.writing():
        events.merge(gallery, 4, 7)
        events.undo(gallery)
        undoing = events.log_of(gallery)[-1].number
        later = events.merge(gallery, 5, 7)
        events.undo(gallery, undoing)
    # In the order in which they were said: 7 became 4, and then there was no 7 left to become 5.
    log = {event.number: event for event in events.log_of(gallery)}
    assert log[later].blocked == "nobody is 7 any more"
    assert 7 not in people(gallery)


def test_what_cannot_be_had_back_is_refused(gallery, tmp_path):
    with gallery.writing():
        events.merge(gallery, 4, 7)
        events.undo(gallery)
        undoing = events.log_of(gallery)[-1].number
    link_read(tmp_path / "g", [episode("two", crowd(0, 1, 2, 8, 9))])
    with pytest.raises(UsageError, match="cannot be had back: nobody is 7 any more"), gallery.writing():
        events.undo(gallery, undoing)


def test_names_go_along_and_are_unique(gallery):
    with gallery.writing():
        events.rename(gallery, 7, "anna")
        with pytest.raises(UsageError, match="identity 7 is called 'anna' already"):
            events.rename(gallery, 4, "anna")
        events.merge(gallery, 4, 7)
    assert {one.number: one.name for one in identities_of(gallery)}[4] == "anna"
    with gallery.writing():
        events.rename(gallery, 4, None)
    assert {one.number: one.name for one in identities_of(gallery)}[4] is None


def test_somebody_new_after_a_merge_is_compared_with_both(gallery, tmp_path):
    with gallery.writing():
        events.merge(gallery, 4, 7)
    report = link_read(tmp_path / "g", [episode("three", crowd(3, 1, 2, 9, 8, 5))])
    assert report.episodes[0].sightings[0].identity == 4
    other = link_read(tmp_path / "g", [episode("four", [Walk(7), *crowd(1, 2, 9, 8, 5)])])
    assert other.episodes[0].sightings[0].identity == 4


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (lambda store: events.merge(store, 4, 4), "the same identity"),
        (lambda store: events.merge(store, 4, 99), "no identity 99"),
        (lambda store: events.split(store, 1, [2]), "one:2 is not of identity 1, which has one:1, two:1"),
        (lambda store: events.split(store, 1, []), "no track was named"),
        (lambda store: events.split(store, 4, [4]), "all tracks of 4"),
        (lambda store: events.rename(store, 1, "12"), "is no name"),
        (lambda store: events.rename(store, 1, " a"), "is no name"),
        (lambda store: events.rename(store, 99, "a"), "no identity 99"),
        (lambda store: events.assign(store, [1], 2), "seen together"),
        (lambda store: events.undo(store), "nothing to undo"),
        (lambda store: events.undo(store, 1), "linked an episode"),
        (lambda store: events.undo(store, 99), "no event 99"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(gallery, say, message):
    before = dump(gallery)
    with pytest.raises(UsageError, match=message), gallery.writing():
        say(gallery)
    assert dump(gallery) == before


def test_nothing_is_undone_twice(gallery):
    with gallery.writing():
        event = events.rename(gallery, 1, "anna")
        events.undo(gallery, event)
        with pytest.raises(UsageError, match=f"event {event} was undone by event {event + 1}"):
            events.undo(gallery, event)
