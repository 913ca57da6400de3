"""A pointwise convolution and the batch norm behind it, on statistics that cost little.

Batch norm (Ioffe and Szegedy, 2015) of y = P x, x being the C channels of a pixel. The mean over the batch is
taken of x and goes into the bias of the convolution,

    y = P x - P mean(x),   var = mean(y^2),   norm(y) = y / sqrt(var + eps),

so that y is centred as it is written, and a norm is nothing but a scale for every channel. The sums run over
rows of pixels. The two classes here differ in what follows: a ReLU, or the sum of all,

    z = relu(norm(y)),   out = sum_k w_k norm(P_k x_k).

In the sum the mixture weight w_k is part of that scale, s_k = w_k / sqrt(var_k + eps): no normalised and no
weighted map is ever written, and the gradient of w_k is a sum over channels of one that batch norm needs:

    dot = sum of g * y over all n pixels,   dL/dw_k = sum over channels of dot / sqrt(var_k + eps),
    dL/dy = s * (g - mean(g) - y * dot / (n * (var + eps))).

Nothing but x and y is kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from .statistics import by_batch, precisely, track

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]  # 1x1, without bias; without affine


def norm_relu(x: Tensor, pair: Pair) -> Tensor:
    """relu(norm(P x)) of (N, C, H, W)."""
    conv, norm = pair
    if not by_batch(norm):
        return F.relu(norm(conv(x)))
    with precisely(x.device):
        found: tuple[Tensor, Tensor, Tensor] = _NormRelu.apply(_matrices([pair]), norm.eps, x)
    out, means, variances = found
    track([norm], means, variances, x.numel() // x.shape[1])
    return out


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
    """(1, C', C), a map -> a map, and the mean and variance (1, C') of the batch."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, eps: float, x: Tensor) -> tuple[Tensor, ...]:
        [y], mean, variance = _centred([x], matrix)
        inverse = (variance + eps).rsqrt()
        [scale] = _along_rows(inverse, [y])
        _save(ctx, ctx.needs_input_grad[0], [x], [y], matrix, inverse)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return _as_map((_rows(y) * scale).relu_(), y), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        maps, [y], (matrix, inverse) = _saved(ctx)
        masked = torch.ops.aten.threshold_backward(_dense(grad), y, 0)
        sums, dots = _channel_sums([masked]), _channel_sums([masked * y])
        of_ys = _through_norm([masked], [y], inverse, inverse, sums, dots)
        of_matrix, [of_x] = _through_product(ctx.needs_input_grad[0], of_ys, maps, matrix)
        return of_matrix, None, of_x


