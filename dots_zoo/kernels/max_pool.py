"""3x3 max pooling of stride 1 with a border of one pixel, as loops over rows that numba compiles.

Maps are (N, H, W, C), of single or double precision, at their places; a row is W pixels of C channels. What
is beyond the border takes part in no maximum. A square is taken by columns, then by rows.
"""

import numpy as np

from .elementwise import Map, rows_of
from .jit import Place, array_at, compiled


@compiled
def raise_to(row: Map, values: Map) -> None:
    """row = max(row, values); what is no number wins."""
    for t in range(len(row)):
        row[t] = row[t] if values[t] <= row[t] or row[t] != row[t] else values[t]


@compiled
def write_maximum(of_x: Place, of_out: Place, like: Map, first: int, last: int) -> None:
    """The maximum of every square."""
    x, out = array_at(*of_x, like), array_at(*of_out, like)
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
def write_maximum_gradient(
    of_grad: Place, of_maximum: Place, of_x: Place, of_out: Place, like: Map, first: int, last: int
) -> None:
    """The gradient goes to the first pixel of a square, row by row, that is its maximum."""
    grad, maximum = array_at(*of_grad, like), array_at(*of_maximum, like)
    x, out = array_at(*of_x, like), array_at(*of_out, like)
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
