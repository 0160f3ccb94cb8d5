"""Resampling: ramps keep their coordinates through every path, fast paths equal the general one."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchatlas.errors import ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample, resample_picture, sample


def ramp(*size: int) -> torch.Tensor:
    """Channel 0 is x, channel 1 is y, channel 2 is z of each pixel's centre."""
    axes = [torch.arange(n, dtype=torch.float32) + 0.5 for n in size]
    return torch.stack(list(reversed(torch.meshgrid(*axes, indexing="ij"))))


def ramp_error(frame: Frame) -> float:
    """Largest distance of a drawn ramp to the true coordinate, away from the source's borders."""
    drawn = resample(ramp(*frame.source_size), frame).flatten(1).T.double()
    axes = [torch.arange(n, dtype=torch.float64) + 0.5 for n in frame.size]
    centres = torch.stack([m.reshape(-1) for m in reversed(torch.meshgrid(*axes, indexing="ij"))], dim=1)
    true = frame.to_source(centres)
    reach = 1 + max(abs(float(s)) for s in frame.scale)
    extent = torch.tensor(frame.source_size[::-1], dtype=torch.float64)
    inner = ((true > reach) & (true < extent - reach)).all(dim=1)
    assert inner.sum() > 4
    return float((drawn - true)[inner].abs().max())


whole = Frame.whole((60, 90))


@pytest.mark.parametrize(
    "frame",
    [
        whole,
        whole.resize((20, 30)),
        whole.resize((23, 31)),
        whole.resize((180, 200)),
        whole.resize((23, 31)).pad((2, 3), (1, 7)),
        whole.crop((7, 11), (30, 40)),
        whole.crop((Fraction(7, 3), Fraction(-5, 4)), (30, 40)),
        whole.resize((41, 52)).crop((Fraction(1, 2), Fraction(1, 7)), (30, 40)),
        whole.flip(1),
        whole.flip(0).resize((25, 31)),
        whole.flip(1).crop((Fraction(1, 3), 2), (40, 40)),
        whole.transpose((1, 0)).resize((50, 33)),
        Frame.from_exif((60, 90), 6).resize((40, 30)),
        Frame.from_exif((60, 90), 7).crop((3, 4), (30, 30)),
        Frame.whole((12, 20, 30)).resize((9, 31, 17)),
        Frame.whole((12, 20, 30)).crop((Fraction(1, 2), 3, Fraction(-1, 4)), (8, 9, 20)).flip(2),
    ],
    ids=lambda f: f"{f.source_size}-{f.size}-{f.axes}",
)
def test_ramps_keep_their_coordinates(frame):
    assert ramp_error(frame) <= 1e-3


@given(
    size=st.tuples(st.integers(40, 120), st.integers(40, 120)),
    orientation=st.integers(1, 8),
    new=st.tuples(st.integers(20, 200), st.integers(20, 200)),
    start=st.tuples(st.fractions(-3, 3, max_denominator=8), st.fractions(-3, 3, max_denominator=8)),
)
@settings(max_examples=60, deadline=None)
def test_ramps_keep_their_coordinates_through_random_frames(size, orientation, new, start):
    frame = Frame.from_exif(size, orientation).resize(new)
    assert ramp_error(frame) <= 1e-3
    assert ramp_error(frame.crop(start, new)) <= 1e-3


def slowly(row: np.ndarray, n_out: int, scale: float, shift: float) -> np.ndarray:
    """One axis resampled from the definition, one output at a time."""
    n, out = len(row), []
    for i in range(n_out):
        centre = min(max(scale * (i + 0.5) + shift, 0.5), n - 0.5)
        reach = max(1.0, abs(scale))
        x = np.arange(n) + 0.5
        w = np.maximum(0, 1 - np.abs(x - centre) / reach)
        w = w / w.sum()
        mean = w @ x
        variance = w @ (x - mean) ** 2
        if variance > 1e-9:
            w = np.maximum(0, w * (1 + (centre - mean) / variance * (x - mean)))
        out.append(w @ row / w.sum())
    return np.array(out)


@given(
    n=st.integers(1, 300),
    new=st.integers(1, 200),
    axis=st.integers(0, 2),
    start=st.fractions(-3, 3, max_denominator=7),
    mirrored=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_blocks_of_products_equal_the_definition(n, new, axis, start, mirrored):
    size = [3, 3, 3]
    size[axis] = n
    pixels = torch.rand(1, *size, generator=torch.Generator().manual_seed(n * 1000 + new))
    shape, begin = list(size), [0, 0, 0]
    shape[axis], begin[axis] = new, start
    frame = Frame.whole(size).resize(shape).crop(begin, shape)
    frame = frame.flip(axis) if mirrored else frame
    drawn = resample(pixels, frame)[0].movedim(axis, -1).reshape(-1, new)
    rows = pixels[0].movedim(axis, -1).reshape(-1, n).double().numpy()
    for row, ours in zip(rows, drawn, strict=True):
        expected = slowly(row, new, float(frame.scale[axis]), float(frame.shift[axis]))
        np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=3e-6)


