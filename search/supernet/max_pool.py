"""3x3 max pooling of stride 1 that keeps no indices: on a CPU they take twice the memory of the map."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dots_zoo.kernels.jit import place
from dots_zoo.kernels.max_pool import write_maximum, write_maximum_gradient
from dots_zoo.kernels.norm_ops import dense
from dots_zoo.kernels.parallel import in_parts
from dots_zoo.kernels.per_channel import LIKE, has_loops


class MaxPool(nn.Module):
    """A max pooling, by loops where there are any."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        assert isinstance(pool, nn.MaxPool2d) and pool.kernel_size == 3 and pool.padding == 1
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        loops = self.pool.stride == 1 and has_loops(x)
        out: Tensor = _Maximum.apply(dense(x)) if loops else self.pool(x)
        return out


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        maps = place(x), place(out), LIKE[x.dtype]
        in_parts(lambda first, last: write_maximum(*maps, first, last), x.shape[0])
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, maximum = ctx.saved_tensors
        grad, out = dense(grad), torch.empty_like(x)
        maps = place(grad), place(maximum), place(x), place(out), LIKE[x.dtype]
        in_parts(lambda first, last: write_maximum_gradient(*maps, first, last), x.shape[0])
        return out
