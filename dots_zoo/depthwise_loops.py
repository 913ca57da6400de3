"""Depthwise convolution and its weight gradient, channels last, as loops over pixels that numba compiles.

    y[n, i, j, c] = sum over u, v of w[c, u, v] x[n, s i + d u - p, s j + d v - p, c]
    dL/dw[c, u, v] = sum over n, i, j of g[n, i, j, c] x[n, s i + d u - p, s j + d v - p, c]

LANES channels of an image at a time are copied inside a border of zeros, a window that stays in the cache.
The weights of all taps, or the sums of the gradients of all, stay in registers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .lanes import (
    LANES,
    WIDE,
    Place,
    add_all,
    add_taps,
    add_to,
    add_windows,
    array_at,
    compiled,
    load,
    load_all,
    no_sums,
    place,
    relu_of_product,
    store,
)
from .parts import in_parts, sum_of

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


def weight_gradient(x: Tensor, grad: Tensor, taps: int, stride: int, padding: int, dilation: int) -> Tensor:
    """(N, C, H, W), (N, C, H', W'), both of single or both of double precision -> (C, 1, taps, taps)."""
    channels, missing = x.shape[1], LANES - x.shape[1]
    if missing > 0:
        x, grad = (F.pad(each, [0, 0, 0, 0, 0, missing]) for each in (x, grad))
    x, grad = (each.detach().contiguous(memory_format=torch.channels_last) for each in (x, grad))
    types = gradient_types(taps, dilation, stride)
    maps, shape = (place(x), place(grad)), (max(channels, LANES), taps * taps)
    kind = np.float32 if x.dtype == torch.float32 else np.float64

    def part(first: int, last: int) -> Numbers:
        out = np.zeros(shape, kind)
        add_gradients(*maps, out, types, padding, first, last)
        return out

    return torch.from_numpy(sum_of(in_parts(part, x.shape[0]))[:channels]).view(channels, 1, taps, taps)


def gradient_types(taps: int, dilation: int, stride: int) -> Types:
    """Of `add_window_gradient`: the sums of all taps stay in registers, or those of a row of them."""
    together = taps * taps if WIDE and taps * taps <= MOST_TAPS else taps
    return (0,) * together, (0,) * taps, (0,) * dilation, (0,) * stride


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
def add_window_gradient(
    window: Numbers, line: int, grad: Numbers, c: int, types: Types, totals: Numbers
) -> None:
    """totals (taps * taps * LANES,) += dL/dw of LANES channels, from the c-th on, of an image."""
    together, row, apart, stride = types
    rows, columns, channels = grad.shape
    pulls = grad.reshape(-1)
    for tap in range(0, len(row) * len(row), len(together)):
        sums = no_sums(grad, together)
        for i in range(rows):
            pull = i * columns * channels + c
            pixel = (len(stride) * i + len(apart) * (tap // len(row))) * line
            for _ in range(columns):
                lanes = load(pulls, pull)
                sums = add_taps(sums, lanes, window, pixel, len(apart) * line, row, apart)
                pull, pixel = pull + channels, pixel + len(stride) * LANES
        add_to(totals, tap * LANES, LANES, sums)


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


@compiled
def add_gradients(
    of_x: Place, of_grad: Place, out: Numbers, types: Types, padding: int, first: int, last: int
) -> None:
    """out (C, taps * taps) += dL/dw. The last block of channels ends with the last channel."""
    x, grad = array_at(*of_x, out), array_at(*of_grad, out)
    _, height, width, channels = x.shape
    line = (width + 2 * padding) * LANES
    window = empty_window(height + 2 * padding, width + 2 * padding, x)
    totals = np.zeros(out.shape[1] * LANES, x.dtype)
    for block in range(0, channels, LANES):
        c = min(block, channels - LANES)
        totals[:] = 0
        for n in range(first, last):
            fill_window(x[n], c, padding, 1, window, line)
            add_window_gradient(window, line, grad[n], c, types, totals)
        add_lanes(totals, c, block - c, out)


@compiled
def add_lanes(totals: Numbers, c: int, skip: int, out: Numbers) -> None:
    """out (C, taps * taps) += totals of LANES channels, from the c-th on, but for the first of them."""
    for lane in range(skip, LANES):
        for tap in range(out.shape[1]):
            out[c + lane, tap] += totals[tap * LANES + lane]
