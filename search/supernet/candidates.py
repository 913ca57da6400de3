"""What the candidates of an edge are built of, and how their outputs are summed.

Source: DARTS (ICLR 2019), Sec. 3.2 (the operations); DOTS (CVPR 2021), Eq. 1 (the mixed operation). There are
three sorts of them:

    Separable: depthwise and pointwise convolution and batch norm, once or twice (`sep_conv.py`). The weight
        scales the last pointwise convolution, and those of an edge are summed as they are computed.
    Normed: what else ends in a batch norm, whose scale is the mixture weight.
    anything else: a map that the mixture weight multiplies.

The ReLU in front of an operation and the poolings have no weights of their own, so all edges that leave a
node share one of each: a candidate is fed what it `reads` of the node,

    identity: the node (N, C, H, W); relu: its ReLU; max_pool_3x3, avg_pool_3x3: a pooling with its norm;
    before_relu: the node, for a separable convolution, which takes the ReLU as it reads it;
    even: every other pixel of that, (N, C, H', W'), all that a dilated convolution of stride 2 reads;
    halves: the ReLU of those and of the ones between, side by side, (N, 2 C, H', W'), for a FactorizedReduce.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dots_zoo.kernels.batch_norm import normalise
from dots_zoo.kernels.depthwise import skips_odd
from dots_zoo.kernels.norm_ops import channel_pulls, multiples, scaled_sum
from dots_zoo.kernels.per_channel import joined, numbers_of, ones, stacked
from dots_zoo.ops import OPS, FactorizedReduce

from .sep_conv import Half, Separable

POOLS = ("max_pool_3x3", "avg_pool_3x3")


class FromHalves(nn.Module):
    """The convolutions of a FactorizedReduce as one: (N, 2 C, H', W') -> (N, C', H', W')."""

    def __init__(self, conv1: nn.Conv2d, conv2: nn.Conv2d) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv1, conv2

    def forward(self, halves: Tensor) -> Tensor:
        matrices = self.conv1.weight.flatten(1), self.conv2.weight.flatten(1)
        return F.conv2d(halves, torch.block_diag(*matrices)[:, :, None, None])


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
        return "halves", Normed(FromHalves(operation.conv1, operation.conv2), operation.bn)
    assert isinstance(operation, nn.Sequential) and isinstance(operation[0], nn.ReLU), operation
    if "sep_conv" in name or "dil_conv" in name:
        parts = [layer for layer in operation if not isinstance(layer, nn.ReLU)]
        even = skips_odd(cast(nn.Conv2d, parts[0]))
        halves = [Half(*parts[i : i + 3], even=even) for i in range(0, len(parts), 3)]
        return "even" if even else "before_relu", Separable(halves)
    return "relu", Normed(operation[1:-1], operation[-1])


def auxiliary_branch(kind: str, channels: int, stride: int) -> tuple[str, nn.Module]:
    """What the branch of DARTS- reads, and the branch: a skip connection, or a 1x1 convolution that starts as
    the identity.
    """
    if kind == "skip" or stride == 2:
        return candidate("skip_connect", channels, stride)
    projection = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.dirac_(projection.weight)
    return "identity", projection


def sum_of_normed(candidate: Normed, y: Tensor, weight: Tensor) -> Tensor:
    """w norm(y): the weight is the scale of the batch norm."""
    return normalise(y, candidate.norm, weight.expand(candidate.norm.num_features))


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
