"""Depthwise convolution, channels last, as loops over pixels that numba compiles.

    y[n, i, j, c] = sum over u, v of w[c, u, v] x[n, s i + d u - p, s j + d v - p, c]

LANES channels of an image at a time are copied inside a border of zeros, a window that stays in the cache.
The weights of all taps stay in registers. For that of the weights see `depthwise_backward.py`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .jit import Place, array_at, compiled, place
from .parallel import in_parts
from .simd import LANES, add_all, add_windows, load, load_all, no_sums, relu_of_product, store

Numbers = NDArray[np.floating]
Taps = tuple[int, ...]  # its length is part of its type
Tiles = tuple[Taps, Taps]
Types = tuple[Taps, Taps, Taps, Taps]  # as long as: taps that are kept, a row of them, dilation, stride

MOST_TAPS = 25  # of a convolution, whose weights are kept in registers or in the next cache
ALIGNED = 16  # numbers: a vector that begins at a multiple lies in one line of the cache
TILES = (0,) * 4, (0,)  # pixels at a time


def convolves(x: Tensor, taps: int) -> bool:
    """Whether there is a `convolution` of a map on a CPU, one that is faster than the library's."""
    return (
        taps * taps <= MOST_TAPS
        and x.shape[1] % LANES == 0
        and x.dtype in (torch.float32, torch.float64)
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def convolution(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """Of what `convolves`: (N, C, H, W), (C, 1, taps, taps) -> y, (N, C, H', W')."""
    sides, weight = sides_of(x.shape[2:], weight.shape[-1], stride, padding, dilation), weight.contiguous()
    out = torch.empty((*x.shape[:2], *sides), dtype=x.dtype, memory_format=torch.channels_last)
    no_scales = np.empty(0, np.float32 if x.dtype == torch.float32 else np.float64)
    write = of_images(x, weight, (stride, padding, dilation), out, no_scales)
    in_parts(lambda first, last: write(np.zeros(x.shape[1]), first, last), x.shape[0])
    return out


def sides_of(sides: Sequence[int], taps: int, stride: int, padding: int, dilation: int) -> list[int]:
    """Of what a convolution makes of a map of these sides."""
    return [(side + 2 * padding - dilation * (taps - 1) - 1) // stride + 1 for side in sides]


def of_images(
    x: Tensor, weight: Tensor, numbers: tuple[int, int, int], out: Tensor, scales: Any
) -> Callable[..., None]:
    """`write_images` of tensors, which have to stay alive, but for sums and images; numbers: stride, padding,
    dilation.
    """
    (stride, padding, dilation), taps = numbers, weight.shape[-1]
    assert weight.is_contiguous() and weight.dtype == x.dtype, "a loop reads weights row by row"
    assert [*out.shape[2:]] == sides_of(x.shape[2:], taps, *numbers), "a loop writes as much as it reads"
    types = (0,) * (taps * taps), (0,) * taps, (0,) * dilation, (0,) * stride
    return partial(write_images, place(x), place(out), weight.data_ptr(), scales, types, TILES, padding)


@compiled
def empty_window(height: int, width: int, like: Numbers) -> Numbers:
    """Zeros, room for LANES channels of an image and its border."""
    room = np.zeros(height * width * LANES + ALIGNED, like.dtype)
    return room[(-room.ctypes.data // room.itemsize) % ALIGNED :]


@compiled
def fill_window(image: Numbers, c: int, border: int, apart: int, window: Numbers, line: int) -> None:
    """LANES channels, from the c-th on, of an image (H, W, C): its pixels so far apart in the window, whose
    lines are so long.
    """
    height, width, depth = image.shape
    pixels = image.reshape(-1)
    for i in range(height):
        start = (i * apart + border) * line + border * LANES
        for j in range(width):
            store(window, start + j * apart * LANES, 0, (load(pixels, (i * width + j) * depth + c),))


@compiled
def fill_window_with_relu(
    image: Numbers, c: int, border: int, window: Numbers, line: int, scales: Numbers
) -> None:
    """`fill_window` with relu(s x), scales (C,)."""
    height, width, depth = image.shape
    pixels, scale = image.reshape(-1), load(scales, c)
    for i in range(height):
        start = (i + border) * line + border * LANES
        for j in range(width):
            x = relu_of_product(load(pixels, (i * width + j) * depth + c), scale)
            store(window, start + j * LANES, 0, (x,))


@compiled
def lay_weights(weight: Numbers, c: int, mirrored: bool, numbers: Numbers) -> None:
    """Those of LANES channels, (C, taps * taps) -> (taps * taps * LANES,)"""
    taps = weight.shape[1]
    for tap in range(taps):
        for lane in range(LANES):
            numbers[tap * LANES + lane] = weight[c + lane, taps - 1 - tap if mirrored else tap]


@compiled
def convolve_window(
    window: Numbers, line: int, numbers: Numbers, types: Types, tiles: Tiles, out: Numbers, c: int, onto: bool
) -> Numbers:
    """out[:, :, c : c + LANES] = y, or += y where onto, of an image (H', W', C); its sums over pixels."""
    (taps, row, apart, stride), (four, one) = types, tiles
    rows, columns, channels = out.shape
    target, totals = out.reshape(-1), np.zeros(LANES, out.dtype)
    weights, total = load_all(numbers, 0, LANES, taps), load(totals, 0)
    for i in range(rows):
        pixel, at = len(stride) * i * line, i * columns * channels + c
        for _ in range(columns // len(four)):
            y = load_all(target, at, channels, four) if onto else no_sums(out, four)
            y = add_windows(y, weights, window, pixel, len(apart) * line, row, apart, stride)
            store(target, at, channels, y)
            total = add_all(total, y)
            pixel, at = pixel + len(four) * len(stride) * LANES, at + len(four) * channels
        for _ in range(columns % len(four)):
            end = load_all(target, at, channels, one) if onto else no_sums(out, one)
            end = add_windows(end, weights, window, pixel, len(apart) * line, row, apart, stride)
            store(target, at, channels, end)
            total = add_all(total, end)
            pixel, at = pixel + len(stride) * LANES, at + channels
    store(totals, 0, 0, (total,))
    return totals


@compiled
def write_images(
    of_x: Place,
    of_out: Place,
    of_weight: int,
    scales: Numbers,
    types: Types,
    tiles: Tiles,
    padding: int,
    sums: Numbers,
    first: int,
    last: int,
) -> None:
    """out = y, weight (C, taps * taps) at an address, of x, or, where scales (C,) are not empty, of relu(s
    x); sums (C,) += those of y over pixels. Of the images from the first to before the last.
    """
    x, out = array_at(*of_x, scales), array_at(*of_out, scales)
    _, height, width, channels = x.shape
    weight = array_at(of_weight, (channels, len(types[0])), scales)
    numbers = np.empty(weight.shape[1] * LANES, x.dtype)
    line = (width + 2 * padding) * LANES
    window = empty_window(height + 2 * padding, width + 2 * padding, x)
    for c in range(0, channels, LANES):
        lay_weights(weight, c, False, numbers)
        for n in range(first, last):
            if len(scales):
                fill_window_with_relu(x[n], c, padding, window, line, scales)
            else:
                fill_window(x[n], c, padding, 1, window, line)
            totals = convolve_window(window, line, numbers, types, tiles, out[n], c, False)
            for lane in range(LANES):
                sums[c + lane] += totals[lane]
