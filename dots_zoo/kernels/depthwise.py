"""Depthwise convolution that is fast on a CPU, forward and backward.

    y[n, c, i, j] = sum over u, v of w[c, u, v] x[n, c, s i + d u - p, s j + d v - p]

The CPU library has a fast backward pass for 3x3 taps without dilation; for every other it has slow general
code. And a call of it takes some 20 microseconds, whatever the size. So

- the convolution is a loop of our own (`depthwise_forward.py`), which numba compiles, where LANES divides the
  channels, up to 5x5 taps;
- the gradient of the input is a convolution of that of the output, with the weight mirrored and, for a
  stride, with s - 1 zeros between the pixels;
- the gradient of the weight is a loop of our own (`depthwise_backward.py`).

And where the dilation divides stride and padding, only every d-th pixel is read at all: the convolution is an
undilated one of x[::d, ::d]. `benchmarks/depthwise.py` measures what each saves.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAST = 3  # taps a side of what the library has a fast backward pass for
COMPILES = find_spec("numba") is not None  # it comes with the extras that train


def depthwise(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """(N, C, H, W), (C, 1, K, K) -> (N, C, H', W'), as F.conv2d with groups=C; twice differentiable.

    On any device but a CPU, and without numba, it is F.conv2d itself. Autocast has it compute in its type.
    """
    if dilation > 1 and stride % dilation == 0 and padding % dilation == 0:
        x = x[:, :, ::dilation, ::dilation]
        stride, padding, dilation = stride // dilation, padding // dilation, 1
    taps = weight.shape[-1]
    quick = dilation == 1 and taps <= FAST and not has_loop(x, taps)
    if x.device.type != "cpu" or not COMPILES or quick:
        return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))
    if torch.is_autocast_enabled("cpu"):
        low = torch.get_autocast_dtype("cpu")
        x, weight = x.to(low), weight.to(low)
    out: Tensor = _Depthwise.apply(x, weight, stride, padding, dilation)
    return out


def has_loop(x: Tensor, taps: int) -> bool:
    """Whether the convolution is a loop of our own."""
    if x.device.type != "cpu" or not COMPILES or torch.is_autocast_enabled("cpu"):
        return False
    from . import depthwise_forward as depthwise_loops  # numba takes half a second to import

    return depthwise_loops.convolves(x, taps)


def convolve(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """What `depthwise` computes, without a gradient where it is a loop."""
    if not has_loop(x, weight.shape[-1]):
        return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))
    from . import depthwise_forward as depthwise_loops

    return depthwise_loops.convolution(x, weight, stride, padding, dilation)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.numbers = stride, padding, dilation
        return convolve(x, weight, stride, padding, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = input_gradient(grad, x.shape[2:], weight, *ctx.numbers)
        if ctx.needs_input_grad[1]:
            of_weight = _WeightGradient.apply(grad, x, weight.shape[-1], *ctx.numbers)
        return of_x, of_weight, None, None, None


class _WeightGradient(torch.autograd.Function):
    """(N, C, H', W'), (N, C, H, W) -> (C, 1, taps, taps): as linear in each as the convolution is."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, x: Tensor, taps: int, stride: int, padding: int, dilation: int
    ) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.numbers = stride, padding, dilation
        return weight_gradient(x, grad, taps, stride, padding, dilation)

    @staticmethod
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        grad, x = ctx.saved_tensors
        of_grad = depthwise(x, pull, *ctx.numbers) if ctx.needs_input_grad[0] else None
        of_x = input_gradient(grad, x.shape[2:], pull, *ctx.numbers) if ctx.needs_input_grad[1] else None
        return of_grad, of_x, None, None, None, None


def weight_gradient(x: Tensor, grad: Tensor, taps: int, stride: int, padding: int, dilation: int) -> Tensor:
    """(N, C, H, W), (N, C, H', W') on a CPU -> (C, 1, taps, taps), in single precision at least."""
    from . import depthwise_backward as depthwise_gradient

    kind, numbers = torch.promote_types(x.dtype, torch.float32), (taps, stride, padding, dilation)
    return depthwise_gradient.weight_gradient(x.to(kind), grad.to(kind), *numbers).to(x.dtype)


def input_gradient(
    grad: Tensor,
    sides: Sequence[int],
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    function: Callable[..., Tensor] = depthwise,
) -> Tensor:
    """(N, C, H', W') -> (N, C, H, W), the latter being `sides`; function: which depthwise convolution."""
    reach = dilation * (weight.shape[-1] - 1)
    if stride > 1:
        spread = _like(grad, [side + 2 * padding - reach for side in sides])
        spread[:, :, ::stride, ::stride] = grad
        grad = spread
    if padding > reach:  # the outermost outputs read zeros alone
        border = padding - reach
        grad = grad[:, :, border:-border, border:-border]
    around = max(0, reach - padding)
    return function(grad, weight.flip(2, 3), 1, around, dilation)


def _like(x: Tensor, sides: list[int]) -> Tensor:
    """Zeros of other sides, in the same layout."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty([*x.shape[:2], *sides], dtype=x.dtype, memory_format=layout).zero_()


class DepthwiseConv(nn.Conv2d):
    """A depthwise nn.Conv2d that computes by `depthwise`, on the weight of the layer it replaces.

    even: it is fed every other pixel of what that layer reads, which has to be one that `skips_odd`.
    """

    def __init__(self, conv: nn.Conv2d, even: bool = False) -> None:
        stride, padding, dilation = (
            tuple(int(number) // (2 if even else 1) for number in numbers)
            for numbers in (conv.stride, conv.padding, conv.dilation)
        )
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride,  # type: ignore[arg-type]
            padding,  # type: ignore[arg-type]
            dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=False,
            device="meta",
        )
        self.weight = conv.weight
        self.train(conv.training)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """Stride, padding, dilation."""
        return self.stride[0], int(self.padding[0]), self.dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        return depthwise(x, self.weight, *self.numbers)


def skips_odd(conv: nn.Conv2d) -> bool:
    """Whether it reads even rows and columns only."""
    return conv.dilation[0] == 2 and conv.stride[0] == 2 and int(conv.padding[0]) % 2 == 0


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
