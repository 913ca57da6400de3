"""Weight gradient of a depthwise convolution, channels last, as loops over pixels that numba compiles.

    dL/dw[c, u, v] = sum over n, i, j of g[n, i, j, c] x[n, s i + d u - p, s j + d v - p, c]

Windows: see `depthwise_forward.py`. The sums of the gradients of all taps stay in registers.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .depthwise_forward import MOST_TAPS, Numbers, Types, empty_window, fill_window
from .jit import Place, array_at, compiled, place
from .parallel import in_parts, sum_of
from .simd import LANES, WIDE, add_taps, add_to, load, no_sums


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
