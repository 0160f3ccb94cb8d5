"""Kernels for CPUs, compiled by numba, that finish a canvas: the sum of even windows, and the mean.

See `rows` for what the loops are written for.
"""

from typing import no_type_check

from numba import njit, uint64
from numpy import float64, zeros

_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@_compiled
@no_type_check
def sum_boxes(total, edge_row, edge_tile, edge_step, start, y_taps, x_taps, y_size, x_size, least, first, last):
    """The sum of boxes with softened edges, in the rows first <= row < last.

    A plane holds the sum for one row. From row to row it changes only where boxes begin or end, so a box costs as many
    planes of its own as it has taps twice, not one a row.

    Args:
        total: (rows, Y, X), written.
        edge_row: where the plane changes, ascending.
        edge_tile: which box begins or ends there.
        edge_step: by how much.
        start: (n, 2) where each box begins along Y and X; it may reach outside.
        y_taps: (n, t) weights of its softened edges along Y.
        x_taps: along X.
        y_size: pixels of a box along Y.
        x_size: along X.
        least: what is not greater counts as 0.
        first: this call's rows.
        last: one past them.
    """
    _, height, width = total.shape
    out = total.reshape(-1)
    plane = zeros(height * width, float64)
    along_y, along_x = zeros(y_size + y_taps.shape[1] - 1, float64), zeros(x_size + x_taps.shape[1] - 1, float64)
    edge = 0
    for row in range(first, last):
        while edge < len(edge_row) and edge_row[edge] <= row:
            tile = edge_tile[edge]
            top, left = start[tile, 0], start[tile, 1]
            _profile(along_y, y_taps[tile], y_size)
            _profile(along_x, x_taps[tile], x_size)
            low, high = max(0, -left), min(len(along_x), width - left)
            for y in range(max(0, -top), min(len(along_y), height - top)):
                if low < high:
                    at = (top + y) * width + left + low
                    _add(plane, at, along_x, low, high - low, edge_step[edge] * along_y[y])
            edge += 1
        _copy_above(out, row * height * width, plane, least)


@_compiled
@no_type_check
def divide_rows(out, total, weight, fill, m, first, last):
    """Write total / weight where the weight is positive, and the fill elsewhere, in the rows first <= row < last.

    Args:
        out: (rows, x m), may be `total`.
        total: (rows, x m).
        weight: (rows, x).
        fill: (x m), the fill repeated.
        m: numbers a pixel.
        first: this call's rows.
        last: one past them.
    """
    width = uint64(weight.shape[1])
    to, source, weights = out.reshape(-1), total.reshape(-1), weight.reshape(-1)
    each = zeros(len(fill), weight.dtype)
    for row in range(first, last):
        for j in range(uint64(m)):
            for x in range(width):
                each[x * uint64(m) + j] = weights[uint64(row) * width + x]
        at = uint64(row) * uint64(len(fill))
        for i in range(uint64(len(fill))):
            quotient = source[at + i] / each[i]
            to[at + i] = quotient if each[i] > 0 else fill[i]


@_compiled
@no_type_check
def _profile(row, taps, size):
    """So many ones, softened by taps: row[i] = the sum of taps[t] over i - size < t <= i."""
    level = 0.0
    for i in range(len(row)):
        if i < len(taps):
            level += taps[i]
        if i >= size:
            level -= taps[i - size]
        row[i] = level


@_compiled
@no_type_check
def _add(out, to, row, at, count, factor):
    to, at = uint64(to), uint64(at)
    for i in range(uint64(count)):
        out[to + i] += factor * row[at + i]


@_compiled
@no_type_check
def _copy_above(out, to, row, least):
    to = uint64(to)
    for i in range(uint64(len(row))):
        out[to + i] = row[i] if row[i] > least else 0.0
