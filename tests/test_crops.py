"""Many crops at once: each the map that its frame gives by itself, in any batch; patches nearer than they are wide."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from patchatlas.crops import encode_crops
from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder, ramp
from patchatlas.encoders.forward import activation_bytes
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import ResourceError, ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.turns import turned

fake = FakeEncoder(patch=(16, 16))


class Counting:
    """Records the shapes of the batches that an encoder is given."""

    device = torch.device("cpu")

    def __init__(self, inner: FakeEncoder = fake) -> None:
        self.inner, self.spec = inner, inner.spec
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, pixels: torch.Tensor, /) -> Tokens:
        self.batches.append(tuple(pixels.shape))
        return self.inner(pixels)


def noise(*size: int) -> torch.Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(0))


WHOLE = Frame.whole((90, 120))
FRAMES = {
    "as it is": WHOLE.crop((10, 20), (48, 64)),
    "part of a pixel": WHOLE.crop((Fraction(31, 3), Fraction(82, 7)), (48, 64)),
    "shrunk": WHOLE.resize((40, 50)).crop((-3, -9), (48, 64)),
    "magnified": WHOLE.resize((300, 400)).crop((Fraction(1, 2), 330), (48, 64)),
    "out over a corner": WHOLE.crop((-20, 90), (48, 64)),
    "outside": WHOLE.crop((-100, 300), (48, 64)),
    "upside down": WHOLE.crop((10, 20), (48, 64)).flip(0),
    "turned": turned(WHOLE.resize((200, 200)).crop((30, 100), (64, 48)), "rot90"),
}


@pytest.mark.parametrize("fill", ["edge", (0.1, 0.5, 0.9)])
@pytest.mark.parametrize("batch", [1, 3, None])
def test_each_is_what_its_frame_gives_by_itself(fill, batch):
    picture = noise(90, 120)
    maps = list(encode_crops(picture, fake, list(FRAMES.values()), batch=batch, fill=fill))
    assert len(maps) == len(FRAMES)
    for (name, frame), found in zip(FRAMES.items(), maps, strict=True):
        alone = encode(picture, fake, frame=frame, fill=fill)
        torch.testing.assert_close(found.tokens, alone.tokens, rtol=0, atol=2e-6, msg=name)
        assert (found.grid, found.stamp, found.spec) == (alone.grid, alone.stamp, alone.spec)


def test_eight_bit_pictures_equal_their_floats():
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    floats = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
    frames = list(FRAMES.values())
    for one, other in zip(encode_crops(picture, fake, frames), encode_crops(floats, fake, frames), strict=True):
        assert torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize("stride", [16, 8, 4])
def test_tokens_sit_where_the_fine_grid_says(stride):
    n = 80 + 16 - stride
    frame = Frame.whole((300, 411)).resize((220, 330)).crop((40, Fraction(91, 2)), (n, n))
    (found,) = encode_crops(ramp((300, 411)), fake, [frame], stride=stride, batch=5)
    assert found.grid.shape == (5 * 16 // stride,) * 2
    seen = found.tokens[:, :2].double() * torch.tensor([411.0, 300.0])
    torch.testing.assert_close(seen, found.grid.centres(), rtol=0, atol=1e-2)


def test_a_fine_token_is_that_of_its_patch_alone():
    picture, frame = noise(90, 120), WHOLE.crop((7, 9), (60, 44))
    (found,) = encode_crops(picture, fake, [frame], stride=4)
    assert found.grid.shape == (12, 8)
    for row, col in [(0, 0), (3, 5), (11, 7)]:
        alone = encode(picture, fake, frame=frame.crop((4 * row, 4 * col), (16, 16)))
        torch.testing.assert_close(found.as_grid()[:, row, col], alone.tokens[0], rtol=0, atol=1e-6)


def test_a_volume_is_woven_in_three_axes():
    cube = FakeEncoder(patch=(4, 4, 4))
    frame = Frame.whole((16, 20, 24)).crop((3, 2, 1), (10, 10, 14))
    (found,) = encode_crops(ramp((16, 20, 24)), cube, [frame], stride=2)
    seen = found.tokens.double() * torch.tensor([24.0, 20.0, 16.0])
    torch.testing.assert_close(seen, found.grid.centres(), rtol=0, atol=1e-5)


def test_one_forward_holds_a_batch_of_all_crops_and_shifts():
    counting = Counting()
    frames = [FRAMES["as it is"].pad((0, 0), (8, 8)), FRAMES["shrunk"].pad((0, 0), (8, 8))]
    list(encode_crops(noise(90, 120), counting, frames, stride=8, batch=5))
    assert counting.batches == [(5, 3, 48, 64), (3, 3, 48, 64)]
    budget = activation_bytes((3, 4), fake.spec, inputs=3)
    counting = Counting()
    list(encode_crops(noise(90, 120), counting, frames, stride=8, max_memory=budget))
    assert [b for b, *_ in counting.batches] == [3, 3, 2]


def test_maps_are_made_as_they_are_asked_for():
    counting = Counting()
    maps = encode_crops(noise(90, 120), counting, [FRAMES["as it is"]] * 6, batch=2)
    assert counting.batches == []
    next(maps), next(maps), next(maps)
    assert len(counting.batches) == 2


def test_no_crops_are_no_maps():
    assert list(encode_crops(noise(90, 120), fake, [])) == []


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ([WHOLE.crop((0, 0), (48, 48)), WHOLE.crop((0, 0), (48, 64))], {}, "do not stack"),
        ([WHOLE.crop((0, 0), (50, 48))], {}, "a crop of 50 px does not fill patches of 16 that are 16 apart; take 48"),
        ([WHOLE.crop((0, 0), (48, 48))], {"stride": 4}, "a crop of 48 px .* 4 apart; take 44"),
        ([WHOLE.crop((0, 0), (48, 48))], {"stride": 5}, "does not divide the patch of 16; take one of 1, 2, 4, 8, 16"),
        ([WHOLE.crop((0, 0), (48, 48))], {"stride": 32}, "does not divide"),
        ([WHOLE.crop((0, 0), (48, 48))], {"stride": 0}, "does not divide"),
        ([Frame.whole((90, 121)).crop((0, 0), (48, 48))], {}, "cannot be drawn"),
    ],
)
def test_refusals(frames, options, message):
    with pytest.raises(ShapeError, match=message):
        list(encode_crops(noise(90, 120), fake, frames, **options))


def test_a_crop_above_the_budget_is_refused_before_any_work():
    counting = Counting()
    with pytest.raises(ResourceError, match="the budget is"):
        encode_crops(noise(90, 120), counting, [FRAMES["as it is"]], max_memory=1000)
    assert counting.batches == []
