"""What the candidates of an edge are built of, and how their outputs are summed.

Source: DARTS (ICLR 2019), Sec. 3.2 (the operations); DOTS (CVPR 2021), Eq. 1 (the mixed operation). There are
three sorts of them:

    Separable: depthwise and pointwise convolution and batch norm, once or twice. The weight scales the last
        pointwise convolution, and those of an edge are summed as they are computed (`pointwise_norm.py`).
    Normed: what else ends in a batch norm, whose scale is the mixture weight.
    anything else: a map that the mixture weight multiplies.

The ReLU in front of an operation and the poolings have no weights of their own, so all edges that leave a
node share one of each: a candidate is fed what it `reads` of the node.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dots_zoo.depthwise import DepthwiseConv
from dots_zoo.ops import OPS, FactorizedReduce
from dots_zoo.quick_norm import normalise

from .pointwise_norm import Pair, norm_relu, norm_sum

POOLS = ("max_pool_3x3", "avg_pool_3x3")


class Half(nn.Module):
    """A depthwise convolution, and the pointwise convolution and batch norm that follow it."""

    def __init__(self, depthwise: nn.Module, pointwise: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(depthwise, nn.Conv2d) and isinstance(pointwise, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        self.depthwise, self.pointwise, self.norm = DepthwiseConv(depthwise), pointwise, norm

    @property
    def pair(self) -> Pair:
        return self.pointwise, self.norm


class Separable(nn.Module):
    """One or two halves with a ReLU between them, without the last pointwise convolution: ReLU of the node
    (N, C, H, W) -> (N, C, H', W'). `sum_of_separable` does the rest.
    """

    def __init__(self, halves: Sequence[Half]) -> None:
        super().__init__()
        self.halves = nn.ModuleList(halves)

    @property
    def last(self) -> Half:
        return cast(Half, self.halves[-1])

    def forward(self, x: Tensor) -> Tensor:
        *before, last = [cast(Half, half) for half in self.halves]
        for half in before:
            x = norm_relu(half.depthwise(x), half.pair)
        out: Tensor = last.depthwise(x)
        return out


def sum_of_separable(candidates: Sequence[Separable], x: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of separable convolutions, weights (K,), of the ReLU of a node (N, C, H, W)."""
    return norm_sum([one(x) for one in candidates], [one.last.pair for one in candidates], weights)


class Normed(nn.Module):
    """Anything that ends in a batch norm."""

    def __init__(self, body: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(norm, nn.BatchNorm2d)
        self.body, self.norm = body, norm

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


def candidate(name: str, channels: int, stride: int) -> tuple[str, nn.Module]:
    """What an operation reads of its node, and the rest of it."""
    if name in POOLS:
        return name, nn.Identity()
    operation = OPS[name](channels, stride, False)
    if name == "noise" or isinstance(operation, nn.Identity):
        return "identity", operation
    if isinstance(operation, FactorizedReduce):
        return "relu", factorized_reduce(operation)
    assert isinstance(operation, nn.Sequential) and isinstance(operation[0], nn.ReLU), operation
    if "sep_conv" in name or "dil_conv" in name:
        parts = [layer for layer in operation if not isinstance(layer, nn.ReLU)]
        return "relu", Separable([Half(*parts[i : i + 3]) for i in range(0, len(parts), 3)])
    return "relu", Normed(operation[1:-1], operation[-1])


def factorized_reduce(operation: FactorizedReduce) -> Normed:
    """Behind a ReLU that is shared, and with its batch norm apart."""
    norm = operation.bn
    for name in ("relu", "bn"):
        setattr(operation, name, nn.Identity())
    return Normed(operation, norm)


def auxiliary_branch(kind: str, channels: int, stride: int) -> nn.Module | None:
    """The branch of DARTS-: a skip connection, or a 1x1 convolution that starts as the identity."""
    if kind == "none":
        return None
    if kind == "skip" or stride == 2:
        _, branch = candidate("skip_connect", channels, stride)
        return branch
    projection = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.dirac_(projection.weight)
    return projection


def sum_of_normed(candidate: Normed, y: Tensor, weight: Tensor) -> Tensor:
    """w norm(y): the weight is the scale of the batch norm."""
    return normalise(y, candidate.norm, weight.expand(candidate.norm.num_features))


def weighted_sum(weights: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
    """sum_k w_k y_k of scalars and maps of one shape."""
    out: Tensor = _WeightedSum.apply(torch.stack(list(weights)), *maps)
    return out


class _WeightedSum(torch.autograd.Function):
    """The gradients of the weights are dot products, so that no weighted map is written."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, *maps: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *maps)
        scalars = weights.to(maps[0].dtype).unbind()
        out = maps[0] * scalars[0]
        for weight, y in zip(scalars[1:], maps[1:], strict=True):
            out.addcmul_(y, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, *maps = ctx.saved_tensors
        wanted, *each = ctx.needs_input_grad
        of_weights = torch.stack([_dot(grad, y) for y in maps]).to(weights.dtype) if wanted else None
        scalars = weights.to(grad.dtype).unbind()
        return of_weights, *(grad * w if on else None for w, on in zip(scalars, each, strict=True))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.permute(0, 2, 3, 1).reshape(-1), b.permute(0, 2, 3, 1).reshape(-1))
