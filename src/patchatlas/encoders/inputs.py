"""The one check of what goes into an encoder."""

from jaxtyping import Float
from torch import Tensor

from patchatlas.errors import ShapeError
from patchatlas.geometry.rounding import round_to_multiple
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
    return patch_grid(size, spec.patch)


def patch_grid(size: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    """Patches along each axis.

    Raises:
        ShapeError: another number of axes, or a side that is not a positive multiple of the patch.
    """
    if len(size) != len(patch):
        raise ShapeError(f"an input with {len(size)} axes was given to an encoder of {len(patch)} axes (patch {patch})")
    if any(side < step or side % step for side, step in zip(size, patch, strict=True)):
        nearest = tuple(round_to_multiple(side, step) for side, step in zip(size, patch, strict=True))
        raise ShapeError(
            f"sides {size} are not multiples of the patch {patch}; resize or pad, for example to {nearest}"
        )
    return tuple(side // step for side, step in zip(size, patch, strict=True))
