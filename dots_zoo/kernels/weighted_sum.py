"""The weighted sum of maps in one pass over memory, and its gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .norm_ops import channel_pulls, multiples, scaled_sum
from .per_channel import joined, numbers_of, ones, stacked


def weighted_sum(weights: Tensor | None, maps: Sequence[Tensor], others: Sequence[Tensor] = ()) -> Tensor:
    """sum_k w_k y_k, weights (K,), if any, and maps of one shape, and other maps added to it."""
    out: Tensor = _WeightedSum.apply(weights, *maps, *others)
    return out


class _WeightedSum(torch.autograd.Function):
    """(K,), K maps, and others that are added as they are -> a map, in one pass over memory. The gradients of
    the weights are dot products, so that no weighted map is written.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor | None, *maps: Tensor) -> Tensor:
        count = 0 if weights is None else len(weights)
        ctx.save_for_backward(weights, *(maps[:count] if ctx.needs_input_grad[0] else ()))
        scales = stacked([ones(maps[0])] * len(maps))
        if weights is not None:
            scales[:count] *= numbers_of(weights, maps[0])[:, None]
        return scaled_sum(maps, scales)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, *maps = ctx.saved_tensors
        wanted, *each = ctx.needs_input_grad
        if weights is None:
            return None, *[grad] * len(each)
        of_weights = joined([channel_pulls(grad, maps)[1:].sum(1)]).to(weights.dtype) if wanted else None
        factors = [w for w, on in zip(numbers_of(weights, grad), each, strict=False) if on]
        found = iter(multiples(grad, factors))
        of_maps = [next(found) if on else None for on in each[: len(weights)]]
        return of_weights, *of_maps, *[grad] * (len(each) - len(weights))
