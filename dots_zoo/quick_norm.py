"""Batch norm whose backward pass is fast on a CPU for channels-last maps of few channels.

The CPU library reduces such a map pixel by pixel, in loops as short as the number of channels. Here a row of
the image, W * C values that lie side by side, is one long vector, and the sums of its channels are added up
at the end. Equal up to rounding (Ioffe and Szegedy, 2015, Sec. 3, gives the derivative); what it saves is
measured by `benchmarks/quick_norm.py`.
"""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Numbers = tuple[float, float]  # momentum, eps
Running = tuple[Tensor | None, Tensor | None]  # mean, variance


class _Normalise(torch.autograd.Function):
    """Batch norm by the statistics of the batch: (N, C, H, W), weight (C,), bias (C,) -> (N, C, H, W)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running: Running, numbers: Numbers
    ) -> Tensor:
        out, mean, inverse_std = torch.native_batch_norm(x, weight, bias, *running, True, *numbers)
        ctx.save_for_backward(x, weight, mean, inverse_std)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, inverse_std = ctx.saved_tensors
        x, grad = x.to(weight.dtype), grad.to(weight.dtype)
        count, width = x.numel() // x.shape[1], x.shape[3]
        rows, grads = _rows(x), _rows(grad)  # (N * H, W * C)
        grad_bias = grads.sum(0).view(width, -1).sum(0)
        product = (grads * rows).sum(0).view(width, -1).sum(0)
        grad_weight = (product - mean * grad_bias) * inverse_std
        scale = weight * inverse_std
        of_x = -scale * inverse_std * grad_weight / count
        constant = -scale * grad_bias / count - of_x * mean
        out = torch.addcmul(constant.repeat(width), rows, of_x.repeat(width))
        out.addcmul_(grads, scale.repeat(width))
        n, channels, height, _ = x.shape
        return out.view(n, height, width, channels).permute(0, 3, 1, 2), grad_weight, grad_bias, None, None


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N * H, W * C), without a copy where it is channels last."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0] * x.shape[2], -1)


def normalise(x: Tensor, norm: nn.BatchNorm2d, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What the norm makes of (N, C, H, W), its own scale and shift replaced by weight and bias, (C,); running
    statistics are updated, or used, as ever.
    """
    weight = weight.contiguous()  # the library reads an expanded one beyond its end
    bias = torch.zeros_like(weight) if bias is None else bias
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
        precise = torch.promote_types(x.dtype, torch.float32)
        weight = x.new_ones(self.num_features, dtype=precise) if self.weight is None else self.weight
        return normalise(x, self, weight, self.bias)


def is_moving_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether QuickNorm can replace it: it has moving statistics."""
    return type(module) is nn.BatchNorm2d and module.track_running_stats and module.momentum is not None
