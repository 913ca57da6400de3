"""The mixed operation of an edge (Eq. 1), and what the edges that leave a node share.

Source: DARTS (ICLR 2019), Eq. 2; DOTS (CVPR 2021), Eq. 1; DARTS- (ICLR 2021), Eq. 4 (auxiliary skip
connection) and Sec. 4.4 (1x1 projection); P-DARTS (ICCV 2019), Sec. 3.3 (dropout after a skip connection).

Differs from the public code: a pooling and its affine-free batch norm have no weights, so all edges that
leave a node with the same stride share one of each; `none` adds nothing and is not built; a candidate that is
not active is not computed.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.ops import OPS

from .recompute import recompute

Auxiliary = Literal["none", "skip", "projection"]

POOLS = ("max_pool_3x3", "avg_pool_3x3")


class SharedInputs:
    """A node (N, C, H, W) for all edges that leave it: each of its poolings is computed when first read."""

    def __init__(self, x: Tensor, pools: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
        self.x, self.pools = x, pools
        self.pooled_maps: dict[str, Tensor] = {}

    def pooled(self, name: str) -> Tensor:
        """Return the pooled node, normalised where the search space does so, (N, C, H', W')."""
        if name not in self.pooled_maps:
            self.pooled_maps[name] = self.pools[name](self.x)
        return self.pooled_maps[name]


def shared_pools(operations: Collection[str], channels: int, stride: int, norm: bool) -> nn.ModuleDict:
    """Build the poolings among the operations that leave a node, each followed by a batch norm if `norm`."""
    pools = nn.ModuleDict()
    for name in POOLS:
        if name in operations:
            batch_norm = nn.BatchNorm2d(channels, affine=False) if norm else nn.Identity()
            pools[name] = nn.Sequential(OPS[name](channels, stride, False), batch_norm)
    return pools


class MixedOp(nn.Module):
    """The mixed operation of an edge: the weighted sum of its candidates (Eq. 1).

    `operations` holds the candidates by their column in (E, O); `none` and the shared poolings are not in it.
    """

    def __init__(
        self, names: tuple[str, ...], channels: int, stride: int, auxiliary: Auxiliary, lean: bool = False
    ) -> None:
        """Build the candidates of an edge.

        lean: recompute candidates with weights in the backward pass, keeping only their inputs.
        """
        super().__init__()
        self.names, self.stride, self.lean = names, stride, lean
        self.operations = nn.ModuleDict(
            {
                str(column): OPS[name](channels, stride, False)
                for column, name in enumerate(names)
                if name != "none" and name not in POOLS
            }
        )
        self.auxiliary = auxiliary_skip(auxiliary, channels, stride)

    def forward(
        self,
        inputs: SharedInputs,
        weights: Tensor,
        active: frozenset[int],
        auxiliary: Tensor | float | None = None,
        skip_dropout: float = 0.0,
    ) -> Tensor:
        """Return sum_o w_o o(x) over the active candidates (Eq. 1), (N, C, H', W').

        Args:
            inputs: node that the edge leaves.
            weights: of the candidates, (O,).
            active: columns of the candidates that are computed.
            auxiliary: beta of the auxiliary skip, which is added (Eq. 4 of DARTS-); None leaves it out.
            skip_dropout: chance that an element after a skip connection is dropped.
        """
        terms = []
        for column, (name, weight) in enumerate(zip(self.names, weights.unbind(), strict=False)):
            if column in active and name != "none":
                y = self.candidate(column, inputs)
                if skip_dropout and OPS[name].skip:
                    y = F.dropout(y, skip_dropout, self.training)
                terms.append(weight * y)
        if self.auxiliary is not None and auxiliary is not None:
            terms.append(auxiliary * self.auxiliary(inputs.x))
        return add(terms) if terms else self.zeros(inputs.x)

    def candidate(self, column: int, inputs: SharedInputs) -> Tensor:
        """Return o(x) of one candidate, after its batch norm and without its weight, (N, C, H', W')."""
        name = self.names[column]
        if name in POOLS:
            return inputs.pooled(name)
        operation = self.operations[str(column)]
        if self.lean and any(True for _ in operation.parameters()):
            return recompute(operation, inputs.x)
        out: Tensor = operation(inputs.x)
        return out

    def zeros(self, x: Tensor) -> Tensor:
        """Return the output of an edge without active candidates, zeros of (N, C, H', W')."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


def auxiliary_skip(branch: Auxiliary, channels: int, stride: int) -> nn.Module | None:
    """Build the auxiliary branch of DARTS- beside an edge, None for no branch.

    It is a skip connection, or a 1x1 convolution that starts as the identity; a FactorizedReduce either way
    where the resolution halves.
    """
    if branch == "none":
        return None
    if branch == "skip" or stride == 2:
        return OPS["skip_connect"](channels, stride, False)
    projection = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.dirac_(projection.weight)
    return projection


def add(terms: Sequence[Tensor]) -> Tensor:
    """Return the sum of one or more maps."""
    return functools.reduce(torch.add, terms)
