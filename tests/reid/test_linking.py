"""Linking within an episode, from embeddings on: what `false_links` does to the cosine that joins tracks."""

from collections.abc import Callable

import pytest
import torch

from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.config import LinkConfig
from patchatlas.reid.files.embeddings import Embeddings, Row
from patchatlas.reid.files.memory import Memory
from patchatlas.reid.stages.linking import join
from patchatlas.stamp import Stamp

MakeTracklet = Callable[..., Tracklet]

ALIKE, BACK = 0.9, 0.8
"""Cosines: of two who are seen together, and of somebody who comes back with what they were before."""

PEOPLE = 6


def looks() -> torch.Tensor:
    """Of six people who have an axis each, but for the second, who is like the first; and of the third again, later."""
    rows = torch.eye(PEOPLE + 1, dtype=torch.float64)
    rows[1] = ALIKE * rows[0] + (1 - ALIKE**2) ** 0.5 * rows[1]
    rows[PEOPLE] = BACK * rows[2] + (1 - BACK**2) ** 0.5 * rows[PEOPLE]
    return rows.float()


@pytest.fixture
def joined(tracklet: MakeTracklet) -> Callable[..., Memory]:
    """Six people side by side for three seconds, far apart; four seconds later the third comes back, as track 7."""

    def run(**link: object) -> Memory:
        tracklets = [
            tracklet(number, range(100, 130) if number > PEOPLE else range(30), (100 * number, 0, 100 * number + 9, 20))
            for number in range(1, PEOPLE + 2)
        ]
        rows, vectors = [], []
        for one, vector in zip(tracklets, looks(), strict=True):
            for seen in one.observations[::5]:
                rows.append(Row(one.id, seen.frame, seen.time_s, seen.box, True, 1.0, {}))
                vectors.append(vector)
        made = Embeddings(torch.stack(vectors), tuple(rows), Stamp((("family", "by hand"),)), {})
        config = LinkConfig(**link)  # type: ignore[arg-type]
        return join(tracklets, made, config, ranks={frame: frame for frame in range(130)}, fps=10.0)[1]

    return run


def test_false_links_raises_the_cosine_above_that_of_strangers(joined: Callable[..., Memory]) -> None:
    """The two who are alike would be taken for each other, a third of six; for a tenth it must be higher than that."""
    plain, strict = joined(), joined(false_links=0.1)
    assert plain.links.threshold < BACK
    assert plain.links.identities[7] == plain.links.identities[3]
    assert strict.links.threshold == pytest.approx(ALIKE, abs=1e-6)
    assert len(set(strict.links.identities.values())) == PEOPLE + 1
    assert plain.fpir == pytest.approx(2 / PEOPLE)
    assert strict.fpir == 0


def test_false_links_does_not_lower_the_cosine(joined: Callable[..., Memory]) -> None:
    """Where more strangers are allowed than p(same) lets through, that stays the stricter of the two."""
    assert joined(false_links=0.99).links.threshold == joined().links.threshold


def test_false_links_holds_among_shared_neighbours(joined: Callable[..., Memory]) -> None:
    plain, strict = joined(rerank=True), joined(rerank=True, false_links=0.01)
    assert any("shared neighbours" in note for note in plain.notes)
    assert strict.links.threshold > plain.links.threshold
