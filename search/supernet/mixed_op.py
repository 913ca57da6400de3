"""The mixed operation of an edge (Eq. 1), and what the edges that leave a node share.

Source: DARTS (ICLR 2019), Eq. 2; DOTS (CVPR 2021), Eq. 1; DARTS- (ICLR 2021), Eq. 4 (auxiliary skip
connection) and Sec. 4.4 (1x1 projection); P-DARTS (ICCV 2019), Sec. 3.3 (dropout behind a skip connection).

Differs from the public code: a pooling and its affine-free batch norm have no weights, so all edges that
leave a node with the same stride share one of each; `none` adds nothing and is not built; a candidate that
is not active is not computed.
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
    """A node (N, C, H, W) as the edges that leave it read it: each pooling is computed when first read."""

    def __init__(self, x: Tensor, pools: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
        self.x, self.pools = x, pools
        self.pooled_maps: dict[str, Tensor] = {}

    def pooled(self, name: str) -> Tensor:
        """Return the pooled node, normalised where the search space does so, (N, C, H', W')."""
        if name not in self.pooled_maps:
            self.pooled_maps[name] = self.pools[name](self.x)
        return self.pooled_maps[name]


def shared_pools(operations: Collection[str], channels: int, stride: int, norm: bool) -> nn.ModuleDict:
    """Build those poolings among the operations that leave a node, each with its batch norm where `norm`."""
    pools = nn.ModuleDict()
    for name in POOLS:
        if name in operations:
            batch_norm = nn.BatchNorm2d(channels, affine=False) if norm else nn.Identity()
            pools[name] = nn.Sequential(OPS[name](channels, stride, False), batch_norm)
    return pools


class MixedOp(nn.Module):
    """An edge of which nothing is decided: the weighted sum of its candidates (Eq. 1).

    `operations` holds the candidates by their column in (E, O); `none` and the shared poolings are not in it.
    """

    def __init__(
        self, names: tuple[str, ...], channels: int, stride: int, auxiliary: Auxiliary, lean: bool = False
    ) -> None:
        """lean: keep nothing of a candidate with weights for the backward pass, which recomputes it."""
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

        weights: of the candidates, (O,). auxiliary: beta of the auxiliary skip, which is added (Eq. 4 of
        DARTS-); None leaves it out.
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
        """Return o(x) of one candidate, behind its batch norm, at a weight of one, (N, C, H', W')."""
        name = self.names[column]
        if name in POOLS:
            return inputs.pooled(name)
        operation = self.operations[str(column)]
        if self.lean and any(True for _ in operation.parameters()):
            return recompute(operation, inputs.x)
        out: Tensor = operation(inputs.x)
        return out

    def zeros(self, x: Tensor) -> Tensor:
        """Return what an edge without an active candidate adds."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


def auxiliary_skip(branch: Auxiliary, channels: int, stride: int) -> nn.Module | None:
    """Build the branch of DARTS- beside an edge: a skip connection, or a 1x1 convolution that starts as the
    identity; a FactorizedReduce either way where the resolution halves.
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
