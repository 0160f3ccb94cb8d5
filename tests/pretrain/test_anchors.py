"""Fixed inputs: where they lie, which of their patches are shown, and the colours that they get."""

import numpy as np
import pytest
import torch

from patchatlas.encoders.fake import FakeEncoder
from patchatlas.pretrain.anchors import anchors_of, colours_of
from patchatlas.pretrain.data import open_source
from tests.pretrain.test_volumes import config, memory
from tests.pretrain.tiny import photo_config, pictures


def test_the_middle_of_a_volume():
    settings = config()
    opened = memory(settings)
    first, last = anchors_of(opened, 2)
    assert (first.name, last.name) == ("blob0", "blob2")
    assert first.pixels.shape == (1, 32, 32, 32)  # twice a crop of 16, in a volume of (40, 48, 44)
    values = opened.source.volumes.records[0].values[4:36, 8:40, 4:36]  # from a whole cell of 4 on
    torch.testing.assert_close(first.pixels[0], torch.from_numpy((values.astype(np.float32) + 1000) / 2000).clamp(0, 1))
    share = (values > -500).reshape(8, 4, 8, 4, 8, 4).mean((1, 3, 5))
    np.testing.assert_array_equal(first.shown.reshape(8, 8, 8).numpy(), share >= 0.5)


def test_colours_are_of_one_scale_and_only_where_shown():
    settings = config()
    anchors = anchors_of(memory(settings), 3)
    encoder = FakeEncoder(patch=(4, 4, 4), channels=1, position_code=True)
    for colours in colours_of(anchors, encoder, settings):
        assert colours.values.shape == (3, 32, 32, 32)
        assert 0 <= colours.values.min()
        assert colours.values.max() <= 1
        one_a_patch = colours.values[:, ::4, ::4, ::4].flatten(1)
        assert torch.equal(colours.values[:, 3::4, 3::4, 3::4].flatten(1), one_a_patch)
        assert (one_a_patch[:, ~colours.anchor.shown] == 0).all()
        assert (one_a_patch[:, colours.anchor.shown] > 0).any()


@pytest.mark.parametrize("count", [0, 1, 9])
def test_photographs_as_a_whole(tmp_path, count):
    settings = photo_config(pictures(tmp_path / "pictures"))
    anchors = anchors_of(open_source(settings), count)
    assert len(anchors) == min(count, 6)
    assert all(anchor.pixels.shape == (3, 64, 64) and anchor.shown.all() for anchor in anchors)
