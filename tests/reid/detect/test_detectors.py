"""Detectors that look at pixels: what they find where, what they leave out, and what they say when they cannot run."""

import json
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from patchatlas.arrays import ImageU8
from patchatlas.encoders.fake import FakeEncoder
from patchatlas.errors import InputError, MissingExtraError, UsageError
from patchatlas.features import FeatureMap
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.io.video import VideoFrame
from patchatlas.reid.boxes import Detections
from patchatlas.reid.config import make_config
from patchatlas.reid.detect.detector import Chosen
from patchatlas.reid.detect.hog import HogDetector
from patchatlas.reid.detect.loading import load_detector
from patchatlas.reid.detect.motion import MotionDetector
from patchatlas.reid.detect.plugin import PluginDetector
from patchatlas.reid.detect.saliency import SaliencyDetector, salient_boxes
from patchatlas.stamp import Stamp


def shown(pixels: ImageU8, number: int = 0) -> VideoFrame:
    return VideoFrame(number, Fraction(number, 4), pixels)


def overlap(one: list[float], other: list[float]) -> float:
    """Area shared over area covered."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, wide) * max(0.0, high)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


# -- motion ------------------------------------------------------------------------------------------------------------


def scene(size_hw: tuple[int, int], boxes: list[tuple[int, int, int, int]], seed: int) -> ImageU8:
    """A fixed texture with a little new noise, and bright things before it."""
    still = np.random.default_rng(0).integers(60, 120, (*size_hw, 3))
    pixels = np.clip(still + np.random.default_rng(seed).integers(-3, 4, still.shape), 0, 255).astype(np.uint8)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = (230, 200, 40)
    return pixels


@pytest.mark.parametrize(("k", "work_side"), [(1, 640), (2, 240), (2, 333)])
def test_motion_finds_what_moves_in_source_pixels(k: int, work_side: int) -> None:
    """Also where movement is looked for in a smaller picture."""
    size_hw = (180 * k, 240 * k)
    detector = MotionDetector(fps=4.0, work_side=work_side)
    for number in range(12):
        x = 10 + 14 * number
        truth = [(x * k, 40 * k, (x + 20) * k, 100 * k), (200 * k, 120 * k, 220 * k, 170 * k)]
        found = detector(shown(scene(size_hw, truth, number), number))
        if number == 0:
            assert len(found) == 0
    assert set(found.labels) == {"moving"}
    # The second thing never moves. The first one jumps ahead by less than its width.
    assert len(found) == 1
    assert overlap(found.boxes[0].tolist(), [float(one) for one in truth[0]]) > 0.8
    assert 0.5 < float(found.scores[0]) <= 1


def test_motion_everywhere_is_no_object() -> None:
    detector = MotionDetector(fps=4.0)
    for number in range(8):
        detector(shown(scene((180, 240), [], number), number))
    assert len(detector(shown(255 - scene((180, 240), [], 9), 9))) == 0
    assert detector.dropped == {"most of the frame moves": 1}


def test_motion_repeats_itself() -> None:
    runs = []
    for _ in range(2):
        detector = MotionDetector(fps=4.0)
        frames = [scene((180, 240), [(10 + 14 * n, 40, 30 + 14 * n, 100)], n) for n in range(6)]
        runs.append([detector(shown(pixels, n)).boxes.tolist() for n, pixels in enumerate(frames)])
    assert runs[0] == runs[1]


def test_motion_needs_opencv_and_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="must be positive"):
        MotionDetector(fps=0.0)
    monkeypatch.setitem(sys.modules, "cv2", None)
    for needs in (lambda: MotionDetector(fps=4.0), HogDetector):
        with pytest.raises(MissingExtraError, match=r"patchatlas\[opencv\]"):
            needs()


# -- hog ---------------------------------------------------------------------------------------------------------------


def test_hog_finds_people_on_a_real_frame(opencv_doc: Path) -> None:
    from patchatlas.io.video import open_video

    video = open_video(opencv_doc / "vtest.avi")
    (frame,) = video.frames(start=20, end=20.1)
    detector = HogDetector()
    found = detector(frame)
    assert set(found.labels) == {"person"}
    # Two men walk abreast on the right, read off the frame by eye.
    for person in ([617.0, 265.0, 646.0, 367.0], [704.0, 253.0, 745.0, 352.0]):
        assert max(overlap(person, box) for box in found.boxes.tolist()) > 0.35
    assert detector(frame).boxes.tolist() == found.boxes.tolist()


def test_hog_has_no_window_in_a_small_frame() -> None:
    assert len(HogDetector()(shown(np.zeros((127, 200, 3), dtype=np.uint8)))) == 0


def test_hog_is_missing_from_opencv_5(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.delattr(cv2, "HOGDescriptor")
    with pytest.raises(MissingExtraError, match="OpenCV 4, or the contrib build"):
        HogDetector()


# -- saliency ----------------------------------------------------------------------------------------------------------


def map_of(frame: Frame, tokens: torch.Tensor) -> FeatureMap:
    encoder = FakeEncoder(patch=(8, 8))
    grid = PatchGrid.on(frame, (8, 8))
    return FeatureMap(tokens.reshape(grid.count, -1), grid, encoder.spec, Stamp.of(encoder.spec))


def test_salient_boxes_are_the_patches_that_differ() -> None:
    tokens = torch.tensor([1.0, 0.2, 0.0]).repeat(10, 12, 1) + 0.02 * torch.randn(
        10, 12, 3, generator=torch.Generator().manual_seed(0)
    )
    tokens[2:5, 3:5] = torch.tensor([0.0, 0.1, 1.0])
    tokens[6:9, 8:11] = torch.tensor([0.1, 1.0, 0.3])
    tokens[0, 11] = torch.tensor([0.0, 0.1, 1.0])
    # The picture is half as large as the frame that the encoder sees.
    found, dropped = salient_boxes(map_of(Frame.whole((40, 48)).resize((80, 96)), tokens))
    assert found.boxes.tolist() == [[12, 8, 20, 20], [32, 24, 44, 36]]
    assert dropped == {"few patches": 1}
    assert all(0.1 < score <= 1 for score in found.scores.tolist())


def test_an_even_map_has_nothing_salient() -> None:
    found, dropped = salient_boxes(map_of(Frame.whole((80, 96)), torch.ones(10, 12, 3)))
    assert (len(found), dropped) == (0, {})


def test_padding_is_never_salient() -> None:
    tokens = torch.tensor([1.0, 0.2, 0.0]).repeat(10, 12, 1)
    tokens[:, 9:] = torch.tensor([0.0, 0.1, 1.0])
    tokens[2:5, 7:9] = tokens[0, 9]  # touches the padding, and is like it
    frame = Frame.whole((80, 72)).pad((0, 0), (0, 24))
    assert salient_boxes(map_of(frame, tokens))[0].boxes.tolist() == [[56, 16, 72, 40]]


@pytest.mark.parametrize("size", [None, 96])
def test_saliency_of_a_frame_whose_sides_are_no_multiples_of_the_patch(size: int | None) -> None:
    pixels = np.full((83, 100, 3), (40, 90, 40), dtype=np.uint8)
    pixels[32:64, 40:64] = (230, 60, 200)
    found = SaliencyDetector(FakeEncoder(patch=(8, 8)), size=size)(shown(pixels))
    assert len(found) == 1
    assert overlap(found.boxes[0].tolist(), [40.0, 32.0, 64.0, 64.0]) > 0.5  # to whole patches


# -- plug-ins ----------------------------------------------------------------------------------------------------------

PLUGIN = """
import numpy as np, torch
def good(picture, time_s):
    return np.array([[1, 2, 30, 40], [0, 0, 0, 0]]), [0.5, time_s], ["cat", "dog"]
