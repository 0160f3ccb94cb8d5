"""The fake encoder: tokens are patch centres, and nothing else looks like one."""

import pytest
import torch

from patchatlas.encoders.fake import CLS_VALUE, FakeEncoder, ramp
from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid


def test_ramp_by_hand():
    picture = ramp((2, 4))
    assert picture[0].tolist() == [[0.125, 0.375, 0.625, 0.875]] * 2
    assert picture[1].tolist() == [[0.25] * 4, [0.75] * 4]
    assert not picture[2].any()
    with pytest.raises(ShapeError, match="3 axes needs as many channels, given 1"):
        ramp((2, 2, 2), channels=1)


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ((32, 64), (16, 16)),
        ((42, 28), (14, 14)),
        ((24, 40), (8, 4)),
        ((8, 32, 48), (4, 16, 16)),
        ((6, 10, 4), (3, 5, 2)),
    ],
)
def test_on_a_ramp_the_tokens_are_the_patch_centres(size, patch):
    tokens = FakeEncoder(patch=patch)(ramp(size)[None]).patches[0]
    centres = tokens[:, : len(size)] * torch.tensor(size[::-1])
    expected = PatchGrid.on(Frame.whole(size), patch).centres()
    torch.testing.assert_close(centres.double(), expected, atol=1e-4, rtol=0)


def test_means_by_hand_row_major():
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    tokens = FakeEncoder(patch=(2, 2), channels=1)(picture).patches
    assert tokens.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_prefix_tokens_cannot_be_taken_for_patches():
    tokens = FakeEncoder(registers=2)(torch.rand(3, 3, 32, 16))
    assert tokens.cls is not None
    assert tokens.registers is not None
    assert (tokens.cls == CLS_VALUE).all()
    assert tokens.registers[:, :, 0].tolist() == [[-2.0, -3.0]] * 3
    assert tokens.patches.min() >= 0
    bare = FakeEncoder(registers=0, has_cls=False)(torch.rand(1, 3, 16, 16))
    assert bare.cls is None
    assert bare.registers is None


def test_position_code_appends_the_centre_in_pixels():
    encoder = FakeEncoder(patch=(2, 4), channels=1, position_code=True)
    tokens = encoder(torch.zeros(2, 1, 4, 8)).patches
    assert encoder.spec.dim == tokens.shape[2] == 3
    assert tokens[1].tolist() == [[0, 2, 1], [0, 6, 1], [0, 2, 3], [0, 6, 3]]


def test_the_hash_tells_settings_apart():
    hashes = [
        FakeEncoder(**changed).spec.weights_sha256
        for changed in ({}, {"registers": 1}, {"patch": (8, 8)}, {"position_code": True}, {"has_cls": False})
    ]
    assert len(set(hashes)) == len(hashes)
    assert FakeEncoder().spec == FakeEncoder().spec


def test_tokens_are_made_on_the_device():
    tokens = FakeEncoder(device=torch.device("meta"))(torch.rand(1, 3, 16, 16))
    assert {t.device.type for t in (tokens.patches, tokens.cls, tokens.registers)} == {"meta"}


def test_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"sides \(32, 30\) are not multiples of the patch \(16, 16\).*\(32, 32\)"):
        FakeEncoder()(torch.rand(1, 3, 32, 30))
    with pytest.raises(ShapeError, match=r"sides \(8, 16\) are not multiples of the patch \(16, 16\)"):
        FakeEncoder()(torch.rand(1, 3, 8, 16))
    with pytest.raises(ShapeError, match="3 channels, given 1"):
        FakeEncoder()(torch.rand(1, 1, 32, 32))
    with pytest.raises(ShapeError, match="2 axes"):
        FakeEncoder()(torch.rand(1, 3, 16, 16, 16))
    with pytest.raises(ShapeError, match=r"3 axes.*batch axis"):
        FakeEncoder(patch=(2, 2, 2))(torch.rand(3, 16, 16, 16))