class _NormSum(torch.autograd.Function):
    """(K,), (K, C', C), K maps -> their sum, and the means and variances (K, C') of the batch."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, matrices: Tensor, eps: float, *maps: Tensor) -> tuple[Tensor, ...]:
        ys, means, variances = _centred(maps, matrices)
        inverse = (variances + eps).rsqrt()
        scales = _along_rows(weights[:, None] * inverse, ys)
        out = _rows(ys[0]) * scales[0]
        for y, scale in zip(ys[1:], scales[1:], strict=True):
            out.addcmul_(_rows(y), scale)
        _save(ctx, ctx.needs_input_grad[1], maps, ys, matrices, inverse, weights)
        ctx.mark_non_differentiable(means, variances)
        ctx.set_materialize_grads(False)
        return _as_map(out, ys[0]), means, variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        maps, ys, (matrices, inverse, weights) = _saved(ctx)
        grad = _dense(grad)
        dots = _channel_sums(grad * y for y in ys)  # (K, C')
        sums, scale = _channel_sums([grad]), weights[:, None] * inverse
        of_ys = _through_norm([grad] * len(ys), ys, inverse, scale, sums, dots)
        of_matrices, of_maps = _through_product(ctx.needs_input_grad[1], of_ys, maps, matrices)
        of_weights = (dots * inverse).sum(dim=1) if ctx.needs_input_grad[0] else None
        return of_weights, of_matrices, None, *of_maps


def _centred(maps: Sequence[Tensor], matrices: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """K maps y = P x - mean, the means (K, C'), and the variances (K, C')."""
    count = maps[0].numel() // maps[0].shape[1]
    means = torch.bmm(matrices, _channel_sums(maps)[:, :, None] / count)[:, :, 0]
    ys = _products(maps, matrices, means)
    return ys, means, _channel_sums(y * y for y in ys) / count


def _products(maps: Sequence[Tensor], matrices: Tensor, means: Tensor) -> list[Tensor]:
    """P x - mean of every map."""
    kernels, shifts = (numbers.to(maps[0].dtype) for numbers in (matrices[..., None, None], -means))
    return [F.conv2d(x, k, s) for x, k, s in zip(maps, kernels.unbind(), shifts.unbind(), strict=True)]


def _through_norm(
    grads: Sequence[Tensor], ys: Sequence[Tensor], inverse: Tensor, scale: Tensor, sums: Tensor, dots: Tensor
) -> Iterator[Tensor]:
    """dL/dy of every map; sums and dots (K, C'): of the gradients of scale * y, and of those times y."""
    count = ys[0].numel() // ys[0].shape[1]
    mean, slope = scale * sums / -count, scale * inverse * inverse * dots / -count
    constant, of_y, of_grad = (_along_rows(numbers, ys) for numbers in (mean, slope, scale))
    for g, y, s, a, c in zip(grads, ys, of_grad, of_y, constant, strict=True):
        yield _as_map(torch.addcmul(c, _rows(y), a).addcmul_(_rows(g), s), y)


def _through_product(
    wanted: bool, of_ys: Iterator[Tensor], maps: Sequence[Tensor], matrices: Tensor
) -> tuple[Tensor | None, list[Tensor]]:
    """dL/dP, (K, C', C), where it is wanted, and dL/dx of every map. A shift of y has no effect behind a
    norm, so nothing comes from the mean.
    """
    of_maps: list[Tensor] = []
    of_matrices: list[Tensor] = []
    kernels = matrices.transpose(1, 2)[..., None, None].unbind()
    for k, (of_y, kernel) in enumerate(zip(of_ys, kernels, strict=True)):
        of_maps.append(F.conv2d(of_y, kernel.to(of_y.dtype)))
        if wanted:
            of_matrices.append(conv2d_weight(maps[k], [*matrices.shape[1:], 1, 1], of_y))
    return torch.stack(of_matrices).flatten(2).to(matrices.dtype) if wanted else None, of_maps


def _save(ctx: Any, wanted: bool, maps: Sequence[Tensor], ys: Sequence[Tensor], *numbers: Tensor) -> None:
    """Keep y, and x where the backward pass reads it."""
    ctx.count, ctx.numbers = len(ys), len(numbers)
    ctx.save_for_backward(*numbers, *(maps if wanted else ()), *ys)


def _saved(ctx: Any) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    """x, none where it is not read, y, and the numbers."""
    saved = ctx.saved_tensors
    return saved[ctx.numbers : -ctx.count], saved[-ctx.count :], saved[: ctx.numbers]


def _channel_sums(maps: Iterable[Tensor]) -> Tensor:
    """K maps (N, C, H, W) -> (K, C), in single precision at least."""
    rows, width, dtype = [], 0, torch.float32
    for x in maps:
        width, dtype = x.shape[3], x.dtype if x.dtype == torch.float64 else dtype
        rows.append(_rows(x).sum(dim=0, dtype=dtype))
    return torch.stack(rows).view(len(rows), width, -1).sum(dim=1)


def _along_rows(numbers: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """(K, C) -> K vectors for rows of W pixels."""
    wide = numbers.to(maps[0].dtype)[:, None].expand(-1, maps[0].shape[3], -1)
    return wide.flatten(1).unbind()


def _dense(x: Tensor) -> Tensor:
    """The same map in memory of its own, channels last."""
    return x.contiguous(memory_format=torch.channels_last)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N * H, W * C), without a copy where it is channels last."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0] * x.shape[2], -1)


def _as_map(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_rows`."""
    n, channels, height, width = like.shape
    return rows.view(n, height, width, channels).permute(0, 3, 1, 2)


def _matrices(pairs: Sequence[Pair]) -> Tensor:
    """(K, C', C)"""
    return torch.stack([conv.weight for conv, _ in pairs]).flatten(2)
