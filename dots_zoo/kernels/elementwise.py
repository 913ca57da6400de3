"""Elementwise passes over a map, each read or written once, as loops that numba compiles.

A map is (N, H, W, C), of single or double precision. The loops run over rows of W pixels, L = W * C values.
Sums over pixels add rows in the precision of the map, and fold them into values per channel (C,), in double
precision, every BLOCK rows. `first` and `last` are the range of images of a call.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jit import compiled, inlined

Map = NDArray[np.floating[Any]]
PerChannel = NDArray[np.float64]

BLOCK = 32  # rows added in the precision of the map before a fold


@inlined
def rows_of(x: Map, first: int, last: int) -> Map:
    """View a range of images as rows: (N, H, W, C) -> ((last - first) * H, L)."""
    _, height, width, channels = x.shape
    return x[first:last].reshape((last - first) * height, width * channels)


@inlined
def along_row(values: PerChannel, width: int, like: Map) -> Map:
    """Repeat values per channel (K, C) for every pixel of a row: (K, L), in the precision of a map."""
    channels = values.shape[1]
    wide = np.empty((len(values), width * channels), like.dtype)
    for k in range(len(values)):
        for c in range(channels):
            for w in range(width):
                wide[k, w * channels + c] = values[k, c]
    return wide


@inlined
def fold(row: Map, total: PerChannel) -> None:
    """Add the pixels of a row (L,) to totals per channel (C,), and clear the row."""
    channels = len(total)
    for pixel in range(0, len(row), channels):
        values = row[pixel : pixel + channels]
        for c in range(channels):
            total[c] += values[c]
            values[c] = 0


@compiled
def add_dot_products(grad: Map, y: Map, threshold: float, sums: PerChannel, first: int, last: int) -> None:
    """Add the sums over pixels of g (C,) and of g * y (C,) to sums, one after the other.

    g is the gradient where y > threshold, and 0 elsewhere.
    """
    limit, zero = y.dtype.type(threshold), y.dtype.type(0)
    grads, values_of = rows_of(grad, first, last), rows_of(y, first, last)
    row_sums, row_dots = np.zeros(grads.shape[1], y.dtype), np.zeros(grads.shape[1], y.dtype)
    channels = y.shape[3]
    for begin in range(0, len(grads), BLOCK):
        for r in range(begin, min(begin + BLOCK, len(grads))):
            grad_row, values = grads[r], values_of[r]
            for t in range(len(row_sums)):
                g = zero if values[t] <= limit else grad_row[t]
                row_sums[t] += g
                row_dots[t] += g * values[t]
        fold(row_sums, sums[:channels])
        fold(row_dots, sums[channels:])


@compiled
def write_scaled(y: Map, scale: PerChannel, accumulate: bool, out: Map, first: int, last: int) -> None:
    """Write out = s * y, or out += s * y to accumulate; scale (1, C)."""
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
    """Write out = a + b * y + c * g on rows (R, L); factors (3, L) are a, b and c.

    g is the gradient where y > threshold, and 0 elsewhere.
    """
    constant, of_y, of_grad = factors[0], factors[1], factors[2]
    limit, zero = y.dtype.type(threshold), y.dtype.type(0)
    for r in range(len(out)):
        row, values, grad_row = out[r], y[r], grad[r]
        for t in range(len(row)):
            g = zero if values[t] <= limit else grad_row[t]
            row[t] = constant[t] + of_y[t] * values[t] + of_grad[t] * g


@compiled
def norm_gradient(
    grad: Map, y: Map, factors: PerChannel, threshold: float, out: Map, first: int, last: int
) -> None:
    """Apply `write_norm_gradient` to maps, with factors (3, C)."""
    rows = rows_of(grad, first, last), rows_of(y, first, last)
    write_norm_gradient(*rows, along_row(factors, y.shape[2], y), threshold, rows_of(out, first, last))


@inlined
def mask_by_relu(x: Map, grad: Map) -> None:
    """Set a gradient (L,) to 0 where x <= 0."""
    zero = x.dtype.type(0)
    for t in range(len(x)):
        grad[t] = zero if x[t] <= zero else grad[t]


@inlined
def raise_to(row: Map, values: Map) -> None:
    """Raise a row in place: row = max(row, values), where NaN wins."""
    for t in range(len(row)):
        row[t] = row[t] if values[t] <= row[t] or row[t] != row[t] else values[t]


@compiled
def write_max_pool(x: Map, out: Map, first: int, last: int) -> None:
    """Write the maximum of every 3x3 window, first of its columns, then of its rows; padding never wins."""
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
    """Write the gradient to the first pixel of each window, row by row, that is its maximum."""
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
                    grad_row, highest, seen = grads[i][begin:end], maxima[i][begin:end], taken[begin:end]
                    values, row = (
                        source[r][begin + shift : end + shift],
                        target[r][begin + shift : end + shift],
                    )
                    for t in range(len(grad_row)):
                        here = zero if values[t] != highest[t] else one - seen[t]
                        row[t] += here * grad_row[t]
                        seen[t] += here
