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
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batch_norm import by_batch, move_statistics
from .depthwise import flat_weights, output_sides
from .jit import CPU_OR_META, as_array, empty_map, has_loops
from .parallel import parallel_for
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
    known = all(map(_has_kernel, candidates))
    if not (known and has_loops(weights, *maps, *parameters, devices=CPU_OR_META)):
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
    eps = [norm.eps for norm in norms]
    out: Tensor
    out, means, inverses, _ = sep_conv_sum_operator(
        weights, [*distinct.values()], parameters, plan, eps, keep
    )
    variances = inverses**-2 - inverses.new_tensor(eps)[:, None]
    move_statistics(norms, means, variances, out.numel() // out.shape[1])
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


def _has_kernel(candidate: Sequence[SepConvBlock]) -> bool:
    """Return True if the operator covers a candidate.

    Its blocks keep the number of channels, all but the first keep the resolution, and they have statistics of
    the batch, no affine, no bias.
    """
    for k, (conv, pointwise, norm) in enumerate(candidate):
        reach = conv.dilation[0] * (conv.kernel_size[0] - 1)
        if pointwise.in_channels != pointwise.out_channels or not by_batch(norm):
            return False
        if any(tensor is not None for tensor in (conv.bias, pointwise.bias, norm.weight)):
            return False
        if k and (conv.stride[0] > 1 or 2 * int(conv.padding[0]) != reach):
            return False
    return True


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
    """Return the sum (N, C, H', W'), means and 1 / sqrt(var + eps) (B, C) of B blocks, and the maps kept.

    Args:
        weights: (K,), one a candidate.
        maps: the distinct maps that the candidates read.
        parameters: depthwise and pointwise weights of each block in turn.
        plan: four integers a block: the map that it reads or READS_BLOCK, stride, padding, dilation; a
            candidate begins with a block that reads a map.
        eps: of the norm of each block.
        keep: 2 keeps y and x of all blocks, each (B, N, H', W', C), 1 keeps y, 0 nothing.
    """
    from .elementwise import write_scaled
    from .sep_conv_block import ScaledInput, forward

    blocks, candidates, inputs = _blocks(parameters, plan), _candidates(plan), [as_array(x) for x in maps]
    size, longest = _output_size(maps, parameters, plan), max(map(len, candidates))
    y, x = (maps[0].new_empty((len(blocks) if keep > k else longest, *size)) for k in range(2))
    ys, xs, unit = y.numpy(), x.numpy(), np.ones(size[3])
    means, inverses = (torch.empty(len(blocks), size[3], dtype=torch.float64) for _ in range(2))
    mean_of, inverse_of = means.numpy(), inverses.numpy()
    out = empty_map(maps[0], size[3], *size[1:3])
    total = as_array(out)
    for candidate, weight in zip(candidates, weights.tolist(), strict=True):
        read = ScaledInput(inputs[plan[4 * candidate[0]]], unit)
        for b in candidate:
            y_of_block = ys[b % len(ys)]
            mean_of[b], variance = forward(read, blocks[b], xs[b % len(xs)], y_of_block)
            inverse_of[b] = 1 / np.sqrt(variance + eps[b])
            read = ScaledInput(y_of_block, inverse_of[b])
        arguments = read.map, (weight * read.scale)[None], candidate[0] > 0, total
        parallel_for(partial(write_scaled, *arguments), len(total))
    return out, means, inverses, [y, x][:keep]


@sep_conv_sum_operator.register_fake
def _(
    weights: Tensor,
    maps: list[Tensor],
    parameters: list[Tensor],
    plan: list[int],
    eps: list[float],
    keep: int,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    size = _output_size(maps, parameters, plan)
    means, inverses = (weights.new_empty((len(eps), size[3]), dtype=torch.float64) for _ in range(2))
    kept = [maps[0].new_empty((len(eps), *size)) for _ in range(keep)]
    return empty_map(maps[0], size[3], *size[1:3]), means, inverses, kept


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
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return the gradients of weights (K,), of the maps that need one, and of the parameters if they do.

    inverses: 1 / sqrt(var + eps) of the blocks, (B, C). needs: first for all parameters, whose gradients are
    flat and one after the other, then for each map. The other arguments are those of `sep_conv_sum`.
    """
    from .sep_conv_block import Modes, NormGradient, ScaledInput, backward, forward, norm_factors

    blocks, candidates = _blocks(parameters, plan), _candidates(plan)
    inputs, grad_of_sum, scales = [as_array(x) for x in maps], as_array(grad), inverses.numpy()
    of_maps = [empty_map(x, *x.shape[1:]) for x in maps]
    outputs, sources = [as_array(x) for x in of_maps], [plan[4 * b] for b, *_ in candidates]
    rows, size = max(map(len, candidates)), grad_of_sum.shape
    scratch = [grad.new_empty((rows, *size)) for _ in range(0 if kept else 2)]
    ys, *xs = [rows_of_maps.numpy() for rows_of_maps in [*kept, *scratch]]
    between, unit = grad.new_empty(size).numpy(), np.ones(size[3])
    of_weights, of_blocks = np.empty(len(candidates)), [np.empty(0) for _ in blocks]
    for k, (candidate, weight) in enumerate(zip(candidates, weights.tolist(), strict=True)):
        source = sources[k]
        reads = [ScaledInput(inputs[source], unit)]
        at_source = Modes(source in sources[:k], source not in sources[k + 1 :])
        for b in candidate:
            if not kept:
                forward(reads[-1], blocks[b], xs[0][b % len(ys)], ys[b % len(ys)])
            reads.append(ScaledInput(ys[b % len(ys)], scales[b]))
        grad_out, factor, threshold = grad_of_sum, weight, -np.inf
        for b, read in zip(reversed(candidate), reversed(reads[:-1]), strict=True):
            y, is_first = ys[b % len(ys)], b == candidate[0]
            moments = dot_products(grad_out, y, threshold)
            if b == candidate[-1]:
                of_weights[k] = moments[1] @ scales[b]
            if is_first and not needs[0] and not needs[1 + source]:
                continue
            of_norm = NormGradient(grad_out, norm_factors(moments, scales[b], factor, y), threshold)
            x = xs[0][b % len(ys)] if needs[0] else None
            grad_out = outputs[source] if is_first else between
            modes = at_source if is_first else Modes(False, False)
            of_block = backward(of_norm, y, x, read, blocks[b], grad_out, modes)
            if of_block is not None:
                of_blocks[b] = of_block
            factor, threshold = 1.0, 0.0
    return (
        torch.from_numpy(of_weights).to(weights.dtype),
        [of_map for of_map, needed in zip(of_maps, needs[1:], strict=True) if needed],
        torch.from_numpy(np.concatenate(of_blocks)).to(grad.dtype),
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
) -> tuple[Tensor, list[Tensor], Tensor]:
    of_maps = [empty_map(x, *x.shape[1:]) for x, needed in zip(maps, needs[1:], strict=True) if needed]
    count = sum(p.numel() for p in parameters) if needs[0] else 0
    return torch.empty_like(weights), of_maps, grad.new_empty(count)


def _blocks(parameters: Sequence[Tensor], plan: Sequence[int]) -> list[Any]:
    from .sep_conv_block import Block

    arrays = [flat_weights(parameter) for parameter in parameters]
    geometries: list[Any] = [tuple(plan[at + 1 : at + 4]) for at in range(0, len(plan), 4)]
    return [Block(*layers) for layers in zip(arrays[::2], arrays[1::2], geometries, strict=True)]


def _output_size(maps: Sequence[Tensor], parameters: Sequence[Tensor], plan: Sequence[int]) -> Any:
    """Return (N, H', W', C), which is the same for every block."""
    x = maps[plan[0]]
    return x.shape[0], *output_sides(x.shape[2:], parameters[0].shape[-1], *plan[1:4]), x.shape[1]


def _candidates(plan: Sequence[int]) -> list[list[int]]:
    """Return the indices of the blocks of each candidate."""
    candidates: list[list[int]] = []
    for b, read in enumerate(plan[::4]):
        if read != READS_BLOCK:
            candidates.append([])
        candidates[-1].append(b)
    return candidates


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    (weights, maps, parameters, ctx.plan, _, _), (_, means, inverses, kept) = inputs, output
    ctx.save_for_backward(weights, inverses, *maps, *parameters, *kept)
    ctx.counts = len(maps), len(parameters), len(kept)
    ctx.mark_non_differentiable(means, inverses, *kept)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    weights, inverses, *rest = ctx.saved_tensors
    saved = iter(rest)
    maps, parameters, kept = ([*islice(saved, count)] for count in ctx.counts)
    if grad is None:
        return None, [None for _ in maps], [None for _ in parameters], None, None, None
    needed = [*ctx.needs_input_grad[1]]
    needs = [any(ctx.needs_input_grad[2]), *needed]
    of_weights, of_maps, of_parameters = sep_conv_sum_backward(
        grad, weights, maps, parameters, ctx.plan, inverses, kept, needs
    )
    gradients, of_layers = iter(of_maps), [None for _ in parameters]
    if needs[0]:
        flat = of_parameters.split([p.numel() for p in parameters])
        of_layers = [gradient.view_as(p) for gradient, p in zip(flat, parameters, strict=True)]
    return of_weights, [next(gradients) if need else None for need in needed], of_layers, None, None, None


sep_conv_sum_operator.register_autograd(_gradients, setup_context=_save)
