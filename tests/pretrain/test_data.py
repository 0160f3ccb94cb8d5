"""What is opened for a run, and what is said of it before it begins."""

import logging

from patchatlas.pretrain.data import open_source
from tests.pretrain.ablation.volumes import make_volumes, tiny_config


def test_crops_larger_than_every_volume_are_named(tmp_path, caplog):
    cache, _ = make_volumes(tmp_path)  # three of 16 x 64 x 64 voxels
    with caplog.at_level(logging.WARNING, logger="patchatlas"):
        open_source(tiny_config(cache))
        assert caplog.messages == []
        open_source(tiny_config(cache, crops={"globals": {"size": 24}}))
    (said,) = caplog.messages
    assert (
        "a global crop of 24 x 24 x 24 voxels is larger than each of the 3 volumes (the largest 16 x 64 x 64)" in said
    )
    assert "padded" in said
