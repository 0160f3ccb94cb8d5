"""Detection networks of transformers from a local folder or a hub id: RF-DETR, D-FINE, RT-DETR and RT-DETRv2, LW-DETR.

Only the network is taken from there. The picture is resized and normalised here, through a `Frame`, by the facts in the
folder's preprocessor_config.json: transformers' own processors need torchvision. Mind the licence of the weights: the
small RF-DETR models (nano to large) and the other families are Apache-2.0, RF-DETR XL and 2XL are not.

Axes: q queries, k classes.
"""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchatlas.encoders import checkpoint, hub, precision
from patchatlas.encoders.catalogue import IMAGENET
from patchatlas.errors import MissingExtraError, WeightsError
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.sampling import resample_picture
from patchatlas.io.video import VideoFrame
from patchatlas.reid.boxes import Detections, clean

MODEL_TYPES = ("rf_detr", "d_fine", "rt_detr", "rt_detr_v2", "lw_detr")
"""Kinds of networks that are read, as `model_type` in config.json. All give one sigmoid a class and query."""


class HuggingFaceDetector:
    """A detection network with its own classes.

    Args:
        name: folder in the layout of transformers' `save_pretrained`, or a hub id, which may be downloaded.
        device: auto, cpu, cuda, cuda:N or mps.
        least_score: answers with a lower score are no boxes; a network gives hundreds a frame.

    Raises:
        MissingExtraError: transformers is not installed.
        WeightsError: no such folder or id, another kind of network, weights that do not fill it, or a
            preprocessor_config.json that is absent or asks for what is not known here.
    """

    def __init__(self, name: str, *, device: str = "auto", least_score: float = 0.05) -> None:
        folder = _folder(name)
        config = checkpoint.read_json(folder, "config.json")
        if config.get("model_type") not in MODEL_TYPES:
            raise WeightsError(
                f"{name} has model_type {config.get('model_type')!r} in config.json; detectors that are read are "
                f"{', '.join(MODEL_TYPES)}"
            )
        self._recipe = Recipe.read(folder)
        weights = checkpoint.read(folder)
        self._device = precision.choose_device(device)
        self._network = _network(folder, name).to(self._device)
        self._labels: dict[int, str] = {int(k): str(v) for k, v in self._network.config.id2label.items()}
        self._least_score = least_score
        self.facts: dict[str, object] = {
            "name": f"hf:{name}",
            "model_type": config["model_type"],
            "weights_sha256": weights.sha256,
            "licence": weights.licence or "unknown",
            "preprocessing": asdict(self._recipe),
            "answer_score": least_score,
        }
        self.dropped: Counter[str] = Counter()

    @torch.no_grad()
    def __call__(self, frame: VideoFrame, /) -> Detections:
        """Boxes with their classes, the surest first."""
        size_hw = frame.pixels.shape[:2]
        drawn = Frame.whole(size_hw).resize(self._recipe.size_for(size_hw))
        pixels = self._recipe.normalised(resample_picture(frame.pixels, drawn))
        answer = self._network(pixel_values=pixels[None].to(self._device))
        boxes, scores, classes = _sure(answer.logits[0].cpu(), answer.pred_boxes[0].cpu(), self._least_score)
        boxes = drawn.boxes_to_source(boxes * boxes.new_tensor([*drawn.size[::-1]] * 2))
        labels = [self._labels.get(one, f"class {one}") for one in classes]
        found, dropped = clean(boxes, scores, labels, size_hw)
        self.dropped.update(dropped)
        return found


@dataclass(frozen=True)
class Recipe:
    """How a picture is made ready for a network, by its preprocessor_config.json.

    Attributes:
        size: `height` and `width`, to which the picture is squashed; or `shortest_edge`, and possibly `longest_edge`.
        scale: what levels 0..255 are multiplied by.
        mean: per channel, after scaling; 0 where the network wants none.
        std: per channel, after scaling; 1 where the network wants none.
    """

    size: dict[str, int]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, folder: Path) -> "Recipe":
        """The facts in a folder.

        Raises:
            WeightsError: there is no preprocessor_config.json, or its size is of another kind.
        """
        facts = checkpoint.read_json(folder, "preprocessor_config.json")
        if not facts:
            raise WeightsError(f"{folder} has no preprocessor_config.json, which says how large a picture must be")
        size = facts.get("size")
        kinds = ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"})
        if not facts.get("do_resize", True) or not isinstance(size, dict) or set(size) not in kinds:
            raise WeightsError(
                f"{folder}/preprocessor_config.json has the size {size!r}; known are height and width, or "
                "shortest_edge with or without longest_edge"
            )
        scale = float(facts.get("rescale_factor", 1 / 255)) if facts.get("do_rescale", True) else 1.0
        mean: tuple[float, ...] = (0.0,) * 3
        std: tuple[float, ...] = (1.0,) * 3
        if facts.get("do_normalize", False):
            mean = tuple(float(one) for one in facts.get("image_mean", IMAGENET[0]))
            std = tuple(float(one) for one in facts.get("image_std", IMAGENET[1]))
        return Recipe(size={key: int(value) for key, value in size.items()}, scale=scale, mean=mean, std=std)

    def size_for(self, size_hw: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns that a picture is resized to."""
        if "height" in self.size:
            return self.size["height"], self.size["width"]
        grow = self.size["shortest_edge"] / min(size_hw)
        if "longest_edge" in self.size:
            grow = min(grow, self.size["longest_edge"] / max(size_hw))
        return max(1, round(size_hw[0] * grow)), max(1, round(size_hw[1] * grow))

    def normalised(self, pixels: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        """Pixels in 0..1 as the network wants them."""
        mean, std = (pixels.new_tensor(one)[:, None, None] for one in (self.mean, self.std))
        return (pixels * (255 * self.scale) - mean) / std


def _sure(
    logits: Float[Tensor, "q k"], boxes: Float[Tensor, "q 4"], least_score: float
) -> tuple[Float[Tensor, "n 4"], Float[Tensor, " n"], list[int]]:
    """The surest class and query pairs, as many as there are queries: boxes as xyxy in shares of the picture.

    One query may answer with several classes (Deformable DETR, arXiv 2010.04159; DETR's softmax is for others).
    """
    scores, order = torch.sort(logits.double().sigmoid().flatten(), descending=True, stable=True)
    count = int((scores[: len(boxes)] >= least_score).sum())
    queries, classes = order[:count] // logits.shape[1], order[:count] % logits.shape[1]
    centre, side = boxes.double()[queries].split(2, dim=1)
    return torch.cat([centre - side / 2, centre + side / 2], dim=1), scores[:count], classes.tolist()


def _folder(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) and not path.parent.is_dir():
        return hub.fetch(name)
    raise WeightsError(f"{name} is neither a folder with a detector nor a hub id such as PekingU/rtdetr_v2_r18vd")


def _network(folder: Path, name: str) -> Any:
    """The network with exactly the weights of the folder; nothing is downloaded and no code of the folder is run."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", extra="transformers", needed_for="the detector hf:NAME") from error
    bars: Any = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        network, told = transformers.AutoModelForObjectDetection.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise WeightsError(f"{name} cannot be loaded as a detector: {str(error).splitlines()[0]}") from error
    finally:
        if shown:
            bars.enable_progress_bar()
    complaints = {
        what: sorted(str(one) for one in told[key])
        for what, key in (("missing", "missing_keys"), ("of another shape", "mismatched_keys"))
        if told[key]
    }
    if complaints:
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in complaints.items())
        raise WeightsError(f"the weights of {name} do not fill {type(network).__name__}: {listed}. Download them again")
    return network.eval().requires_grad_(False)
