"""Volumes: a mark is found where it went, in voxels of the target as it is, whatever the size of the voxels."""

import math

import pytest
import torch

from patchatlas.arrays import Pixels
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import LandmarkError, ShapeError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.sampling import resample
from patchatlas.locate.centring import centred_on
from patchatlas.locate.volume import locate_in_volume, volume_frame
from tests.locate.test_search import CellEncoder, clouds

PATCH = (4, 4, 4)


def two_scans(dx: int, dy: int, dz: int) -> tuple[Pixels, Pixels]:
    """The second begins so many voxels further right, lower and deeper."""
    scene = clouds(32 + dz, 48 + dy, 48 + dx, seed=3, blob=5)
    return scene[:, :32, :48, :48].contiguous(), scene[:, dz:, dy:, dx:].contiguous()


@pytest.mark.parametrize(
    ("mark", "shift"),
    [((22.0, 18.0, 14.0), (12, 8, 4)), ((21.0, 20.0, 15.0), (11, 6, 1)), ((45.0, 46.0, 30.0), (3, 4, 8))],
)
def test_a_mark_is_found_where_it_went(mark: tuple[float, float, float], shift: tuple[int, int, int]) -> None:
    """Patches of pixels are only recognised on equal grids: the source's is laid about the mark, also at its far end,
    and the shift puts the mark in the centre of a patch of the target."""
    finding = locate_in_volume(*two_scans(*shift), mark, CellEncoder(PATCH), uuid="m")
    expected = [at - by for at, by in zip(mark, shift, strict=True)]
    assert finding.target_xy == pytest.approx(expected, abs=2)
    assert finding.source_xy == mark
    assert len(finding.covariance) == 3
    assert (finding.source_size, finding.target_size) == ((32, 48, 48), (32, 48, 48))


def test_scans_of_other_voxels_are_drawn_alike() -> None:
    """The target's slices are half as thick: 64 in place of 32."""
    source, target = two_scans(12, 8, 4)
    thin = resample(target, Frame.whole(target.shape[1:]).resize((64, 48, 48)))
    finding = locate_in_volume(
        source, thin, (30.0, 26.0, 18.0), CellEncoder(PATCH), uuid="m", target_scale=(0.5, 1.0, 1.0)
    )
    x, y, z = finding.target_xy
    assert (x, y, z / 2) == pytest.approx((18, 18, 14), abs=2)
    assert finding.target_size == (64, 48, 48)
    assert finding.grid.frame.size == (32, 48, 48)


def test_the_frame_is_scaled_and_padded_behind() -> None:
    frame = volume_frame((10, 30, 31), patch=(4, 8, 8), scale=(2.5, 1.0, 0.5))
    assert frame.size == (28, 32, 16)  # 25, 30 and 15.5 rounded up
    assert frame.content() == ((0, 25), (0, 30), (0, 16))
    assert frame.to_source(torch.tensor([[16.0, 30.0, 25.0]])).tolist() == [[31.0, 30.0, 10.0]]


