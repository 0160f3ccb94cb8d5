"""Locating on pairs whose answer is known: cuts of one texture, real photos with their homography, absent marks."""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from patchatlas import __version__
from patchatlas.arrays import ImageU8
from patchatlas.dense import encode
from patchatlas.encoders import sift
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.encoders.protocol import Tokens
from patchatlas.errors import LandmarkError, ShapeError, StampError
from patchatlas.geometry.buckets import fit
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.geometry.sampling import resample
from patchatlas.io.images import read_image
from patchatlas.io.masks import Mask
from patchatlas.locate.pair import centred_frame, locate_pair, locate_pairs
from patchatlas.locate.recipe import Recipe
from patchatlas.locate.result import Finding
from patchatlas.locate.search import RADIUS, locate_points
from patchatlas.matching.confidence import calibration_for
from patchatlas.spec import EncoderSpec


@dataclass
class PixelEncoder:
    """The pixels of a patch as its token, less their mean; counts its forwards."""

    patch: tuple[int, int] = (8, 8)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    forwards: int = 0

    @property
    def spec(self) -> EncoderSpec:
        return FakeEncoder(patch=self.patch).spec

    def __call__(self, pixels: Float[Tensor, "b c *size"], /) -> Tokens:
        self.forwards += 1
        rows, cols = (n // p for n, p in zip(pixels.shape[2:], self.patch, strict=True))
        cells = pixels.reshape(pixels.shape[0], 3, rows, self.patch[0], cols, self.patch[1])
        tokens = cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # b (gh gw) (c ph pw)
        return Tokens(tokens - tokens.mean(dim=2, keepdim=True))


def texture(rows: int, columns: int, *, seed: int = 0, blob: int = 3) -> ImageU8:
    """Smooth random colours with features of about `blob` pixels."""
    noise = torch.rand(3, rows // blob + 2, columns // blob + 2, generator=torch.Generator().manual_seed(seed))
    grown = resample(noise, Frame.whole(noise.shape[1:]).resize((rows, columns)))
    return (grown * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def cut(picture: ImageU8, x: int, y: int, *, columns: int, rows: int) -> ImageU8:
    return np.ascontiguousarray(picture[y : y + rows, x : x + columns])


def test_a_copy_is_found_exactly_where_it_went() -> None:
    """The mark is no patch centre of the source; its place in the target is one, so the tokens are equal."""
    scene = texture(140, 170)
    source = cut(scene, 0, 0, columns=128, rows=96)
    target = cut(scene, 31, 17, columns=128, rows=96)
    mark = (31 + 44.0, 17 + 28.0)  # target (44, 28): the centre of cell (3, 5) of patches of 8
    finding = locate_pair(source, target, mark, PixelEncoder(), uuid="m", recipe=Recipe(image_size=128))
    assert finding.target_xy == pytest.approx((44, 28), abs=0.8)  # neighbours differ by chance and pull a tenth of 8 px
    assert finding.similarity == pytest.approx(1, abs=1e-5)
    assert finding.similarity_map[3, 5] == finding.similarity
    assert finding.cycle_px < 0.8
    assert finding.state == "found"
    assert finding.mel == (math.floor(finding.target_xy[0]), math.floor(finding.target_xy[1]))
    assert (finding.source_size, finding.target_size, finding.image_size) == ((96, 128), (96, 128), 128)


def test_answers_are_in_pixels_of_the_target_as_it_is() -> None:
    """The same scene, twice as large and cut differently, through an encoder input of yet another size."""
    scene = texture(80, 160, blob=5)
    large = resample(torch.from_numpy(scene).permute(2, 0, 1) / 255, Frame.whole((80, 160)).resize((160, 320)))
    target = (large * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    finding = locate_pair(
        scene, target, (100.5, 20.5), sift.load(device=torch.device("cpu")), uuid="m", recipe=Recipe(image_size=320)
    )
    assert finding.target_xy == pytest.approx((201, 41), abs=3.0)
    assert finding.state == "found"


def test_places_are_finer_than_a_patch() -> None:
    """Even the best choice of a patch centre is 0.383 patches off on average (the mean distance in a unit square)."""
    scene, encoder = texture(220, 220, blob=6), sift.load(device=torch.device("cpu"))
    source = cut(scene, 10, 10, columns=200, rows=200)
    errors = []
    for dx, dy in [(3, 0), (-2, 5), (1, -3), (0, 4), (6, 2), (-5, -7), (4, 4), (2, 7)]:
        target = cut(scene, 10 - dx, 10 - dy, columns=200, rows=200)
        finding = locate_pair(source, target, (100.5, 92.5), encoder, uuid="m", recipe=Recipe(image_size=200))
        errors.append(math.dist(finding.target_xy, (100.5 + dx, 92.5 + dy)))
    assert np.mean(errors) < 0.2 * 8


def test_one_forward_for_each_picture() -> None:
    encoder = PixelEncoder()
    picture = texture(64, 64)
    locate_pair(picture, picture, (20.5, 30.5), encoder, uuid="m", recipe=Recipe(image_size=64))
    assert encoder.forwards == 2


def test_padding_is_never_the_answer() -> None:
    """Rows 32 to 34 of the target look like the mark; their patches are mostly padding, which repeats them."""
    source = texture(64, 64)
    source[:, 30:38] = source[20:21, 30:38]  # stripes along y about the mark: every row alike
    target = texture(35, 64, seed=1)
    target[32:, 24:32] = source[20, 30:38]
    finding = locate_pair(source, target, (34.0, 30.0), PixelEncoder(), uuid="m", recipe=Recipe(image_size=64))
    assert finding.similarity_map[4, 3] > 0.99
    assert not finding.scored[4].any()
    assert finding.scored[:4].all()
    assert finding.target_xy[1] < 32
    assert all(peak.xy[1] < 32 for peak in finding.runners_up)


def test_an_answer_on_the_very_edge_is_a_pixel_of_the_target() -> None:
    """With 36 rows and patches of 8 the last centres lie on the lower edge of the picture, below its last pixel's."""
    source = texture(64, 64)
    source[:, 30:38] = source[20:21, 30:38]
    target = texture(36, 64, seed=1)
    target[32:, 24:32] = source[20, 30:38]
    finding = locate_pair(source, target, (34.0, 30.0), PixelEncoder(), uuid="m", recipe=Recipe(image_size=64))
    assert finding.target_xy[1] == 35.5
    assert finding.mel[1] == 35


def test_runners_up_are_apart_and_in_order() -> None:
    picture, other = texture(128, 128), texture(128, 128, seed=5)
    finding = locate_pair(picture, other, (60.5, 60.5), PixelEncoder(), uuid="m", recipe=Recipe(image_size=128))
    similarities = [finding.similarity, *(peak.similarity for peak in finding.runners_up)]
    assert len(finding.runners_up) == 4
    assert similarities == sorted(similarities, reverse=True)
    assert finding.margin == pytest.approx(similarities[0] - similarities[1])
    places = [finding.target_xy, *(peak.xy for peak in finding.runners_up)]
    apart = [math.dist(a, b) for n, a in enumerate(places) for b in places[:n]]
    assert min(apart) > (RADIUS - 1.5) * 8  # refining moves each by at most 0.71 patches


def test_a_target_without_room_for_a_rival_has_no_margin() -> None:
    picture = texture(16, 16)
    finding = locate_pair(picture, picture, (4.0, 4.0), PixelEncoder(), uuid="m", recipe=Recipe(image_size=16))
    assert (finding.margin, finding.runners_up, finding.state) == (0.0, (), "uncertain")


def test_spread_is_the_root_of_the_larger_eigenvalue_in_target_pixels() -> None:
    picture = texture(96, 128)
    finding = locate_pair(picture, picture, (60.5, 60.5), PixelEncoder(), uuid="m", recipe=Recipe(image_size=128))
    doubled = np.ascontiguousarray(picture.repeat(2, axis=0).repeat(2, axis=1))
    larger = locate_pair(picture, doubled, (60.5, 60.5), PixelEncoder(), uuid="m", recipe=Recipe(image_size=128))
    assert finding.spread_px == pytest.approx(math.sqrt(np.linalg.eigvalsh(finding.covariance)[-1]))
    assert larger.spread_px == pytest.approx(2 * finding.spread_px, rel=0.05)


def test_another_texture_is_not_found() -> None:
    encoder = sift.load(device=torch.device("cpu"))
    states = [
        locate_pair(
            texture(160, 160, blob=6),
            texture(160, 160, seed=9, blob=6),
            mark,
            encoder,
            uuid="m",
            recipe=Recipe(image_size=160),
        ).state
        for mark in [(40.5, 40.5), (120.5, 50.5), (80.5, 110.5)]
    ]
    assert "found" not in states


def test_an_even_picture_leaves_it_uncertain() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    encoder = PixelEncoder()
    for source, target in ((grey, texture(64, 64)), (texture(64, 64), grey), (grey, grey)):
        finding = locate_pair(source, target, (30.5, 30.5), encoder, uuid="m", recipe=Recipe(image_size=64))
        assert finding.state == "uncertain"
        assert "even surface" in finding.reason
        assert bool(torch.isfinite(finding.similarity_map).all())


@settings(max_examples=60)
@given(
    rows=st.integers(20, 400),
    columns=st.integers(20, 400),
    across=st.floats(0, 1, exclude_max=True),
    down=st.floats(0, 1, exclude_max=True),
    patch=st.sampled_from([(8, 8), (14, 14), (16, 16)]),
)
def test_the_mark_is_the_centre_of_a_patch(
    rows: int, columns: int, across: float, down: float, patch: tuple[int, int]
) -> None:
    mark = (across * columns, down * rows)
    long_side = 14 * 16
    try:
        scaled = fit((rows, columns), long_side=long_side, patch=patch)
    except ShapeError:
        return  # too narrow a picture
    frame = centred_frame((rows, columns), mark, image_size=long_side, patch=patch)
    cell = PatchGrid.on(frame, patch).cells_of(torch.tensor([mark], dtype=torch.float64))[0]
    assert (cell - cell.floor()).tolist() == pytest.approx([0.5, 0.5], abs=1e-9)
    for axis in range(2):
        (low, high), (_, end) = frame.content()[axis], scaled.content()[axis]
        assert high - low == end  # nothing of the picture is lost
        assert 0 <= low < patch[axis]
        assert 0 <= frame.size[axis] - high < patch[axis]
    assert frame.scale == scaled.scale


def test_marks_on_the_border_work() -> None:
    picture = texture(64, 96)
    for mark in [(0.0, 0.0), (95.99, 63.99), (0.5, 63.5)]:
        finding = locate_pair(picture, picture, mark, PixelEncoder(), uuid="m", recipe=Recipe(image_size=96))
        assert 0 <= finding.target_xy[0] < 96
        assert 0 <= finding.target_xy[1] < 64
        assert finding.mel[0] in range(96)
        assert finding.mel[1] in range(64)


@pytest.mark.parametrize(
    ("mark", "source_hw", "target_hw", "patch", "image_size", "error", "said"),
    [
        ((64.0, 10.0), (64, 64), (64, 64), (8, 8), 64, LandmarkError, r"\(64, 10\) lies outside"),
        ((-0.5, 10.0), (64, 64), (64, 64), (8, 8), 64, LandmarkError, "outside"),
        (
            (10.0, 10.0),
            (64, 64),
            (64, 64),
            (8, 8),
            60,
            ShapeError,
            "60 is not a multiple of the patch 8; take 56 or 64",
        ),
        ((10.0, 10.0), (64, 64), (7, 64), (8, 8), 64, ShapeError, "the target is 64 x 7 px, smaller than one patch"),
        ((3.0, 3.0), (7, 7), (64, 64), (8, 8), 64, ShapeError, "the source is 7 x 7 px, smaller than one patch"),
        ((10.0, 10.0), (64, 64), (8, 256), (8, 8), 64, ShapeError, "scaled .* smaller than one patch"),
        ((10.0, 10.0), (64, 64), (64, 64), (2, 8, 8), 64, ShapeError, "3-D input"),
    ],
)
def test_what_cannot_be_located_is_refused(
    mark: tuple[float, float],
    source_hw: tuple[int, int],
    target_hw: tuple[int, int],
    patch: tuple[int, ...],
    image_size: int,
    error: type[Exception],
    said: str,
) -> None:
    encoder = FakeEncoder(patch=patch)
    with pytest.raises(error, match=said):
        locate_pair(
            texture(*source_hw), texture(*target_hw), mark, encoder, uuid="m", recipe=Recipe(image_size=image_size)
        )


def test_the_calibration_given_decides() -> None:
    picture, encoder = texture(96, 96), PixelEncoder()
    for base, state in ((20.0, "found"), (-20.0, "absent")):
        given = replace(calibration_for(encoder.spec), base=base)
        finding = locate_pair(
            picture, picture, (44.0, 44.0), encoder, uuid="m", recipe=Recipe(image_size=96), calibration=given
        )
        assert (finding.state, finding.calibration) == (state, given)
        assert finding.confidence == given.probability(finding.cues)


def test_a_masked_source_takes_no_place_back() -> None:
    """The mark lies outside the mask, so nothing matches back to it."""
    picture = texture(96, 96)
    inside = torch.ones(96, 96, dtype=torch.bool)
    inside[20:76, 20:76] = False
    mask = Mask(inside, Path("a.png.mask.png"), "")
    for source_mask, cycle in ((None, 0), (mask, 28)):
        finding = locate_pair(
            picture,
            picture,
            (44.0, 44.0),
            PixelEncoder(),
            uuid="m",
            recipe=Recipe(image_size=96),
            source_mask=source_mask,
        )
        assert finding.target_xy == pytest.approx((44, 44), abs=0.8)
        assert finding.cycle_px >= cycle
        assert (finding.cycle_px < 1) == (source_mask is None)


def test_one_point_name_and_mask_a_source() -> None:
    picture = texture(64, 64)
    for points, views, masks in (
        ([], ["a"], None),
        ([(4.0, 4.0)], [], None),
        ([(4.0, 4.0)], ["a"], []),
        ([(4.0, 4.0)] * 2, ["a"], None),
    ):
        with pytest.raises(ShapeError, match="one of each a source"):
            locate_pairs([picture], picture, points, PixelEncoder(), views=views, uuid="m", source_masks=masks)


def test_maps_made_in_different_ways_are_refused() -> None:
    picture = texture(64, 64)
    one, other = encode(picture, FakeEncoder(patch=(8, 8))), encode(picture, FakeEncoder(patch=(16, 16)))
    with pytest.raises(StampError, match="patch"):
        locate_points(one, other, torch.tensor([[10.0, 10.0]]), uuids=["m"], image_size=64)


def test_json_holds_every_number_and_is_json() -> None:
    picture = texture(64, 96)
    finding = locate_pair(picture, picture, (33.25, 20.5), PixelEncoder(), uuid="m", recipe=Recipe(image_size=96))
    stored = json.loads(json.dumps(finding.to_json(source="a.jpg", target="b.jpg"), allow_nan=False))
    assert stored["format"] == "patchatlas.locate"
    assert (stored["version"], stored["package"]) == (2, __version__)
    assert (stored["source"], stored["target"], stored["source_xy"]) == ("a.jpg", "b.jpg", [33.25, 20.5])
    assert stored["target_xy"] == list(finding.target_xy)
    assert stored["mel"] == [math.floor(v) for v in finding.target_xy]
    for name in ("uuid", "state", "reason", "similarity", "margin", "cycle_px", "spread_px", "confidence"):
        assert stored[name] == getattr(finding, name)
    assert stored["runners_up"][0] == {
        "target_xy": list(finding.runners_up[0].xy),
        "similarity": finding.runners_up[0].similarity,
    }
    assert stored["sizes"] == {"image_size": 96, "source_hw": [64, 96], "target_hw": [64, 96], "grid": [8, 12]}
    assert stored["encoder"]["weights_sha256"] == finding.spec.weights_sha256
    assert stored["stamp"]["digest"] == finding.stamp.digest
    assert stored["stamp"]["facts"]["resample"] == "triangle-antialias-float32"
    assert stored["cues"] == asdict(finding.cues)
    assert stored["cues"]["cycle"] == pytest.approx(finding.cycle_px / 8)
    assert stored["calibration"]["name"] == "default"


def test_graf_seen_from_the_side(opencv_doc: Path) -> None:
    """Marks on graf1; truth through the homography that comes with the pair (theirs: pixel centres whole numbers)."""
    storage = cv2.FileStorage(str(opencv_doc / "H1to3p.xml"), cv2.FILE_STORAGE_READ)
    homography = storage.getFirstTopLevelNode().mat()
    source, target = read_image(opencv_doc / "graf1.png"), read_image(opencv_doc / "graf3.png")
    encoder = sift.load(device=torch.device("cpu"))
    target_map = encode(target, encoder, size=896)
    marks = [(458.5, 488.5), (314.5, 319.5), (234.5, 375.5)]
    findings: list[Finding] = []
    for mark in marks:
        frame = centred_frame(source.shape[:2], mark, image_size=896, patch=(8, 8))
        source_map = encode(source, encoder, frame=frame)
        findings += locate_points(source_map, target_map, torch.tensor([mark]), uuids=["wall"], image_size=896)
    raised = np.array([[x - 0.5, y - 0.5, 1] for x, y in marks]) @ homography.T
    truth = raised[:, :2] / raised[:, 2:] + 0.5
    errors = [math.dist(f.target_xy, t) for f, t in zip(findings, truth.tolist(), strict=True)]
    assert max(errors) < 7.2  # a patch is 7.1 px
    assert [f.state for f in findings] == ["found"] * 3
