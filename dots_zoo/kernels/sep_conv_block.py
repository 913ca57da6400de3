"""A ReLU-depthwise-pointwise-batch norm block, forward and backward, without a history for autograd.

Where SIMD_WIDTH divides the channels, all of it is loops. The backward pass is one, image by image: between
the norm of y = P x and z = relu(s m), of which x = w * z is the depthwise convolution, images share nothing
but sums, so dL/dy and dL/dx of an image are made, used for dL/dP, dL/dw and dL/dz, and forgotten before they
leave the cache. For other numbers of channels the convolutions are those of PyTorch.
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
    """Weights of the depthwise (C, 1, K, K) and of the pointwise convolution (C', C, 1, 1), and stride,
    padding and dilation of the former.
    """

    weight: Tensor
    matrix: Tensor
    geometry: tuple[int, int, int]

    @property
    def is_simd(self) -> bool:
        """True if all of it is loops."""
        return all(has_simd_loops(channels, self.weight.shape[-1]) for channels in self.matrix.shape[:2])


class ScaledInput(NamedTuple):
    """A channels-last map m (N, C, H, W) and s (C,), where relu(s m) is read."""

    map: Tensor
    scale: PerChannel


class NormGradient(NamedTuple):
    """What is behind y: dL/dy = a + b y + c g, factors (3, C') being a, b and c, with g the gradient where y
    > threshold, and 0 elsewhere.
    """

    grad: Tensor
    factors: PerChannel
    threshold: float


def forward(read: ScaledInput, block: Block) -> tuple[Tensor, Tensor, PerChannel, PerChannel]:
    """Return x and the centred y, (N, C, H', W') and (N, C', H', W'), and mean and variance of P x, (C',)."""
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
    """Return the sums of a shape to which a loop adds over all images, in double precision."""

    def part(first: int, last: int) -> PerChannel:
        sums = np.zeros(shape)
        loop(*arguments, sums, first, last)
        return sums

    sums: PerChannel = np.sum(parallel_for(part, count), axis=0)
    return sums


def scaled_sum(y: Tensor, scale: PerChannel, onto: Tensor | None) -> Tensor:
    """Return s y, (N, C, H, W) and (C,), added in place to another map if there is one."""
    out = empty_map(y, *y.shape[1:]) if onto is None else onto
    arguments = as_array(y), scale[None], onto is not None, as_array(out)
    parallel_for(lambda first, last: write_scaled(*arguments, first, last), len(y))
    return out


def backward(
    behind: NormGradient, y: Tensor, x: Tensor | None, read: ScaledInput, block: Block, onto: Tensor | None
) -> tuple[Tensor, PerChannel | None, PerChannel | None]:
    """Return dL/dz (N, C, H, W), added in place to another map if there is one, and, unless there is no x,
    dL/dw (C, K * K) and dL/dP (C', C).
    """
    (stride, padding, dilation), taps = block.geometry, block.weight.shape[-1]
    if not block.is_simd or padding > dilation * (taps - 1):
        return _backward_by_torch(behind, y, x, read, block, onto)
    out = empty_map(read.map, *read.map.shape[1:]) if onto is None else onto
    maps = tuple(as_array(each) for each in (behind.grad, y, y if x is None else x, read.map, out))
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
    """`backward` from map to map."""
    of_y = empty_map(y, *y.shape[1:])
    grad, of_map = as_array(channels_last(behind.grad)), as_array(of_y)
    arguments = as_array(y), behind.factors, behind.threshold
    parallel_for(lambda first, last: norm_gradient(grad, *arguments, of_map, first, last), len(y))
    of_x = channels_last(F.conv2d(of_y, block.matrix.transpose(0, 1)))
    of_z = input_gradient(of_x, read.map.shape[2:], block.weight, *block.geometry)
    out = channels_last(of_z) if onto is None else onto.add_(of_z)
    if x is None:
        return out, None, None
    left, right = (each.permute(0, 2, 3, 1).reshape(-1, each.shape[1]) for each in (of_y, x))
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

    maps: g, y, x, m and out, for dL/dz; x and m are not looked at where sums are empty. weights: P (C', C), w
    (C, taps * taps), s (C,). norm: factors (3, C') and threshold of `write_norm_gradient`. types: those of
    `convolve_window`, of `add_window_gradient`, and tiles of `write_products`.
    """
    (g, y, x, m, out), (matrix, weight, scales), (of_matrix, of_weight) = maps, weights, sums
    (stride, padding, dilation, every), (forward, backward, tiles) = geometry, types
    _, rows, columns, into = y.shape
    (_, height, width, channels), wanted, pixels = out.shape, len(of_weight) > 0, rows * columns
    height, width = (height + every - 1) // every, (width + every - 1) // every
    reach = dilation * (len(backward[1]) - 1)
    one: Any = np.int64(1)
    mirrored: Any = np.bool_(True)
    pull = np.empty((pixels, into), matrix.dtype)  # dL/dy of an image
    push = np.empty((rows, columns, channels), matrix.dtype)  # dL/dx
    no_mean, no_scales = np.zeros(channels, matrix.dtype), np.empty(0, matrix.dtype)
    squares = np.zeros(channels, matrix.dtype)  # not read
    line, read_line = (width + reach) * SIMD_WIDTH, (width + 2 * padding) * SIMD_WIDTH
    window = empty_window(height + reach, width + reach, no_mean)  # of dL/dx
    read = empty_window(height + 2 * padding, width + 2 * padding, no_mean)  # of z
    laid = np.empty((channels // SIMD_WIDTH, weight.shape[1] * SIMD_WIDTH), matrix.dtype)
    totals, products = np.zeros(laid.shape, matrix.dtype), np.zeros(matrix.shape, matrix.dtype)
    for block in range(len(laid)):
        lay_weights(weight, block * SIMD_WIDTH, mirrored, laid[block])
    factors, shape = along_row(norm[0], columns, y), (rows, columns * into)
    for n in range(images[0], images[1]):
        write_norm_gradient(g[n].reshape(shape), y[n].reshape(shape), factors, norm[1], pull.reshape(shape))
        write_products(pull, matrix, no_mean, push.reshape(pixels, channels), tiles, squares)
        if wanted:
            add_outer_products(pull, x[n].reshape(pixels, channels), products, tiles[0])
        if every > 1 and not accumulate:
            out[n] = 0
        for block in range(len(laid)):
            c = block * SIMD_WIDTH
            fill_window(push, c, one, no_scales, window, line, reach - padding, stride)
            convolve_window(window, line, laid[block], forward, (one, dilation, every), out[n], c, accumulate)
            if wanted:
                fill_window(m[n], c, every, scales, read, read_line, padding, one)
                add_window_gradient(read, read_line, push, c, backward, stride, dilation, totals[block])
    if wanted:
        for row in range(into):
            for c in range(channels):
                of_matrix[row, c] += products[row, c]
        for block in range(len(laid)):
            add_lanes(totals[block], block * SIMD_WIDTH, 0 * one, of_weight)
