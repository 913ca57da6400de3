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

Nothing but x and y is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .half_passes import Behind, convolved, half_gradient
from .passes import (
    Norm,
    channel_pulls,
    dense,
    masked_pulls,
    products,
    scaled_sum,
)
from .separable import Half, Separable
from .statistics import by_batch, precisely, track

Read = tuple[Tensor, Tensor]  # m and s, (C,), where relu(s m) is read
OfHalves = dict[Half, tuple[Tensor, Tensor]]  # gradients of the weights of its two convolutions


def sum_of_separable(
    candidates: Sequence[Separable], weights: Sequence[Tensor], maps: Sequence[Tensor], lean: bool
) -> Tensor:
    """sum_k w_k candidate_k(x_k), scalars and maps (N, C, H, W), which have to come from `before_relu`. lean:
    nothing but the maps is kept.
    """
    halves = [half for one in candidates for half in one.parts]
    if not by_batch(halves[0].norm):
        terms = [w * one(x) for w, one, x in zip(weights, candidates, maps, strict=True)]
        return torch.stack(terms).sum(dim=0)
    different = {id(x): x for x in maps}  # several candidates of an edge read one map
    reads, kind = [[*different].index(id(x)) for x in maps], maps[0].device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        different = {key: x.to(torch.get_autocast_dtype(kind)) for key, x in different.items()}
    parameters = [w for half in halves for w in (half.depthwise.weight, half.pointwise.weight)]
    with precisely(maps[0].device):
        plan = _Plan(tuple(candidates), tuple(reads), len(different), lean)
        out: Tensor = _SumOfSeparable.apply(plan, torch.stack([*weights]), *different.values(), *parameters)
    return out


@dataclass(frozen=True)
class _Plan:
    """The k-th candidate reads the map number reads[k] of `count`."""

    candidates: tuple[Separable, ...]
    reads: tuple[int, ...]
    count: int
    lean: bool

    @property
    def double(self) -> list[int]:
        """The candidates that have two halves."""
        return [number for number, one in enumerate(self.candidates) if len(one.parts) > 1]

    @property
    def halves(self) -> list[Half]:
        return [half for one in self.candidates for half in one.parts]


@dataclass
class _Level:
    """What K halves computed: x and y of the pointwise convolutions, and 1 / sqrt(var + eps), (K, C'). x is
    empty where nothing reads it again.
    """

    halves: list[Half]
    xs: Sequence[Tensor]
    ys: Sequence[Tensor]
    inverse: Tensor


