"""Order, cutting and sharing of batches."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.datasets.order import after, cut, draws, epoch_batches, sample_order, share
from patchatlas.errors import UsageError

Sizes = list[int]


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def test_draws_are_those_of_splitmix64() -> None:
    """The reference generator of Steele, Lea and Flood, one number after the other."""
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    gamma = 0x9E3779B97F4A7C15
    # Begun at 1234567 the published generator gives these (test values of the Java and C implementations).
    state, published = 1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for expected in published:
        state = (state + gamma) & mask
        assert mix(state) == expected
    state = 0
    for part in (5, 7, 2):
        state = mix((state + part * gamma + gamma) & mask)
    expected_draws = [mix((state + (i + 1) * gamma) & mask) for i in range(4)]
    assert draws(4, seed=5, epoch=7, purpose=2).tolist() == expected_draws


def test_draws_differ_in_every_argument() -> None:
    base = {"seed": 1, "epoch": 1, "purpose": 1}
    rows = [draws(8, **{**base, name: 2}).tolist() for name in base] + [draws(8, **base).tolist()]
    assert len({tuple(row) for row in rows}) == 4
    assert draws(8, seed=1, epoch=2, purpose=1).tolist() != draws(8, seed=2, epoch=1, purpose=1).tolist()


def test_an_order_is_a_permutation_that_keeps_windows_of_shards_together() -> None:
    shard = np.repeat(np.arange(6), 10)
    order = sample_order(shard, seed=0, epoch=0, window=2)
    assert sorted(order.tolist()) == list(range(60))
    windows = [set(shard[order[i : i + 20]].tolist()) for i in (0, 20, 40)]
    assert [len(window) for window in windows] == [2, 2, 2]
    assert set.union(*windows) == set(range(6))
    assert len(set(shard[order[:5]].tolist())) == 2  # one shard of a window does not wait for the other to end
    assert not np.all(np.diff(order[:20]) > 0)
    assert sample_order(shard, seed=0, epoch=0, window=2, shuffle=False).tolist() == list(range(60))


def test_a_bucket_with_every_other_shard_still_fills_its_windows() -> None:
    shard = np.repeat(np.array([0, 2, 4, 6]), 5)
    order = sample_order(shard, seed=3, epoch=0, window=2)
    assert [len(set(shard[order[i : i + 10]].tolist())) for i in (0, 10)] == [2, 2]


def test_every_place_is_equally_likely_within_five_sigma() -> None:
    shard = np.zeros(8, dtype=np.int64)
    counts = np.zeros((8, 8))
    trials = 2000
    for epoch in range(trials):
        counts[np.arange(8), sample_order(shard, seed=0, epoch=epoch, window=1)] += 1
    sigma = (trials * (1 / 8) * (7 / 8)) ** 0.5
    assert np.abs(counts - trials / 8).max() < 5 * sigma


@pytest.mark.parametrize(
    ("batch_size", "max_tokens", "padded", "expected"),
    [
        (2, None, True, [[0, 1], [2, 3], [4]]),
        (None, 8, True, [[0, 1], [2], [3], [4]]),  # 2 x 4; then 7 and 5 are padded to 14
        (None, 12, False, [[0, 1], [2, 3], [4]]),  # 4 + 3 = 7, + 7 = 14 is too many; 7 + 5 = 12
        (1, 100, True, [[0], [1], [2], [3], [4]]),
        (None, 100, True, [[0, 1, 2, 3, 4]]),
    ],
)
def test_cut_by_hand(batch_size: int | None, max_tokens: int | None, padded: bool, expected: list[list[int]]) -> None:
    tokens = np.array([4, 3, 7, 5, 6])
    assert cut(range(5), tokens, batch_size=batch_size, max_tokens=max_tokens, padded=padded) == expected


def test_cut_refuses() -> None:
    with pytest.raises(UsageError, match="batch_size, max_tokens or both"):
        cut([0], np.array([4]))
    with pytest.raises(UsageError, match="a sample has 9 tokens, more than max_tokens 8"):
        cut([0, 1], np.array([4, 9]), max_tokens=8)
    with pytest.raises(UsageError, match="must be 1 or more"):
        cut([0], np.array([4]), batch_size=0)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shards, groups and tokens of some samples; a shard is of one group, and a group has one number of tokens."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    groups = [draw(st.integers(0, 2)) for _ in sizes]
    shard = np.repeat(np.arange(len(sizes)), sizes)
    group = np.array(groups)[shard]
    return shard, group, group * 3 + 4


@given(layouts(), st.integers(0, 5), st.integers(0, 3), st.integers(1, 5), st.booleans(), st.booleans())
def test_an_epoch_has_every_sample_once_in_batches_of_one_group(
    layout: tuple[np.ndarray, np.ndarray, np.ndarray],
    seed: int,
    epoch: int,
    batch_size: int,
    shuffle: bool,
    by_tokens: bool,
) -> None:
    shard, group, tokens = layout
    options = {
        "seed": seed,
        "epoch": epoch,
        "batch_size": None if by_tokens else batch_size,
        "max_tokens": 10 * batch_size if by_tokens else None,
        "padded": True,
        "window": 2,
        "shuffle": shuffle,
    }
    batches = epoch_batches(shard, group, tokens, drop_incomplete=False, **options)
    assert sorted(flat(batches)) == list(range(len(shard)))
    assert batches == epoch_batches(shard, group, tokens, drop_incomplete=False, **options)
    for batch in batches:
        assert len(set(group[batch].tolist())) == 1
        if by_tokens:
            assert tokens[batch].max() * len(batch) <= 10 * batch_size
        else:
            assert len(batch) <= batch_size
    full = epoch_batches(shard, group, tokens, drop_incomplete=True, **options)
    assert sorted(batch for batch in batches if batch in full) == sorted(full)
    if not by_tokens:
        assert all(len(batch) == batch_size for batch in full)


@given(st.lists(st.integers(1, 5), max_size=12), st.integers(1, 5), st.sampled_from(["even", "keep", "drop"]))
def test_sharing_keeps_the_order_of_samples(sizes: Sizes, nodes: int, tail: str) -> None:
    numbers = itertools.count()
    batches = [[next(numbers) for _ in range(size)] for size in sizes]
    if tail == "even" and 0 < sum(sizes) < nodes:
        with pytest.raises(UsageError, match="none can have the same"):
            share(batches, nodes=nodes, tail=tail)
        return
    shared = share(batches, nodes=nodes, tail=tail)
    assert all(shared)
    assert flat(shared) == flat(batches)[: len(flat(shared))]
    if tail != "keep":
        assert len(shared) % nodes == 0
    if tail == "drop":
        assert len(batches) - len(shared) < nodes
    else:
        assert flat(shared) == flat(batches)


def test_sharing_by_hand() -> None:
    batches = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert share(batches, nodes=2, tail="even") == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10]]
    assert share(batches, nodes=2, tail="keep") == batches
    assert share(batches, nodes=2, tail="drop") == batches[:2]
    # One sample is left for two nodes: the step before gives some of its own.
    assert share([[0, 1, 2, 3], [4, 5], [6]], nodes=2, tail="even") == [[0, 1], [2, 3], [4, 5], [6]]


@given(st.lists(st.integers(1, 5), max_size=8), st.data())
def test_after_drops_exactly_what_was_read(sizes: Sizes, data: st.DataObject) -> None:
    numbers = itertools.count()
    batches = [[next(numbers) for _ in range(size)] for size in sizes]
    done = data.draw(st.integers(0, sum(sizes)))
    left = after(batches, done)
    assert flat(left) == flat(batches)[done:]
    assert all(left)
    assert left[1:] == batches[len(batches) - len(left) + 1 :] if left else True


def test_after_refuses_what_cannot_have_been_read() -> None:
    with pytest.raises(UsageError, match="4 samples cannot have been read of 3"):
        after([[0, 1], [2]], 4)
