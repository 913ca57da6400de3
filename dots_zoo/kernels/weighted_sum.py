"""Weighted sum of maps: no weighted map is written or kept, and a weight's gradient is a dot product."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .jit import CPU_OR_META, as_array, channels_last, has_loops
from .parallel import parallel_sum


def weighted_sum(weights: Tensor, maps: Sequence[Tensor], others: Sequence[Tensor] = ()) -> Tensor:
    """Return sum_k w_k y_k + sum_j z_j of weights (K,), K maps y and others z, all (N, C, H, W)."""
    if not has_loops(weights, *maps, *others, devices=CPU_OR_META):
        return weighted_sum_reference(weights, maps, others)
    out: Tensor = scaled_sum(weights, [*maps], [*others])
    return out


def weighted_sum_reference(weights: Tensor, maps: Sequence[Tensor], others: Sequence[Tensor] = ()) -> Tensor:
    """Compute `weighted_sum` by torch."""
    first, *rest = [*(w * y for w, y in zip(weights.unbind(), maps, strict=True)), *others]
    return sum(rest, first)


def dot_products(grad: Any, y: Any, threshold: float = -np.inf) -> Any:
    """Return the sums over pixels of g and of g * y, (2, C) in double precision, of arrays (N, H, W, C).

    g is the gradient where y > threshold, and 0 elsewhere.
    """
    from .elementwise import add_dot_products

    return parallel_sum(add_dot_products, len(y), 2 * y.shape[3], grad, y, threshold).reshape(2, -1)


@torch.library.custom_op("dots_zoo::weighted_sum", mutates_args=())
def scaled_sum(weights: Tensor, maps: list[Tensor], others: list[Tensor]) -> Tensor:
    """Return sum_k w_k y_k + sum_j z_j, channels last, of weights (K,) and maps (N, C, H, W)."""
    factors, ones = weights.tolist(), [1.0] * len(others[1:])
    first = torch.add(others[0], maps[0], alpha=factors[0]) if others else maps[0] * factors[0]
    out = channels_last(first)
    for factor, y in zip([*factors[1:], *ones], [*maps[1:], *others[1:]], strict=True):
        out.add_(y, alpha=factor)
    return out


@scaled_sum.register_fake
def _(weights: Tensor, maps: list[Tensor], others: list[Tensor]) -> Tensor:
    return torch.empty_like(maps[0], memory_format=torch.channels_last)


@torch.library.custom_op("dots_zoo::weighted_sum_backward", mutates_args=())
def scaled_sum_backward(
    grad: Tensor, weights: Tensor, maps: list[Tensor], needs: list[bool]
) -> tuple[Tensor, list[Tensor]]:
    """Return dL/dw (K,), zeros without maps, and dL/dy_k for every k that needs it.

    Each gradient has memory of its own, since autograd adds in place.
    """
    array = as_array(grad)
    dots = [float(dot_products(array, as_array(y))[1].sum()) for y in maps]
    of_weights = torch.tensor(dots, dtype=weights.dtype) if maps else torch.zeros_like(weights)
    factors = zip(weights.tolist(), needs, strict=True)
    return of_weights, [channels_last(grad * factor) for factor, needed in factors if needed]


@scaled_sum_backward.register_fake
def _(grad: Tensor, weights: Tensor, maps: list[Tensor], needs: list[bool]) -> tuple[Tensor, list[Tensor]]:
    like = [torch.empty_like(grad, memory_format=torch.channels_last) for needed in needs if needed]
    return torch.empty_like(weights), like


def _save_summands(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weights, maps, _ = inputs
    ctx.save_for_backward(weights, *(maps if weights.requires_grad else ()))


def _sum_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    weights, *maps = ctx.saved_tensors
    of_weights, of_maps = scaled_sum_backward(grad, weights, maps, [*ctx.needs_input_grad[1]])
    gradients = iter(of_maps)
    return (
        of_weights if maps else None,
        [next(gradients) if needed else None for needed in ctx.needs_input_grad[1]],
        [grad if needed else None for needed in ctx.needs_input_grad[2]],
    )


scaled_sum.register_autograd(_sum_gradients, setup_context=_save_summands)