class _SumOfSeparable(torch.autograd.Function):
    """(K,), the maps, and the weights of depthwise and pointwise convolutions, half by half -> the sum."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, weights: Tensor, *tensors: Tensor) -> Tensor:
        out, levels = _computed(plan, weights, tensors[: plan.count], moving=True)
        ctx.plan, ctx.inputs = plan, len(tensors)
        ctx.wanted = any(ctx.needs_input_grad[2 + plan.count :])
        kept = [] if plan.lean else _taken_apart(levels, ctx.wanted)
        ctx.save_for_backward(weights, *tensors, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan, (weights, *saved) = ctx.plan, ctx.saved_tensors
        maps, parameters = saved[: plan.count], saved[plan.count : ctx.inputs]
        needs = ctx.needs_input_grad[2 : 2 + plan.count]
        kept = saved[ctx.inputs :]
        if plan.lean:
            kept = _taken_apart(_computed(plan, weights, maps, moving=False)[1], ctx.wanted)
        levels = _put_together(plan, kept, ctx.wanted)
        of_weights, of_maps, of_halves = _gradients(plan, weights, maps, levels, dense(grad), needs)
        of_parameters = [g for half in plan.halves for g in of_halves.get(half, (None, None))]
        laid = [  # as the parameter is, or it would be copied into place
            None if g is None else g.as_strided(w.shape, w.stride())
            for g, w in zip(of_parameters, parameters, strict=True)
        ]
        return None, of_weights, *of_maps, *laid


def _computed(
    plan: _Plan, weights: Tensor, maps: Sequence[Tensor], moving: bool
) -> tuple[Tensor, list[_Level]]:
    """The sum, and what the first of two halves, where there are any, and the last computed on the way;
    moving: the running statistics.
    """
    levels: list[_Level] = []
    read, double = _read(plan, weights, maps), plan.double
    if double:
        halves = [plan.candidates[k].parts[0] for k in double]
        levels.append(_level(halves, [read[k] for k in double], moving))
        for k, y, inverse in zip(double, levels[0].ys, levels[0].inverse, strict=True):
            read[k] = y, inverse
    levels.append(_level([one.parts[-1] for one in plan.candidates], read, moving))
    return scaled_sum(levels[-1].ys, weights[:, None] * levels[-1].inverse), levels


def _read(plan: _Plan, weights: Tensor, maps: Sequence[Tensor]) -> list[Read]:
    ones = weights.new_ones(maps[0].shape[1])
    return [(maps[number], ones) for number in plan.reads]


def _level(halves: list[Half], read: Sequence[Read], moving: bool) -> _Level:
    xs, sums = convolved(read, [half.depthwise for half in halves])
    count = xs[0].numel() // xs[0].shape[1]
    matrices = torch.stack([half.pointwise.weight for half in halves]).flatten(2)
    means = torch.bmm(matrices, sums[:, :, None] / count)[:, :, 0]
    ys, squares = products(xs, matrices, means)
    variances = squares / count
    if moving:
        track([half.norm for half in halves], means, variances, count)
    return _Level(halves, xs, ys, (variances + halves[0].norm.eps).rsqrt())


def _taken_apart(levels: list[_Level], wanted: bool) -> list[Tensor]:
    """What the backward pass reads: of x only where gradients of weights are wanted."""
    return [t for level in levels for t in (level.inverse, *level.ys, *(level.xs if wanted else ()))]


def _put_together(plan: _Plan, saved: Sequence[Tensor], wanted: bool) -> list[_Level]:
    """The inverse of `_taken_apart`."""
    levels, rest = [], [*saved]
    first, last = (
        [plan.candidates[k].parts[0] for k in plan.double],
        [one.parts[-1] for one in plan.candidates],
    )
    for halves in [first, last] if first else [last]:
        ends = 1 + len(halves), 1 + len(halves) * (1 + wanted)
        levels.append(_Level(halves, rest[ends[0] : ends[1]], rest[1 : ends[0]], rest[0]))
        rest = rest[ends[1] :]
    return levels


def _gradients(
    plan: _Plan,
    weights: Tensor,
    maps: Sequence[Tensor],
    levels: list[_Level],
    grad: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor, list[Tensor | None], OfHalves]:
    """Of the weights, of the maps that need one, and of the convolutions of all halves whose x is kept."""
    (*firsts, last), double = levels, plan.double
    of_halves: OfHalves = {}
    of_maps: list[Tensor | None] = [None] * plan.count
    read = _read(plan, weights, maps)
    for first in firsts:
        for k, y, inverse in zip(double, first.ys, first.inverse, strict=True):
            read[k] = y, inverse
    inner: list[Tensor] = []  # of what the second of two halves read

    def back(level: _Level, number: int, k: int, pull: Tensor, norm: Sequence[Tensor], masked: bool) -> None:
        half, n, second = level.halves[number], plan.reads[k], level is last and k in double
        if not (level.xs or second or needs[n]):
            return
        matrix, onto = half.pointwise.weight.flatten(1), None if second else of_maps[n]
        maps_of_half = pull, level.ys[number], level.xs[number] if level.xs else None
        behind = Behind(half.depthwise, matrix, maps_of_half, read[k], Norm(*norm), masked, onto)
        of_z, of_half = half_gradient(behind)
        if of_half is not None:
            of_halves[half] = of_half
        if second:
            inner.append(of_z)
        else:
            of_maps[n] = of_z

    sums, dots = channel_pulls(grad, last.ys).split([1, len(last.ys)])
    scale = weights[:, None] * last.inverse
    for k, norm in enumerate(zip(last.inverse, scale, sums.expand_as(dots), dots, strict=True)):
        back(last, k, k, grad, norm, False)
    for first in firsts:
        read = _read(plan, weights, maps)
        norms = zip(first.inverse, first.inverse, *masked_pulls(inner, first.ys).unbind(dim=1), strict=True)
        for number, (k, norm) in enumerate(zip(double, norms, strict=True)):
            back(first, number, k, inner[number], norm, True)
    return (dots * last.inverse).sum(dim=1), of_maps, of_halves
