"""Clips: even times, one square of constant size, whole tubelets; and a still is two equal frames."""

import numpy as np
import pytest
import torch

from patchatlas.encoders.transformers_adapter import VJepa2Encoder, load
from patchatlas.errors import UsageError
from patchatlas.reid.boxes import Observation, Tracklet
from patchatlas.reid.embed.clips import ClipEmbedder, clips_of, square
from patchatlas.reid.embed.crops import CropEmbedder
from tests.encoders import tiny_transformers as tiny
from tests.reid.conftest import MakeTracklet


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> VJepa2Encoder:
    loaded = load(tiny.saved(tiny.vjepa2(), tmp_path_factory.mktemp("v")), device=torch.device("cpu"), dtype="fp32")
    assert isinstance(loaded, VJepa2Encoder)
    return loaded


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def still(size: int = 32, count: int = 4, seed: int = 0) -> list[np.ndarray]:
    return [noise(size, size, seed=seed)] * count


def test_even_times_not_even_frames() -> None:
    """Sampled densely at first and thinly later: a clip has even times all the same."""
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0, 3.0]
    seen = tuple(Observation(1, k, t, (0.0, 0.0, 10.0, 20.0), 0.9, "a") for k, t in enumerate(times))
    (clip,) = clips_of(Tracklet(1, "a", seen), frames=4)
    assert [one.time_s for one in clip.observations] == [0.0, 1.0, 2.0, 3.0]
    assert clip.frame == 7


def test_parts_of_a_tracklet(tracklet: MakeTracklet) -> None:
    clips = clips_of(tracklet(1, range(21)), frames=4, count=2)
    assert [[one.frame for one in clip.observations] for clip in clips] == [[0, 3, 7, 10], [10, 13, 17, 20]]
    assert len(clips_of(tracklet(1, range(7)), frames=4, count=2)) == 1
    with pytest.raises(UsageError, match="given 0 and 1"):
        clips_of(tracklet(1, range(7)), frames=0)


def test_clips_have_frames_of_their_own() -> None:
    """Nothing was seen from 0.3 s to 10 s: of the parts in between there is but the box before and the box after."""
    times = [0.0, 0.1, 0.2, 0.3, 10.0, 10.1, 10.2, 10.3]
    seen = tuple(Observation(1, k, t, (0.0, 0.0, 10.0, 20.0), 0.9, "a") for k, t in enumerate(times))
    frames = [clip.frame for clip in clips_of(Tracklet(1, "a", seen), frames=2, count=4)]
    assert frames == [3, 4, 7]


def test_a_tracklet_of_one_box_is_a_still(tracklet: MakeTracklet) -> None:
    (clip,) = clips_of(tracklet(1, range(5, 6)), frames=8)
    assert [one.frame for one in clip.observations] == [5] * 8


def test_the_square_holds_every_box_and_keeps_its_size(tracklet: MakeTracklet) -> None:
    (clip,) = clips_of(tracklet(1, range(5), (10, 10, 40, 110)), frames=2)
    assert clip.side == 110
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[50:60, 70:80] = 255
    drawn = square(picture, (70.0, 50.0, 80.0, 60.0), side=20, size=40)
    assert drawn.shape == (40, 40, 3)
    ys, xs = np.nonzero(drawn[..., 0] > 127)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (10, 29, 10, 29)
    corner = square(picture, (0.0, 0.0, 10.0, 10.0), side=40, size=16)
    assert corner.shape == (16, 16, 3)
    sub = square(
        np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (50, 1, 3)), (90.5, 20.0, 100.5, 30.0), side=10, size=10
    )
    assert sub[0, :, 0].tolist() == [round(90.5 + k) for k in range(10)]  # means of neighbours, halves to even


def test_a_clip_is_what_the_networks_own_code_makes_of_it(encoder: VJepa2Encoder) -> None:
    clip = [noise(64, 64, seed=k) for k in range(4)]
    vectors, valid = ClipEmbedder(encoder, frames=4, size=64).embed_clips([clip])
    pixels = torch.from_numpy(np.stack(clip)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (encoder.spec.mean, encoder.spec.std))
    with torch.no_grad():
        tokens = tiny.vjepa2()(((pixels - mean) / std)[None], skip_predictor=True).last_hidden_state
    want = tokens.mean(dim=1)
    torch.testing.assert_close(vectors, want / want.norm(), atol=2e-5, rtol=0)
    assert valid.tolist() == [True]


def test_a_still_is_two_equal_frames_and_no_more(encoder: VJepa2Encoder) -> None:
    """Sixteen times the picture costs ten times as much and says nothing more of a still."""
    picture = noise(32, 32)
    alone, _ = CropEmbedder(encoder, pooling="mean", size=32).embed_crops([picture])
    twice, _ = ClipEmbedder(encoder, frames=2, size=32).embed_clips([[picture, picture]])
    torch.testing.assert_close(alone, twice, atol=1e-5, rtol=0)


def test_order_in_time_counts(encoder: VJepa2Encoder) -> None:
    clip = [noise(32, 32, seed=k) for k in range(4)]
    vectors, _ = ClipEmbedder(encoder, frames=4, size=32).embed_clips([clip, clip[::-1]])
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


def test_red_is_red_in_clips_too(encoder: VJepa2Encoder) -> None:
    """Defect 9: crops of one phase were BGR, of another RGB."""
    crop = noise(32, 32)
    alone, _ = CropEmbedder(encoder, pooling="mean", size=32).embed_crops([crop])
    swapped, _ = ClipEmbedder(encoder, frames=2, size=32).embed_clips([[np.ascontiguousarray(crop[..., ::-1])] * 2])
    assert (alone - swapped).abs().max() > 1e-3


def test_a_bad_clip_is_marked_and_shifts_nobody(encoder: VJepa2Encoder) -> None:
    one = ClipEmbedder(encoder, frames=4, size=32, batch=4)
    clips = [still(seed=1), still(count=3), still(seed=2), still(size=16), [], still(seed=3)]
    vectors, valid = one.embed_clips(clips)
    assert valid.tolist() == [True, False, True, False, False, True]
    assert bool(vectors[[1, 3, 4]].isnan().all())
    for row in (0, 2, 5):
        torch.testing.assert_close(vectors[row], one.embed_clips([clips[row]])[0][0], atol=1e-5, rtol=0)
    assert one.embed_clips([])[0].shape == (0, 36)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 5, "size": 32}, "clips of 5 frames do not fill tubelets of 2"),
        ({"frames": 0, "size": 32}, "clips of 0 frames"),
        ({"frames": 4, "size": 33}, "crop size of 33 px is no multiple of the patch 16"),
        ({"frames": 4, "size": 32, "pooling": "cls"}, "pooling cls needs a class token"),
    ],
)
def test_what_cannot_be(encoder: VJepa2Encoder, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        ClipEmbedder(encoder, **options)


def test_clips_of_other_lengths_are_other_spaces(encoder: VJepa2Encoder) -> None:
    stamps = {ClipEmbedder(encoder, frames=n, size=32).stamp.digest for n in (2, 4)}
    assert len(stamps | {CropEmbedder(encoder, pooling="mean", size=32).stamp.digest}) == 3
