"""Mutual nearest neighbours and their coherence, by hand and against the plain definition."""

import pytest
import torch

from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import ShapeError, StampError
from patchatlas.features import FeatureMap
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.matching import turns
from patchatlas.matching.turns import NOBODY, match_maps, mutual_nearest
from patchatlas.stamp import Stamp

SPEC = FakeEncoder(patch=(8, 8)).spec


def map_of(numbers: list[list[int]]) -> FeatureMap:
    """Patch (r, c) shows thing number `numbers[r][c]`; different things have nothing in common."""
    table = torch.tensor(numbers)
    rows, columns = table.shape
    grid = PatchGrid.on(Frame.whole((8 * rows, 8 * columns)), (8, 8))
    return FeatureMap(torch.eye(32)[table.flatten()], grid, SPEC, Stamp.of(SPEC))


NINE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_partners_by_hand() -> None:
    """Source 0 and target 1 are each other's nearest, so are 1 and 0 (cosine 0.6); source 2 is nobody's."""
    source = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.9, 0.0, 0.1]])
    target = torch.tensor([[0.0, 0.6, 0.8], [3.0, 0.0, 0.0]])
    partner, cosine = mutual_nearest(source, target)
    assert partner.tolist() == [1, 0, NOBODY]
    assert cosine.tolist() == pytest.approx([1.0, 0.6, 0.9 / 0.82**0.5])


@pytest.mark.parametrize("at_once", [1, 60, 1 << 20])
def test_chunks_change_nothing(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(40, 8, generator=generator), torch.randn(25, 8, generator=generator)
    source[7] = source[30]  # equally near: the first is the nearest, in one chunk or in several
    target[3] = source[7]
    unit = [torch.nn.functional.normalize(t, dim=1) for t in (source, target)]
    cosines = (unit[0] @ unit[1].T).tolist()
    columns = [[row[j] for row in cosines] for j in range(25)]
    expected = [
        j if columns[j].index(max(columns[j])) == i else NOBODY
        for i, j in enumerate(row.index(max(row)) for row in cosines)
    ]
    monkeypatch.setattr(turns, "_AT_ONCE", at_once)
    assert mutual_nearest(source, target)[0].tolist() == expected
    assert expected[7] == 3


@pytest.mark.parametrize(
    ("target", "share", "coherent"),
    [
        (NINE, 9, 9),
        ([[7, 4, 1], [8, 5, 2], [9, 6, 3]], 9, 0),  # a quarter turn: all pairs, none with its neighbours
        ([[3, 2, 1], [6, 5, 4], [9, 8, 7]], 9, 0),  # mirrored: neighbours below move along, those beside do not
        ([[10, 1, 2], [10, 4, 5], [10, 7, 8]], 6, 6),  # shifted by one
        ([[1, 2, 10], [4, 10, 11], [12, 11, 10]], 3, 1),  # 1 has a neighbour beside and one below, 2 and 4 one each
        ([[10, 1, 2, 3], [4, 5, 6, 10], [11, 11, 12, 7]], 7, 6),  # sheared by a cell a row; 7 has none beside it
    ],
)
def test_pairs_and_coherent_pairs(target: list[list[int]], share: int, coherent: int) -> None:
    found = match_maps(map_of(NINE), map_of(target))
    assert found.share == pytest.approx(share / 9)
    assert found.coherent == pytest.approx(coherent / 9)
    assert found.cosine == pytest.approx(1.0)
    assert found.score == (found.coherent, found.share * found.cosine)


def test_shares_are_of_the_smaller_map_and_both_ways_are_one() -> None:
    wide = [[1, 2, 3, 10, 11], [4, 5, 6, 12, 13], [7, 8, 9, 14, 15]]
    there, back = match_maps(map_of(NINE), map_of(wide)), match_maps(map_of(wide), map_of(NINE))
    assert there.share == there.coherent == back.share == back.coherent == 1.0


def test_nothing_in_common_has_no_pair_of_worth() -> None:
    found = match_maps(map_of(NINE), map_of([[20, 21, 22], [23, 24, 25], [26, 27, 28]]))
    assert found.coherent == 0.0
    assert found.share * found.cosine == 0.0


def test_masks_and_padding_leave_patches_out() -> None:
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[0] = False
    found = match_maps(map_of(NINE), map_of(NINE), source_mask=mask)
    assert (found.share, found.coherent) == (1.0, 1.0)  # of the six that count
    shifted = map_of([[20, 1, 2, 3], [21, 4, 5, 6], [22, 7, 8, 9]])
    right = torch.ones(3, 4, dtype=torch.bool)
    right[:, 0] = False
    assert match_maps(map_of(NINE), shifted, target_mask=right).coherent == 1.0  # places are those of the whole grid
    other = match_maps(map_of(NINE), map_of(NINE), source_mask=mask, target_mask=~mask)
    assert other.cosine == 0.0
    with pytest.raises(ShapeError, match="mask"):
        match_maps(map_of(NINE), map_of(NINE), target_mask=torch.zeros(3, 3, dtype=torch.bool))


def test_maps_made_in_different_ways_are_refused() -> None:
    picture = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))
    with pytest.raises(StampError, match="patch"):
        match_maps(encode(picture, FakeEncoder(patch=(8, 8))), encode(picture, FakeEncoder(patch=(16, 16))))
