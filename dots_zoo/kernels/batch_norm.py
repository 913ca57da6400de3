"""Batch norm with a backward pass that stays fast where the gradient is a part of another map.

PyTorch reduces a channels-last map fast on a CPU only if the gradient has the layout of the map; other
gradients, such as the part of a cell's concatenation that belongs to one node, take far longer. Here the
gradient is first copied into the layout of the map. The gain is measured by `benchmarks/batch_norm.py`.

The statistics of the batch are outputs, and update the running statistics afterwards: the tensors saved for
the backward pass do not depend on the running statistics, which checkpointing requires.
"""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def batch_norm(x: Tensor, norm: nn.BatchNorm2d, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
    """Return the output of a norm on (N, C, H, W), with weight and bias (C,) in the place of its own.

    It uses the statistics of the batch in training, which then update the running ones, and where there are
    no running ones.
    """
    weight = None if weight is None else weight.contiguous()  # an expanded one is read beyond its end
    if not by_batch(norm):
        return F.batch_norm(x, norm.running_mean, norm.running_var, weight, bias, False, 0.0, norm.eps)
    if weight is None and x.dtype in (torch.bfloat16, torch.float16):
        weight = torch.ones(x.shape[1], device=x.device)  # statistics in single precision at least
    out, mean, inverse_std = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, norm.eps)
    if out.requires_grad:
        last = x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        out.register_hook(lambda grad: None if grad is None else grad.contiguous(memory_format=layout))
    if norm.running_mean is not None:
        variance = inverse_std.detach() ** -2 - norm.eps
        move_statistics([norm], mean.detach()[None], variance[None], x.numel() // x.shape[1])
    return out


def by_batch(norm: nn.BatchNorm2d) -> bool:
    """Return True if a norm uses the statistics of the batch."""
    return norm.training or norm.running_mean is None


@torch.no_grad()
def move_statistics(norms: list[nn.BatchNorm2d], means: Tensor, variances: Tensor, pixels: int) -> None:
    """Update the running statistics of K norms in training by those of a batch.

    means, variances: mean and biased variance, (K, C), over `pixels` values a channel.
    """
    tracked = [k for k, norm in enumerate(norms) if norm.running_mean is not None]
    running: Any = [norms[k].running_mean for k in tracked] + [norms[k].running_var for k in tracked]
    if not running:
        return
    counts: Any = [norms[k].num_batches_tracked for k in tracked]
    torch._foreach_add_(counts, 1)
    statistics = torch.cat([means, variances * (pixels / max(1, pixels - 1))]).to(running[0].dtype).unbind()
    targets = [statistics[k] for k in tracked] + [statistics[len(norms) + k] for k in tracked]
    torch._foreach_lerp_(running, targets, [_rate(norms[k]) for k in tracked] * 2)


def _rate(norm: nn.BatchNorm2d) -> float:
    """Return the weight of a batch in the running statistics."""
    return 1.0 / float(norm.num_batches_tracked or 1) if norm.momentum is None else norm.momentum


class FastBatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d with the fast backward pass, on the parameters and buffers of the layer it replaces."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self, self.weight, self.bias)


def has_running_statistics(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Return True if FastBatchNorm can replace the layer: its running statistics have a fixed momentum."""
    return type(module) is nn.BatchNorm2d and module.track_running_stats and module.momentum is not None