def test_a_resize_of_a_photograph_stays_near_pillow():
    # A smooth random picture: the tilt of the weights shows as less than two grey levels.
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(noise).resize((90, 120), Image.Resampling.BICUBIC))
    pillow = np.asarray(Image.fromarray(pixels).resize((41, 37), Image.Resampling.BILINEAR), dtype=np.float32)
    ours = resample(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float(), Frame.whole((120, 90)).resize((37, 41)))
    assert float((ours.permute(1, 2, 0) - torch.from_numpy(pillow)).abs().max()) <= 2.0


pictured = Frame.whole((60, 90))


@pytest.mark.parametrize("fill", ["edge", (0.25, 0.5, 1.0)], ids=["edge", "colour"])
@pytest.mark.parametrize(
    "frame",
    [
        pictured,
        pictured.crop((7, -3), (30, 40)),
        pictured.resize((13, 9)),
        pictured.resize((150, 95)).crop((Fraction(1, 3), 2), (140, 90)),
        pictured.resize((23, 90)).pad((2, 3), (1, 7)),
        pictured.resize((60, 31)).flip(0),
        Frame.from_exif((60, 90), 6).resize((40, 30)),
        Frame.from_exif((60, 90), 7).crop((3, 4), (30, 30)),
    ],
    ids=lambda f: f"{f.size}-{f.axes}",
)
def test_a_picture_of_bytes_is_drawn_as_its_floats_are(frame, fill):
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    expected = resample(torch.from_numpy(picture).permute(2, 0, 1).float() / 255, frame, fill=fill)
    given = picture.copy()
    drawn = resample_picture(given, frame, fill=fill)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-6)
    assert drawn.is_contiguous()
    assert (given == picture).all()


def test_float64_stays_float64():
    frame = Frame.whole((1, 9)).resize((1, 7))
    pixels = torch.rand(1, 1, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = slowly(pixels[0, 0].numpy(), 7, float(frame.scale[1]), float(frame.shift[1]))
    resample(pixels.float(), frame)
    np.testing.assert_allclose(resample(pixels, frame)[0, 0].numpy(), expected, rtol=0, atol=1e-12)


def test_whole_pixel_moves_copy():
    pixels = torch.arange(12.0).reshape(1, 3, 4)
    frame = Frame.whole((3, 4)).flip(1).crop((1, -1), (2, 3))
    assert resample(pixels, frame)[0].tolist() == [[7, 7, 6], [11, 11, 10]]
    assert resample(pixels, frame, fill=(-1.0,))[0].tolist() == [[-1, 7, 6], [-1, 11, 10]]
    assert resample(pixels, Frame.from_exif((3, 4), 6))[0].tolist() == [[8, 4, 0], [9, 5, 1], [10, 6, 2], [11, 7, 3]]


def test_fill_and_edge_of_a_resized_pad():
    pixels = torch.ones(2, 4, 4)
    frame = Frame.whole((4, 4)).resize((2, 2)).pad((0, 0), (1, 1))
    assert resample(pixels, frame).unique().tolist() == [1]
    drawn = resample(pixels, frame, fill=(0.25, 0.5))
    assert drawn[0].tolist() == [[1, 1, 0.25], [1, 1, 0.25], [0.25, 0.25, 0.25]]
    assert drawn[1, 2, 2] == 0.5


def test_sample_reads_between_centres():
    values = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    asked = torch.tensor([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5], [1.0, 1.0], [-9.0, 9.0], [1.25, 0.5]])
    assert sample(values, asked)[:, 0].tolist() == [0, 1, 2, 1.5, 2, 0.75]


def test_sample_of_a_large_ramp_is_exact():
    values = ramp(700, 900)
    asked = (
        torch.rand(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        * torch.tensor([899.0, 699.0])
        + 0.5
    )
    assert float((sample(values, asked) - asked).abs().max()) <= 1e-3


def test_sample_of_a_volume():
    values = ramp(5, 6, 7)
    asked = torch.tensor([[2.25, 3.5, 1.75], [6.5, 0.5, 4.5]])
    torch.testing.assert_close(sample(values, asked), asked)


def test_refusals():
    with pytest.raises(ShapeError, match="was made from"):
        resample(torch.zeros(3, 4, 5), Frame.whole((5, 4)))
    with pytest.raises(ShapeError, match="fill needs 3"):
        resample(torch.zeros(3, 4, 5), Frame.whole((4, 5)), fill=(0.0,))
    with pytest.raises(ShapeError, match="was made from"):
        resample_picture(np.zeros((4, 5, 3), np.uint8), Frame.whole((5, 4)))
    with pytest.raises(ShapeError, match="fill needs 3"):
        resample_picture(np.zeros((4, 5, 3), np.uint8), Frame.whole((4, 5)), fill=(0.0,))
    with pytest.raises(ShapeError, match="2 coordinates"):
        sample(torch.zeros(3, 4, 5, 6), torch.zeros(1, 2))
