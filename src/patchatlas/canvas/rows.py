"""Fused row kernels for CPUs, compiled by numba: tiles added to a canvas and read from it, each row touched once.

A row of a tile is blended along x into a row that stays in the cache, that one with the row before along y, and the
result is added to one row of the canvas. A shift by a pixel is a shift by m numbers, whatever they are: channels, or
real and imaginary part. Indices in the inner loops are unsigned, for numba would otherwise ask of each whether it
counts from the end, and would not vectorise; and no array goes by two names, for each change would be counted.

Axes: canvas (Z, Y, X m), tiles (n, z, y, x m), start (n, 3) canvas index of each tile's first pixel, share (n, 3, 2)
weights of a tile pixel for the canvas pixel at `start` and for the next one along each axis. All arrays are contiguous
and of one float type; parts of tiles that lie outside the canvas are left out, or read as zeros.
"""

from typing import no_type_check

from numba import njit, uint64
from numpy import zeros

# Contraction to fused multiply-adds only rounds once less; nothing is reordered. `no_type_check` keeps the shape checks
# of the tests off what numba compiles.
_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@_compiled
@no_type_check
def add_rows(canvas, tiles, window, scale, order, start, share, m, first, last):
    """Add tiles times window times scale to the canvas rows first <= y < last.

    Args:
        canvas: changed in place.
        tiles: (n, z, y, x m), or (1, z, y, x m) for the same one everywhere.
        window: (z, y, x m), or (0, 0, 0) for none.
        scale: (n) of each tile.
        order: in which tiles are added.
        start: int64.
        share: see above.
        m: numbers a pixel.
        first: this call's rows; others may belong to other threads.
        last: one past them.
    """
    depth, rows, width = canvas.shape
    d, h, w = tiles.shape[1:]
    out, source, weights = canvas.reshape(-1), tiles.reshape(-1), window.reshape(-1)
    weighted = zeros(w, canvas.dtype)
    this, before = zeros(w + m, canvas.dtype), zeros(w + m, canvas.dtype)
    weigh = len(weights) > 0
    for k in order:
        top, left = start[k, 1], start[k, 2] * m
        y_here, y_next = share[k, 1, 0], share[k, 1, 1]
        x_here, x_next = share[k, 2, 0], share[k, 2, 1]
        copied = x_next == 0 and y_next == 0
        begin = max(0, first - top - (y_next != 0))
        end = min(h + (y_next != 0), last - top)
        low, high = max(0, -left), min(w + m * (x_next != 0), width - left)
        if begin >= end or low >= high:
            continue
        tile = 0 if len(tiles) == 1 else k
        for layer in range(2 * d):
            z = start[k, 0] + layer // 2 + layer % 2
            part = share[k, 0, layer % 2] * scale[k]
            if part == 0 or z < 0 or z >= depth:
                continue
            before[:] = 0
            for y in range(begin, end):
                at = ((tile * d + layer // 2) * h + y) * w
                to = (z * rows + top + y) * width + left + low
                if copied and weigh:
                    _weigh(weighted, source, at, weights, ((layer // 2) * h + y) * w, w)
                    _add(out, to, weighted, low, high - low, part)
                    continue
                if copied:
                    _add(out, to, source, at + low, high - low, part)
                    continue
                if y == h:
                    this[:] = 0
                elif weigh:
                    _weigh(weighted, source, at, weights, ((layer // 2) * h + y) * w, w)
                    _blend(this, weighted, 0, w, m, x_here, x_next)
                else:
                    _blend(this, source, at, w, m, x_here, x_next)
                if top + y >= first:
                    _add_two(out, to, this, before, low, high - low, part * y_here, part * y_next)
                this, before = before, this


@_compiled
@no_type_check
def read_rows(canvas, tiles, start, share, m):
    """Add to `tiles` what the canvas shows there: the transpose of `add_rows`.

    Args:
        canvas: only read.
        tiles: (n, z, y, x m), changed in place.
        start: int64.
        share: see above.
        m: numbers a pixel.
    """
    depth, rows, width = canvas.shape
    d, h, w = tiles.shape[1:]
    source, out = canvas.reshape(-1), tiles.reshape(-1)
    line = zeros(w + m, canvas.dtype)
    this, before = zeros(w, canvas.dtype), zeros(w, canvas.dtype)
    for k in range(len(start)):
        top, left = start[k, 1], start[k, 2] * m
        y_here, y_next = share[k, 1, 0], share[k, 1, 1]
        x_here, x_next = share[k, 2, 0], share[k, 2, 1]
        low, high = max(0, -left), min(w + m * (x_next != 0), width - left)
        if low >= high:
            continue
        for layer in range(2 * d):
            z = start[k, 0] + layer // 2 + layer % 2
            part = share[k, 0, layer % 2]
            if part == 0 or z < 0 or z >= depth:
                continue
            line[:] = 0
            for y in range(h + (y_next != 0)):
                if 0 <= top + y < rows:
                    _copy(line, low, source, (z * rows + top + y) * width + left + low, high - low)
                    _gather(this, line, w, m, x_here, x_next)
                else:
                    this[:] = 0
                to = ((k * d + layer // 2) * h + y) * w
                if y_next == 0:
                    _add(out, to, this, 0, w, part)
                elif y > 0:
                    _add_two(out, to - w, before, this, 0, w, part * y_here, part * y_next)
                this, before = before, this


@_compiled
@no_type_check
def _add(out, to, row, at, count, factor):
    to, at = uint64(to), uint64(at)
    for i in range(uint64(count)):
        out[to + i] += factor * row[at + i]


@_compiled
@no_type_check
def _add_two(out, to, this, before, at, count, here, following):
    to, at = uint64(to), uint64(at)
    for i in range(uint64(count)):
        out[to + i] += here * this[at + i] + following * before[at + i]


@_compiled
@no_type_check
def _blend(row, tile, at, w, m, here, following):
    """A tile row shared out along x: row[i] = here tile[i] + following tile[i - m]."""
    at, w, m = uint64(at), uint64(w), uint64(m)
    for i in range(m):
        row[i] = here * tile[at + i]
    for i in range(w - m):
        row[m + i] = here * tile[at + m + i] + following * tile[at + i]
    for i in range(m):
        row[w + i] = following * tile[at + w - m + i]


@_compiled
@no_type_check
def _gather(row, line, w, m, here, following):
    """The transpose of `_blend`: row[i] = here line[i] + following line[i + m]."""
    m = uint64(m)
    for i in range(uint64(w)):
        row[i] = here * line[i] + following * line[m + i]


@_compiled
@no_type_check
def _weigh(row, tile, at, weights, weight_at, w):
    at, weight_at = uint64(at), uint64(weight_at)
    for i in range(uint64(w)):
        row[i] = tile[at + i] * weights[weight_at + i]


@_compiled
@no_type_check
def _copy(row, to, source, at, count):
    to, at = uint64(to), uint64(at)
    for i in range(uint64(count)):
        row[to + i] = source[at + i]
