"""Batch norm whose backward pass stays fast where the gradient is a part of another map.

The CPU library reduces a channels-last map well only if the gradient lies as the map does; others, such as
the part of a cell's concatenation that belongs to one node, take far longer. Here the gradient is
copied into the layout of the map first. What it saves is measured by `benchmarks/quick_norm.py`.
"""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Numbers = tuple[float, float]  # momentum, eps
Running = tuple[Tensor | None, Tensor | None]  # mean, variance


class _Normalise(torch.autograd.Function):
    """Batch norm by the statistics of the batch: (N, C, H, W), weight (C,) or none, bias (C,) or none -> (N,
    C, H, W).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, running: Running, numbers: Numbers
    ) -> Tensor:
        out, mean, inverse_std = torch.native_batch_norm(x, weight, bias, *running, True, *numbers)
        ctx.save_for_backward(x, weight, mean, inverse_std)
        ctx.eps = numbers[1]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_std = ctx.saved_tensors
        last = x.is_contiguous(memory_format=torch.channels_last)
        grad = grad.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        gradients = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, inverse_std, True, ctx.eps, [*ctx.needs_input_grad[:3]]
        )
        return (*gradients, None, None)


def normalise(x: Tensor, norm: nn.BatchNorm2d, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
    """What the norm makes of (N, C, H, W), its own scale and shift replaced by weight and bias, (C,); running
    statistics are updated, or used, as ever.
    """
    weight = None if weight is None else weight.contiguous()  # an expanded one is read beyond its end
    running = (norm.running_mean, norm.running_var)
    if not (norm.training or norm.running_mean is None):
        return F.batch_norm(x, *running, weight, bias, False, 0.0, norm.eps)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    out: Tensor = _Normalise.apply(x, weight, bias, running, (norm.momentum, norm.eps))
    return out


class QuickNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d with the fast backward pass, on the parameters and buffers of the layer it replaces."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        return normalise(x, self, self.weight, self.bias)


def is_moving_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether QuickNorm can replace it: it has moving statistics."""
    return type(module) is nn.BatchNorm2d and module.track_running_stats and module.momentum is not None
