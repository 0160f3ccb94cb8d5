"""Many points at once: each as if it were alone, in pictures and in volumes, and never where the mask forbids."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.dense import encode
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import ShapeError
from patchatlas.features import FeatureMap
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample
from patchatlas.locate import search
from patchatlas.locate.result import Finding
from patchatlas.locate.search import locate_points
from patchatlas.spec import EncoderSpec


@dataclass
class CellEncoder:
    """The pixels of a patch as its token, less their mean; of any number of axes, with one channel."""

    patch: tuple[int, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def spec(self) -> EncoderSpec:
        return FakeEncoder(patch=self.patch).spec

    def __call__(self, pixels: Float[Tensor, "b c *size"], /) -> Tokens:
        cells = pixels
        for axis, p in enumerate(self.patch):
            cells = cells.unfold(2 + axis, p, p)  # b c *grid *patch
        tokens = cells.movedim(1, 1 + len(self.patch)).flatten(1 + len(self.patch)).flatten(1, len(self.patch))
        return Tokens(tokens - tokens.mean(dim=2, keepdim=True))


def clouds(*size: int, seed: int, blob: int = 4) -> Tensor:
    """Smooth random values, one channel times three."""
    noise = torch.rand(1, *(n // blob + 2 for n in size), generator=torch.Generator().manual_seed(seed))
    grown = resample(noise, Frame.whole(noise.shape[1:]).resize(size))
    return grown.expand(3, *size).contiguous()


def two_cuts() -> tuple[FeatureMap, FeatureMap]:
    """Two cuts of a scene, the second 16 px (two patches) further right and 8 px (one) lower."""
    scene = clouds(104, 144, seed=0)
    encoder = CellEncoder((8, 8))
    return encode(scene[:, :96, :128].contiguous(), encoder), encode(scene[:, 8:, 16:].contiguous(), encoder)


def numbers(finding: Finding) -> list[float]:
    pairs = [finding.target_xy, *(peak.xy for peak in finding.runners_up), *finding.covariance]
    return [*sum(pairs, ()), finding.similarity, finding.margin, finding.cycle_px, finding.spread_px]


@pytest.mark.parametrize("at_once", [1, 3 * 192, 1 << 20])
def test_each_is_found_as_if_it_were_alone(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source_map, target_map = two_cuts()
    points = 20 + 70 * torch.rand(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alone = [
        locate_points(source_map, target_map, points[k : k + 1], uuids=[str(k)], image_size=128)[0] for k in range(40)
    ]
    monkeypatch.setattr(search, "_AT_ONCE", at_once)
    together = locate_points(source_map, target_map, points, uuids=[str(k) for k in range(40)], image_size=128)
    for k, (one, other) in enumerate(zip(alone, together, strict=True)):
        assert one.uuid == other.uuid == str(k)
        assert one.state == other.state
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-4, abs=1e-4)
        torch.testing.assert_close(one.similarity_map, other.similarity_map)


def test_patch_centres_are_found_where_they_went() -> None:
    source_map, target_map = two_cuts()
    points = torch.tensor([[44.0, 28.0], [60.0, 44.0], [100.0, 76.0]], dtype=torch.float64)
    findings = locate_points(source_map, target_map, points, uuids="abc", image_size=128)
    for (x, y), finding in zip(points.tolist(), findings, strict=True):
        assert [v // 8 for v in finding.target_xy] == [(x - 16) // 8, (y - 8) // 8]  # neighbours pull within the patch
        assert finding.similarity == pytest.approx(1, abs=1e-5)
        assert finding.source_xy == (x, y)


def test_a_masked_patch_is_never_the_answer() -> None:
    source_map, target_map = two_cuts()
    point = torch.tensor([[60.0, 44.0]], dtype=torch.float64)
    (free,) = locate_points(source_map, target_map, point, uuids=["m"], image_size=128)
    mask = torch.ones(target_map.grid.shape, dtype=torch.bool)
    column, row = (int(v // 8) for v in free.target_xy)
    mask[row - 1 : row + 2, column - 1 : column + 2] = False
    (kept_out,) = locate_points(source_map, target_map, point, uuids=["m"], image_size=128, target_mask=mask)
    for peak_xy in (kept_out.target_xy, *(peak.xy for peak in kept_out.runners_up)):
        assert mask[int(peak_xy[1] // 8), int(peak_xy[0] // 8)]
    assert not (kept_out.scored & ~mask).any()
    with pytest.raises(ShapeError, match="no patch"):
        locate_points(source_map, target_map, point, uuids=["m"], image_size=128, target_mask=mask & False)


def test_masked_patches_are_no_rivals() -> None:
    """Lead, entropy and standard deviation are those of the patches that may be an answer."""
    source_map, target_map = two_cuts()
    point = torch.tensor([[60.0, 44.0]], dtype=torch.float64)
    mask = torch.zeros(target_map.grid.shape, dtype=torch.bool)
    mask[:, :12] = True
    (finding,) = locate_points(source_map, target_map, point, uuids=["m"], image_size=128, target_mask=mask)
    seen = finding.similarity_map[:, :12]
    best = finding.runners_up[0].similarity
    assert finding.cues.lead == pytest.approx(float((seen.max() - best) / seen.std(correction=0)), rel=1e-4)
    assert all(peak.xy[0] < 12 * 8 for peak in finding.runners_up)


def test_a_place_never_matches_back_to_where_the_source_is_masked() -> None:
    source_map, target_map = two_cuts()
    point = torch.tensor([[60.0, 44.0]], dtype=torch.float64)
    (free,) = locate_points(source_map, target_map, point, uuids=["m"], image_size=128)
    assert free.cycle_px < 8
    mask = torch.ones(source_map.grid.shape, dtype=torch.bool)
    mask[4:7, 6:9] = False
    (kept_out,) = locate_points(source_map, target_map, point, uuids=["m"], image_size=128, source_mask=mask)
    assert kept_out.target_xy == free.target_xy
    assert kept_out.cycle_px > 8
    assert kept_out.cues.cycle == pytest.approx(kept_out.cycle_px / 8)
    assert kept_out.confidence < free.confidence


def test_a_landmark_of_a_volume_is_found_in_the_next() -> None:
    """The second volume begins 4 voxels deeper, 8 lower and 12 further right: patches of 4 move by whole ones."""
    scene, encoder = clouds(36, 56, 60, seed=3, blob=5), CellEncoder((4, 4, 4))
    first = encode(scene[:, :32, :48, :48].contiguous(), encoder)
    second = encode(scene[:, 4:, 8:, 12:].contiguous(), encoder)
    marks = torch.tensor([[22.0, 18.0, 14.0], [30.0, 26.0, 10.0]], dtype=torch.float64)
    for mark, finding in zip(
        marks.tolist(), locate_points(first, second, marks, uuids="ab", image_size=48), strict=True
    ):
        assert [v // 4 for v in finding.target_xy] == [(mark[0] - 12) // 4, (mark[1] - 8) // 4, (mark[2] - 4) // 4]
        assert math.dist(finding.source_xy, mark) == 0
        assert finding.cycle_px < 4
        assert len(finding.covariance) == 3
        stored = finding.to_json(source="a", target="b")
        assert "mel" not in stored
        assert stored["sizes"]["target_zhw"] == [32, 48, 48]


def test_each_point_needs_its_label() -> None:
    source_map, target_map = two_cuts()
    with pytest.raises(ShapeError, match="2 points need as many uuids, given 1"):
        locate_points(source_map, target_map, torch.zeros(2, 2), uuids=["a"], image_size=128)
