"""The weighted sum of separable convolutions, forward and backward, with cheap batch statistics.

A block is a ReLU, z = relu(m), a depthwise convolution, x = w * z, a pointwise one, y = P x, and batch norm
(Ioffe and Szegedy, 2015); a candidate has one or two. The mean over the batch is computed from x and
subtracted from y as it is written,

    y = P x - P mean(x),   var = mean(y^2),   norm(y) = y / sqrt(var + eps),

so that a norm is one factor per channel. The next operation applies it: the ReLU of the second block as it
reads y, or the sum of all candidates, where the factor includes the weight w_k:

    out = sum_k s_k y_k,   s_k = w_k / sqrt(var_k + eps).

No normalised and no weighted map is ever written, and the gradient of w_k is a sum over channels of one that
batch norm needs: with g the gradient of the sum and n pixels,

    dot = sum of g * y over pixels,   dL/dw_k = sum over channels of dot / sqrt(var_k + eps),
    dL/dy = s (g - mean(g) - y dot / (n (var + eps))).

Only x and y are kept for the backward pass, and neither in a lean step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batch_norm import by_batch, move_statistics
from .jit import channels_last, has_loops
from .weighted_sum import dot_products, weighted_sum_reference


class SepConvBlock(NamedTuple):
    """The layers after a ReLU: a depthwise and a 1x1 convolution without bias, and a norm without affine."""

    depthwise: nn.Conv2d
    pointwise: nn.Conv2d
    norm: nn.BatchNorm2d


def sep_conv_sum(
    candidates: Sequence[Sequence[SepConvBlock]], weights: Tensor, maps: Sequence[Tensor], lean: bool
) -> Tensor:
    """Return sum_k w_k candidate_k(y_k) of weights (K,) and K maps (N, C, H, W), several of which may be one.

    Running statistics are updated as by torch. lean: keep nothing but the maps, and recompute the candidates
    one by one in the backward pass.
    """
    blocks = [block for candidate in candidates for block in candidate]
    parameters = [layer.weight for block in blocks for layer in (block.depthwise, block.pointwise)]
    if not (has_loops(weights, *maps, *parameters) and all(map(_has_kernel, blocks))):
        return sep_conv_sum_reference(candidates, weights, maps)
    distinct = {id(x): x for x in maps}  # several candidates of an edge read one map
    reads = [[*distinct].index(id(x)) for x in maps]
    plan: list[int] = []
    for candidate, read in zip(candidates, reads, strict=True):
        for k, block in enumerate(candidate):
            conv = block.depthwise
            plan += [READS_BLOCK if k else read, conv.stride[0], int(conv.padding[0]), conv.dilation[0]]
    keep = 2 if any(p.requires_grad for p in parameters) else 1
    keep = 0 if lean or not torch.is_grad_enabled() else keep
    norms = [block.norm for block in blocks]
    inputs = [*distinct.values()], parameters, plan, [norm.eps for norm in norms], keep
    out: Tensor
    out, means, inverses, _ = sep_conv_sum_operator(weights, *inputs)
    move_statistics(norms, means, inverses, out.numel() // out.shape[1])
    return out


def sep_conv_sum_reference(
    candidates: Sequence[Sequence[SepConvBlock]], weights: Tensor, maps: Sequence[Tensor]
) -> Tensor:
    """Compute `sep_conv_sum` by torch."""
    outs = []
    for candidate, x in zip(candidates, maps, strict=True):
        for block in candidate:
            x = block.norm(block.pointwise(block.depthwise(F.relu(x))))
        outs.append(x)
    return weighted_sum_reference(weights, outs)


def _has_kernel(block: SepConvBlock) -> bool:
    """Return True if the operator covers a block: statistics of the batch, no affine, no bias."""
    affine = (block.depthwise.bias, block.pointwise.bias, block.norm.weight)
    return by_batch(block.norm) and all(tensor is None for tensor in affine)


READS_BLOCK = -1  # in a plan: the block reads the output of the one before it


@torch.library.custom_op("dots_zoo::sep_conv_sum", mutates_args=())
def sep_conv_sum_operator(
    weights: Tensor,
    maps: list[Tensor],
    parameters: list[Tensor],
    plan: list[int],
    eps: list[float],
    keep: int,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Return the sum (N, C', H', W'), means and 1 / sqrt(var + eps) (B, C') of B blocks, and the maps kept.

    Args:
        weights: (K,), one a candidate.
        maps: the distinct maps that the candidates read.
        parameters: depthwise and pointwise weights of each block in turn.
        plan: four integers a block: the map that it reads or READS_BLOCK, stride, padding, dilation; a
            candidate begins with a block that reads a map.
        eps: of the norm of each block.
        keep: 2 keeps y and x of each block, 1 keeps y, 0 nothing.
    """
    from .sep_conv_block import ScaledInput, forward, scaled_sum

    assert has_loops(weights, *maps, *parameters), "the operator reads maps of one precision on a CPU"
    blocks, out, statistics, kept = _blocks(parameters, plan), None, [], []
    unit, read = np.ones(maps[0].shape[1]), None
    for candidate, weight in zip(_candidates(plan), weights.tolist(), strict=True):
        read = ScaledInput(channels_last(maps[plan[4 * candidate[0]]]), unit)
        for b in candidate:
            x, y, mean, variance = forward(read, blocks[b])
            read = ScaledInput(y, 1 / np.sqrt(variance + eps[b]))
            statistics.append((mean, read.scale))
            kept += [y, x][:keep]
        out = scaled_sum(read.map, weight * read.scale, out)
    assert out is not None, "a sum of no candidates"
    means, inverses = (torch.from_numpy(np.stack(rows)) for rows in zip(*statistics, strict=True))
    return out, means, inverses, kept


