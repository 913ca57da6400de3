"""What half a separable convolution does with maps, forward and backward, without a history.

Its depthwise convolution comes with the sums that the norm needs. The backward pass from the norm to what
that convolution read is one loop (`sep_conv_backward.py`) where there is one: on a CPU, in single and double
precision, where LANES divides the channels. Elsewhere it goes from pass to pass.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from . import depthwise_backward as depthwise_gradient
from . import depthwise_forward as depthwise_loops
from .depthwise import convolve, has_loop
from .depthwise import input_gradient as gradient_by_convolution
from .depthwise import weight_gradient as gradient_by_loop
from .jit import place
from .norm_ops import Norm, channel_sums, dense, empties, product_gradient, scaled_relus
from .parallel import in_parts, sum_of
from .per_channel import Numbers, tiles
from .pointwise import TILES
from .sep_conv_backward import write_half_gradient

Read = tuple[Tensor, Numbers]  # m, channels last, and s, (C,), where relu(s m) is read
OfHalf = tuple[Numbers, Numbers]  # of the weights of its convolutions


class Part(NamedTuple):
    """A half, by its number in a sum: the weights of its depthwise and pointwise convolutions, (C, 1, taps,
    taps) and (C', C, 1, 1), stride, padding and dilation of the former, and the norm.
    """

    number: int
    weight: Tensor
    matrix: Tensor
    numbers: tuple[int, int, int]
    norm: nn.BatchNorm2d

    @property
    def taps(self) -> int:
        """Of a side."""
        return self.weight.shape[-1]


def convolved(read: Sequence[Read], parts: Sequence[Part]) -> tuple[list[Tensor], Numbers]:
    """K maps m with s: convolutions of relu(s m), (N, C, H', W'), and sums over pixels, (K, C)."""
    if has_loop(read[0][0], max(part.taps for part in parts)):
        return _convolved_by_loop(read, parts)
    outs = []
    for (m, scale), part in zip(read, parts, strict=True):
        [z] = scaled_relus([m], scale[None])
        outs.append(dense(convolve(z, part.weight.to(m.dtype), *part.numbers)))
    return outs, channel_sums(outs)


def _convolved_by_loop(read: Sequence[Read], parts: Sequence[Part]) -> tuple[list[Tensor], Numbers]:
    x, scale = read[0]
    sides = depthwise_loops.sides_of(x.shape[2:], parts[0].taps, *parts[0].numbers)
    outs = empties(x, (x.shape[0], x.shape[1], *sides), len(read))
    loops = [
        depthwise_loops.of_images(m, part.weight, part.numbers, out, scale)
        for (m, scale), part, out in zip(read, parts, outs, strict=True)
    ]

    def write(first: int, last: int) -> Any:
        sums = np.zeros((len(loops), x.shape[1]))
        for loop, total in zip(loops, sums, strict=True):
            loop(total, first, last)
        return sums

    return outs, sum_of(in_parts(write, x.shape[0])).astype(scale.dtype, copy=False)


class Behind(NamedTuple):
    """What the backward pass of a half starts from.

    maps: g, y and x of the pointwise convolution, channels last; without x no gradient of a weight is
    computed. read: of m without x the shape alone is looked at; the depthwise convolution has read z = relu(s
    m). norm, each (C',): of y; masked: see `passes.norm_gradient`. into[at]: where dL/dz is put, or added to
    what is there.
    """

    part: Part
    maps: tuple[Tensor, Tensor, Tensor | None]
    read: Read
    norm: Norm
    masked: bool
    into: list[Tensor | None]
    at: int


def half_gradients(behind: Sequence[Behind]) -> dict[int, OfHalf]:
    """Of halves of one batch: dL/dz, into its place; and, where there is x, dL/dw and dL/dP by number."""
    found: dict[int, OfHalf] = {}
    if not behind:
        return found
    y = behind[0].maps[1]
    if tiles(y, behind[0].part.matrix.shape[:2]) and has_loop(y, max(one.part.taps for one in behind)):
        return _by_loop(behind)
    for one in behind:
        found |= _by_operators(one)
    return found


def _by_loop(behind: Sequence[Behind]) -> dict[int, OfHalf]:
    loops, (into, channels) = [_loop(one) for one in behind], behind[0].part.matrix.shape[:2]

    def write(first: int, last: int) -> Any:
        found = [(np.zeros((into, channels)), np.zeros((channels, one.part.taps**2))) for one in behind]
        for loop, sums in zip(loops, found, strict=True):
            loop(*sums, first, last)
        return found

    found = in_parts(write, behind[0].maps[1].shape[0])
    return {
        one.part.number: (sum_of([weight for _, weight in sums]), sum_of([matrix for matrix, _ in sums]))
        for one, *sums in zip(behind, *found, strict=True)
        if one.maps[2] is not None
    }


def _loop(behind: Behind) -> Callable[..., None]:
    """`write_half_gradient` but for sums and images; makes the place of dL/dz."""
    part, (pull, y, x), (m, scale), norm, masked, into, at = behind
    (stride, padding, dilation), onto, taps = part.numbers, into[at], part.taps
    assert padding <= dilation * (taps - 1), "a border of nothing but zeros is read"
    assert pull.dtype == m.dtype == part.matrix.dtype == part.weight.dtype == y.dtype, "loops read one type"
    assert part.matrix.is_contiguous() and part.weight.is_contiguous(), "a loop reads weights row by row"
    out = torch.empty_like(m, memory_format=torch.channels_last) if onto is None else onto
    into[at] = out
    forward = depthwise_gradient.gradient_types(taps, dilation, stride)
    types = forward, ((0,) * (taps * taps), forward[1], forward[2], (0,))
    places = place(pull), place(y), place(y if x is None else x), place(m)
    weights = part.matrix.data_ptr(), part.weight.data_ptr(), scale
    tiles = TILES, depthwise_loops.TILES
    return partial(
        write_half_gradient,
        *(places, tuple(norm), masked, *weights, (*types, padding, x is not None), tiles),
        *(place(out), onto is not None),
    )


def _by_operators(behind: Behind) -> dict[int, OfHalf]:
    part, maps, (m, scale), norm, masked, into, at = behind
    before = into[at]
    of_x, of_matrix = product_gradient(maps, part.matrix.flatten(1), norm, masked)
    of_z = _input_gradient(part, of_x, m)
    into[at] = of_z if before is None else before.add_(of_z)
    if of_matrix is None:
        return {}
    return {part.number: (_weight_gradient(part, of_x, scaled_relus([m], scale[None])[0]), of_matrix)}


def _input_gradient(part: Part, grad: Tensor, z: Tensor) -> Tensor:
    if grad.device.type != "cpu":
        return _by_operator(part, grad, z, 0)
    weight = part.weight.to(grad.dtype)
    return gradient_by_convolution(grad, z.shape[2:], weight, *part.numbers, function=convolve)


def _weight_gradient(part: Part, grad: Tensor, z: Tensor) -> Tensor:
    if grad.device.type != "cpu":
        return _by_operator(part, grad, z, 1)
    return gradient_by_loop(z, grad, part.taps, *part.numbers)


def _by_operator(part: Part, grad: Tensor, z: Tensor, number: int) -> Tensor:
    """The gradient of z, number 0, or of the weight, 1."""
    stride, padding, dilation = ([n, n] for n in part.numbers)
    gradients = torch.ops.aten.convolution_backward(
        *(grad, z, part.weight.to(z.dtype), None, stride, padding, dilation, False, [0, 0]),
        *(len(part.weight), [number == 0, number == 1, False]),
    )
    found: Tensor = gradients[number]
    return found
