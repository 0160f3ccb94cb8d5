"""The review page of a session: opens each photo once, and cuts out what the page shows of it."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from patchatlas.files import write_bytes
from patchatlas.io.disk import disk_errors
from patchatlas.io.reasons import PictureError
from patchatlas.locate.automark.answer import Answer, Point
from patchatlas.locate.automark.photos import read_planned
from patchatlas.locate.automark.plan import Reference, Target, Trouble
from patchatlas.locate.automark.run import Marked, Session
from patchatlas.viz.review import Case, close_up, overview, review_page

Cut = tuple[str, Point]
"""Name of a photo and a point in it."""


def write_review(path: Path, session: Session) -> tuple[Trouble, ...]:
    """Write the page in one step. Gives the photos that it could not show, see `review_of`.

    Raises:
        PictureError: as `review_of`.
        ResourceError: the disk is full, or the folder may not be written.
    """
    page, unseen = review_of(session)
    with disk_errors(path):
        # A name that is not UTF-8 comes as lone surrogates, which no page can hold.
        write_bytes(path, page.encode(errors="backslashreplace"))
    return unseen


def review_of(session: Session) -> tuple[str, tuple[Trouble, ...]]:
    """The page, and the photos that cannot be read any more or have changed since their marks were written.

    Marks that are absent are listed without pictures, and so are those that such a photo would be needed for.

    Raises:
        PictureError: such a photo, in a session that is strict.
    """
    close_ups, overviews, unseen = _cut(session)
    cases = [_case(one, answer, close_ups, overviews) for one in session.marked for answer in one.answers]
    found = sum(one.proposed for one in session.marked)
    page = review_page(
        cases,
        title=f"Marks proposed for {session.plan.name}",
        lead=f"{found} marks are proposed in {len(session.marked)} photos, looked for with {session.spec.name}. The "
        "most doubtful come first. Correct or remove a proposal in the mark file, then confirm the rest.",
        skipped=[(one.file, one.reason) for one in (*session.skipped, *unseen)],
        notes=[(one.file, one.reason) for one in session.plan.notes],
    )
    return page, unseen


def _cut(session: Session) -> tuple[dict[Cut, bytes], dict[Cut, bytes], tuple[Trouble, ...]]:
    """Close-ups of all marks and places that are shown, overviews of the places, and the photos that gave none."""
    wanted: dict[str, set[Point]] = defaultdict(set)
    places: set[Cut] = set()
    for one in session.marked:
        for answer in filter(_shown, one.answers):
            wanted[answer.source].add(answer.source_xy)
            wanted[one.target.name].add(answer.target_xy)
            places.add((one.target.name, answer.target_xy))
    photos: dict[str, Reference | Target] = {one.target.name: one.target for one in session.marked}
    photos |= {reference.name: reference for reference in session.references}
    close_ups: dict[Cut, bytes] = {}
    overviews: dict[Cut, bytes] = {}
    unseen: list[Trouble] = []
    for name, points in wanted.items():
        photo = photos[name]
        try:
            pixels = read_planned(photo, max_pixels=session.settings.max_pixels).pixels
        except PictureError as error:
            if session.settings.strict:
                raise
            told = Trouble.of(name, error, folder=photo.path.parent)
            unseen.append(Trouble(name, f"marked, but not shown in the review: {told.reason}"))
            continue
        for xy in points:
            close_ups[name, xy] = close_up(pixels, xy)
            if (name, xy) in places:
                overviews[name, xy] = overview(pixels, xy)
    return close_ups, overviews, tuple(unseen)


def _shown(answer: Answer) -> bool:
    return answer.state != "absent" or answer.proposed


def _case(one: Marked, answer: Answer, close_ups: Mapping[Cut, bytes], overviews: Mapping[Cut, bytes]) -> Case:
    source, place = (answer.source, answer.source_xy), (one.target.name, answer.target_xy)
    pictures = None
    if _shown(answer) and source in close_ups and place in close_ups:
        pictures = (close_ups[source], close_ups[place], overviews[place])
    return Case(
        photo=one.target.name,
        uuid=answer.uuid,
        state=answer.state,
        confidence=answer.confidence,
        proposed=answer.proposed,
        reason=answer.reason,
        source=answer.source,
        facts=_facts(answer),
        pictures=pictures,
    )


def _facts(answer: Answer) -> list[tuple[str, str]]:
    x, y = answer.mel
    told = [("pixel", f"x {x}, y {y}; the peak is {answer.spread_px:.1f} px wide (1 sigma)")]
    if answer.predicted_xy is not None:
        told.append(
            ("by the other marks", f"{answer.prior_px:.1f} px away, give or take {answer.prior_sigma_px:.1f} px")
        )
    if answer.rank:
        told.append(("place", f"its runner-up number {answer.rank}, which fits the other marks better"))
    if answer.gap_px is not None:
        safe = "" if answer.identity_safe else ": too near to be sure which of the two this is"
        told.append(("next mark", f"{answer.gap_px:.1f} px away{safe}"))
    told.append(("known from", f"{answer.views} photos"))
    return told
