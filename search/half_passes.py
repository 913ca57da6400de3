"""What half a separable convolution does with maps, forward and backward, without a history.

Its depthwise convolution comes with the sums that the norm needs. The backward pass from the norm to what
that convolution read is one loop (`half_loops.py`) where there is one: on a CPU, in single and double
precision, where LANES divides the channels. Elsewhere it goes from pass to pass.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dots_zoo import depthwise_loops
from dots_zoo.depthwise import DepthwiseConv, convolve, has_loop
from dots_zoo.depthwise import input_gradient as gradient_by_convolution
from dots_zoo.depthwise import weight_gradient as gradient_by_loop
from dots_zoo.lanes import place
from dots_zoo.parts import in_parts, sum_of

from .half_loops import write_half_gradient
from .passes import Norm, channel_sums, dense, product_gradient, scaled_relus, tiles
from .pointwise_loops import TILES

Found = tuple[Tensor, tuple[Tensor, Tensor] | None]


def convolved(
    read: Sequence[tuple[Tensor, Tensor]], layers: Sequence[DepthwiseConv]
) -> tuple[list[Tensor], Tensor]:
    """K maps m with s, (C,): convolutions of relu(s m), (N, C, H', W'), and sums over pixels, (K, C)."""
    outs, sums = [], []
    for (m, scale), layer in zip(read, layers, strict=True):
        m, weight = dense(m), layer.weight.to(m.dtype)
        if has_loop(m, weight.shape[-1]):
            out, total = depthwise_loops.convolution(m, weight, *layer.numbers, scale)
            sums.append(torch.from_numpy(total).to(m.dtype))
        else:
            [z] = scaled_relus([m], scale[None])
            out = dense(convolve(z, weight, *layer.numbers))
            sums.append(channel_sums([out])[0])
        outs.append(out)
    return outs, torch.stack(sums)


class Behind(NamedTuple):
    """What the backward pass of a half starts from.

    maps: g, y and x of the pointwise convolution, whose matrix is P (C', C); without x no gradient of a
    weight is computed. read: m, (N, C, H, W), of which without x the shape alone is looked at, and s, (C,),
    the depthwise convolution having read z = relu(s m). norm, each (C',): of y; masked: see
    `passes.norm_gradient`. onto: a map that dL/dz is added to, in its memory.
    """

    layer: DepthwiseConv
    matrix: Tensor
    maps: tuple[Tensor, Tensor, Tensor | None]
    read: tuple[Tensor, Tensor]
    norm: Norm
    masked: bool
    onto: Tensor | None


def half_gradient(behind: Behind) -> Found:
    """dL/dz; and, where there is x, dL/dw (C, 1, taps, taps) and dL/dP (C', C)."""
    layer, matrix, maps, (m, scale), norm, masked, onto = behind
    if tiles(maps[1], matrix) and has_loop(maps[1], layer.kernel_size[0]):
        return _by_loop(behind)
    of_x, of_matrix = product_gradient(maps, matrix, norm, masked)
    of_z = _input_gradient(layer, of_x, m, onto)
    if of_matrix is None:
        return of_z, None
    return of_z, (_weight_gradient(layer, of_x, scaled_relus([dense(m)], scale[None])[0]), of_matrix)


def _by_loop(behind: Behind) -> Found:
    layer, matrix, (pull, y, x), (m, scale), norm, masked, onto = behind
    wanted, taps, (stride, padding, dilation) = x is not None, layer.kernel_size[0], layer.numbers
    assert padding <= dilation * (taps - 1), "a border of nothing but zeros is read"
    assert {t.dtype for t in (pull, m, matrix, scale, layer.weight)} == {y.dtype}, "a loop reads one type"
    m = dense(m) if wanted else m
    out = torch.empty_like(m, memory_format=torch.channels_last) if onto is None else onto
    places = place(pull), place(y), place(y if x is None else x), place(m)
    row, apart = (0,) * taps, (0,) * dilation
    types = ((0,) * (taps * taps), row, apart, (0,) * stride), ((0,) * (taps * taps), row, apart, (0,))
    weight = layer.weight.detach().numpy().reshape(-1, taps * taps)
    numbers = matrix.numpy(), weight, scale.numpy()
    geometry, kinds = (*types, padding, wanted), (TILES, depthwise_loops.TILES)
    norms: Any = tuple(each.numpy() for each in norm)

    def part(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        found = np.zeros(matrix.shape), np.zeros(weight.shape)
        write_half_gradient(
            *(places, norms, masked, *numbers, geometry, kinds),
            *(place(out), onto is not None, *found, first, last),
        )
        return found

    of_matrix, of_weight = (sum_of([*each]) for each in zip(*in_parts(part, y.shape[0]), strict=True))
    if not wanted:
        return out, None
    of_weight = torch.from_numpy(of_weight).to(y.dtype).view_as(layer.weight)
    return out, (of_weight, torch.from_numpy(of_matrix).to(y.dtype))


def _input_gradient(layer: DepthwiseConv, grad: Tensor, z: Tensor, onto: Tensor | None) -> Tensor:
    if grad.device.type == "cpu":
        weight = layer.weight.to(grad.dtype)
        found = gradient_by_convolution(grad, z.shape[2:], weight, *layer.numbers, function=convolve)
    else:
        found = _by_operator(layer, grad, z, 0)
    return found if onto is None else onto.add_(found)


def _weight_gradient(layer: DepthwiseConv, grad: Tensor, z: Tensor) -> Tensor:
    if grad.device.type == "cpu":
        found = gradient_by_loop(z, grad, layer.kernel_size[0], *layer.numbers)
    else:
        found = _by_operator(layer, grad, z, 1)
    return found.to(layer.weight.dtype)


def _by_operator(layer: DepthwiseConv, grad: Tensor, z: Tensor, number: int) -> Tensor:
    """The gradient of z, number 0, or of the weight, 1."""
    stride, padding, dilation = ([n, n] for n in layer.numbers)
    gradients = torch.ops.aten.convolution_backward(
        *(grad, z, layer.weight.to(z.dtype), None, stride, padding, dilation, False, [0, 0]),
        *(layer.groups, [number == 0, number == 1, False]),
    )
    found: Tensor = gradients[number]
    return found
