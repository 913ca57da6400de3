"""What layers that halve the resolution read of a map: every other pixel, or those and the ones between.

Their gradients are channels last: those of indices would not be, and slow all that they are added to.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.kernels.norm_ops import dense
from dots_zoo.ops import FactorizedReduce


def every_other(x: Tensor) -> Tensor:
    """(N, C, H, W) -> every other row and column, in memory of their own."""
    out: Tensor = _EveryOther.apply(x)
    return out


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """`every_other`, and the pixels between: of an odd side these lack the last row or column: zeros."""
    even, odd = _Halves.apply(x)
    return even, F.pad(odd, [0, even.shape[3] - odd.shape[3], 0, even.shape[2] - odd.shape[2]])


class Halving(nn.Module):
    """A FactorizedReduce without its ReLU, on its weights."""

    def __init__(self, reduce: FactorizedReduce) -> None:
        super().__init__()
        self.conv1, self.conv2, self.bn = reduce.conv1, reduce.conv2, reduce.bn

    def forward(self, x: Tensor) -> Tensor:
        even, odd = halves(x)
        out: Tensor = self.bn(torch.cat([self.conv1(even), self.conv2(odd)], dim=1))
        return out


class _EveryOther(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return dense(x[:, :, ::2, ::2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        out = _zeros(ctx.shape, grad)
        out[:, :, ::2, ::2] = grad
        return out


class _Halves(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.shape = x.shape
        return dense(x[:, :, ::2, ::2]), dense(x[:, :, 1::2, 1::2])

    @staticmethod
    def backward(ctx: Any, even: Tensor, odd: Tensor) -> Tensor:
        out = _zeros(ctx.shape, even)
        out[:, :, ::2, ::2] = even
        out[:, :, 1::2, 1::2] = odd
        return out


def _zeros(shape: torch.Size, like: Tensor) -> Tensor:
    last = torch.channels_last
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=last).zero_()
