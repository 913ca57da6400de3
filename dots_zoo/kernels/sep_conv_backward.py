"""The backward pass of half a separable convolution, image by image: a loop that numba compiles.

Between a batch norm and what the depthwise convolution read, x = w * z and y = P x, images share nothing
but sums, so that dL/dy and dL/dx of an image are made, used for dL/dP, dL/dw and dL/dz, and forgotten
before they leave the cache. Maps, sums and tiles: see `elementwise.py`, `pointwise.py`,
`depthwise_loops.py`, `depthwise_gradient.py`.
"""

import numpy as np
from numpy.typing import NDArray

from .depthwise_backward import add_lanes, add_window_gradient
from .depthwise_forward import (
    Tiles,
    Types,
    convolve_window,
    empty_window,
    fill_window,
    fill_window_with_relu,
    lay_weights,
)
from .elementwise import Four, Map, norm_factors, write_norm_gradient
from .jit import Place, array_at, compiled
from .pointwise import Tile, add_outer_products, write_products
from .simd import LANES

Numbers = NDArray[np.float64]


@compiled
def write_half_gradient(
    maps: tuple[Place, Place, Place, Place],
    norm: Four,
    masked: bool,
    at_matrix: int,
    at_weight: int,
    scales: Map,
    geometry: tuple[Types, Types, int, bool],
    tiles: tuple[tuple[Tile, Tile], Tiles],
    out: Place,
    onto: bool,
    of_matrix: Map,
    of_weight: Map,
    first: int,
    last: int,
) -> None:
    """out = dL/dz, or out += dL/dz where onto; of_matrix (C', C) += dL/dP; of_weight (C, taps * taps) +=
    dL/dw.

    maps: g, y, x and m, z being relu(s m), scales (C,); x and m are not looked at unless geometry says that
    gradients of weights are wanted. P and w are at addresses. norm, each (C',): see `norm_factors`; masked:
    see `write_norm_gradient`. geometry: `Types` of the convolution and of its gradient, padding, and wanted.
    """
    of_g, of_y, of_x, of_m = maps
    forward, backward, padding, wanted = geometry
    (many, one), windows = tiles
    g, y, target = array_at(*of_g, scales), array_at(*of_y, scales), array_at(*out, scales)
    x, m = array_at(*of_x, scales), array_at(*of_m, scales)
    count, rows, columns, into = y.shape
    _, height, width, channels = target.shape
    matrix = array_at(at_matrix, (into, channels), scales)
    weight = array_at(at_weight, (channels, len(backward[0])), scales)
    stride, apart = len(forward[3]), len(forward[2])
    reach = apart * (len(forward[1]) - 1)
    pull = np.empty((1, rows, columns, into), matrix.dtype)  # dL/dy of an image
    push = np.empty((1, rows, columns, channels), matrix.dtype)  # dL/dx
    nothing, squares = np.zeros(channels, matrix.dtype), np.zeros((0, channels))
    line, read_line = (width + reach) * LANES, (width + 2 * padding) * LANES
    window = empty_window(height + reach, width + reach, matrix)  # of dL/dx
    read = empty_window(height + 2 * padding, width + 2 * padding, matrix)  # of z
    numbers = np.empty((channels // LANES, weight.shape[1] * LANES), matrix.dtype)
    totals = np.zeros(numbers.shape, matrix.dtype)
    of_p = np.zeros(matrix.shape, matrix.dtype)
    for block in range(len(numbers)):
        lay_weights(weight, block * LANES, True, numbers[block])
    factors = norm_factors(norm, count * rows * columns, columns, g)
    for n in range(first, last):
        here = slice(n, n + 1)
        write_norm_gradient(g[here], y[here], factors, masked, pull, 0, 1)
        write_products(pull, matrix, nothing, push, many, one, squares, 0, 1)
        if wanted:
            left, right = pull.reshape(rows * columns, into), x[n].reshape(rows * columns, channels)
            add_outer_products(left, right, of_p, many)
        for block in range(len(numbers)):
            c = block * LANES
            fill_window(push[0], c, reach - padding, stride, window, line)
            convolve_window(window, line, numbers[block], backward, windows, target[n], c, onto)
            if wanted:
                fill_window_with_relu(m[n], c, padding, read, read_line, scales)
                add_window_gradient(read, read_line, push[0], c, forward, totals[block])
    of_matrix += of_p
    for block in range(len(numbers)):
        add_lanes(totals[block], block * LANES, 0, of_weight)
