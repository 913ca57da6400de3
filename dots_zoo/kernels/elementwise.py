"""Elementwise passes over a map, each read or written once, as loops that numba compiles.

A map is (N, H, W, C), of single or double precision. The loops run over rows of W pixels, L = W * C values;
sums over pixels add rows, and fold what a row holds of a channel in double precision every BLOCK rows. Values
per channel are (C,), in double precision. `first` and `last` are the images that a call is for.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jit import compiled, inlined

Map = NDArray[np.floating[Any]]
PerChannel = NDArray[np.float64]

BLOCK = 32  # rows that are added in the precision of the map


@inlined
def rows_of(x: Map, first: int, last: int) -> Map:
    """(N, H, W, C) -> ((last - first) * H, L)"""
    _, height, width, channels = x.shape
    return x[first:last].reshape((last - first) * height, width * channels)


@inlined
def along_row(values: PerChannel, width: int, like: Map) -> Map:
    """Repeat (K, C) for every pixel of a row: (K, L), in the precision of a map."""
    channels = values.shape[1]
    wide = np.empty((len(values), width * channels), like.dtype)
    for k in range(len(values)):
        for c in range(channels):
            for w in range(width):
                wide[k, w * channels + c] = values[k, c]
    return wide


@inlined
def fold(row: Map, total: PerChannel) -> None:
    """Add the pixels of a row (L,) to (C,), and clear the row."""
    channels = len(total)
    for pixel in range(0, len(row), channels):
        values = row[pixel : pixel + channels]
        for c in range(channels):
            total[c] += values[c]
            values[c] = 0


@compiled
def add_dot_products(grad: Map, y: Map, threshold: float, totals: PerChannel, first: int, last: int) -> None:
    """totals (2, C) += sums over pixels of g and of g * y, where g is the gradient where y > threshold."""
    limit, zero = y.dtype.type(threshold), y.dtype.type(0)
    grads, values_of = rows_of(grad, first, last), rows_of(y, first, last)
    sums, dots = np.zeros(grads.shape[1], y.dtype), np.zeros(grads.shape[1], y.dtype)
    for begin in range(0, len(grads), BLOCK):
        for r in range(begin, min(begin + BLOCK, len(grads))):
            pull, values = grads[r], values_of[r]
            for t in range(len(sums)):
                g = zero if values[t] <= limit else pull[t]
                sums[t] += g
                dots[t] += g * values[t]
        fold(sums, totals[0])
        fold(dots, totals[1])


@compiled
def write_scaled(y: Map, scale: PerChannel, accumulate: bool, out: Map, first: int, last: int) -> None:
    """out = s * y, or out += s * y to accumulate; scale (1, C)."""
    wide = along_row(scale, y.shape[2], y)[0]
    source, target = rows_of(y, first, last), rows_of(out, first, last)
    for r in range(len(source)):
        row, values = target[r], source[r]
        if accumulate:
            for t in range(len(row)):
                row[t] += wide[t] * values[t]
        else:
            for t in range(len(row)):
                row[t] = wide[t] * values[t]


@inlined
def write_norm_gradient(grad: Map, y: Map, factors: Map, threshold: float, out: Map) -> None:
    """out = a + b * y + c * g, rows (R, L), factors (3, L) being a, b and c, and g the gradient where y >
    threshold.
    """
    constant, of_y, of_grad = factors[0], factors[1], factors[2]
    limit, zero = y.dtype.type(threshold), y.dtype.type(0)
    for r in range(len(out)):
        row, values, pull = out[r], y[r], grad[r]
        for t in range(len(row)):
            g = zero if values[t] <= limit else pull[t]
            row[t] = constant[t] + of_y[t] * values[t] + of_grad[t] * g


@compiled
def norm_gradient(
    grad: Map, y: Map, factors: PerChannel, threshold: float, out: Map, first: int, last: int
) -> None:
    """`write_norm_gradient` of maps, and factors (3, C)."""
    rows = rows_of(grad, first, last), rows_of(y, first, last)
    write_norm_gradient(*rows, along_row(factors, y.shape[2], y), threshold, rows_of(out, first, last))


@inlined
def raise_to(row: Map, values: Map) -> None:
    """row = max(row, values); NaN wins."""
    for t in range(len(row)):
        row[t] = row[t] if values[t] <= row[t] or row[t] != row[t] else values[t]


@compiled
def write_max_pool(x: Map, out: Map, first: int, last: int) -> None:
    """The maximum of every 3x3 window, first of its columns, then of its rows; padding never wins."""
    _, height, width, channels = x.shape
    column = np.empty(width * channels, x.dtype)
    for n in range(first, last):
        source, target = rows_of(x, n, n + 1), rows_of(out, n, n + 1)
        for i in range(height):
            row, values = target[i], source[i]
            for t in range(len(column)):
                column[t] = values[t]
            for r in range(max(i - 1, 0), min(i + 2, height)):
                raise_to(column, source[r])
            for t in range(len(column)):
                row[t] = column[t]
            raise_to(row[: len(row) - channels], column[channels:])
            raise_to(row[channels:], column[: len(row) - channels])


@compiled
def write_max_pool_gradient(grad: Map, maximum: Map, x: Map, out: Map, first: int, last: int) -> None:
    """The gradient goes to the first pixel of a window, row by row, that is its maximum."""
    _, height, width, channels = x.shape
    taken = np.empty(width * channels, x.dtype)  # 1 where an earlier pixel of the window was the maximum
    length = len(taken)
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for n in range(first, last):
        source, target = rows_of(x, n, n + 1), rows_of(out, n, n + 1)
        grads, maxima = rows_of(grad, n, n + 1), rows_of(maximum, n, n + 1)
        target[:] = 0
        for i in range(height):
            taken[:] = 0
            for r in range(max(i - 1, 0), min(i + 2, height)):
                for v in range(-1, 2):
                    begin, end, shift = max(0, -v) * channels, length - max(0, v) * channels, v * channels
                    pull, highest, seen = grads[i][begin:end], maxima[i][begin:end], taken[begin:end]
                    values, row = (
                        source[r][begin + shift : end + shift],
                        target[r][begin + shift : end + shift],
                    )
                    for t in range(len(pull)):
                        here = zero if values[t] != highest[t] else one - seen[t]
                        row[t] += here * pull[t]
                        seen[t] += here
