"""What stands out of its surroundings in the patch map of a frame: no further weights, no classes.

After LOST (Simeoni et al., arXiv 2109.14279): a patch of the background is like many others, one of an object like few.
Theirs grows one object from the patch that is like the fewest; here all that is unlike the background is kept.

Axes: n patches, d features.
"""

from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from patchatlas.dense import encode
from patchatlas.encoders.protocol import Encoder
from patchatlas.features import FeatureMap
from patchatlas.geometry.frame import Frame
from patchatlas.geometry.grid import PatchGrid
from patchatlas.io.video import VideoFrame
from patchatlas.reid.boxes import Detections, clean

LABEL = "salient"

LEAST_PATCHES = 4
"""Smaller parts are noise."""

_BACKGROUND_SHARE = 0.25
_LEAST_CONTRAST = 0.1
_MOST_SHARE = 0.5


class SaliencyDetector:
    """Encodes each frame and gives the boxes of `salient_boxes`.

    Args:
        encoder: makes the patch map.
        size: long side of the frame as the encoder sees it; its own size, rounded down to patches, if not given.
    """

    def __init__(self, encoder: Encoder, *, size: int | None = None) -> None:
        self._encoder, self._size = encoder, size
        self.facts: dict[str, object] = {
            "name": "saliency",
            "encoder": encoder.spec.name,
            "weights_sha256": encoder.spec.weights_sha256,
            "size": size,
            "licence": encoder.spec.licence,
        }
        self.dropped: Counter[str] = Counter()

    def __call__(self, frame: VideoFrame, /) -> Detections:
        """Boxes of what stands out."""
        features = encode(frame.pixels, self._encoder, size=self._size, frame=self._whole(frame))
        found, dropped = salient_boxes(features)
        self.dropped.update(dropped)
        return found

    def _whole(self, frame: VideoFrame) -> Frame | None:
        if self._size is not None:
            return None
        size_hw = frame.pixels.shape[:2]
        whole = [max(p, n // p * p) for n, p in zip(size_hw, self._encoder.spec.patch, strict=True)]
        return Frame.whole(size_hw).resize(whole)


def salient_boxes(features: FeatureMap) -> tuple[Detections, dict[str, int]]:
    """Boxes around the connected parts of the map that are unlike its background, from top to bottom.

    The score is how much less a part is like the background than the background itself, 0..1.

    Returns:
        The boxes in the source's pixels, and how many parts were dropped for which reason.
    """
    salience = _salience(features.tokens, features.grid)
    real = features.grid.real_part() > 0.5
    limit = _split(salience[real])
    if limit is None:
        return Detections.none(), {}
    below = float(salience[real & (salience <= limit)].mean())
    parts, count = ndimage.label(((salience > limit) & real).numpy())
    corners = features.grid.boxes().reshape(*features.grid.shape, 4)
    boxes, scores, dropped = [], [], Counter[str]()
    for part in range(1, count + 1):
        inside = torch.from_numpy(parts == part)
        contrast = float(salience[inside].mean()) - below
        if int(inside.sum()) < LEAST_PATCHES:
            dropped["few patches"] += 1
        elif int(inside.sum()) > _MOST_SHARE * int(real.sum()):
            dropped["most of the frame"] += 1
        elif contrast < _LEAST_CONTRAST:
            dropped["little contrast"] += 1
        else:
            own = corners[inside]
            boxes.append(torch.cat([own[:, :2].amin(dim=0), own[:, 2:].amax(dim=0)]))
            scores.append(min(1.0, contrast))
    size = features.grid.frame.source_size
    raw = torch.stack(boxes) if boxes else torch.zeros(0, 4, dtype=torch.float64)
    found, more = clean(raw, torch.tensor(scores, dtype=torch.float64), [LABEL] * len(boxes), (size[0], size[1]))
    return found, dict(sorted((dropped + Counter(more)).items()))


def _salience(tokens: Float[Tensor, "n d"], grid: PatchGrid) -> Float[Tensor, "gh gw"]:
    """One minus the likeness to the background, 0..1: cosine of centred tokens with the mean of those that are like
    the most others."""
    centred = F.normalize(tokens.float() - tokens.float().mean(dim=0), dim=1)
    degree = (centred @ centred.T > 0).sum(dim=1)
    # A stable order, so that equal degrees give equal boxes everywhere.
    common = torch.sort(degree, descending=True, stable=True).indices[: max(1, round(_BACKGROUND_SHARE * len(degree)))]
    background = F.normalize(centred[common].mean(dim=0), dim=0)
    return ((1 - centred @ background) / 2).reshape(grid.shape)


def _split(values: Float[Tensor, " n"]) -> float | None:
    """The level that parts values into two groups of the least spread (Otsu 1979); None if all are equal."""
    ordered = np.sort(values.double().numpy())
    if ordered[-1] - ordered[0] < 1e-6:
        return None
    below = np.cumsum(ordered)[:-1]
    count = np.arange(1, len(ordered))
    between = (below / count - (ordered.sum() - below) / (len(ordered) - count)) ** 2 * count * (len(ordered) - count)
    best = int(between.argmax())
    return float((ordered[best] + ordered[best + 1]) / 2)
