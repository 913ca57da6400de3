"""What batch norm does with maps, each in one pass over memory: loops that numba compiles.

A map is (N, H, W, C), of single or double precision. The loops run over rows of W pixels, L = W * C numbers;
sums over pixels add rows, and fold what a row holds of a channel in double precision every BLOCK rows. K maps
are their addresses, their shape, and `like`, any array of their type: one call does for all. `first` and
`last` are the images that a call is for.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jit import array_at, compiled

Map = NDArray[np.floating[Any]]
Maps = NDArray[np.intp]  # (K,), addresses
Shape = tuple[int, int, int, int]
Four = tuple[Map, Map, Map, Map]

BLOCK = 32  # rows that are added in the precision of the map


@compiled
def rows_of(x: Map, first: int, last: int) -> Map:
    """(N, H, W, C) -> ((last - first) * H, L)"""
    _, height, width, channels = x.shape
    return x[first:last].reshape((last - first) * height, width * channels)


@compiled
def rows_at(address: int, shape: Shape, like: Map, first: int, last: int) -> Map:
    """`rows_of` the map at an address."""
    return rows_of(array_at(address, shape, like), first, last)


@compiled
def fold(row: Map, total: Map) -> None:
    """Adds the pixels of a row to C totals, and clears the row."""
    channels = len(total)
    for pixel in range(0, len(row), channels):
        values = row[pixel : pixel + channels]
        for c in range(channels):
            total[c] += values[c]
            values[c] = 0


@compiled
def along_row(numbers: Map, width: int, like: Map) -> Map:
    """(K, C) -> (K, L), in the precision of a map."""
    wide = np.empty((len(numbers), width * numbers.shape[1]), like.dtype)
    for k in range(len(numbers)):
        for c in range(numbers.shape[1]):
            for w in range(width):
                wide[k, w * numbers.shape[1] + c] = numbers[k, c]
    return wide


@compiled
def add_sums(maps: Maps, shape: Shape, like: Map, totals: Map, first: int, last: int) -> None:
    """totals (K, C) += sum over pixels of x, for K maps."""
    for k in range(len(maps)):
        x = rows_at(maps[k], shape, like, first, last)
        row = np.zeros(x.shape[1], x.dtype)
        for begin in range(0, len(x), BLOCK):
            for r in range(begin, min(begin + BLOCK, len(x))):
                values = x[r]
                for t in range(len(row)):
                    row[t] += values[t]
            fold(row, totals[k])


@compiled
def add_pulls(grad: int, maps: Maps, shape: Shape, like: Map, totals: Map, first: int, last: int) -> None:
    """totals (1 + K, C) += sum over pixels of g, at an address, and of g * y for K maps."""
    pulls = rows_at(grad, shape, like, first, last)
    rows = np.zeros((1 + len(maps), pulls.shape[1]), pulls.dtype)
    for begin in range(0, len(pulls), BLOCK):
        end = min(begin + BLOCK, len(pulls))
        row = rows[0]
        for r in range(begin, end):
            pull = pulls[r]
            for t in range(len(row)):
                row[t] += pull[t]
        for k in range(len(maps)):
            y, row = rows_at(maps[k], shape, like, first, last), rows[1 + k]
            for r in range(begin, end):
                pull, values = pulls[r], y[r]
                for t in range(len(row)):
                    row[t] += pull[t] * values[t]
        for k in range(len(rows)):
            fold(rows[k], totals[k])


@compiled
def add_masked_pulls(
    grads: Maps, maps: Maps, shape: Shape, like: Map, totals: Map, first: int, last: int
) -> None:
    """totals (K, 2, C) += sum over pixels of g, and of g * y, g being the gradient where y is positive."""
    zero = like.dtype.type(0)
    for k in range(len(maps)):
        pulls = rows_at(grads[k], shape, like, first, last)
        positive = rows_at(maps[k], shape, like, first, last)
        sums, dots = np.zeros(pulls.shape[1], pulls.dtype), np.zeros(pulls.shape[1], pulls.dtype)
        for begin in range(0, len(pulls), BLOCK):
            for r in range(begin, min(begin + BLOCK, len(pulls))):
                pull, values = pulls[r], positive[r]
                for t in range(len(sums)):
                    g = zero if values[t] <= 0 else pull[t]
                    sums[t] += g
                    dots[t] += g * values[t]
            fold(sums, totals[k, 0])
            fold(dots, totals[k, 1])


@compiled
def write_scaled_sum(
    maps: Maps, scales: Map, out: int, onto: bool, shape: Shape, like: Map, first: int, last: int
) -> None:
    """out, at an address, = sum_k s_k y_k of K maps, scales (K, C); where onto, += that."""
    wide = along_row(scales, shape[2], like)
    for n in range(first, last):
        target = rows_at(out, shape, like, n, n + 1)
        for k in range(len(maps)):
            source, scale = rows_at(maps[k], shape, like, n, n + 1), wide[k]
            for r in range(len(target)):
                row, values = target[r], source[r]
                if k == 0 and not onto:
                    for t in range(len(row)):
                        row[t] = scale[t] * values[t]
                else:
                    for t in range(len(row)):
                        row[t] += scale[t] * values[t]


@compiled
def write_multiples(x: int, factors: Map, outs: Maps, shape: Shape, like: Map, first: int, last: int) -> None:
    """out_k = w_k x of a map at an address, factors (K,)."""
    for n in range(first, last):
        source = rows_at(x, shape, like, n, n + 1).reshape(-1)
        for k in range(len(outs)):
            target, factor = rows_at(outs[k], shape, like, n, n + 1).reshape(-1), factors[k]
            for t in range(len(target)):
                target[t] = factor * source[t]


@compiled
def write_scaled_relus(
    maps: Maps, scales: Map, outs: Maps, shape: Shape, like: Map, first: int, last: int
) -> None:
    """out_k = relu(s_k y_k) of K maps, scales (K, C); what is no number stays so."""
    wide, zero = along_row(scales, shape[2], like), like.dtype.type(0)
    for k in range(len(maps)):
        source, scale = rows_at(maps[k], shape, like, first, last), wide[k]
        target = rows_at(outs[k], shape, like, first, last)
        for r in range(len(target)):
            row, values = target[r], source[r]
            for t in range(len(row)):
                value = scale[t] * values[t]
                row[t] = zero if value <= 0 else value


@compiled
def norm_factors(norm: Four, count: int, width: int, like: Map) -> Map:
    """(3, L): what 1, y and g are multiplied by in s (g - mean(g) - y mean(g y) inverse^2).

    norm, each (C,): inverse, s, and the sums over all `count` pixels of g and g y.
    """
    inverse, scale, sums, dots = norm
    factors = np.empty((3, len(scale)), like.dtype)
    for c in range(len(scale)):
        factors[0, c] = -scale[c] * sums[c] / count
        factors[1, c] = -scale[c] * inverse[c] * inverse[c] * dots[c] / count
        factors[2, c] = scale[c]
    return along_row(factors, width, like)


@compiled
def write_norm_gradient(
    grad: Map, y: Map, factors: Map, masked: bool, out: Map, first: int, last: int
) -> None:
    """out = dL/dy, by `norm_factors`; where masked, g is that of positive y."""
    constant, of_y, of_grad = factors[0], factors[1], factors[2]
    zero = out.dtype.type(0)
    target, values_of = rows_of(out, first, last), rows_of(y, first, last)
    pulls_of = rows_of(grad, first, last)
    for r in range(len(target)):
        row, values, pulls = target[r], values_of[r], pulls_of[r]
        if masked:
            for t in range(len(row)):
                g = zero if values[t] <= 0 else pulls[t]
                row[t] = constant[t] + of_y[t] * values[t] + of_grad[t] * g
        else:
            for t in range(len(row)):
                row[t] = constant[t] + of_y[t] * values[t] + of_grad[t] * pulls[t]


@compiled
def move(places: Maps, means: Map, variances: Map, rate: float) -> None:
    """Running statistics of K norms, at addresses (K, 3): mean and variance, (C,), go on by the share `rate`
    to means and variances, (K, C), and the count of batches by one.
    """
    for k in range(len(places)):
        for running, found in ((places[k, 0], means[k]), (places[k, 1], variances[k])):
            numbers = array_at(running, found.shape, found)
            for c in range(len(numbers)):
                numbers[c] += rate * (found[c] - numbers[c])
        batches = array_at(places[k, 2], (1,), places)
        batches[0] += 1
