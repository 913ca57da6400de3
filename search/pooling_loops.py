"""3x3 poolings of stride 1 with a border of one pixel, as loops over rows that numba compiles.

Maps are (N, H, W, C), of single or double precision; a row is W pixels of C channels. What is beyond the
border takes part in nothing: in no maximum, sum or count. A square is taken by columns, then by rows.
"""

import numpy as np

from dots_zoo.lanes import compiled

from .map_loops import Map, rows_of


@compiled
def inverse_counts(height: int, width: int, channels: int, like: Map) -> Map:
    """(H, L): one over the number of pixels in the square around each."""
    counts = np.empty((height, width * channels), like.dtype)
    for i in range(height):
        rows = min(i + 1, height - 1) - max(i - 1, 0) + 1
        for j in range(width):
            columns = min(j + 1, width - 1) - max(j - 1, 0) + 1
            counts[i, j * channels : (j + 1) * channels] = 1 / (rows * columns)
    return counts


@compiled
def write_mean(x: Map, gradient: bool, out: Map, first: int, last: int) -> None:
    """The mean of every square, or, where x is the gradient of that, the gradient of what it was taken of."""
    _, height, width, channels = x.shape
    counts, column = inverse_counts(height, width, channels, x), np.empty(width * channels, x.dtype)
    for n in range(first, last):
        source, target = rows_of(x, n, n + 1), rows_of(out, n, n + 1)
        for i in range(height):
            column[:] = 0
            for r in range(max(i - 1, 0), min(i + 2, height)):
                values, share = source[r], counts[r]
                for t in range(len(column)):
                    column[t] += values[t] * share[t] if gradient else values[t]
            row, share = target[i], counts[i]
            row[:] = column
            ahead, behind = column[channels:], column[: len(column) - channels]
            before, after = row[: len(row) - channels], row[channels:]
            for t in range(len(ahead)):
                before[t] += ahead[t]
            for t in range(len(behind)):
                after[t] += behind[t]
            if not gradient:
                for t in range(len(row)):
                    row[t] *= share[t]


@compiled
def raise_to(row: Map, values: Map) -> None:
    """row = max(row, values); what is no number wins."""
    for t in range(len(row)):
        row[t] = row[t] if values[t] <= row[t] or row[t] != row[t] else values[t]


@compiled
def write_maximum(x: Map, out: Map, first: int, last: int) -> None:
    """The maximum of every square."""
    _, height, width, channels = x.shape
    column = np.empty(width * channels, x.dtype)
    for n in range(first, last):
        source, target = rows_of(x, n, n + 1), rows_of(out, n, n + 1)
        for i in range(height):
            column[:] = source[i]
            for r in range(max(i - 1, 0), min(i + 2, height)):
                raise_to(column, source[r])
            row = target[i]
            row[:] = column
            raise_to(row[: len(row) - channels], column[channels:])
            raise_to(row[channels:], column[: len(row) - channels])


@compiled
def add_where_first(grad: Map, maximum: Map, values: Map, found: Map, out: Map) -> None:
    """out += the gradient where a value is the maximum and none before it was; found, 0 or 1, remembers."""
    zero, one = grad.dtype.type(0), grad.dtype.type(1)
    for t in range(len(grad)):
        here = zero if values[t] != maximum[t] else one - found[t]
        out[t] += here * grad[t]
        found[t] += here


@compiled
def write_maximum_gradient(grad: Map, maximum: Map, x: Map, out: Map, first: int, last: int) -> None:
    """The gradient goes to the first pixel of a square, row by row, that is its maximum."""
    _, height, width, channels = x.shape
    found = np.empty(width * channels, x.dtype)
    length = len(found)
    for n in range(first, last):
        source, target = rows_of(x, n, n + 1), rows_of(out, n, n + 1)
        pulls, maxima = rows_of(grad, n, n + 1), rows_of(maximum, n, n + 1)
        target[:] = 0
        for i in range(height):
            found[:] = 0
            for r in range(max(i - 1, 0), min(i + 2, height)):
                for v in range(-1, 2):
                    begin, end, shift = max(0, -v) * channels, length - max(0, v) * channels, v * channels
                    here, there = slice(begin, end), slice(begin + shift, end + shift)
                    add_where_first(
                        pulls[i][here], maxima[i][here], source[r][there], found[here], target[r][there]
                    )
