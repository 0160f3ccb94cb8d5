"""Dense encoding: every token knows its place, whole or in windows, whatever the batch."""

import numpy as np
import pytest
import torch

from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder, ramp
from patchatlas.encoders.forward import activation_bytes
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import InputError, ResourceError, ShapeError
from patchatlas.geometry.frame import Frame

fake = FakeEncoder(patch=(16, 16))


class Counting:
    """Records the batch sizes that an encoder is given."""

    device = torch.device("cpu")
    spec = fake.spec

    def __init__(self, fails_above: int = 99) -> None:
        self.batches: list[int] = []
        self.fails_above = fails_above

    def __call__(self, pixels: torch.Tensor, /) -> Tokens:
        self.batches.append(len(pixels))
        if len(pixels) > self.fails_above:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fake(pixels)


def centre_error(picture_hw: tuple[int, int], **options) -> float:
    """Largest distance in source pixels between what a token saw of a ramp and where its grid says it is."""
    features = encode(ramp(picture_hw), fake, **options)
    seen = features.tokens[:, :2].double() * torch.tensor(picture_hw[::-1])
    inner = features.grid.real_part().reshape(-1) == 1
    rows, columns = features.grid.shape
    border = torch.ones(rows, columns, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    inner &= ~border.reshape(-1)
    assert inner.sum() > 4
    return float((seen - features.grid.centres())[inner].abs().max())


@pytest.mark.parametrize(
    ("picture_hw", "options"),
    [
        ((160, 192), {}),
        ((300, 411), {"size": 224}),
        ((411, 300), {"size": 640}),
        ((300, 411), {"size": 224, "windows": 96}),
        ((300, 411), {"size": 640, "windows": 128, "overlap": 0.3, "window_batch": 3}),
        ((300, 411), {"frame": Frame.whole((300, 411)).flip(1).resize((160, 176))}),
        ((300, 411), {"frame": Frame.whole((300, 411)).crop((7, 9), (160, 176)), "windows": 96}),
    ],
)
def test_tokens_sit_where_the_grid_says(picture_hw, options):
    assert centre_error(picture_hw, **options) <= 1e-2


def test_eight_bit_pictures_equal_their_floats():
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    floats = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
    assert torch.equal(encode(picture, fake).tokens, encode(floats, fake).tokens)


@pytest.mark.parametrize("window_batch", [1, 2, 5, 8])
def test_any_window_batch_gives_the_same_map(window_batch):
    picture = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
    options = {"size": 320, "windows": 96, "overlap": 0.5}
    expected = encode(picture, fake, **options)
    found = encode(picture, fake, window_batch=window_batch, **options)
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=0, atol=1e-6)
    assert found.stamp == expected.stamp


def test_windows_of_a_local_encoder_equal_one_forward():
    picture = torch.rand(3, 128, 160, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        encode(picture, fake, windows=64).tokens, encode(picture, fake).tokens, rtol=0, atol=1e-6
    )


def test_cls_and_registers_only_where_one_forward_saw_it_all():
    whole = encode(ramp((64, 64)), fake)
    assert whole.cls.tolist() == [-1, -1, -1]
    assert whole.registers[:, 0].tolist() == [-2, -3, -4, -5]
    windowed = encode(ramp((64, 64)), fake, windows=32)
    assert windowed.cls is None
    assert windowed.registers is None


def test_a_volume_is_encoded_in_three_axes():
    cube = FakeEncoder(patch=(2, 4, 4))
    features = encode(ramp((8, 16, 24)), cube, windows=8)
    seen = features.tokens * torch.tensor([24.0, 16.0, 8.0])
    torch.testing.assert_close(seen.double(), features.grid.centres(), rtol=0, atol=1e-5)