@sep_conv_sum_operator.register_fake
def _(
    weights: Tensor,
    maps: list[Tensor],
    parameters: list[Tensor],
    plan: list[int],
    eps: list[float],
    keep: int,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    kept, y = [], maps[0]
    for b, (weight, matrix, (stride, padding, dilation)) in enumerate(_blocks(parameters, plan)):
        x = y if plan[4 * b] == READS_BLOCK else maps[plan[4 * b]]
        x = channels_last(F.conv2d(x, weight, None, stride, padding, dilation, len(weight)))
        y = channels_last(F.conv2d(x, matrix))
        kept += [y, x][:keep]
    shape = len(eps), y.shape[1]
    means, inverses = (weights.new_empty(shape, dtype=torch.float64) for _ in range(2))
    return torch.empty_like(y), means, inverses, kept


@torch.library.custom_op("dots_zoo::sep_conv_sum_backward", mutates_args=())
def sep_conv_sum_backward(
    grad: Tensor,
    weights: Tensor,
    maps: list[Tensor],
    parameters: list[Tensor],
    plan: list[int],
    inverses: Tensor,
    kept: list[Tensor],
    needs: list[bool],
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the gradients of weights (K,), of the maps that need one, and of the parameters if they do.

    needs: first for all parameters, then for each map. The other arguments are those of `sep_conv_sum`.
    """
    from .sep_conv_block import NormGradient, ScaledInput, backward, forward

    grad, dense, scales = channels_last(grad), [channels_last(x) for x in maps], inverses.numpy()
    blocks, of_weights = _blocks(parameters, plan), []
    of_maps: list[Any] = [None for _ in maps]
    of_parameters: list[Tensor] = [torch.empty(0) for _ in parameters]
    unit, pixels = np.ones(maps[0].shape[1]), grad.numel() // grad.shape[1]
    for candidate, weight in zip(_candidates(plan), weights.tolist(), strict=True):
        first = plan[4 * candidate[0]]
        reads, outputs = [ScaledInput(dense[first], unit)], []
        for b in candidate:
            outputs.append(_kept(kept, b, len(blocks)) or forward(reads[-1], blocks[b])[:2])
            reads.append(ScaledInput(outputs[-1][1], scales[b]))
        grad_out, factor, threshold = grad, weight, -np.inf
        for k, b in reversed([*enumerate(candidate)]):
            x, y = outputs[k]
            sums, dots = dot_products(grad_out, y, threshold)
            if b == candidate[-1]:
                of_weights.append((dots * scales[b]).sum())
            if not k and not needs[0] and not needs[1 + first]:
                continue
            scale, inverse = factor * scales[b], scales[b]
            factors = np.stack([-scale * sums / pixels, -scale * inverse**2 * dots / pixels, scale])
            norm_grad, onto = NormGradient(grad_out, factors, threshold), None if k else of_maps[first]
            grad_out, *gradients = backward(norm_grad, y, x if needs[0] else None, reads[k], blocks[b], onto)
            if k:
                factor, threshold = 1.0, 0.0
            else:
                of_maps[first] = grad_out
            for at, gradient in enumerate(gradients):
                if gradient is not None:
                    like = parameters[2 * b + at]
                    of_parameters[2 * b + at] = torch.from_numpy(gradient).to(like.dtype).view(like.shape)
    return (
        torch.tensor(of_weights, dtype=weights.dtype),
        [_masked(of_map, x) for of_map, x, needed in zip(of_maps, dense, needs[1:], strict=True) if needed],
        of_parameters if needs[0] else [],
    )


@sep_conv_sum_backward.register_fake
def _(
    grad: Tensor,
    weights: Tensor,
    maps: list[Tensor],
    parameters: list[Tensor],
    plan: list[int],
    inverses: Tensor,
    kept: list[Tensor],
    needs: list[bool],
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    of_maps = [
        torch.empty_like(x, memory_format=torch.channels_last)
        for x, needed in zip(maps, needs[1:], strict=True)
        if needed
    ]
    of_parameters = [torch.empty_like(p, memory_format=torch.contiguous_format) for p in parameters]
    return torch.empty_like(weights), of_maps, of_parameters if needs[0] else []


def _blocks(parameters: Sequence[Tensor], plan: Sequence[int]) -> list[Any]:
    from .sep_conv_block import Block

    geometries: list[Any] = [tuple(plan[at + 1 : at + 4]) for at in range(0, len(plan), 4)]
    return [Block(*layers) for layers in zip(parameters[::2], parameters[1::2], geometries, strict=True)]


def _candidates(plan: Sequence[int]) -> list[list[int]]:
    """Return the indices of the blocks of each candidate."""
    candidates: list[list[int]] = []
    for b, read in enumerate(plan[::4]):
        if read != READS_BLOCK:
            candidates.append([])
        candidates[-1].append(b)
    return candidates


def _kept(kept: Sequence[Tensor], b: int, count: int) -> tuple[Tensor | None, Tensor] | None:
    """Return (x if kept, y) of block b, or None if nothing is kept."""
    per_block = len(kept) // count
    return None if not per_block else (kept[2 * b + 1] if per_block == 2 else None, kept[per_block * b])


def _masked(of_relu: Tensor, x: Tensor) -> Tensor:
    """Apply the mask of relu(x) to its gradient, in place."""
    out: Tensor = torch.ops.aten.threshold_backward.grad_input(of_relu, x, 0, grad_input=of_relu)
    return out


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    (weights, maps, parameters, ctx.plan, _, _), (_, means, inverses, kept) = inputs, output
    ctx.save_for_backward(weights, inverses, *maps, *parameters, *kept)
    ctx.counts = len(maps), len(parameters), len(kept)
    ctx.mark_non_differentiable(means, inverses, *kept)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    weights, inverses, *saved = ctx.saved_tensors
    maps, parameters, kept = (list(tensors) for tensors in _split(saved, ctx.counts))
    if grad is None:
        return None, [None for _ in maps], [None for _ in parameters], None, None, None
    needed = [*ctx.needs_input_grad[1]]
    needs = [any(ctx.needs_input_grad[2]), *needed]
    of_weights, of_maps, of_parameters = sep_conv_sum_backward(
        grad, weights, maps, parameters, ctx.plan, inverses, kept, needs
    )
    gradients = iter(of_maps)
    return (
        of_weights,
        [next(gradients) if need else None for need in needed],
        of_parameters or [None for _ in parameters],
        *(None, None, None),
    )


def _split(values: Sequence[Any], counts: Sequence[int]) -> list[Sequence[Any]]:
    bounds = [sum(counts[:k]) for k in range(len(counts) + 1)]
    return [values[first:last] for first, last in zip(bounds, bounds[1:], strict=False)]


sep_conv_sum_operator.register_autograd(_gradients, setup_context=_save)
