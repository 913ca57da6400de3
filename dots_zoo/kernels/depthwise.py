"""Depthwise convolution that is fast on a CPU, forward and backward.

    y[n, c, i, j] = sum over u, v of w[c, u, v] x[n, c, s i + d u - p, s j + d v - p]

oneDNN has a fast backward pass for 3x3 kernels without dilation, and slow general code for all others. So

- the convolution is a loop (`depthwise_loops.py`), up to 5x5, where SIMD_WIDTH divides the channels;
- the gradient of the input is a convolution of that of the output, with the weight mirrored and s - 1 zeros
  between the pixels;
- the gradient of the weight is a loop of our own.

Where the dilation divides stride and padding, only every d-th pixel is read: the convolution is an undilated
one of x[::d, ::d]. `benchmarks/depthwise.py` measures the gain of each.
"""

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from .jit import SIMD_WIDTH, as_array, channels_last, empty_map, has_loops, has_simd_loops
from .parallel import parallel_for

LIBRARY_TAPS = 3  # largest side of a kernel for which oneDNN has a fast backward pass


def depthwise(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """Return F.conv2d with groups=C: (N, C, H, W), (C, 1, K, K) -> (N, C, H', W'); twice differentiable.

    It falls back to F.conv2d itself where there are no loops, and where those are no faster.
    """
    if not has_loops(x, weight):
        return depthwise_conv_reference(x, weight, stride, padding, dilation)
    loop = _is_loop(x, weight)
    if not loop and dilation > 1 and stride % dilation == 0 and padding % dilation == 0:
        x = x[:, :, ::dilation, ::dilation]
        stride, padding, dilation = stride // dilation, padding // dilation, 1
    if not loop and dilation == 1 and weight.shape[-1] <= LIBRARY_TAPS:
        return depthwise_conv_reference(x, weight, stride, padding, dilation)
    out: Tensor = depthwise_conv(x, weight, stride, padding, dilation)
    return out


def depthwise_conv_reference(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """Compute `depthwise_conv` by torch."""
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))


@torch.library.custom_op("dots_zoo::depthwise_conv", mutates_args=())
def depthwise_conv(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """Convolve depthwise: (N, C, H, W), (C, 1, K, K) -> (N, C, H', W')."""
    if not (has_loops(x, weight) and _is_loop(x, weight)):
        return depthwise_conv_reference(x, weight, stride, padding, dilation)
    from .depthwise_loops import convolve_images, loop_geometry, tap_types

    out = empty_map(x, x.shape[1], *output_sides(x.shape[2:], weight.shape[-1], stride, padding, dilation))
    maps, weights = (as_array(x), as_array(out)), flat_weights(weight)
    arguments = weights, weights[:0, 0], tap_types(weight.shape[-1]), loop_geometry(stride, padding, dilation)
    parallel_for(
        lambda first, last: convolve_images(maps, *arguments, np.zeros(x.shape[1]), first, last), len(x)
    )
    return out


@depthwise_conv.register_fake
def _(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    return depthwise_conv_reference(x, weight, stride, padding, dilation)


def _save_convolved(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.geometry = inputs[2:]


def _conv_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    of_x = of_weight = None
    if ctx.needs_input_grad[0]:
        of_x = input_gradient(grad, x.shape[2:], weight, *ctx.geometry)
    if ctx.needs_input_grad[1]:
        of_weight = depthwise_weight_grad(x, grad, weight.shape[-1], *ctx.geometry)
    return of_x, of_weight, None, None, None


depthwise_conv.register_autograd(_conv_gradients, setup_context=_save_convolved)


def depthwise_weight_grad_reference(
    x: Tensor, grad: Tensor, taps: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """Compute `depthwise_weight_grad` by torch."""
    size = [x.shape[1], 1, taps, taps]
    out: Tensor = conv2d_weight(x, size, grad, stride, padding, dilation, x.shape[1])
    return out


@torch.library.custom_op("dots_zoo::depthwise_weight_grad", mutates_args=())
def depthwise_weight_grad(
    x: Tensor, grad: Tensor, taps: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """Return dL/dw (C, 1, taps, taps) of x (N, C, H, W) and dL/dy (N, C, H', W').

    Like the convolution, it is linear in each of them.
    """
    if not has_loops(x, grad):
        return depthwise_weight_grad_reference(x, grad, taps, stride, padding, dilation)
    from .depthwise_loops import add_gradients, gradient_types, loop_geometry

    channels, missing = x.shape[1], SIMD_WIDTH - x.shape[1]
    if missing > 0:
        x, grad = (F.pad(tensor, [0, 0, 0, 0, 0, missing]) for tensor in (x, grad))
    maps = as_array(channels_last(x)), as_array(channels_last(grad))
    types = gradient_types(taps), loop_geometry(stride, padding, dilation)

    def part(first: int, last: int) -> Any:
        out = np.zeros((x.shape[1], taps * taps))
        add_gradients(maps, *types, out, first, last)
        return out

    total = np.sum(parallel_for(part, len(x)), axis=0)[:channels].reshape(channels, 1, taps, taps)
    return torch.from_numpy(total).to(x.dtype)


@depthwise_weight_grad.register_fake
def _(x: Tensor, grad: Tensor, taps: int, stride: int, padding: int, dilation: int) -> Tensor:
    return x.new_empty(x.shape[1], 1, taps, taps)


def _save_maps(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.geometry = inputs[3:]


def _weight_grad_gradients(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    x, grad = ctx.saved_tensors
    of_x = input_gradient(grad, x.shape[2:], grad_out, *ctx.geometry) if ctx.needs_input_grad[0] else None
    of_grad = depthwise(x, grad_out, *ctx.geometry) if ctx.needs_input_grad[1] else None
    return of_x, of_grad, None, None, None, None


depthwise_weight_grad.register_autograd(_weight_grad_gradients, setup_context=_save_maps)


def input_gradient(
    grad: Tensor, sides: Sequence[int], weight: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """Return dL/dx (N, C, H, W) from dL/dy (N, C, H', W') and the weight (C, 1, K, K).

    It is the convolution of dL/dy with the weight mirrored, stride - 1 zeros between the pixels.
    """
    reach = dilation * (weight.shape[-1] - 1)
    if stride > 1:
        spread = _zeros_like(grad, [side + 2 * padding - reach for side in sides])
        spread[:, :, ::stride, ::stride] = grad
        grad = spread
    if padding > reach:  # the outermost outputs read only zeros
        border = padding - reach
        grad = grad[:, :, border:-border, border:-border]
    return depthwise(grad, weight.flip(2, 3), 1, max(0, reach - padding), dilation)


def output_sides(sides: Sequence[int], taps: int, stride: int, padding: int, dilation: int) -> list[int]:
    """Return the sides (H', W') of the convolution of a map with sides (H, W)."""
    return [(side + 2 * padding - dilation * (taps - 1) - 1) // stride + 1 for side in sides]


def flat_weights(weight: Tensor) -> Any:
    """View the weights of a convolution (C', C, K, K) as an array (C', C * K * K)."""
    return np.ascontiguousarray(weight.detach().numpy()).reshape(len(weight), -1)


def _is_loop(x: Tensor, weight: Tensor) -> bool:
    """Return True if the forward pass is a compiled loop."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return last and has_simd_loops(x.shape[1], weight.shape[-1])


def _zeros_like(x: Tensor, sides: list[int]) -> Tensor:
    """Return zeros (N, C, *sides) in the layout of a map."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty([*x.shape[:2], *sides], dtype=x.dtype, device=x.device, memory_format=layout).zero_()


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
    """Return True if DepthwiseConv can replace the layer."""
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
