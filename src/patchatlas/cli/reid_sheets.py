"""The pages of `patchatlas reid showcase`: what an episode says of each identity, in words and crops."""

from patchatlas.cli.reid_pictures import Cuts
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.episode import Episode
from patchatlas.reid.evidence import Case, Pair, cases
from patchatlas.viz.identities import Comparison, Crop, Entry, Piece, Sheet, contents_page, sheet_page
from patchatlas.viz.tracks import identity_colour


def sheets(episode: Episode, cuts: Cuts, *, back: str) -> dict[str, str]:
    """The page of each identity, by file name.

    Args:
        back: file of the page of contents.
    """
    portraits = list(episode.portraits.values())
    found = cases(portraits, episode.identities, episode.memory.apart, calibration=episode.calibration)
    return {
        sheet_file(case.identity): sheet_page(
            _sheet(episode, case, cuts), title=f"Identity {case.identity} of {episode.name}", back=back
        )
        for case in found
    }


def sheet_file(identity: int) -> str:
    """Name of the page of an identity."""
    return f"identity-{identity:03}.html"


def contents(episode: Episode, cuts: Cuts, *, video: str | None) -> str:
    """The page that names all identities.

    Args:
        video: file of the annotated video, if there is one.
    """
    entries = []
    for identity, own in episode.members.items():
        spans = (own[0].observations[0].time_s, max(one.observations[-1].time_s for one in own))
        entries.append(
            Entry(
                file=sheet_file(identity),
                name=f"Identity {identity}",
                colour=identity_colour(identity),
                face=cuts.face(*(one.id for one in own)),
                cells=(f"{_span(*spans)}", f"{sum(map(_lasts, own)):.1f} s", str(len(own))),
            )
        )
    by_number = {one.id: one for one in episode.tracklets}
    run, links = episode.run, episode.memory.links
    seen_by = f"boxes by {run['detector']['name']}, looks by {run['encoder']['name']}"
    return contents_page(
        entries,
        title=f"{episode.name}: {len(entries)} identities",
        lead=f"Who was seen in {run['video']['name']}: {seen_by}.",
        facts=_facts(episode),
        unknown=[_piece(by_number[number], cuts) for number in links.unknown],
        doubts=[
            (
                _who(doubt.tracklet, doubt.identity),
                doubt.why if doubt.candidate == doubt.identity else f"{doubt.why}: identity {doubt.candidate}",
                _alike(doubt.likeness, doubt.chance),
            )
            for doubt in links.doubts
        ],
        video=video,
    )


def _facts(episode: Episode) -> list[tuple[str, str]]:
    run, memory = episode.run, episode.memory
    counts, video, learnt = run["counts"], run["video"], memory.calibration
    rows, columns = video["size_hw"]
    facts = [
        ("video", f"{video['name']}, {columns} x {rows}, {video['duration_s']:.1f} s"),
        ("looked at", f"{counts['frames']} frames, {counts['boxes']} boxes"),
        (
            "tracks",
            f"{counts['tracks']}, of which {counts['unknown']} unknown and {counts['second_boxes']} second boxes",
        ),
        ("merged from", f"a mean cosine of {memory.links.threshold:.3f}"),
    ]
    if learnt is not None:
        told = f"{learnt.same} pairs of the same and {learnt.different} of different, error {learnt.ece:.3f} (ECE)"
        facts.append(("p(same) learnt from", told))
    for name, share in (("strangers above that", memory.fpir), ("the same below that", memory.fnir)):
        if share == share:  # not NaN
            facts.append((name, f"{share:.1%}"))
    facts.append(("encoder", f"{run['encoder']['name']}, stamp {episode.stamp.digest[:12]}"))
    facts += [(f"video is {kind}", words) for kind, words in run["problems"].items()]
    facts += [("note", words) for words in (*run["notes"], *memory.notes)]
    return facts


def _sheet(episode: Episode, case: Case, cuts: Cuts) -> Sheet:
    own = episode.members[case.identity]
    labels = sorted({one.label for one in own})
    facts = [
        ("seen", "; ".join(_when(one) for one in own)),
        ("in all", f"{sum(map(_lasts, own)):.1f} s, {sum(len(one.observations) for one in own)} boxes"),
        ("class", ", ".join(labels)),
    ]
    return Sheet(
        number=case.identity,
        name=f"Identity {case.identity}",
        colour=identity_colour(case.identity),
        facts=facts,
        pieces=tuple(_piece(one, cuts, _because(episode, one.id)) for one in own),
        joins=tuple(_comparison(episode, pair, cuts, "") for pair in case.joins if _both(pair, cuts)),
        apart=tuple(_comparison(episode, pair, cuts, "of ") for pair in case.apart if _both(pair, cuts)),
        tracks=case.tracks,
        cosines=tuple(tuple(row) for row in case.cosines.tolist()),
        why="Groups of tracks are merged while the mean cosine between them is "
        f"{episode.memory.links.threshold:.3f} or more and no rule keeps any two of them apart. Below is each track "
        "after the first beside the one that it resembles most.",
    )


def _because(episode: Episode, number: int) -> str:
    reason = next((one for one in episode.memory.links.reasons if one.tracklet == number), None)
    if reason is None:
        return ""
    told = []
    if reason.likeness is not None:
        told.append(f"{_alike(reason.likeness, reason.chance)} with its other tracks on average")
    if reason.rival is not None and reason.rival_likeness is not None:
        told.append(f"next is identity {reason.rival} with {reason.rival_likeness:.3f}")
    return "; ".join(told)


def _piece(tracklet: Tracklet, cuts: Cuts, because: str = "") -> Piece:
    boxes = len(tracklet.observations)
    facts = f"{boxes} box{'' if boxes == 1 else 'es'}"
    return Piece(
        number=tracklet.id,
        when=_when(tracklet),
        facts=f"{facts}; {because}" if because else facts,
        crops=cuts.crops(tracklet.id),
    )


def _both(pair: Pair, cuts: Cuts) -> bool:
    return cuts.face(pair.one) is not None and cuts.face(pair.other) is not None


def _comparison(episode: Episode, pair: Pair, cuts: Cuts, of: str) -> Comparison:
    faces = cuts.face(pair.one), cuts.face(pair.other)
    assert faces[0] is not None
    assert faces[1] is not None
    other = episode.identities.get(pair.other)
    whose = f" ({'unknown' if other is None else f'identity {other}'})" if of else ""
    crops: tuple[Crop, Crop] = (faces[0], faces[1])
    return Comparison(
        names=(f"Track {pair.one}", f"Track {pair.other}{whose}"),
        crops=crops,
        cosine=pair.likeness,
        chance=pair.chance,
        rules=tuple((gate.passed, gate.words) for gate in pair.gates),
    )


def _who(track: int, identity: int | None) -> str:
    return f"track {track}, {'unknown' if identity is None else f'identity {identity}'}"


def _alike(cosine: float, chance: float | None) -> str:
    return f"cosine {cosine:.3f}" + ("" if chance is None else f", p(same) {chance:.2f}")


def _when(tracklet: Tracklet) -> str:
    return _span(tracklet.observations[0].time_s, tracklet.observations[-1].time_s)


def _span(start: float, end: float) -> str:
    return f"{start:.1f} to {end:.1f} s"


def _lasts(tracklet: Tracklet) -> float:
    return tracklet.observations[-1].time_s - tracklet.observations[0].time_s
