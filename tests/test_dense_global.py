"""A global view beside windows: both halves by hand, the same for any batch, within the budget."""

import math

import pytest
import torch
import torch.nn.functional as F

from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.forward import activation_bytes
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import ResourceError
from patchatlas.features import FeatureMap
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import sample
from tests.encoders.test_forward import PLAIN, peak_bytes
from tests.encoders.test_vit import encoder
from tests.test_crops import Counting

fake = FakeEncoder(patch=(16, 16))


def noise(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed))


def test_each_half_is_what_it_says():
    """256 x 384 in windows of 192: the whole is seen at 128 x 192, so that two cells of the map are one of its."""
    dark = noise(8, 12, seed=1).repeat_interleave(32, dim=1).repeat_interleave(32, dim=2)
    picture = noise(256, 384) * dark  # lengths of neighbouring tokens differ
    found = encode(picture, fake, windows=192, global_view=True)
    windows = encode(picture, fake, windows=192).tokens
    whole = encode(picture, fake, frame=Frame.whole((256, 384)).resize((128, 192)))
    unit = F.normalize(whole.tokens, dim=1).T.reshape(3, 8, 12)
    for row, col in [(0, 0), (5, 7), (8, 14), (15, 23)]:
        token = found.tokens[row * 24 + col]
        around = sample(unit, torch.tensor([[(col + 0.5) / 2, (row + 0.5) / 2]]))
        torch.testing.assert_close(token[:3], F.normalize(windows[row * 24 + col], dim=0) / math.sqrt(2))
        torch.testing.assert_close(token[3:], F.normalize(around[0], dim=0) / math.sqrt(2))
    assert found.grid == encode(picture, fake, windows=192).grid
    assert found.spec.dim == 6
    assert found.cls is None


@pytest.mark.parametrize("frame", [
    Frame.whole((200, 301)).resize((313, 470)).pad((5, 0), (2, 10)),
    Frame.whole((200, 301)).flip(1).crop((-9, 20), (320, 256)),
])  # fmt: skip
def test_the_global_half_lies_where_the_grid_says(frame):
    """An even slope, read at patch centres: colours of the two halves agree away from the padding."""
    x = torch.arange(301).expand(200, 301) / 301
    y = torch.arange(200)[:, None].expand(200, 301) / 200
    slope = torch.stack([x + 1, y + 1, torch.full((200, 301), 2.0)]) / 4
    found = encode(slope, fake, frame=frame, windows=128, global_view=True)
    own, around = (F.normalize(half, dim=1) for half in found.tokens.split(3, dim=1))
    centres = found.grid.centres()
    extent = torch.tensor([301.0, 200.0])
    patch = 16 * max(frame.size) / 128 * float(max(map(abs, frame.scale)))  # of the whole, in source pixels
    inner = ((centres > 1.5 * patch) & (centres < extent - 1.5 * patch)).all(dim=1)
    assert inner.sum() > 10
    assert (own - around)[inner].abs().max() < 2e-3  # a bilinear read of unit vectors is not quite linear in colour
    assert own[inner].std(dim=0)[:2].min() > 0.01


@pytest.mark.parametrize("window_batch", [1, 2, 5, None])
def test_any_window_batch_gives_the_same_map(window_batch):
    picture = noise(200, 300)
    expected = encode(picture, fake, size=320, windows=96, global_view=True, window_batch=8)
    found = encode(picture, fake, size=320, windows=96, global_view=True, window_batch=window_batch)
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=0, atol=1e-6)
    assert found.stamp == expected.stamp


def test_the_stamp_says_so():
    picture = noise(128, 160)
    windows = {w: encode(picture, fake, windows=w, global_view=True).stamp for w in (48, 64)}
    assert len({*windows.values(), encode(picture, fake, windows=64).stamp, encode(picture, fake).stamp}) == 4
    assert dict(windows[64].facts)["global_view"] == 64


def test_one_window_needs_no_global_view():
    picture = noise(64, 80)
    found, plain = encode(picture, fake, windows=80, global_view=True), encode(picture, fake)
    assert torch.equal(found.tokens, plain.tokens)
    assert (found.stamp, found.spec) == (plain.stamp, plain.spec)


def twin_scores(picture: torch.Tensor, *, global_view: bool) -> tuple[float, float]:
    """How like the left twin the left and the right one are."""
    found: FeatureMap = encode(picture, fake, windows=64, global_view=global_view)
    row = found.similarity(found.at(torch.tensor([[40.0, 40.0]])))[0, 2]
    return float(row[2]), float(row[13])


def test_twins_in_other_surroundings_are_told_apart():
    picture = torch.full((3, 96, 256), 0.2)
    picture[0, :, :128] = 0.9  # red about the left twin, green about the right one
    picture[1, :, 128:] = 0.9
    for x in (32, 208):
        picture[:, 32:48, x : x + 16] = noise(16, 16)
    assert twin_scores(picture, global_view=False) == pytest.approx((1, 1), abs=1e-6)
    left, right = twin_scores(picture, global_view=True)
    assert left == pytest.approx(1, abs=1e-6)
    assert right < 0.9


def test_zero_tokens_stay_zero():
    found = encode(torch.zeros(3, 128, 128), fake, windows=64, global_view=True)
    assert not found.tokens.any()


@pytest.mark.parametrize("size", [(512, 64), (130, 512), (500, 512)])
def test_the_global_view_fits_where_a_window_does(size):
    """It is never larger than a window, so the budget that holds one window is enough."""
    counting = Counting()
    frame = Frame.whole(size).pad((0, 0), tuple(-n % 16 for n in size))
    cells = tuple(min(8, n // 16) for n in frame.size)
    one = activation_bytes(cells, fake.spec)
    encode(noise(*size), counting, frame=frame, windows=128, global_view=True, max_memory=one)
    assert all(b == 1 and h * w <= 256 * math.prod(cells) for b, _, h, w in counting.batches)
    with pytest.raises(ResourceError, match="the budget is"):
        encode(noise(*size), fake, frame=frame, windows=128, global_view=True, max_memory=one - 1)


def test_no_forward_was_seen_to_take_more_than_the_budget(tmp_path):
    """Of a network, windows and global view: the memory that torch's allocator gave out while it ran."""
    network = encoder(PLAIN, layer=1, norm="final")
    budget = activation_bytes((6, 6), network.spec, inputs=3)
    network(noise(96, 96)[None])  # what is made once is made here
    taken, batches = [], []

    class Measured:
        spec, device = network.spec, network.device

        def __call__(self, pixels: torch.Tensor, /) -> Tokens:
            tokens = []
            taken.append(peak_bytes(lambda: tokens.append(network(pixels)), tmp_path))
            batches.append(len(pixels))
            return tokens[0]

    encode(noise(160, 224), Measured(), windows=96, global_view=True, max_memory=budget)
    assert batches == [3, 3, 3, 3, 1]
    assert max(taken) <= budget


def test_a_volume_has_a_global_view_too():
    cube = FakeEncoder(patch=(2, 4, 4))
    found = encode(noise(8, 16, 24), cube, windows=8, global_view=True)
    assert found.tokens.shape == (4 * 4 * 6, 6)
    torch.testing.assert_close(found.tokens.norm(dim=1), torch.ones(96))
