"""The weighted sum of separable convolutions, forward and backward, on statistics that cost little.

A half is a ReLU, z = relu(m), a depthwise convolution, x = w * z, a pointwise one, y = P x, and batch norm
(Ioffe and Szegedy, 2015); a candidate has one or two. The mean over the batch is taken of x and goes into
the bias of the convolution,

    y = P x - P mean(x),   var = mean(y^2),   norm(y) = y / sqrt(var + eps),

so that y is centred as it is written, and a norm is nothing but a scale for every channel. What follows is
the ReLU of the second half, which is taken as y is read, or the sum of all candidates,

    z_k = relu(norm(P_k x_k)),   out = sum_k w_k norm(P_k x_k).

In the sum the mixture weight w_k is part of that scale, s_k = w_k / sqrt(var_k + eps): no normalised and no
weighted map is ever written, and the gradient of w_k is a sum over channels of one that batch norm needs:

    dot = sum of g * y over all n pixels,   dL/dw_k = sum over channels of dot / sqrt(var_k + eps),
    dL/dy = s * (g - mean(g) - y * dot / (n * (var + eps))).

Nothing but x and y is kept. GROUP candidates go through this together, from what they read to their place
in the sum; numbers of a channel are of numpy where loops compute them (`dots_zoo/kernels/per_channel.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dots_zoo.kernels.norm_ops import Norm, channel_pulls, dense, masked_pulls, products, scaled_sum
from dots_zoo.kernels.per_channel import Numbers, as_parameters, joined, numbers_of, ones
from dots_zoo.kernels.sep_conv import Behind, OfHalf, Part, Read, convolved, half_gradients
from dots_zoo.kernels.statistics import by_batch, precisely, track

from .sep_conv import Half, Separable

GROUP = 4  # candidates that are computed together: more of their maps do not stay in the cache


def sum_of_separable(
    candidates: Sequence[Separable], weights: Tensor, maps: Sequence[Tensor], lean: bool
) -> Tensor:
    """sum_k w_k candidate_k(x_k), weights (K,) and maps (N, C, H, W), which have to come from `before_relu`.
    lean: nothing but the maps is kept.
    """
    halves = [half for one in candidates for half in one.parts]
    if not by_batch(halves[0].norm):
        terms = [w * one(x) for w, one, x in zip(weights.unbind(), candidates, maps, strict=True)]
        return torch.stack(terms).sum(dim=0)
    different = {id(x): x for x in maps}  # several candidates of an edge read one map
    reads, kind = [[*different].index(id(x)) for x in maps], maps[0].device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        different = {key: x.to(torch.get_autocast_dtype(kind)) for key, x in different.items()}
    parameters = [layer.weight for half in halves for layer in half.layers[:2]]
    with precisely(maps[0].device):
        plan = _Plan(_groups(candidates, reads), halves, len(different), lean)
        out: Tensor = _SumOfSeparable.apply(plan, weights, *different.values(), *parameters)
    return out


@dataclass(frozen=True)
class _Group:
    """Candidates that are computed together: their place in the sum, the map that each reads, by number,
    which of them have two halves; and the numbers of all halves that come first, and last.
    """

    place: slice
    reads: list[int]
    double: list[int]
    first: list[int]
    last: list[int]


@dataclass(frozen=True)
class _Plan:
    """The halves of all candidates; count: of different maps that they read."""

    groups: list[_Group]
    halves: list[Half]
    count: int
    lean: bool

    def parts(self, parameters: Sequence[Tensor]) -> list[Part]:
        """The halves with their weights."""
        weights, matrices = parameters[::2], parameters[1::2]
        return [
            Part(number, weight, matrix, half.layers[0].numbers, half.layers[2])
            for number, (half, weight, matrix) in enumerate(zip(self.halves, weights, matrices, strict=True))
        ]


def _groups(candidates: Sequence[Separable], reads: list[int]) -> list[_Group]:
    groups: list[_Group] = []
    half = 0
    for k, one in enumerate(candidates):
        if k % GROUP == 0:
            groups.append(_Group(slice(k, k + GROUP), reads[k : k + GROUP], [], [], []))
        if len(one.parts) > 1:
            groups[-1].double.append(k % GROUP)
            groups[-1].first.append(half)
        half += len(one.parts)
        groups[-1].last.append(half - 1)
    return groups


@dataclass
class _Level:
    """What K halves computed: x and y of the pointwise convolutions, and 1 / sqrt(var + eps), (K, C'). x is
    empty where nothing reads it again.
    """

    parts: list[Part]
    xs: Sequence[Tensor]
    ys: Sequence[Tensor]
    inverse: Numbers


class _SumOfSeparable(torch.autograd.Function):
    """(K,), the maps, and the weights of depthwise and pointwise convolutions, half by half -> the sum."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, weights: Tensor, *tensors: Tensor) -> Tensor:
        maps, parts = [dense(x) for x in tensors[: plan.count]], plan.parts(tensors[plan.count :])
        wanted = any(ctx.needs_input_grad[2 + plan.count :])
        numbers, out, kept = numbers_of(weights, maps[0]), None, []
        ctx.plan, ctx.inputs, ctx.wanted, ctx.inverses = plan, len(tensors), wanted, []
        for group in plan.groups:
            levels = _computed(group, parts, maps, moving=True)
            out = scaled_sum(levels[-1].ys, numbers[group.place, None] * levels[-1].inverse, out)
            if not plan.lean:  # of x only where gradients of weights are wanted
                kept += [t for level in levels for t in (*level.ys, *(level.xs if wanted else ()))]
                ctx.inverses += [level.inverse for level in levels]
        assert out is not None, "a sum of no candidates"
        ctx.save_for_backward(weights, *tensors, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan, (weights, *saved), grad = ctx.plan, ctx.saved_tensors, dense(grad)
        parameters, kept = saved[plan.count : ctx.inputs], iter(saved[ctx.inputs :])
        maps, parts = [dense(x) for x in saved[: plan.count]], plan.parts(parameters)
        numbers, inverses = numbers_of(weights, maps[0]), iter(ctx.inverses)
        found = _Found(ctx.needs_input_grad[2 : 2 + plan.count], [None] * plan.count, {}, [])
        for group in plan.groups:
            if plan.lean:
                levels = _computed(group, parts, maps, moving=False)
            else:
                levels = [
                    _kept([parts[number] for number in some], kept, next(inverses), ctx.wanted)
                    for some in (group.first, group.last)
                    if some
                ]
            if not ctx.wanted:
                levels = [_Level(level.parts, (), level.ys, level.inverse) for level in levels]
            _add_gradients(group, numbers[group.place], maps, levels, grad, found)
            del levels  # before the next are computed again
        of_parameters = [g for part in parts for g in found.of_halves.get(part.number, (None, None))]
        return None, joined(found.of_weights), *found.of_maps, *as_parameters(of_parameters, parameters)


def _computed(group: _Group, parts: list[Part], maps: Sequence[Tensor], moving: bool) -> list[_Level]:
    """moving: the running statistics."""
    levels: list[_Level] = []
    if group.first:
        levels.append(_level([parts[number] for number in group.first], _reads(group, maps)[0], moving))
    read = _reads(group, maps, *levels)[-1]
    levels.append(_level([parts[number] for number in group.last], read, moving))
    return levels


def _reads(
    group: _Group, maps: Sequence[Tensor], first: _Level | None = None
) -> tuple[list[Read], list[Read]]:
    """What the halves that come first read, and the last, some of it computed by the first."""
    unit = ones(maps[0])
    last = [(maps[number], unit) for number in group.reads]
    begin = [last[k] for k in group.double]
    if first is not None:
        for k, y, inverse in zip(group.double, first.ys, first.inverse, strict=True):
            last[k] = y, inverse
    return begin, last


def _level(parts: list[Part], read: Sequence[Read], moving: bool) -> _Level:
    xs, sums = convolved(read, parts)
    count = xs[0].numel() // xs[0].shape[1]
    ys, means, variances = products(xs, [part.matrix for part in parts], sums)
    if moving:
        track([part.norm for part in parts], means, variances, count)
    return _Level(parts, xs, ys, 1 / (variances + parts[0].norm.eps) ** 0.5)


def _kept(parts: list[Part], kept: Iterator[Tensor], inverse: Numbers, wanted: bool) -> _Level:
    """A level out of what the forward pass saved."""
    ys = [next(kept) for _ in parts]
    return _Level(parts, [next(kept) for _ in parts] if wanted else (), ys, inverse)


@dataclass
class _Found:
    """Gradients: of the maps that need one, of the convolutions of halves whose x is kept, by number, and of
    the weights, group by group.
    """

    needs: Sequence[bool]
    of_maps: list[Tensor | None]
    of_halves: dict[int, OfHalf]
    of_weights: list[Numbers]


def _add_gradients(
    group: _Group,
    weights: Numbers,
    maps: Sequence[Tensor],
    levels: list[_Level],
    grad: Tensor,
    found: _Found,
) -> None:
    """Of one group, grad being that of the sum."""
    (*firsts, last), double = levels, group.double
    begin, end = _reads(group, maps, *firsts)
    pulls, scale = channel_pulls(grad, last.ys), weights[:, None] * last.inverse
    dots = pulls[1:]
    found.of_weights.append((dots * last.inverse).sum(1))
    inner: list[Tensor | None] = [None] * len(double)  # of what the second of two halves read
    behind = []
    for k, part in enumerate(last.parts):
        number, norm = group.reads[k], Norm(last.inverse[k], scale[k], pulls[0], dots[k])
        into = (inner, double.index(k)) if k in double else (found.of_maps, number)
        if last.xs or k in double or found.needs[number]:
            behind.append(Behind(part, _maps(grad, last, k), end[k], norm, False, *into))
    found.of_halves |= half_gradients(behind)
    for first in firsts:
        pushes, behind = [x for x in inner if x is not None], []
        sums = masked_pulls(pushes, first.ys)
        for k, (part, number) in enumerate(zip(first.parts, [group.reads[k] for k in double], strict=True)):
            norm = Norm(first.inverse[k], first.inverse[k], sums[k, 0], sums[k, 1])
            if first.xs or found.needs[number]:
                at = found.of_maps, number
                behind.append(Behind(part, _maps(pushes[k], first, k), begin[k], norm, True, *at))
        found.of_halves |= half_gradients(behind)


def _maps(pull: Tensor, level: _Level, k: int) -> tuple[Tensor, Tensor, Tensor | None]:
    return pull, level.ys[k], level.xs[k] if level.xs else None
