"""Sub-pixel shifts: tiles shared out by their taps, and the transpose that collects them again.

Axes: n tiles, *tile axes of a tile, c numbers a pixel (channels; real and imaginary part), last, so that a row of a
tile is one piece of memory. A block is a tile grown by its taps: tile + taps - 1 along each axis.
"""

from torch import Tensor

from patchatlas.canvas.taps import Taps

# From so many taps on, one small dense product is faster than adding shifted copies.
_DENSE = 8


def spread(tiles: Tensor, taps: Taps) -> Tensor:
    """Blocks (n, *block, c): block[j + t] += weight[t] * tile[j] along each axis. Differentiable in both."""
    blocks = tiles
    for axis, weight in enumerate(taps.weights, start=1):
        if weight is None:
            continue
        n, count = blocks.shape[axis], weight.shape[1]
        if count >= _DENSE:
            blocks = _product(_bands(weight, n).mT, blocks, axis)
            continue
        grown = blocks.new_zeros(*blocks.shape[:axis], n + count - 1, *blocks.shape[axis + 1 :])
        for t in range(count):
            grown.narrow(axis, t, n).addcmul_(blocks, _like(weight[:, t], blocks))
        blocks = grown
    return blocks


def collect(blocks: Tensor, taps: Taps) -> Tensor:
    """Tiles (n, *tile, c): tile[j] = sum over t of weight[t] * block[j + t]. The transpose of `spread`."""
    tiles = blocks
    for axis, weight in reversed(list(enumerate(taps.weights, start=1))):
        if weight is None:
            continue
        count = weight.shape[1]
        n = tiles.shape[axis] - count + 1
        if count >= _DENSE:
            tiles = _product(_bands(weight, n), tiles, axis)
            continue
        shrunk = tiles.narrow(axis, 0, n) * _like(weight[:, 0], tiles)
        for t in range(1, count):
            shrunk.addcmul_(tiles.narrow(axis, t, n), _like(weight[:, t], tiles))
        tiles = shrunk
    return tiles


def _like(weight: Tensor, blocks: Tensor) -> Tensor:
    return weight.reshape(-1, *([1] * (blocks.ndim - 1)))


def _bands(weight: Tensor, n: int) -> Tensor:
    """The matrices (tiles, n, n + t - 1) whose row j has the weights from column j on.

    Written in rows that are one too long, each begins one further to the right when read in rows of the right length.
    """
    tiles, count = weight.shape
    length = n + count - 1
    rows = weight.new_zeros(tiles, n, length + 1)
    rows[:, :, :count] = weight[:, None]
    return rows.reshape(tiles, -1)[:, : n * length].reshape(tiles, n, length)


def _product(matrices: Tensor, blocks: Tensor, axis: int) -> Tensor:
    """Each tile's matrix times its block along one axis."""
    moved = blocks.movedim(axis, 1)
    out = matrices @ moved.reshape(*moved.shape[:2], -1)
    return out.reshape(len(blocks), -1, *moved.shape[2:]).movedim(1, axis)
