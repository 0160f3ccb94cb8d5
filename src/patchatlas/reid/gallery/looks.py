"""What the identities of a gallery look like: kept up with who is whom, and compared with those of an episode.

What linking put together is one look of an identity; what a person put there besides, such as the back of somebody
whose front was known, is another. A look is compared through its running mean and the tracklets that it had last, half
and half: the likeness of a group of tracklets is the mean, by their weights, of those two. All of that is linear in the
vectors, so one composite vector a look and one a group are enough. An identity is as like as the most alike of its
looks.

Axes: n tracklets, g groups, l looks, d features.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from patchatlas.reid.gallery.prototypes import PrototypeRules, prototypes_of, weights_of
from patchatlas.reid.gallery.search import BLOCK_ROWS, FaissGraph, Index, nearest
from patchatlas.reid.gallery.store import Store

GATE = "least_likeness"
SEEN = "least_seen_s"
"""Keys of `meta`: by which rules prototypes are admitted, as the last link said."""

HITS = 64
"""Prototypes found for each tracklet; those of some eight identities at least."""

MOST_SEGMENTS = 64
"""Files of vectors from which they are put together into one."""

_OF_TRACKLETS = (
    "SELECT tracklets.id, tracklets.segment, tracklets.row, seen_s, coalesce(decided, -sighting) FROM tracklets "
    "JOIN sightings ON sightings.id = sighting WHERE identity = ? "
    "ORDER BY episode, (SELECT min(frame) FROM observations WHERE tracklet = tracklets.id), track"
)
"""Of an identity; those of one look have the same last column: who linking said they are, or else which sighting."""


def refresh(store: Store) -> None:
    """Write the prototypes of all identities whose tracklets are not those that they were made of, by the rules of the
    last link; the others stay as they are."""
    gate = float(store.value("SELECT value FROM meta WHERE key = ?", GATE) or -1)
    least_seen_s = float(store.value("SELECT value FROM meta WHERE key = ?", SEEN) or 0)
    rules = PrototypeRules(least_seen_s=least_seen_s)
    made = dict(store.rows("SELECT identity, made_of FROM looks"))
    means: list[ndarray] = []
    places: list[dict[str, Any]] = []
    alive = {identity for (identity,) in store.rows("SELECT DISTINCT identity FROM tracklets WHERE identity > 0")}
    for identity in sorted(alive | made.keys()):
        rows = store.rows(_OF_TRACKLETS, identity)
        made_of = ";".join(f"{row[0]}={row[4]}" for row in rows)
        if made.get(identity) == made_of:
            continue
        store.db.execute("DELETE FROM prototypes WHERE identity = ?", (identity,))
        store.db.execute("DELETE FROM looks WHERE identity = ?", (identity,))
        if rows:
            store.insert("looks", identity=identity, made_of=made_of)
        for look in dict.fromkeys(row[4] for row in rows):
            own = [row for row in rows if row[4] == look]
            vectors, seen_s = store.vectors([(row[1], row[2]) for row in own]), np.array([row[3] for row in own])
            found = prototypes_of(vectors, seen_s, least_likeness=gate, rules=rules)
            key = {"identity": identity, "look": look}
            places.append({**key, "place": 0, "weight": 1.0, "row": len(means)})
            means.append(found.mean.astype(np.float32))
            weights = weights_of(seen_s).tolist()
            for place, k in enumerate(found.recent, start=1):
                number, segment, row = own[k][:3]
                here = {"segment": segment, "row": row, "tracklet": number}
                places.append({**key, "place": place, "weight": weights[k], **here})
    if means:
        added = store.add_vectors(np.stack(means))
        for columns in places:
            store.insert("prototypes", **{"segment": added, **columns})
    if store.value("SELECT count(*) FROM segments") > MOST_SEGMENTS:
        _put_together(store)


def shortlist(store: Store, queries: Sequence[ndarray], *, index: Index) -> list[int]:
    """Identities that have a prototype among the `HITS` most like one of the queries, in order of their numbers.

    Raises:
        MissingExtraError: the index is `faiss` and that is not installed.
    """
    places = store.rows("SELECT identity, segment, row FROM prototypes ORDER BY segment, row, identity")
    if not places or not queries:
        return []
    stacked = np.stack(queries).astype(np.float32)
    if index == "exact":
        blocks = (
            store.vectors([(segment, row) for _, segment, row in places[begin : begin + BLOCK_ROWS]])
            for begin in range(0, len(places), BLOCK_ROWS)
        )
        _, rows = nearest(stacked, blocks, hits=HITS)
        return sorted({places[row][0] for row in np.unique(rows).tolist()})
    segments = store.rows("SELECT id, file, rows FROM segments ORDER BY id")
    begins = dict(
        zip([one[0] for one in segments], np.cumsum([0, *(one[2] for one in segments)]).tolist(), strict=False)
    )
    stamp = store.stamp
    graph = FaissGraph(
        store.folder / "faiss" / f"{stamp.digest[:16] if stamp else ''}.faiss",
        {file: store.segment(number) for number, file, _ in segments},
    )
    # Vectors that are no prototype any more are found as well; asking for more makes up for them.
    spare = sum(one[2] for one in segments) // len(places) + 1
    _, rows = graph.nearest(stacked, hits=HITS * spare)
    of_row: dict[int, list[int]] = defaultdict(list)
    for identity, segment, row in places:
        of_row[begins[segment] + row].append(identity)
    return sorted({identity for row in np.unique(rows).tolist() for identity in of_row[row]})


def composites(store: Store, identities: Sequence[int]) -> tuple[Float64[ndarray, "l d"], list[int]]:
    """For each look of some identities half its running mean and half the mean, by weight, of the tracklets kept as
    they are; and the place in `identities` of whose look it is."""
    out, whose = [], []
    for place, identity in enumerate(identities):
        rows = store.rows(
            "SELECT look, weight, segment, row FROM prototypes WHERE identity = ? ORDER BY look, place", identity
        )
        vectors = store.vectors([(segment, row) for _, _, segment, row in rows]).astype(np.float64)
        weights = np.array([weight for _, weight, _, _ in rows])
        for look in dict.fromkeys(row[0] for row in rows):
            first, *recent = (k for k, row in enumerate(rows) if row[0] == look)
            out.append(0.5 * vectors[first] + 0.5 * (weights[recent] @ vectors[recent]) / weights[recent].sum())
            whose.append(place)
    return (np.stack(out) if out else np.zeros((0, store.value("SELECT dim FROM stamps") or 0))), whose


def composite(vectors: Float64[ndarray, "n d"], seen_s: Float64[ndarray, " n"]) -> Float64[ndarray, " d"]:
    """The mean of a group's tracklets by their weights; its product with that of a look is their likeness."""
    weights = weights_of(seen_s)
    mean: ndarray = weights @ vectors / weights.sum()
    return mean


def _put_together(store: Store) -> None:
    """Write all vectors that are in use to one file; the next writer removes the others."""
    used = [
        (segment, row)
        for segment, row in store.rows(
            "SELECT segment, row FROM tracklets UNION SELECT segment, row FROM prototypes ORDER BY 1, 2"
        )
    ]
    former = [number for (number,) in store.rows("SELECT id FROM segments")]
    whole = store.add_vectors(store.vectors(used))
    moved = [(whole, place, segment, row) for place, (segment, row) in enumerate(used)]
    for table in ("tracklets", "prototypes"):
        # The new segment's number is above all former ones, so a row that has moved is not met again.
        store.db.executemany(f"UPDATE {table} SET segment = ?, row = ? WHERE segment = ? AND row = ?", moved)
    store.db.executemany("DELETE FROM segments WHERE id = ?", [(number,) for number in former])
