"""From rows of an embedder to the portrait of a tracklet: what could not be embedded is left out, the rest is kept.

Axes: n crops asked for, d features.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.reid.boxes import Tracklet
from patchatlas.reid.portraits import Portrait


def portrait_of(
    tracklet: Tracklet,
    frames: Sequence[int],
    vectors: Float[Tensor, "n d"],
    valid: Bool[Tensor, " n"],
    worth: Mapping[int, float],
) -> Portrait:
    """The looks of a tracklet; `Portrait.pooled` is their mean by worth.

    Args:
        frames: of each row, rising.
        vectors: as an embedder gave them.
        valid: which rows are any good; the others are no part of the portrait.
        worth: of the crop in each frame, see `Quality.worth`.

    Raises:
        ShapeError: not one row a frame.
    """
    if not len(frames) == len(vectors) == len(valid):
        raise ShapeError(f"{len(frames)} frames, {len(vectors)} vectors and {len(valid)} marks do not belong together")
    kept = [row for row, good in enumerate(valid.tolist()) if good]
    own = tuple(frames[row] for row in kept)
    return Portrait(tracklet, own, vectors[kept], torch.tensor([worth[frame] for frame in own], dtype=torch.float64))
