"""A ReLU-depthwise-pointwise-batch norm block, forward and backward, outside autograd.

Maps are arrays (N, H, W, C). Where SIMD_WIDTH divides the channels, all of it is loops. The backward pass is
one loop, image by image: between the norm of y = P x and z = relu(s m), of which x = w * z is the depthwise
convolution, images share only sums. So dL/dy and dL/dx of an image are computed, used for dL/dP, dL/dw and
dL/dz, and dropped while still in the cache. For other numbers of channels the convolutions are those of
PyTorch.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .depthwise import depthwise, depthwise_weight_grad, input_gradient
from .depthwise_loops import (
    Geometry,
    add_lanes,
    add_window_gradient,
    convolve_images,
    convolve_window,
    empty_window,
    fill_window,
    gradient_types,
    lay_weights,
    loop_geometry,
    tap_types,
)
from .elementwise import Map, PerChannel, along_row, mask_by_relu, norm_gradient, write_norm_gradient
from .jit import SIMD_WIDTH, as_array, as_tensor, compiled, has_simd_loops
from .parallel import parallel_for, parallel_sum
from .pointwise import TILES, add_outer_products, convolve_pixels, write_products
from .weighted_sum import dot_products


class Block(NamedTuple):
    """The weights of a block, and stride, padding and dilation of its depthwise convolution.

    weight: depthwise (C, K * K). matrix: pointwise P (C', C).
    """

    weight: Map
    matrix: Map
    geometry: tuple[int, int, int]

    @property
    def taps(self) -> int:
        """Return K."""
        return math.isqrt(self.weight.shape[1])

    @property
    def is_simd(self) -> bool:
        """Return True if all of the block is compiled loops."""
        return all(has_simd_loops(channels, self.taps) for channels in self.matrix.shape)

    @property
    def kernel(self) -> Tensor:
        """Return the depthwise weight as that of a convolution, (C, 1, K, K)."""
        return torch.from_numpy(self.weight).view(-1, 1, self.taps, self.taps)


class ScaledInput(NamedTuple):
    """An input relu(s m) of a block: a map m (N, H, W, C) and its scale s (C,)."""

    map: Map
    scale: PerChannel


class NormGradient(NamedTuple):
    """The gradient of y through its norm: dL/dy = a + b y + c g, with factors (3, C') a, b and c.

    g is `grad` where y > threshold, and 0 elsewhere.
    """

    grad: Map
    factors: PerChannel
    threshold: float


class Modes(NamedTuple):
    """How a gradient dL/dz is written: added to what is there, and then set to 0 where m <= 0."""

    accumulate: bool
    mask: bool


def forward(read: ScaledInput, block: Block, x: Map, y: Map) -> tuple[PerChannel, PerChannel]:
    """Write x (N, H', W', C) and the centred y (N, H', W', C); return mean and variance of P x, (C,)."""
    pixels, channels = x.size // x.shape[3], x.shape[3]
    if block.is_simd:
        weights = block.weight, read.scale.astype(x.dtype)
        types = tap_types(block.taps), loop_geometry(*block.geometry)
        sums = parallel_sum(convolve_images, len(x), channels, (read.map, x), *weights, *types)
        mean = block.matrix @ (sums / pixels)
        squares = parallel_sum(convolve_pixels, len(x), channels, (x, y), block.matrix.T.copy(), mean, TILES)
        return mean, squares / pixels
    x[:] = as_array(depthwise(_scaled_relu(read), block.kernel, *block.geometry))
    rows = torch.from_numpy(x).view(-1, x.shape[2] * channels).sum(dim=0)
    mean = block.matrix @ (rows.view(-1, channels).sum(dim=0).double().numpy() / pixels)
    shift, matrix = torch.from_numpy(-mean.astype(x.dtype)), torch.from_numpy(block.matrix)
    torch.addmm(shift, _pixels(x), matrix.t(), out=_pixels(y))
    return mean, dot_products(y, y)[1] / pixels


def norm_factors(moments: PerChannel, inverse: PerChannel, factor: float, y: Map) -> PerChannel:
    """Return the factors (3, C) of a NormGradient.

    Args:
        moments: sums over pixels of g and of g * y, (2, C).
        inverse: 1 / sqrt(var + eps) of y, (C,).
        factor: by which the normalised y is multiplied.
        y: (N, H, W, C).
    """
    scale, factors = factor * inverse, np.empty((3, len(inverse)))
    factors[:2] = moments * (scale * (-len(scale) / y.size))
    factors[1] *= inverse**2
    factors[2] = scale
    return factors


def backward(
    of_norm: NormGradient, y: Map, x: Map | None, read: ScaledInput, block: Block, out: Map, modes: Modes
) -> PerChannel | None:
    """Write dL/dz to out (N, H, W, C); return dL/dw and dL/dP, flat, in this order, or None without x."""
    (stride, padding, dilation), taps = block.geometry, block.taps
    if not block.is_simd or padding > dilation * (taps - 1):
        return _backward_by_torch(of_norm, y, x, read, block, out, modes)
    maps = of_norm.grad, y, y if x is None else x, read.map, out
    norm, geometry = (of_norm.factors, of_norm.threshold), loop_geometry(stride, padding, dilation)
    conv = geometry, (tap_types(taps), gradient_types(taps), TILES)
    count = 0 if x is None else block.weight.size + block.matrix.size
    weights = block.matrix, block.weight, read.scale.astype(y.dtype)
    sums = parallel_sum(block_backward, len(y), count, maps, weights, norm, conv, modes)
    return None if x is None else sums


def _backward_by_torch(
    of_norm: NormGradient, y: Map, x: Map | None, read: ScaledInput, block: Block, out: Map, modes: Modes
) -> PerChannel | None:
    """Compute `backward` by PyTorch's convolutions between compiled elementwise passes."""
    of_y, arguments = np.empty_like(y), (of_norm.grad, y, of_norm.factors, of_norm.threshold)
    parallel_for(lambda first, last: norm_gradient(*arguments, of_y, first, last), len(y))
    of_x = np.empty_like(y)
    torch.mm(_pixels(of_y), torch.from_numpy(block.matrix), out=_pixels(of_x))
    of_z = as_array(input_gradient(as_tensor(of_x), out.shape[1:3], block.kernel, *block.geometry))
    np.add(out, of_z, out=out) if modes.accumulate else np.copyto(out, of_z)
    if modes.mask:
        out[read.map <= 0] = 0
    if x is None:
        return None
    of_weight = depthwise_weight_grad(_scaled_relu(read), as_tensor(of_x), block.taps, *block.geometry)
    of_matrix = _pixels(of_y).t() @ _pixels(x)
    return np.concatenate([of_weight.flatten(), of_matrix.flatten()], dtype=np.float64)


def _scaled_relu(read: ScaledInput) -> Tensor:
    """Return relu(s m), (N, C, H, W)."""
    return as_tensor(read.map * read.scale.astype(read.map.dtype)).relu_()


def _pixels(x: Map) -> Tensor:
    """View a map (N, H, W, C) as a matrix (N * H * W, C)."""
    return torch.from_numpy(x).view(-1, x.shape[3])


@compiled
def block_backward(
    maps: tuple[Map, Map, Map, Map, Map],
    weights: tuple[Map, Map, Map],
    norm: tuple[PerChannel, float],
    conv: tuple[Geometry, Any],
    modes: Modes,
    sums: PerChannel,
    begin: int,
    end: int,
) -> None:
    """Write dL/dz of images by its modes, and add dL/dw (C, taps * taps) and dL/dP (C', C) to flat sums.

    Args:
        maps: g, y, x, m, and out for dL/dz; x and m are not read where sums are empty.
        weights: P (C', C), w (C, taps * taps), s (C,).
        norm: factors (3, C') and threshold of `write_norm_gradient`.
        conv: geometry, and the types of `convolve_window`, `add_window_gradient` and `write_products`.
    """
    (g, y, x, m, out), (matrix, weight, scales) = maps, weights
    (stride, padding, dilation, every), (forward, backward, tiles) = conv
    _, rows, columns, into = y.shape
    (_, height, width, channels), needs_weight_grads, pixels = out.shape, len(sums) > 0, rows * columns
    height, width = (height + every - 1) // every, (width + every - 1) // every
    reach, (accumulate, mask) = dilation * (len(backward[1]) - 1), modes
    one: Any = np.int64(1)
    mirrored: Any = np.bool_(True)
    grad_y = np.empty((pixels, into), matrix.dtype)  # dL/dy of an image
    grad_x = np.empty((rows, columns, channels), matrix.dtype)  # dL/dx
    no_mean, squares = np.zeros(channels, matrix.dtype), np.zeros(channels, matrix.dtype)  # squares: unread
    line, read_line = (width + reach) * SIMD_WIDTH, (width + 2 * padding) * SIMD_WIDTH
    window = empty_window(height + reach, width + reach, no_mean)  # dL/dx inside a border
    read = empty_window(height + 2 * padding, width + 2 * padding, no_mean)  # z inside a border
    laid = np.empty((channels // SIMD_WIDTH, weight.shape[1] * SIMD_WIDTH), matrix.dtype)
    totals, products = np.zeros(laid.shape, matrix.dtype), np.zeros(matrix.shape, matrix.dtype)
    for block in range(len(laid)):
        lay_weights(weight, block * SIMD_WIDTH, mirrored, laid[block])
    factors, shape = along_row(norm[0], columns, y), (rows, columns * into)
    for n in range(begin, end):
        write_norm_gradient(g[n].reshape(shape), y[n].reshape(shape), factors, norm[1], grad_y.reshape(shape))
        write_products(grad_y, matrix, no_mean, grad_x.reshape(pixels, channels), tiles, squares)
        if needs_weight_grads:
            add_outer_products(grad_y, x[n].reshape(pixels, channels), products, tiles[0])
        if every > 1 and not accumulate:
            out[n] = 0
        for block in range(len(laid)):
            c = block * SIMD_WIDTH
            fill_window(grad_x, c, one, no_mean[:0], window, line, reach - padding, stride)
            convolve_window(window, line, laid[block], forward, (one, dilation, every), out[n], c, accumulate)
            if needs_weight_grads:
                fill_window(m[n], c, every, scales, read, read_line, padding, one)
                add_window_gradient(read, read_line, grad_x, c, backward, stride, dilation, totals[block])
        if mask:
            mask_by_relu(m[n].reshape(-1), out[n].reshape(-1))
    if needs_weight_grads:
        of_weight = sums[: weight.size].reshape(weight.shape)
        for block in range(len(laid)):
            add_lanes(totals[block], block * SIMD_WIDTH, 0 * one, of_weight)
        for at in range(products.size):
            sums[weight.size + at] += products.reshape(-1)[at]
