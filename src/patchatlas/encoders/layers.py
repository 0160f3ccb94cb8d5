"""Which block's tokens an encoder gives."""

from patchatlas.errors import UsageError


def choose_layer(layer: int | None, depth: int) -> int:
    """The block asked for, counted from 0; the last one for `None`.

    Raises:
        UsageError: there is no such block.
    """
    if layer is None:
        return depth - 1
    if not -depth <= layer < depth:
        raise UsageError(
            f"layer {layer} does not exist: this encoder has {depth} blocks, 0 to {depth - 1} or -{depth} to -1"
        )
    return layer % depth
