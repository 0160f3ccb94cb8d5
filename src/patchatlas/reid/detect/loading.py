"""The detector that the settings name."""

from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import UsageError
from patchatlas.reid.config import DetectionConfig
from patchatlas.reid.detect.boxes_file import BoxesFile
from patchatlas.reid.detect.detector import Chosen, Detector
from patchatlas.reid.detect.hog import HogDetector
from patchatlas.reid.detect.huggingface import HuggingFaceDetector
from patchatlas.reid.detect.motion import MotionDetector
from patchatlas.reid.detect.plugin import PluginDetector
from patchatlas.reid.detect.saliency import SaliencyDetector


def load_detector(config: DetectionConfig, *, fps: float, encoder: Encoder | None = None) -> Chosen:
    """Make a detector for one video.

    Args:
        config: which, and what of its boxes is taken.
        fps: frames a second that will be shown to it.
        encoder: for `saliency`.

    Raises:
        UsageError: saliency without an encoder, or what the detector's own class says.
        MissingExtraError: an optional package is not installed.
        InputError: a file of boxes that cannot be used.
        WeightsError: a network that cannot be had.
    """
    detector = _made(config, fps, encoder)
    return Chosen(detector, least_score=config.least_score, least_side=config.least_side, labels=config.labels)


def _made(config: DetectionConfig, fps: float, encoder: Encoder | None) -> Detector:
    name = config.detector
    if name == "motion":
        return MotionDetector(fps=fps)
    if name == "boxes":
        assert config.boxes is not None, "the settings hold the two together"
        return BoxesFile(config.boxes)
    if name == "hog":
        return HogDetector()
    if name == "saliency":
        if encoder is None:
            raise UsageError(
                "the detector saliency reads the patch map of an encoder; choose an embedding backend that has one "
                "(dinov2, dinov3), or another detector"
            )
        return SaliencyDetector(encoder, size=config.size)
    if name.startswith("hf:"):
        return HuggingFaceDetector(name.removeprefix("hf:"), device=config.device)
    return PluginDetector(name)
