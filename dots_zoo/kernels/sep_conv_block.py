"""A ReLU-depthwise-pointwise-batch norm block, forward and backward, outside autograd.

Where SIMD_WIDTH divides the channels, all of it is loops. The backward pass is one loop, image by image:
between the norm of y = P x and z = relu(s m), of which x = w * z is the depthwise convolution, images share
only sums. So dL/dy and dL/dx of an image are computed, used for dL/dP, dL/dw and dL/dz, and dropped while
still in the cache. For other numbers of channels the convolutions are those of PyTorch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .depthwise import depthwise, depthwise_weight_grad, flat_weights, input_gradient, output_sides
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
from .elementwise import Map, PerChannel, along_row, norm_gradient, write_norm_gradient, write_scaled
from .jit import SIMD_WIDTH, as_array, channels_last, compiled, empty_map, has_simd_loops
from .parallel import parallel_for
from .pointwise import TILES, add_outer_products, convolve_pixels, write_products
from .weighted_sum import dot_products


class Block(NamedTuple):
    """The weights of a block, and stride, padding and dilation of its depthwise convolution.

    weight: depthwise (C, 1, K, K). matrix: pointwise (C', C, 1, 1).
    """

    weight: Tensor
    matrix: Tensor
    geometry: tuple[int, int, int]

    @property
    def is_simd(self) -> bool:
        """Return True if all of the block is compiled loops."""
        return all(has_simd_loops(channels, self.weight.shape[-1]) for channels in self.matrix.shape[:2])


class ScaledInput(NamedTuple):
    """An input relu(s m) of a block: a channels-last map m (N, C, H, W) and its scale s (C,)."""

    map: Tensor
    scale: PerChannel


class NormGradient(NamedTuple):
    """The gradient of y through its norm: dL/dy = a + b y + c g, with factors (3, C') a, b and c.

    g is `grad` where y > threshold, and 0 elsewhere.
    """

    grad: Tensor
    factors: PerChannel
    threshold: float


def forward(read: ScaledInput, block: Block) -> tuple[Tensor, Tensor, PerChannel, PerChannel]:
    """Return x (N, C, H', W'), the centred y (N, C', H', W'), and mean and variance of P x, (C',)."""
    x, sums = _convolved(read, block)
    pixels, matrix = x.numel() // x.shape[1], flat_weights(block.matrix)
    mean = matrix @ (sums / pixels)
    if not block.is_simd:
        y = channels_last(F.conv2d(x, block.matrix, torch.from_numpy(-mean).to(x.dtype)))
        return x, y, mean, dot_products(y, y)[1] / pixels
    y = empty_map(x, len(matrix), *x.shape[2:])
    arguments = (as_array(x), as_array(y)), matrix.T.copy(), mean, TILES
    squares = total(convolve_pixels, len(x), (len(matrix),), *arguments)
    return x, y, mean, squares / pixels


def _convolved(read: ScaledInput, block: Block) -> tuple[Tensor, PerChannel]:
    """Return x = w * relu(s m) and its sums over pixels, (C,)."""
    (m, scale), weight = read, block.weight
    if not block.is_simd:
        x = channels_last(depthwise(_scaled_relu(read), weight, *block.geometry))
        rows = x.permute(0, 2, 3, 1).reshape(len(x) * x.shape[2], -1).sum(dim=0)  # (W * C,)
        return x, rows.view(x.shape[3], -1).sum(dim=0).double().numpy()
    x = empty_map(m, m.shape[1], *output_sides(m.shape[2:], weight.shape[-1], *block.geometry))
    arrays = (as_array(m), as_array(x)), flat_weights(weight), scale.astype(as_array(m).dtype)
    types = tap_types(weight.shape[-1]), loop_geometry(*block.geometry)
    return x, total(convolve_images, len(m), scale.shape, *arrays, *types)


def total(loop: Callable[..., None], count: int, shape: tuple[int, ...], *arguments: Any) -> PerChannel:
    """Sum over all images, in double precision, the arrays of a shape that a loop adds to."""

    def part(first: int, last: int) -> PerChannel:
        sums = np.zeros(shape)
        loop(*arguments, sums, first, last)
        return sums

    sums: PerChannel = np.sum(parallel_for(part, count), axis=0)
    return sums


def scaled_sum(y: Tensor, scale: PerChannel, onto: Tensor | None) -> Tensor:
    """Return s y, (N, C, H, W) and (C,), added in place to `onto` if there is one."""
    out = empty_map(y, *y.shape[1:]) if onto is None else onto
    arguments = as_array(y), scale[None], onto is not None, as_array(out)
    parallel_for(lambda first, last: write_scaled(*arguments, first, last), len(y))
    return out


def backward(
    behind: NormGradient, y: Tensor, x: Tensor | None, read: ScaledInput, block: Block, onto: Tensor | None
) -> tuple[Tensor, PerChannel | None, PerChannel | None]:
    """Return dL/dz (N, C, H, W), dL/dw (C, K * K) and dL/dP (C', C); without x, the first alone.

    dL/dz is added in place to `onto` if there is one.
    """
    (stride, padding, dilation), taps = block.geometry, block.weight.shape[-1]
    if not block.is_simd or padding > dilation * (taps - 1):
        return _backward_by_torch(behind, y, x, read, block, onto)
    out = empty_map(read.map, *read.map.shape[1:]) if onto is None else onto
    maps = tuple(as_array(tensor) for tensor in (behind.grad, y, y if x is None else x, read.map, out))
    matrix, weight = flat_weights(block.matrix), flat_weights(block.weight)
    weights = matrix, weight, read.scale.astype(matrix.dtype)
    shapes = ((0, 0), (0, 0)) if x is None else (matrix.shape, weight.shape)
    arguments = (behind.factors, behind.threshold), loop_geometry(stride, padding, dilation)
    types = tap_types(taps), gradient_types(taps), TILES

    def part(first: int, last: int) -> tuple[PerChannel, PerChannel]:
        sums = np.zeros(shapes[0]), np.zeros(shapes[1])
        block_backward(maps, weights, *arguments, types, onto is not None, sums, (first, last))
        return sums

    of_matrix, of_weight = (np.sum(parts, axis=0) for parts in zip(*parallel_for(part, len(y)), strict=True))
    return (out, None, None) if x is None else (out, of_weight, of_matrix)


def _backward_by_torch(
    behind: NormGradient, y: Tensor, x: Tensor | None, read: ScaledInput, block: Block, onto: Tensor | None
) -> tuple[Tensor, PerChannel | None, PerChannel | None]:
    """Compute `backward` by PyTorch's convolutions between compiled elementwise passes."""
    of_y = empty_map(y, *y.shape[1:])
    grad, of_map = as_array(channels_last(behind.grad)), as_array(of_y)
    arguments = as_array(y), behind.factors, behind.threshold
    parallel_for(lambda first, last: norm_gradient(grad, *arguments, of_map, first, last), len(y))
    of_x = channels_last(F.conv2d(of_y, block.matrix.transpose(0, 1)))
    of_z = input_gradient(of_x, read.map.shape[2:], block.weight, *block.geometry)
    out = channels_last(of_z) if onto is None else onto.add_(of_z)
    if x is None:
        return out, None, None
    left, right = (tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1]) for tensor in (of_y, x))
    taps, geometry = block.weight.shape[-1], block.geometry
    of_weight = depthwise_weight_grad(_scaled_relu(read), of_x, taps, *geometry)
    return out, of_weight.flatten(1).numpy(), (left.t() @ right).numpy()


def _scaled_relu(read: ScaledInput) -> Tensor:
    """Return relu(s m)."""
    scale = torch.from_numpy(read.scale).to(read.map.dtype)
    return (read.map * scale[:, None, None]).relu_()


@compiled
def block_backward(
    maps: tuple[Map, Map, Map, Map, Map],
    weights: tuple[Map, Map, Map],
    norm: tuple[PerChannel, float],
    geometry: Geometry,
    types: Any,
    accumulate: bool,
    sums: tuple[PerChannel, PerChannel],
    images: tuple[int, int],
) -> None:
    """Write dL/dz, or add it to accumulate, and add dL/dP (C', C) and dL/dw (C, taps * taps) to sums.

    Args:
        maps: g, y, x, m, and out for dL/dz; x and m are not read where sums are empty.
        weights: P (C', C), w (C, taps * taps), s (C,).
        norm: factors (3, C') and threshold of `write_norm_gradient`.
        types: those of `convolve_window`, of `add_window_gradient`, and the tiles of `write_products`.
        images: range of images.
    """
    (g, y, x, m, out), (matrix, weight, scales), (of_matrix, of_weight) = maps, weights, sums
    (stride, padding, dilation, every), (forward, backward, tiles) = geometry, types
    _, rows, columns, into = y.shape
    (_, height, width, channels), needs_weight_grads, pixels = out.shape, len(of_weight) > 0, rows * columns
    height, width = (height + every - 1) // every, (width + every - 1) // every
    reach = dilation * (len(backward[1]) - 1)
    one: Any = np.int64(1)
    mirrored: Any = np.bool_(True)
    grad_y = np.empty((pixels, into), matrix.dtype)  # dL/dy of an image
    grad_x = np.empty((rows, columns, channels), matrix.dtype)  # dL/dx
    no_mean, no_scales = np.zeros(channels, matrix.dtype), np.empty(0, matrix.dtype)
    squares = np.zeros(channels, matrix.dtype)  # an output of write_products that nothing reads
    line, read_line = (width + reach) * SIMD_WIDTH, (width + 2 * padding) * SIMD_WIDTH
    window = empty_window(height + reach, width + reach, no_mean)  # dL/dx inside a border
    read = empty_window(height + 2 * padding, width + 2 * padding, no_mean)  # z inside a border
    laid = np.empty((channels // SIMD_WIDTH, weight.shape[1] * SIMD_WIDTH), matrix.dtype)
    totals, products = np.zeros(laid.shape, matrix.dtype), np.zeros(matrix.shape, matrix.dtype)
    for block in range(len(laid)):
        lay_weights(weight, block * SIMD_WIDTH, mirrored, laid[block])
    factors, shape = along_row(norm[0], columns, y), (rows, columns * into)
    for n in range(images[0], images[1]):
        write_norm_gradient(g[n].reshape(shape), y[n].reshape(shape), factors, norm[1], grad_y.reshape(shape))
        write_products(grad_y, matrix, no_mean, grad_x.reshape(pixels, channels), tiles, squares)
        if needs_weight_grads:
            add_outer_products(grad_y, x[n].reshape(pixels, channels), products, tiles[0])
        if every > 1 and not accumulate:
            out[n] = 0
        for block in range(len(laid)):
            c = block * SIMD_WIDTH
            fill_window(grad_x, c, one, no_scales, window, line, reach - padding, stride)
            convolve_window(window, line, laid[block], forward, (one, dilation, every), out[n], c, accumulate)
            if needs_weight_grads:
                fill_window(m[n], c, every, scales, read, read_line, padding, one)
                add_window_gradient(read, read_line, grad_x, c, backward, stride, dilation, totals[block])
    if needs_weight_grads:
        for row in range(into):
            for c in range(channels):
                of_matrix[row, c] += products[row, c]
        for block in range(len(laid)):
            add_lanes(totals[block], block * SIMD_WIDTH, 0 * one, of_weight)