def tensors(picture, time_s):
    return torch.tensor([[1.0, 2, 30, 40]]), torch.tensor([0.5]), ("cat",)
def nothing(picture, time_s):
    return [], [], []
def none(picture, time_s):
    return None
def uneven(picture, time_s):
    return [[1, 2, 3, 4]], [0.5], []
number = 3
"""


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "finds.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return str(path)


def test_plugin_from_a_file(plugin: str) -> None:
    black = np.zeros((48, 64, 3), dtype=np.uint8)
    detector = PluginDetector(f"{plugin}:good")
    found = detector(shown(black, 2))
    assert (found.boxes.tolist(), found.scores.tolist(), found.labels) == ([[1, 2, 30, 40]], [0.5], ("cat",))
    assert detector.dropped == {"empty": 1}
    assert PluginDetector(f"{plugin}:tensors")(shown(black)).labels == ("cat",)
    assert len(PluginDetector(f"{plugin}:nothing")(shown(black))) == 0


def test_plugin_from_a_module(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(plugin).parent))
    monkeypatch.delitem(sys.modules, "finds", raising=False)
    assert len(PluginDetector("finds:good")(shown(np.zeros((48, 64, 3), dtype=np.uint8)))) == 1


@pytest.mark.parametrize(
    ("what", "message"),
    [("none", "returned NoneType"), ("uneven", "1 boxes, 1 scores and 0 labels")],
)
def test_plugin_that_returns_nonsense(plugin: str, what: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PluginDetector(f"{plugin}:{what}")(shown(np.zeros((48, 64, 3), dtype=np.uint8)))


def test_plugin_that_is_not_there(plugin: str) -> None:
    for name, message in (
        (f"{plugin}:absent", "has no function absent"),
        (f"{plugin}:number", "has no function number"),
        ("no_such_module:detect", "cannot be imported"),
        ("no_such_file.py:detect", "there is no file"),
        ("detect", "names no function"),
    ):
        with pytest.raises(UsageError, match=message):
            PluginDetector(name)


# -- choice and loading ------------------------------------------------------------------------------------------------


class Fixed:
    """Always the same boxes."""

    def __init__(self, found: Detections) -> None:
        self.found = found
        self.facts: dict[str, object] = {"name": "fixed"}
        self.dropped: Counter[str] = Counter({"empty": 1})

    def __call__(self, _: VideoFrame, /) -> Detections:
        return self.found


def test_chosen_boxes_and_why_the_others_are_not() -> None:
    boxes = torch.tensor([[0, 0, 20, 20], [0, 0, 20, 20], [0, 0, 5, 40], [0, 0, 9, 9.0]], dtype=torch.float64)
    scores = torch.tensor([0.9, 0.2, 0.9, 0.9], dtype=torch.float64)
    fixed = Fixed(Detections(boxes, scores, ("a", "a", "a", "b")))
    black = shown(np.zeros((48, 64, 3), dtype=np.uint8))
    chosen = Chosen(fixed, least_score=0.25, least_side=8.0, labels=("a",))
    assert chosen(black).boxes.tolist() == [[0, 0, 20, 20]]
    assert chosen.dropped == {"empty": 1, "low score": 1, "small": 1, "another label": 1}
    assert len(Chosen(fixed)(black)) == 4
    assert len(Chosen(Fixed(Detections.none()), least_side=8.0)(black)) == 0
    assert json.loads(json.dumps(chosen.facts))["labels"] == ["a"]


def test_the_setting_names_the_detector(tmp_path: Path, plugin: str) -> None:
    boxes = tmp_path / "det.txt"
    boxes.write_text("1,-1,1,1,10,20,1,-1,-1,-1\n", encoding="utf-8")
    for settings, name in (
        ({"detector": "motion"}, "motion"),
        ({"detector": "hog"}, "hog"),
        ({"detector": "boxes", "boxes": str(boxes)}, "boxes"),
        ({"detector": "saliency"}, "saliency"),
        ({"detector": f"{plugin}:good"}, f"{plugin}:good"),
    ):
        config = make_config({"detection": settings}).detection
        detector = load_detector(config, fps=4.0, encoder=FakeEncoder())
        assert detector.facts["name"] == name
        assert "licence" in json.loads(json.dumps(detector.facts))
    with pytest.raises(UsageError, match="reads the patch map of an encoder"):
        load_detector(make_config({"detection": {"detector": "saliency"}}).detection, fps=4.0)
