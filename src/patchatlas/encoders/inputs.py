"""The one check of what goes into an encoder."""

from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.spec import EncoderSpec


def grid_shape(pixels: Float[Tensor, "b c *size"], spec: EncoderSpec) -> tuple[int, ...]:
    """Rows and columns (or planes, rows and columns) of patches that `spec` lays over `pixels`.

    Raises:
        ShapeError: not a batch of pictures (or volumes), not `spec.channels` channels, or a side that is no multiple of
            the patch.
    """
    channels, size = pixels.shape[1], tuple(pixels.shape[2:])
    if len(size) != spec.ndim:
        raise ShapeError(
            f"{spec.name} takes batches with {spec.ndim} axes after the channels, given shape {tuple(pixels.shape)}; "
            "a single picture needs a batch axis in front"
        )
    if channels != spec.channels:
        raise ShapeError(f"{spec.name} takes {spec.channels} channels, given {channels} in {tuple(pixels.shape)}")
    if any(side < patch or side % patch for side, patch in zip(size, spec.patch, strict=True)):
        fitting = tuple(max(patch, side // patch * patch) for side, patch in zip(size, spec.patch, strict=True))
        raise ShapeError(
            f"{spec.name} takes sides that are multiples of its patch {spec.patch}, given {size}; "
            f"resize or pad first, for example to {fitting}"
        )
    return tuple(side // patch for side, patch in zip(size, spec.patch, strict=True))
