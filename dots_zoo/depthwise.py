"""Depthwise convolution whose backward pass is fast on a CPU.

    y[n, c, i, j] = sum over u, v of w[c, u, v] x[n, c, s i + d u - p, s j + d v - p]

The CPU library has a fast kernel for the gradient of an undilated 3x3 weight, and slow general code for every
other one; its forward pass is fast throughout. So the gradients are rewritten into those two:

- of the input, stride 1: a forward pass over the gradient with the weight mirrored;
- of a dilated weight, stride 1: the d * d phases x[a::d, b::d] never meet, and become images of a batch;
- of a 5x5 or 7x7 weight, stride 1: one 3x3 gradient for every 3x3 block of taps, on the input moved there.

And where the dilation divides stride and padding, only every d-th pixel is read at all: the convolution is an
undilated one of x[::d, ::d]. `benchmarks/depthwise.py` measures what each saves.
"""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAST = 3  # taps a side of the weight gradient that the library has a fast kernel for


def depthwise(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """(N, C, H, W), (C, 1, K, K) -> (N, C, H', W'), as F.conv2d with groups=C; twice differentiable.

    On any device but a CPU it is F.conv2d itself. Under autocast it computes in autocast's type. The backward
    pass computes a gradient for each argument that requires one, whether it is asked for or not.
    """
    if dilation > 1 and stride % dilation == 0 and padding % dilation == 0:
        x = x[:, :, ::dilation, ::dilation]
        stride, padding, dilation = stride // dilation, padding // dilation, 1
    if x.device.type != "cpu" or (dilation == 1 and (stride > 1 or weight.shape[-1] <= FAST)):
        return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))
    if torch.is_autocast_enabled("cpu"):
        low = torch.get_autocast_dtype("cpu")
        x, weight = x.to(low), weight.to(low)
    out: Tensor = _Depthwise.apply(x, weight, stride, padding, dilation)
    return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.numbers = stride, padding, dilation
        return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.numbers
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _input_gradient(grad, x, weight, stride, padding, dilation)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(grad, F.pad(x, [padding] * 4), weight.shape[-1], stride, dilation)
        return of_x, of_weight, None, None, None


def _input_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """(N, C, H', W') -> (N, C, H, W)."""
    around = dilation * (weight.shape[-1] - 1) - padding
    if stride == 1 and around >= 0:
        return F.conv2d(grad, weight.flip(2, 3), None, 1, around, dilation, groups=len(weight))
    return _library(grad, x, weight, stride, padding, dilation, of_x=True)


def _weight_gradient(grad: Tensor, x: Tensor, taps: int, stride: int, dilation: int) -> Tensor:
    """(N, C, H', W') and the padded input -> (C, 1, taps, taps)."""
    if dilation > 1 and stride == 1:
        height, width = (-(-side // dilation) for side in grad.shape[-2:])
        x = _phases(x, dilation, height + taps - 1, width + taps - 1)
        return _weight_gradient(_phases(grad, dilation, height, width), x, taps, 1, 1)
    if stride > 1 or taps <= FAST:
        weight = grad.new_empty(grad.shape[1], 1, taps, taps)
        return _library(grad, x, weight, stride, 0, dilation, of_x=False)
    return _by_blocks(grad, x, taps)


def _by_blocks(grad: Tensor, x: Tensor, taps: int) -> Tensor:
    """The blocks of FAST x FAST taps one by one."""
    height, width = grad.shape[-2:]
    starts = range(0, taps, FAST)
    more = len(starts) * FAST - taps
    x = F.pad(x, [0, more, 0, more])
    rows = []
    for top in starts:
        row = []
        for left in starts:
            window = x[:, :, top : top + height + FAST - 1, left : left + width + FAST - 1]
            row.append(_weight_gradient(grad, _like(window, grad), FAST, 1, 1))
        rows.append(torch.cat(row, dim=3))
    return torch.cat(rows, dim=2)[:, :, :taps, :taps]


def _phases(x: Tensor, dilation: int, height: int, width: int) -> Tensor:
    """(N, C, H, W), padded with zeros to d * height, d * width -> (d * d * N, C, height, width)."""
    right, bottom = dilation * width - x.shape[3], dilation * height - x.shape[2]
    if right or bottom:
        x = F.pad(x, [0, right, 0, bottom])
    rows = x.permute(0, 2, 3, 1).reshape(len(x), height, dilation, width, dilation, -1)
    rows = rows.permute(2, 4, 0, 1, 3, 5).reshape(-1, height, width, x.shape[1])
    return rows.permute(0, 3, 1, 2)


def _like(window: Tensor, grad: Tensor) -> Tensor:
    """A window as a map of its own: the library is slow where it has to step over gaps."""
    last = grad.is_contiguous(memory_format=torch.channels_last)
    return window.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _library(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, of_x: bool
) -> Tensor:
    """The library's gradient of x or of the weight."""
    s, p, d = ([number] * 2 for number in (stride, padding, dilation))
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, s, p, d, False, [0, 0], len(weight), [of_x, not of_x, False]
    )
    return gradients[0 if of_x else 1]


class DepthwiseConv(nn.Conv2d):
    """A depthwise nn.Conv2d that computes by `depthwise`, on the weight of the layer it replaces."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=False,
            device="meta",
        )
        self.weight = conv.weight
        self.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        return depthwise(x, self.weight, self.stride[0], int(self.padding[0]), self.dilation[0])


def is_square_depthwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether DepthwiseConv can replace it."""
    return (
        type(module) is nn.Conv2d
        and module.groups == module.in_channels == module.out_channels
        and module.bias is None
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and all(
            len(set(n)) == 1 for n in (module.kernel_size, module.stride, module.padding, module.dilation)
        )
    )
