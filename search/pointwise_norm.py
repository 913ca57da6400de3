"""A pointwise convolution and the batch norm behind it, on statistics that cost little.

Batch norm (Ioffe and Szegedy, 2015) of y = P x, x being the C channels of a pixel. The mean over the batch is
taken of x and goes into the bias of the convolution,

    y = P x - P mean(x),   var = mean(y^2),   norm(y) = y / sqrt(var + eps),

so that y is centred as it is written, and a norm is nothing but a scale for every channel. The sums run over
rows of pixels. The two classes here differ in what follows: a ReLU, or the sum of all,

    z_k = relu(norm(P_k x_k)),   out = sum_k w_k norm(P_k x_k).

In the sum the mixture weight w_k is part of that scale, s_k = w_k / sqrt(var_k + eps): no normalised and no
weighted map is ever written, and the gradient of w_k is a sum over channels of one that batch norm needs:

    dot = sum of g * y over all n pixels,   dL/dw_k = sum over channels of dot / sqrt(var_k + eps),
    dL/dy = s * (g - mean(g) - y * dot / (n * (var + eps))).

Nothing but x and y is kept.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .passes import (
    Norm,
    channel_pulls,
    channel_sums,
    dense,
    masked_pulls,
    products,
    products_gradient,
    scaled_relus,
    scaled_sum,
)
from .statistics import by_batch, precisely, track

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]  # 1x1, without bias; without affine


def norm_relu(maps: Sequence[Tensor], pairs: Sequence[Pair]) -> Sequence[Tensor]:
    """relu(norm(P_k x_k)) of K maps (N, C, H, W) and their pairs."""
    if not by_batch(pairs[0][1]):
        return [F.relu(norm(conv(x))) for x, (conv, norm) in zip(maps, pairs, strict=True)]
    with precisely(maps[0].device):
        found: tuple[Tensor, ...] = _NormRelu.apply(_matrices(pairs), pairs[0][1].eps, *maps)
    *outs, means, variances = found
    track([norm for _, norm in pairs], means, variances, maps[0].numel() // maps[0].shape[1])
    return outs


def norm_sum(maps: Sequence[Tensor], pairs: Sequence[Pair], weights: Tensor) -> Tensor:
    """sum_k w_k norm(P_k x_k) of maps (N, C, H, W), their pairs, and weights (K,)."""
    if not by_batch(pairs[0][1]):
        terms = zip(weights, maps, pairs, strict=True)
        return torch.stack([w * norm(conv(x)) for w, x, (conv, norm) in terms]).sum(dim=0)
    with precisely(maps[0].device):
        found: tuple[Tensor, Tensor, Tensor] = _NormSum.apply(
            weights, _matrices(pairs), pairs[0][1].eps, *maps
        )
    out, means, variances = found
    track([norm for _, norm in pairs], means, variances, maps[0].numel() // maps[0].shape[1])
    return out


class _NormRelu(torch.autograd.Function):
    """(K, C', C), K maps -> K maps, and the means and variances (K, C') of the batch."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, eps: float, *maps: Tensor) -> tuple[Tensor, ...]:
        ys, means, variances = _centred(maps, matrices)
        inverse = (variances + eps).rsqrt()
        _save(ctx, ctx.needs_input_grad[0], maps, ys, matrices, inverse)
        ctx.mark_non_differentiable(means, variances)
        ctx.set_materialize_grads(False)
        return *scaled_relus(ys, inverse), means, variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        maps, ys, (matrices, inverse) = _saved(ctx)
        pulls = [dense(grad) for grad in grads[: len(ys)]]
        norm = Norm(inverse, inverse, *masked_pulls(pulls, ys).unbind(dim=1))
        wanted, each = ctx.needs_input_grad[0], (pulls, ys, maps)
        of_maps, of_matrices = products_gradient(each, matrices, norm, masked=True, wanted=wanted)
        return of_matrices, None, *of_maps


class _NormSum(torch.autograd.Function):
    """(K,), (K, C', C), K maps -> their sum, and the means and variances (K, C') of the batch."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, matrices: Tensor, eps: float, *maps: Tensor) -> tuple[Tensor, ...]:
        ys, means, variances = _centred(maps, matrices)
        inverse = (variances + eps).rsqrt()
        _save(ctx, ctx.needs_input_grad[1], maps, ys, matrices, inverse, weights)
        ctx.mark_non_differentiable(means, variances)
        ctx.set_materialize_grads(False)
        return scaled_sum(ys, weights[:, None] * inverse), means, variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        maps, ys, (matrices, inverse, weights) = _saved(ctx)
        grad = dense(grad)
        sums, dots = channel_pulls(grad, ys).split([1, len(ys)])
        norm = Norm(inverse, weights[:, None] * inverse, sums.expand_as(dots), dots)
        wanted, each = ctx.needs_input_grad[1], ([grad] * len(ys), ys, maps)
        of_maps, of_matrices = products_gradient(each, matrices, norm, masked=False, wanted=wanted)
        of_weights = (dots * inverse).sum(dim=1) if ctx.needs_input_grad[0] else None
        return of_weights, of_matrices, None, *of_maps


def _centred(maps: Sequence[Tensor], matrices: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """K maps y = P x - mean, the means (K, C'), and the variances (K, C')."""
    count = maps[0].numel() // maps[0].shape[1]
    means = torch.bmm(matrices, channel_sums(maps)[:, :, None] / count)[:, :, 0]
    ys, squares = products(maps, matrices, means)
    return ys, means, squares / count


def _save(ctx: Any, wanted: bool, maps: Sequence[Tensor], ys: Sequence[Tensor], *numbers: Tensor) -> None:
    """Keep y, and x where the backward pass reads it."""
    ctx.count, ctx.numbers = len(ys), len(numbers)
    ctx.save_for_backward(*numbers, *(maps if wanted else ()), *ys)


def _saved(ctx: Any) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    """x, or y in its place where it is not read, y, and the numbers."""
    saved = ctx.saved_tensors
    ys = saved[-ctx.count :]
    return saved[ctx.numbers : -ctx.count] or ys, ys, saved[: ctx.numbers]


def _matrices(pairs: Sequence[Pair]) -> Tensor:
    """(K, C', C)"""
    return torch.stack([conv.weight for conv, _ in pairs]).flatten(2)