def test_the_budget_sets_the_batch():
    one, three = (activation_bytes((4, 4), fake.spec, inputs=n) for n in (1, 3))
    for budget, batches in [(three, [3, 3, 3]), (three - 1, [2, 2, 2, 2, 1]), (one, [1] * 9)]:
        encoder = Counting()
        encode(ramp((128, 128)), encoder, windows=64, max_memory=budget)
        assert encoder.batches == batches
    with pytest.raises(ResourceError, match="the budget is"):
        encode(ramp((128, 128)), encoder, windows=64, max_memory=one - 1)
    with pytest.raises(ResourceError, match="use \\(smaller\\) windows"):
        encode(ramp((128, 128)), encoder, max_memory=one)


def test_out_of_memory_halves_the_batch_and_says_so(caplog):
    encoder = Counting(fails_above=2)
    found = encode(ramp((128, 128)), encoder, windows=64, window_batch=8)
    torch.testing.assert_close(found.tokens, encode(ramp((128, 128)), fake).tokens, rtol=0, atol=1e-6)
    assert encoder.batches == [8, 4, 2, 2, 4, 2, 2, 1]
    assert "trying 4 at a time" in caplog.text
    with pytest.raises(ResourceError, match="one input"):
        encode(ramp((128, 128)), Counting(fails_above=0), windows=64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "side 100 .* not a multiple of the patch 16"),
        ({"size": 100}, "image size 100 is not a multiple"),
        ({"size": 96, "windows": 40}, "windows of 40 px are not a multiple of the patch 16; take 32"),
        ({"size": 96, "windows": 32, "overlap": 1.0}, "overlap 1.0"),
        ({"size": 96, "windows": 32, "window_batch": 0}, "a batch of 0 inputs"),
        ({"size": 96, "frame": Frame.whole((100, 64))}, "either size or frame"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ShapeError, match=message):
        encode(ramp((100, 64)), fake, **options)


def test_a_volume_encoder_refuses_a_picture():
    with pytest.raises(ShapeError, match="3-D images"):
        encode(ramp((64, 64)), FakeEncoder(patch=(4, 4, 4)))


def test_padding_shows_the_fill_and_the_stamp_says_so():
    picture = torch.full((3, 64, 40), 0.25)
    edge, grey = (encode(picture, fake, size=64, fill=fill) for fill in ("edge", (1.0, 1.0, 1.0)))
    assert edge.tokens[2, 0] == 0.25
    assert grey.tokens[2, 0] == 0.625  # half of the third column is padding
    assert edge.stamp != grey.stamp
    windowed = [encode(picture, fake, size=64, windows=32, overlap=overlap).stamp for overlap in (0.0, 0.5)]
    assert len({edge.stamp, *windowed}) == 3


def test_a_window_that_holds_all_is_no_window():
    picture = ramp((64, 64))
    assert encode(picture, fake, windows=96).stamp == encode(picture, fake).stamp


def test_arrays_that_are_no_pictures_are_refused():
    for array in (np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.float32)):
        with pytest.raises((ShapeError, TypeError)):
            encode(array, fake)
    with pytest.raises(ShapeError, match="windows of 0 px"):
        encode(ramp((64, 64)), fake, windows=0)


@pytest.mark.parametrize(
    ("pixels", "cure"),
    [
        (torch.full((3, 16, 16), 200.0), "to_pixels"),
        ((torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.45) / 0.22, "to_pixels"),
        (torch.full((1, 8, 8, 8), -900.0), "clamp"),
    ],
)
def test_values_far_outside_0_to_1_are_refused(pixels, cure):
    encoder = FakeEncoder(patch=(8,) * (pixels.ndim - 1), channels=len(pixels))
    low, high = float(pixels.min()), float(pixels.max())
    with pytest.raises(InputError, match=cure) as raised:
        encode(pixels, encoder)
    assert f"from {low:.4g} to {high:.4g}" in str(raised.value)


def test_what_sharp_resampling_adds_beyond_0_to_1_is_taken():
    pixels = torch.randint(0, 2, (1, 3, 12, 12), generator=torch.Generator().manual_seed(0)).float()
    drawn = torch.nn.functional.interpolate(pixels, (48, 48), mode="bicubic", align_corners=False)[0]
    assert float(drawn.min()) < -0.2
    assert encode(drawn, FakeEncoder()).grid.shape == (3, 3)
