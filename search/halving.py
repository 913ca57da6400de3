"""What layers that halve the resolution read of a map: every other pixel, or those and the ones between."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .passes import dense


def every_other(x: Tensor, first: int) -> Tensor:
    """(N, C, H, W) -> every other row and column, from the first on, in memory of their own."""
    out: Tensor = _EveryOther.apply(x, first)
    return out


def halves(even: Tensor, x: Tensor) -> Tensor:
    """Beside the even pixels the odd ones; of an odd side these lack the last row or column: zeros."""
    odd = every_other(x, 1)
    odd = F.pad(odd, [0, even.shape[3] - odd.shape[3], 0, even.shape[2] - odd.shape[2]])
    return torch.cat([even, odd], dim=1)


class _EveryOther(torch.autograd.Function):
    """Its gradient is channels last: that of an index would not be, and slow all that it is added to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: int) -> Tensor:
        ctx.shape, ctx.first = x.shape, first
        return dense(x[:, :, first::2, first::2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        last = torch.channels_last
        out = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=last).zero_()
        out[:, :, ctx.first :: 2, ctx.first :: 2] = grad
        return out, None
