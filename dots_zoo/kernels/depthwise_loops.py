"""Depthwise convolution and its weight gradient, channels last, as compiled loops over pixels.

    y[n, i, j, c] = sum over u, v of w[c, u, v] x[n, s i + d u - p, s j + d v - p, c]
    dL/dw[c, u, v] = sum over n, i, j of g[n, i, j, c] x[n, s i + d u - p, s j + d v - p, c]

SIMD_WIDTH channels of an image at a time are copied into a window with a border of zeros, which stays in the
cache. The weights of all taps stay in registers, and so do the sums of their gradients where the processor
has enough, else those of one row of taps.
"""

from typing import Any

import numpy as np

from .elementwise import Map, PerChannel
from .jit import MAX_TAPS, SIMD_WIDTH, compiled, inlined
from .simd import WIDE, add, add_sum, add_taps, add_windows, load, load_all, relu_of_product, store, zeros

Taps = tuple[int, ...]  # its length, the number of taps, is part of its type
Geometry = tuple[int, int, int, int]  # stride, padding, dilation, n where every n-th pixel is read

ALIGNED = 16  # values: a vector aligned to them lies in one cache line
TILES = (0,) * 4, (0,)  # pixels at a time


@inlined
def empty_window(height: int, width: int, like: Map) -> Map:
    """Allocate zeros for SIMD_WIDTH channels of an image and its border, aligned to a cache line."""
    room = np.zeros(height * width * SIMD_WIDTH + ALIGNED, like.dtype)
    return room[(-room.ctypes.data // room.itemsize) % ALIGNED :]


@inlined
def fill_window(
    image: Map, c: int, every: int, scales: Map, window: Map, line: int, border: int, apart: int
) -> None:
    """Copy SIMD_WIDTH channels of every n-th pixel of an image (H, W, C) into a window.

    The value is x, or relu(s x) where scales (C,) are not empty.

    Args:
        c: first channel.
        every: n.
        line: values in a line of the window.
        border: width of the border in pixels.
        apart: distance of two pixels in the window; more than 1 spreads a gradient of that stride.
    """
    height, width, depth = image.shape
    pixels = image.reshape(-1)
    scale = load(scales, c) if len(scales) else load(pixels, c)
    for i in range((height + every - 1) // every):
        start = (i * apart + border) * line + border * SIMD_WIDTH
        for j in range((width + every - 1) // every):
            x = load(pixels, (i * width + j) * every * depth + c)
            x = relu_of_product(x, scale) if len(scales) else x
            store(window, start + j * apart * SIMD_WIDTH, 0, (x,))


@inlined
def lay_weights(weight: Map, c: int, mirrored: bool, laid: Map) -> None:
    """Interleave the weights of SIMD_WIDTH channels: (C, taps * taps) -> (taps * taps * SIMD_WIDTH,)."""
    taps = weight.shape[1]
    for tap in range(taps):
        for lane in range(SIMD_WIDTH):
            laid[tap * SIMD_WIDTH + lane] = weight[c + lane, taps - 1 - tap if mirrored else tap]


@inlined
def convolve_window(
    window: Map, line: int, laid: Map, types: Any, steps: Any, out: Map, c: int, accumulate: bool
) -> Map:
    """Convolve a window: out[::n, ::n, c : c + SIMD_WIDTH] = y, or += y; return the sums of y over pixels.

    Args:
        laid: weights of `lay_weights`.
        types: tuples whose lengths are all taps, a row of taps, and the tiles.
        steps: stride, dilation, n.
        out: image (H', W', C).
        accumulate: add y to out.
    """
    (taps, row, four, one), (stride, dilation, every) = types, steps
    height, width, channels = out.shape
    target, totals = out.reshape(-1), np.zeros(SIMD_WIDTH, out.dtype)
    weights, total = load_all(laid, 0, SIMD_WIDTH, taps), load(totals, 0)
    columns, next_pixel = (width + every - 1) // every, every * channels
    below, beside, step = dilation * line, dilation * SIMD_WIDTH, stride * SIMD_WIDTH
    for i in range((height + every - 1) // every):
        pixel, at = stride * i * line, i * every * width * channels + c
        for _ in range(columns // len(four)):
            y = load_all(target, at, next_pixel, four) if accumulate else zeros(out, four)
            y = add_windows(y, weights, window, pixel, below, beside, row, step)
            store(target, at, next_pixel, y)
            total = add_sum(total, y)
            pixel, at = pixel + len(four) * step, at + len(four) * next_pixel
        for _ in range(columns % len(four)):
            end = load_all(target, at, next_pixel, one) if accumulate else zeros(out, one)
            end = add_windows(end, weights, window, pixel, below, beside, row, step)
            store(target, at, next_pixel, end)
            total = add_sum(total, end)
            pixel, at = pixel + step, at + next_pixel
    store(totals, 0, 0, (total,))
    return totals


def loop_geometry(stride: int, padding: int, dilation: int) -> Geometry:
    """Return the geometry of a convolution: stride, padding, dilation, and n for every n-th pixel.

    Where the dilation divides stride and padding, it reads every n-th pixel without dilation.
    """
    if dilation > 1 and stride % dilation == 0 and padding % dilation == 0:
        return stride // dilation, padding // dilation, 1, dilation
    return stride, padding, dilation, 1


def tap_types(taps: int) -> tuple[Taps, Taps, Taps, Taps]:
    """Return the compile-time `types` of `convolve_window` for a kernel of `taps` x `taps`."""
    return (0,) * (taps * taps), (0,) * taps, *TILES


@compiled
def convolve_images(
    maps: tuple[Map, Map],
    weight: Map,
    scales: Map,
    types: Any,
    geometry: Geometry,
    sums: PerChannel,
    first: int,
    last: int,
) -> None:
    """Convolve images: out = w * x, or w * relu(s x) where scales (C,) are not empty.

    Args:
        maps: x and out, (N, H, W, C).
        weight: (C, taps * taps).
        sums: (C,), to which the sums of y over pixels are added.
        first, last: range of images.
    """
    (x, out), (stride, padding, dilation, every) = maps, geometry
    _, height, width, channels = x.shape
    laid = np.empty(weight.shape[1] * SIMD_WIDTH, x.dtype)
    line = ((width + every - 1) // every + 2 * padding) * SIMD_WIDTH
    window = empty_window((height + every - 1) // every + 2 * padding, line // SIMD_WIDTH, laid)
    one: Any = np.int64(1)
    no: Any = np.bool_(False)
    for c in range(0, channels, SIMD_WIDTH):
        lay_weights(weight, c, no, laid)
        for n in range(first, last):
            fill_window(x[n], c, every, scales, window, line, padding, one)
            totals = convolve_window(window, line, laid, types, (stride, dilation, one), out[n], c, no)
            for lane in range(SIMD_WIDTH):
                sums[c + lane] += totals[lane]


def gradient_types(taps: int) -> tuple[Taps, Taps]:
    """Return compile-time tuples: the taps whose sums stay in registers at once, and a row of taps."""
    return (0,) * (taps * taps if WIDE and taps * taps <= MAX_TAPS else taps), (0,) * taps


@inlined
def add_window_gradient(
    window: Map, line: int, grad: Map, c: int, types: Any, stride: int, dilation: int, totals: Map
) -> None:
    """Add dL/dw of SIMD_WIDTH channels of an image, from c on, to totals (taps * taps * SIMD_WIDTH,)."""
    together, row = types
    rows, columns, channels = grad.shape
    grads = grad.reshape(-1)
    below, beside = dilation * line, dilation * SIMD_WIDTH
    for tap in range(0, len(row) * len(row), len(together)):
        sums = zeros(grad, together)
        for i in range(rows):
            grad_at = i * columns * channels + c
            pixel = (stride * i + dilation * (tap // len(row))) * line
            for _ in range(columns):
                sums = add_taps(sums, load(grads, grad_at), window, pixel, below, beside, row)
                grad_at, pixel = grad_at + channels, pixel + stride * SIMD_WIDTH
        at = tap * SIMD_WIDTH
        store(totals, at, SIMD_WIDTH, add(load_all(totals, at, SIMD_WIDTH, together), sums))


@inlined
def add_lanes(totals: Map, c: int, skip: int, out: PerChannel) -> None:
    """Add the totals of SIMD_WIDTH channels, without the first `skip`, to out (C, taps * taps) from c on."""
    for lane in range(skip, SIMD_WIDTH):
        for tap in range(out.shape[1]):
            out[c + lane, tap] += totals[tap * SIMD_WIDTH + lane]


@compiled
def add_gradients(
    maps: tuple[Map, Map], types: Any, geometry: Geometry, out: PerChannel, first: int, last: int
) -> None:
    """Add dL/dw to out (C, taps * taps); maps: x and dL/dy.

    The last block of channels ends with the last channel, so that it may overlap the one before.
    """
    (x, grad), (stride, padding, dilation, every) = maps, geometry
    _, height, width, channels = x.shape
    line = ((width + every - 1) // every + 2 * padding) * SIMD_WIDTH
    totals, no_scales = np.zeros(out.shape[1] * SIMD_WIDTH, x.dtype), np.empty(0, x.dtype)
    window = empty_window((height + every - 1) // every + 2 * padding, line // SIMD_WIDTH, totals)
    one: Any = np.int64(1)
    for block in range(0, channels, SIMD_WIDTH):
        c = min(block, channels - SIMD_WIDTH)
        totals[:] = 0
        for n in range(first, last):
            fill_window(x[n], c, every, no_scales, window, line, padding, one)
            add_window_gradient(window, line, grad[n], c, types, stride, dilation, totals)
        add_lanes(totals, c, block - c, out)
