"""The shared flags: how they are written, and the recipe that they make."""

import pytest

from patchatlas.cli.search_options import SearchOptions, parse_bytes, parse_layers, parse_turns
from patchatlas.errors import UsageError
from patchatlas.locate.recipe import Recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GB", 2_000_000_000),
        ("500 MB", 500_000_000),
        ("64kB", 64_000),
        ("1.5GiB", 1_610_612_736),
        ("1024", 1024),
        ("12B", 12),
    ],
)
def test_sizes_of_memory(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "2 GB more", "-2GB", "2TBx", "1e9", "GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write 2GB"):
        parse_bytes(text)


def test_layers_and_turns() -> None:
    assert parse_layers("11, 17") == (11, 17)
    assert parse_turns("rot90, flip") == ("rot90", "flip")
    for text in ("", "a,b", "1,,2", "1.5"):
        with pytest.raises(UsageError, match="as 11,17"):
            parse_layers(text)
    for text in ("", "rot45", "flip;rot90"):
        with pytest.raises(UsageError, match="write flip, rot90 or flip,rot90"):
            parse_turns(text)


def test_nothing_said_is_the_plain_recipe() -> None:
    assert SearchOptions().recipe() == Recipe()


def test_every_flag_reaches_the_recipe() -> None:
    said = SearchOptions(
        image_size=1792,
        windows=448,
        global_view=False,
        max_memory="2GB",
        debias=5,
        tta="flip",
        peak="soft-argmax",
        jitter=4,
        zoom=2.4,
        candidates=2,
    )
    assert said.recipe() == Recipe(
        image_size=1792,
        windows=448,
        global_view=False,
        max_memory=2_000_000_000,
        debias=5,
        turns=("flip",),
        peak="soft-argmax",
        jitter=4,
        zoom=2.4,
        candidates=2,
    )
    assert SearchOptions(layers="3,7").recipe() == Recipe(layers=(3, 7))


def test_two_names_of_an_encoder_are_one_too_many() -> None:
    with pytest.raises(UsageError, match="not both"):
        SearchOptions(encoder="bundled:sift", dino_size="base").recipe()
