"""Max pooling without indices.

PyTorch's 3x3 max pooling keeps the index of every maximum in eight bytes, on a CPU twice the memory of the
map. The pixel can be found again from x and the maximum, which are kept anyway.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .jit import CPU_OR_META, as_array, channels_last, empty_map, has_loops
from .parallel import parallel_for


def max_pool_3x3(x: Tensor) -> Tensor:
    """Return the maximum of every 3x3 window, stride 1, padding 1: (N, C, H, W) -> the same."""
    out: Tensor = max_pool(channels_last(x)) if has_loops(x, devices=CPU_OR_META) else max_pool_reference(x)
    return out


def max_pool_reference(x: Tensor) -> Tensor:
    """Compute `max_pool` by torch."""
    return F.max_pool2d(x, 3, 1, 1)


@torch.library.custom_op("dots_zoo::max_pool", mutates_args=())
def max_pool(x: Tensor) -> Tensor:
    """Return the maximum of every 3x3 window, (N, C, H, W) -> the same; keep no indices."""
    if not has_loops(x):
        return channels_last(max_pool_reference(x))
    from .elementwise import write_max_pool

    out = empty_map(x, *x.shape[1:])
    maps = as_array(x), as_array(out)
    parallel_for(lambda first, last: write_max_pool(*maps, first, last), len(x))
    return out


@torch.library.custom_op("dots_zoo::max_pool_backward", mutates_args=())
def max_pool_backward(grad: Tensor, maximum: Tensor, x: Tensor) -> Tensor:
    """Return dL/dx, all (N, C, H, W); a gradient goes to the first pixel of its window with the maximum."""
    if not has_loops(grad, maximum, x):
        indices = F.max_pool2d(x, 3, 1, 1, return_indices=True)[1]
        sizes = [3, 3], [1, 1], [1, 1], [1, 1], False
        return channels_last(torch.ops.aten.max_pool2d_with_indices_backward(grad, x, *sizes, indices))
    from .elementwise import write_max_pool_gradient

    out = empty_map(x, *x.shape[1:])
    grads, highest, values = (as_array(channels_last(tensor)) for tensor in (grad, maximum, x))
    maps = grads, highest, values, as_array(out)
    parallel_for(lambda first, last: write_max_pool_gradient(*maps, first, last), len(x))
    return out


@max_pool.register_fake
def _(x: Tensor) -> Tensor:
    return empty_map(x, *x.shape[1:])


@max_pool_backward.register_fake
def _(grad: Tensor, maximum: Tensor, x: Tensor) -> Tensor:
    return empty_map(x, *x.shape[1:])


def _save_maximum(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _max_pool_gradient(ctx: Any, grad: Tensor) -> Tensor:
    x, maximum = ctx.saved_tensors
    out: Tensor = max_pool_backward(grad, maximum, x)
    return out


max_pool.register_autograd(_max_pool_gradient, setup_context=_save_maximum)
