"""3x3 pooling of stride 1 that is fast on a CPU in channels last, where the library's is slow."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .passes import dense, has_loops, written
from .pooling_loops import write_maximum, write_maximum_gradient, write_mean


class Pool(nn.Module):
    """A max or average pooling, the latter without the padding in its mean, by loops where there are any."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        assert isinstance(pool, nn.MaxPool2d | nn.AvgPool2d) and pool.kernel_size == 3
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        if self.pool.stride != 1 or not has_loops(x):
            plain: Tensor = self.pool(x)
            return plain
        out: Tensor = (_Maximum if isinstance(self.pool, nn.MaxPool2d) else _Mean).apply(dense(x))
        return out


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = written(write_maximum, x, [x])
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, out = ctx.saved_tensors
        return written(write_maximum_gradient, x, [dense(grad), out, x])


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return written(write_mean, x, [x], False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return written(write_mean, grad, [dense(grad)], True)