@pytest.mark.parametrize("point", [(3.25, 10.0, 7.5), (0.0, 0.0, 0.0), (47.9, 31.5, 20.0)])
def test_the_point_is_the_centre_of_a_patch(point: tuple[float, float, float]) -> None:
    """Of a frame that is scaled, and of it turned round: every voxel is there, with less than two patches more."""
    plain = volume_frame((21, 32, 48), patch=PATCH, scale=(2.0, 1.0, 0.75))
    for drawn in (plain, plain.flip(0).flip(2), plain.transpose((2, 0, 1))):
        frame = centred_on(drawn, point, patch=PATCH)
        cells = PatchGrid.on(frame, PATCH).cells_of(torch.tensor([point], dtype=torch.float64))
        assert (cells % 1 - 0.5).abs().max() < 1e-9
        for k, (begin, end) in enumerate(frame.content()):
            assert end - begin == drawn.content()[k][1] - drawn.content()[k][0]
            assert frame.size[k] - (end - begin) < 2 * PATCH[k]
    cut = centred_on(plain.crop((1, 2, 3), (32, 24, 28)), point, patch=PATCH)
    cells = PatchGrid.on(cut, PATCH).cells_of(torch.tensor([point], dtype=torch.float64))
    assert (cells % 1 - 0.5).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size_zhw": (3, 32, 32)}, "smaller than a patch"),
        ({"scale": (1.0, 0.1, 1.0)}, "smaller than a patch"),
        ({"scale": (1.0, 0.0, 1.0)}, "three above 0"),
        ({"scale": (1.0, math.inf, 1.0)}, "three above 0"),
        ({"size_zhw": (32, 32)}, "three above 0"),
    ],
)
def test_frames_that_cannot_be_are_refused(change: dict, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        volume_frame(**{"size_zhw": (16, 32, 32), "patch": PATCH, **change})


def test_what_is_no_volume_is_refused() -> None:
    source, target = two_scans(12, 8, 4)
    with pytest.raises(LandmarkError, match=r"outside the source of \(48, 48, 32\) voxels"):
        locate_in_volume(source, target, (20.0, 20.0, 32.0), CellEncoder(PATCH), uuid="m")
    with pytest.raises(ShapeError, match="needs a 3-D encoder"):
        locate_in_volume(source, target, (2.0, 2.0, 2.0), CellEncoder((4, 4)), uuid="m")
    with pytest.raises(ShapeError, match="needs a 3-D encoder"):
        locate_in_volume(source[:, 0], target, (2.0, 2.0, 2.0), CellEncoder(PATCH), uuid="m")


def waves(z: int, y: int, x: int, *, start: tuple[int, int, int]) -> Pixels:
    """A part of one endless scene, from voxel `start` (x, y, z) on, in which every place has a colour of its own.

    48 channels: sines and cosines of 24 waves of 20 to 60 voxels. The mean over a cube of such a wave is the wave at
    the cube's centre, weaker. So the cosine of two tokens depends on how far apart their cubes lie in the scene, is
    the same either way along every axis, since the waves come mirrored too, and is 1 at no distance.
    """
    generator = torch.Generator().manual_seed(0)
    ways = torch.nn.functional.normalize(torch.rand(6, 3, generator=generator), dim=1)
    lengths = 20 + 40 * torch.rand(6, 1, generator=generator)
    mirrored = torch.tensor([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    numbers = (2 * math.pi * ways / lengths * mirrored[:, None]).flatten(0, 1)  # 24 3
    sides = [torch.arange(n) + 0.5 + at for n, at in zip((x, y, z), start, strict=True)]
    places = torch.stack(torch.meshgrid(*sides, indexing="ij")).transpose(1, 3)  # 3 z y x
    phases = torch.einsum("kc,czyx->kzyx", numbers, places)
    return 0.5 + 0.5 * torch.cat([phases.sin(), phases.cos()])


class WaveEncoder(FakeEncoder):
    """Means of patches, less the mean of all waves."""

    def __call__(self, pixels: torch.Tensor, /) -> Tokens:
        return Tokens(super().__call__(pixels).patches - 0.5)


PHASES = [(0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3), (1, 2, 3), (2, 2, 2), (3, 1, 2), (2, 3, 1)]


@pytest.mark.parametrize("shift", PHASES)
def test_a_shifted_copy_is_found_without_displacement_whatever_its_phase(shift: tuple[int, int, int]) -> None:
    """The copy begins later by a whole patch and by each part of one, so that its grid falls otherwise on the scene."""
    encoder = WaveEncoder(patch=PATCH, channels=48, registers=0, has_cls=False)
    source = waves(24, 28, 32, start=(0, 0, 0))
    target = waves(24, 28, 32, start=tuple(4 + by for by in shift))
    for mark in ((18.0, 14.0, 14.0), (16.5, 17.25, 12.75)):
        finding = locate_in_volume(source, target, mark, encoder, uuid="m")
        expected = [at - 4 - by for at, by in zip(mark, shift, strict=True)]
        assert finding.target_xy == pytest.approx(expected, abs=0.4)  # a tenth of a patch
        in_place = all((at - 2) % 4 == 0 for at in expected)
        assert (finding.similarity > 1 - 1e-6) == in_place
