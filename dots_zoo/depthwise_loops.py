"""The weight gradient of a depthwise convolution, channels last, as a loop over pixels.

    dL/dw[u, v, c] = sum over n, i, j of g[n, i, j, c] x[n, s i + d u - p, s j + d v - p, c]

The sums of one row of taps stay in registers while a pixel of g is read once and one of x for every tap.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .lanes import LANES, add_products, add_to, compiled, load, no_sums
from .parts import in_parts

Numbers = NDArray[np.floating]


def weight_gradient(x: Tensor, grad: Tensor, taps: int, stride: int, padding: int, dilation: int) -> Tensor:
    """(N, C, H, W), (N, C, H', W'), both of single or both of double precision -> (C, 1, taps, taps)."""
    channels = max(LANES, x.shape[1])
    pixels, gradients = _pixels(x, channels), _pixels(grad, channels)
    wide = -(-channels // LANES) * LANES
    height, width = x.shape[2] + 2 * padding, x.shape[3] + 2 * padding

    def part(first: int, last: int) -> Tensor:
        window, out = x.new_zeros(height, width, channels), x.new_zeros(taps, taps, wide)
        geometry = stride, padding, dilation
        _images(pixels[first:last], gradients[first:last], window.numpy(), out.numpy(), (0,) * taps, geometry)
        return out

    out = sum(in_parts(part, len(x)), x.new_zeros(()))
    again = wide - channels  # channels that the last two blocks of LANES share
    out = torch.cat([out[..., : wide - LANES], out[..., wide - LANES + again :]], dim=2)
    return out[..., : x.shape[1]].permute(2, 0, 1)[:, None]


def _pixels(x: Tensor, channels: int) -> Numbers:
    """(N, C, H, W) -> (N, H, W, channels), with zeros where channels are missing."""
    more = channels - x.shape[1]
    x = F.pad(x, [0, 0, 0, 0, 0, more]) if more else x
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy()


@compiled
def _images(
    x: Numbers,
    grad: Numbers,
    window: Numbers,
    out: Numbers,
    row: tuple[int, ...],
    geometry: tuple[int, int, int],
) -> None:
    """Adds to out (taps, taps, C'), C' being LANES for every block of channels; the last block ends with the
    last channel. window: room for one image with zeros around it; row: as long as taps.
    """
    stride, padding, dilation = geometry
    images, height, width, channels = x.shape
    rows, columns = grad.shape[1:3]
    line = window.shape[1] * channels
    flat, pulls, sums_of_taps = window.reshape(-1), grad.reshape(-1), out.reshape(-1)
    for n in range(images):
        for i in range(height):
            start = (i + padding) * line + padding * channels
            flat[start : start + width * channels] = x[n, i].reshape(-1)
        for block in range(0, out.shape[2], LANES):
            c = min(block, channels - LANES)
            for u in range(len(row)):
                sums = no_sums(out, row)
                for i in range(rows):
                    pull = (n * rows + i) * columns * channels + c
                    pixel = (stride * i + dilation * u) * line + c
                    for _ in range(columns):
                        sums = add_products(sums, load(pulls, pull), flat, pixel, dilation * channels)
                        pull += channels
                        pixel += stride * channels
                add_to(sums_of_taps, u * len(row) * out.shape[2] + block, out.shape[2], sums)
