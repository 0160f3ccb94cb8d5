"""Loading packed features: what comes, in which order, and what happens when something is wrong."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchatlas.datasets.batch import Batch, Packed, Padded
from patchatlas.datasets.coordinates import grid_coordinates
from patchatlas.datasets.loader import FeatureLoader, Normalisation
from patchatlas.datasets.pack import pack
from patchatlas.errors import FormatError, InputError, StampError, UsageError
from patchatlas.io.shards import INDEX, read_index
from tests.datasets import shard_sets as sets

COUNT = 22
GRIDS = {(4, 4), (4, 6), (6, 4)}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    records = sets.build_set(folder / "derived", COUNT, storage="fp16")
    pack(records, folder / "derived", folder / "shards", max_mb=0.03)
    return folder / "shards"


def ids(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch.ids]


def all_ids() -> list[str]:
    return sorted(sets.image_id(number) for number in range(COUNT))


def expected_tokens(name: str, grid: tuple[int, int]) -> Tensor:
    made = sets.features(sets.number_of(name), (grid[0] * sets.PATCH, grid[1] * sets.PATCH))[sets.PATCHES]
    return made.half().float()


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("within_bucket", [True, False])
def test_every_value_arrives_in_its_place(shards: Path, layout: Any, within_bucket: bool) -> None:
    kinds = sets.KINDS if within_bucket else (sets.PATCHES, sets.CLS, sets.REGISTERS)
    loader = FeatureLoader(
        shards, kinds=kinds, batch_size=5, layout=layout, within_bucket=within_bucket, coordinates=True
    )
    batches = list(loader)
    assert sorted(ids(batches)) == all_ids()
    mixed = 0
    for batch in batches:
        sequence = batch.sequences[sets.PATCHES]
        grids = [tuple(grid) for grid in sequence.grids.tolist()]
        mixed += len(set(grids)) > 1
        padded = sequence if isinstance(sequence, Padded) else sequence.padded()
        assert padded.coordinates is not None
        for i, (name, grid) in enumerate(zip(batch.ids, grids, strict=True)):
            n = math.prod(grid)
            torch.testing.assert_close(padded.values[i, :n], expected_tokens(name, grid), rtol=0, atol=0)
            assert padded.values[i, n:].abs().sum() == 0
            assert padded.mask[i].tolist() == [True] * n + [False] * (padded.mask.shape[1] - n)
            torch.testing.assert_close(padded.coordinates[i, :n], grid_coordinates(*grid))
            number = float(sets.number_of(name))
            assert batch.stacked[sets.CLS][i].tolist() == [number] * sets.DIM
            assert batch.stacked[sets.REGISTERS][i].tolist() == [[-number] * sets.DIM] * 2
            assert batch.captions[i] == f"picture number {int(number)}"
            if within_bucket:
                assert batch.stacked[sets.LATENTS][i].shape == (4, 2 * grid[0], 2 * grid[1])
    assert (mixed == 0) is within_bucket


def test_packed_sequences_are_as_variable_length_attention_takes_them(shards: Path) -> None:
    loader = FeatureLoader(shards, kinds=[sets.PATCHES], batch_size=6, layout="packed", within_bucket=False)
    for batch in loader:
        packed = batch.sequences[sets.PATCHES]
        assert isinstance(packed, Packed)
        assert packed.cu_seqlens.dtype == torch.int32
        lengths = [rows * columns for rows, columns in packed.grids.tolist()]
        assert packed.cu_seqlens.tolist() == [0, *itertools.accumulate(lengths)]
        assert packed.max_seqlen == max(lengths)
        again = packed.padded().packed()
        torch.testing.assert_close(again.values, packed.values, rtol=0, atol=0)
        assert again.cu_seqlens.tolist() == packed.cu_seqlens.tolist()


def test_coordinates_by_hand() -> None:
    at = grid_coordinates(1, 2)
    assert at.tolist() == [[-0.5, 0.0], [0.5, 0.0]]
    at = grid_coordinates(4, 2).reshape(4, 2, 2)
    assert at[0, 0].tolist() == [-0.25, -0.75]
    assert at[3, 1].tolist() == [0.25, 0.75]


def test_normalising_gives_mean_zero_and_spread_one(shards: Path) -> None:
    stamp = sets.stamp()
    plain = list(FeatureLoader(shards, kinds=[sets.PATCHES], batch_size=4, layout="packed"))
    values = torch.cat([batch.sequences[sets.PATCHES].values for batch in plain]).double()
    given_stats = Normalisation(mean=values.mean(0).tolist(), std=values.std(0).tolist(), stamp=stamp)
    normalise = {sets.PATCHES: given_stats}
    loader = FeatureLoader(shards, kinds=[sets.PATCHES], batch_size=4, within_bucket=False, normalise=normalise)
    batches = [batch.sequences[sets.PATCHES] for batch in loader]
    seen = torch.cat([batch.packed().values for batch in batches])  # type: ignore[union-attr]
    torch.testing.assert_close(seen.mean(0), torch.zeros(sets.DIM), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std(0), torch.ones(sets.DIM), atol=1e-5, rtol=0)
    assert all(batch.values[~batch.mask].abs().sum() == 0 for batch in batches)  # type: ignore[union-attr]
    other = Normalisation(mean=given_stats.mean, std=given_stats.std, stamp=sets.stamp(layer=3))
    with pytest.raises(StampError, match="layer: 0 and 3"):
        FeatureLoader(shards, batch_size=4, normalise={sets.PATCHES: other})
    short = Normalisation(mean=[0.0], std=[1.0], stamp=stamp)
    with pytest.raises(StampError, match="do not fit"):
        FeatureLoader(shards, batch_size=4, normalise={sets.PATCHES: short})
    with pytest.raises(UsageError, match="cannot be normalised"):
        FeatureLoader(shards, batch_size=4, normalise={sets.CLS: given_stats})


@pytest.mark.parametrize("storage", ["fp32", "bf16", "int8"])
def test_all_storage_types_are_decoded(tmp_path: Path, storage: Any) -> None:
    records = sets.build_set(tmp_path / "derived", 5, storage=storage)
    pack(records, tmp_path / "derived", tmp_path / "shards")
    for dtype in (torch.float32, torch.bfloat16):
        for batch in FeatureLoader(tmp_path / "shards", batch_size=2, dtype=dtype):
            padded = batch.sequences[sets.PATCHES]
            assert isinstance(padded, Padded)
            assert padded.values.dtype == batch.stacked[sets.CLS].dtype == dtype
            for i, name in enumerate(batch.ids):
                bucket = tuple(16 * side for side in padded.grids[i].tolist())
                expected = sets.features(sets.number_of(name), bucket)[sets.PATCHES]  # type: ignore[arg-type]
                step = float(expected.max()) / 127
                tolerance = {"fp32": 0.0, "bf16": step, "int8": step}[storage] + (dtype == torch.bfloat16) * step
                torch.testing.assert_close(padded.values[i].float(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("nodes", [1, 2])
def test_every_id_once_an_epoch_and_equal_batches_for_any_nodes_and_workers(
    shards: Path, nodes: int, workers: int
) -> None:
    options: dict[str, Any] = {"kinds": [sets.PATCHES], "batch_size": 3, "seed": 7, "records": False}
    plain = list(FeatureLoader(shards, tail="keep", **options))
    parts = [list(FeatureLoader(shards, nodes=nodes, node=node, workers=workers, **options)) for node in range(nodes)]
    assert len({len(part) for part in parts}) == 1
    turns = [batch for step in zip(*parts, strict=True) for batch in step]
    assert ids(turns) == ids(plain)
    assert sorted(ids(turns)) == all_ids()
    first = turns[0].sequences[sets.PATCHES].values
    torch.testing.assert_close(first, plain[0].sequences[sets.PATCHES].values, rtol=0, atol=0)


def test_epochs_and_seeds_differ_and_repeat(shards: Path) -> None:
    loader = FeatureLoader(shards, kinds=[sets.CLS], batch_size=4, seed=1, records=False)
    first, second = ids(list(loader)), ids(list(loader))
    assert loader.epoch == 2
    assert first != second
    loader.set_epoch(0)
    assert ids(list(loader)) == first
    other = FeatureLoader(shards, kinds=[sets.CLS], batch_size=4, seed=2, records=False)
    assert ids(list(other)) not in (first, second)
    plain = FeatureLoader(shards, kinds=[sets.CLS], batch_size=4, shuffle=False, records=False)
    in_order = [name for shard in plain.index.shards for name in shard.ids]
    assert ids(list(plain)) == in_order == ids(list(plain))


def take(loader: FeatureLoader, count: int) -> list[Batch]:
    """The first batches; the iterator is then left, as a training run that is stopped leaves it."""
    return list(itertools.islice(iter(loader), count))


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), max_size=4),
    st.integers(1, 4),
    st.sampled_from(["even", "keep"]),
    st.booleans(),
)
def test_resumed_any_number_of_times_with_any_number_of_nodes_each_id_comes_once(
    shards: Path, segments: list[tuple[int, int]], batch_size: int, tail: Any, within_bucket: bool
) -> None:
    options: dict[str, Any] = {
        "kinds": [sets.CLS],
        "batch_size": batch_size,
        "seed": 3,
        "records": False,
        "within_bucket": within_bucket,
    }
    state: dict[str, Any] | None = None
    seen: list[str] = []
    for nodes, steps in [*segments, (1, 10**6)]:
        loaders = [FeatureLoader(shards, nodes=nodes, node=node, tail=tail, **options) for node in range(nodes)]
        if state is not None:
            for loader in loaders:
                loader.load_state_dict(state)
        if loaders[0].epoch == 1:
            break
        try:
            steps = min(steps, min(len(loader) for loader in loaders))
        except UsageError:  # fewer samples are left than nodes
            continue
        parts = [take(loader, steps) for loader in loaders]
        seen += ids([batch for step in zip(*parts, strict=True) for batch in step])
        states = [loader.state_dict() for loader in loaders]
        if steps:
            assert all(one == states[0] for one in states)
            state = states[0]
    assert seen == ids(list(FeatureLoader(shards, **options)))


@pytest.mark.parametrize(("workers", "later"), [(0, 2), (2, 0), (2, 1)])
def test_resumes_mid_epoch_whatever_the_workers(shards: Path, workers: int, later: int) -> None:
    options: dict[str, Any] = {"kinds": [sets.PATCHES], "batch_size": 4, "seed": 5}
    whole = list(FeatureLoader(shards, **options))
    loader = FeatureLoader(shards, workers=workers, **options)
    first = take(loader, 2)
    again = FeatureLoader(shards, workers=later, **options)
    again.load_state_dict(loader.state_dict())
    assert len(again) == len(whole) - 2
    rest = list(again)
    assert ids(first + rest) == ids(whole)
    torch.testing.assert_close(rest[-1].sequences[sets.PATCHES].values, whole[-1].sequences[sets.PATCHES].values)
    assert again.state_dict()["epoch"] == 1


def test_a_state_of_another_order_is_refused_and_the_setting_named(shards: Path) -> None:
    state = FeatureLoader(shards, batch_size=4, seed=1).state_dict()
    with pytest.raises(UsageError, match="seed: 2 here, 1 there"):
        FeatureLoader(shards, batch_size=4, seed=2).load_state_dict(state)
    with pytest.raises(UsageError, match="batch_size: 3 here, 4 there"):
        FeatureLoader(shards, batch_size=3, seed=1).load_state_dict(state)
    with pytest.raises(UsageError, match="version"):
        FeatureLoader(shards, batch_size=4).load_state_dict({"version": 0})
    same = FeatureLoader(shards, batch_size=4, seed=1, nodes=2, node=1, kinds=[sets.CLS], dtype=torch.bfloat16)
    same.load_state_dict(state)


def test_drop_gives_full_batches_and_equal_steps(shards: Path) -> None:
    parts = [
        list(FeatureLoader(shards, kinds=[sets.CLS], batch_size=4, tail="drop", nodes=2, node=node)) for node in (0, 1)
    ]
    assert len(parts[0]) == len(parts[1])
    assert {len(batch.ids) for part in parts for batch in part} == {4}
    got = ids([*parts[0], *parts[1]])
    assert len(set(got)) == len(got) < COUNT


def test_a_budget_of_tokens_bounds_each_batch(shards: Path) -> None:
    for layout in ("padded", "packed"):
        loader = FeatureLoader(
            shards,
            kinds=[sets.PATCHES],
            max_tokens=60,
            layout=layout,
            within_bucket=False,  # type: ignore[arg-type]
        )
        batches = list(loader)
        assert sorted(ids(batches)) == all_ids()
        for batch in batches:
            sequence = batch.sequences[sets.PATCHES]
            assert sequence.values.shape[:-1].numel() <= 60
    with pytest.raises(UsageError, match="24 tokens, more than max_tokens 20"):
        FeatureLoader(shards, max_tokens=20)


def corrupt(folder: Path, numbers: list[int]) -> None:
    """Break the header of the patches of some pictures, sizes kept."""
    index = read_index(folder)
    broken = {sets.image_id(number) for number in numbers}
    for shard in index.shards:
        for row, name in enumerate(shard.ids):
            if name in broken:
                column = shard.columns[sets.PATCHES]
                with (folder / shard.files[column.part].path).open("r+b") as handle:
                    handle.seek(int(column.offset[row]))
                    handle.write(b"\x93NUMPZ")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    records = sets.build_set(tmp_path / "derived", COUNT)
    pack(records, tmp_path / "derived", tmp_path / "shards", max_mb=0.03)
    corrupt(tmp_path / "shards", [4, 9])
    return tmp_path / "shards"


@pytest.mark.parametrize("workers", [0, 1])
def test_bug_18_errors_are_raised_by_default_and_else_counted_and_bounded(damaged: Path, workers: int) -> None:
    """The earlier loader warned and went on, so that whole buckets could vanish unseen."""
    options: dict[str, Any] = {"kinds": [sets.PATCHES], "batch_size": 4, "workers": workers}
    with pytest.raises(
        FormatError, match=r"photo_\d+-0000000[49] cannot be read: dinov3_patches: .* allowed by max_skipped: 0"
    ):
        list(FeatureLoader(damaged, **options))
    loader = FeatureLoader(damaged, max_skipped=2, **options)
    batches: Iterator[Batch] = iter(loader)
    got, reasons = [], []
    for batch in batches:
        got += batch.ids
        reasons += batch.skipped
        counted = loader.skipped
    broken = {sets.image_id(4), sets.image_id(9)}
    assert sorted(got) == [name for name in all_ids() if name not in broken]
    assert {name for name, _ in reasons} == {name for name, _ in counted} == broken
    assert loader.skipped == ()  # a new epoch has begun
    with pytest.raises(FormatError, match="in epoch 0: 2, allowed by max_skipped: 1"):
        list(FeatureLoader(damaged, max_skipped=1, **options))


def test_bug_18_what_was_skipped_survives_a_resume(damaged: Path) -> None:
    options: dict[str, Any] = {"kinds": [sets.PATCHES], "batch_size": 1, "shuffle": False}
    loader = FeatureLoader(damaged, max_skipped=1, **options)
    for _ in loader:
        if loader.skipped:
            break
    state = loader.state_dict()
    assert len(state["skipped"]) == 1
    again = FeatureLoader(damaged, max_skipped=1, **options)
    again.load_state_dict(state)
    with pytest.raises(FormatError, match="in epoch 0: 2"):
        list(again)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    """An object array in place of the patches; loading it would run code."""
    records = sets.build_set(tmp_path / "derived", 1, kinds=[sets.PATCHES])
    pack(records, tmp_path / "derived", tmp_path / "shards")
    (shard,) = read_index(tmp_path / "shards").shards
    column = shard.columns[sets.PATCHES]
    evil = np.lib.format.magic(1, 0) + b"\x76\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    with (tmp_path / "shards" / shard.files[""].path).open("r+b") as handle:
        handle.seek(int(column.offset[0]))
        handle.write(evil.ljust(127) + b"\n")
    with pytest.raises(FormatError, match="pickled"):
        list(FeatureLoader(tmp_path / "shards", batch_size=1))


def test_shards_that_are_not_those_of_the_index_are_refused(tmp_path: Path) -> None:
    for name, layer in (("a", 0), ("b", 1)):
        records = sets.build_set(tmp_path / name / "derived", 9, kinds=[sets.PATCHES], layer=layer)
        pack(records, tmp_path / name / "derived", tmp_path / name / "shards", max_mb=0.01)
    a, b = tmp_path / "a" / "shards", tmp_path / "b" / "shards"
    one, two = sorted(p.relative_to(a) for p in a.glob("*/*.tar"))[:2]
    kept = (a / one).read_bytes()
    (a / one).write_bytes((b / one).read_bytes())
    with pytest.raises(StampError, match="layer: 0 and 1"):
        FeatureLoader(a, batch_size=2)
    (a / one).write_bytes((a / two).read_bytes())
    with pytest.raises(FormatError, match=f"is not the file that {INDEX} was written for"):
        FeatureLoader(a, batch_size=2)
    (a / one).write_bytes(kept[:-512])
    with pytest.raises(FormatError, match=r"bytes, index\.json says"):
        FeatureLoader(a, batch_size=2)
    (a / one).write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="does not begin as a shard"):
        FeatureLoader(a, batch_size=2)
    (a / one).unlink()
    with pytest.raises(FormatError, match="is absent"):
        FeatureLoader(a, batch_size=2)
    with pytest.raises(InputError, match="does not exist; write shards"):
        FeatureLoader(tmp_path, batch_size=2)
    with pytest.raises(StampError, match="layer: 0 and 1"):
        FeatureLoader(b, batch_size=2, expect={sets.PATCHES: sets.stamp(storage="fp32", layer=0)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "batch_size, max_tokens or both"),
        ({"batch_size": 2, "nodes": 2, "node": 2}, "node 2 of 2 does not exist"),
        ({"batch_size": 2, "workers": -1}, "must be 0 or more"),
        ({"batch_size": 2, "dtype": torch.int8}, "cannot hold features"),
        ({"batch_size": 2, "within_bucket": False}, "vae_latents of several buckets do not stack"),
        ({"batch_size": 2, "kinds": ["clip"]}, "these shards hold no clip"),
    ],
)
def test_impossible_settings(shards: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, InputError), match=message):
        FeatureLoader(shards, **options)


def test_a_batch_moves_as_one(shards: Path) -> None:
    batch = next(iter(FeatureLoader(shards, batch_size=2, coordinates=True)))
    moved = batch.to("meta")
    sequence = moved.sequences[sets.PATCHES]
    assert isinstance(sequence, Padded)
    assert sequence.coordinates is not None
    parts = [sequence.values, sequence.mask, sequence.grids, sequence.coordinates, *moved.stacked.values()]
    assert {part.device.type for part in parts} == {"meta"}
    assert moved.ids == batch.ids


@pytest.mark.parametrize("workers", [0, 1])
def test_nodes_stay_in_step_where_nothing_of_a_batch_can_be_read(damaged: Path, workers: int) -> None:
    """One node with a batch less would let the others wait for ever; it gets an empty one."""
    options: dict[str, Any] = {"batch_size": 1, "max_skipped": 2, "nodes": 2, "workers": workers}
    per_node = [list(FeatureLoader(damaged, node=node, **options)) for node in range(2)]
    assert [len(batches) for batches in per_node] == [len(FeatureLoader(damaged, **options))] * 2
    empty = [batch for batches in per_node for batch in batches if not batch.ids]
    assert {name for batch in empty for name, _ in batch.skipped} == {sets.image_id(4), sets.image_id(9)}
    for batch in empty:
        assert (batch.ids, batch.captions, dict(batch.sequences), dict(batch.stacked)) == ((), (), {}, {})
        assert batch.to("cpu") == batch
