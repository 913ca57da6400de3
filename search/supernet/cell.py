"""Search cells: every node is the sum of all its incoming edges.

Source: DARTS (ICLR 2019), Sec. 2.1; DOTS (CVPR 2021), Eq. 3 and Eq. 8 (nodes); NAS-Bench-201 (ICLR 2020),
Fig. 1; PC-DARTS (ICLR 2020), Sec. 3.2 and 3.3 (partial channels, edge normalisation).

Eq. 8 weighs an edge, Eq. 1 its candidates; the (E, O) weights of a CellMixture are the products of both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.ops import FactorizedReduce, relu_conv_bn

from ..space.space import INPUTS, SearchSpace
from .mixed_op import Auxiliary, MixedOp, SharedInputs, add, shared_pools
from .mixture import CellMixture


@dataclass(frozen=True)
class PartialChannels:
    """One in `share` channels passes through the candidates, the rest bypass them; then all are shuffled."""

    share: int = 1
    shuffle: bool = True

    def through(self, x: Tensor) -> Tensor:
        """Return the channels that pass through the candidates, (N, C / share, H, W)."""
        return x if self.share == 1 else x[:, : x.shape[1] // self.share]

    def bypass(self, x: Tensor, stride: int) -> Tensor:
        """Return the channels that bypass the candidates, (N, C - C / share, H', W')."""
        x = x[:, x.shape[1] // self.share :]
        return F.max_pool2d(x, 2, 2, ceil_mode=True) if stride == 2 else x

    def join(self, through: Tensor, bypassed: Tensor) -> Tensor:
        """Return both, shuffled where the paper does, (N, C, H, W) (PC-DARTS, Sec. 3.2)."""
        node = torch.cat([through, bypassed], dim=1)
        return F.channel_shuffle(node, self.share) if self.shuffle else node


NO_PARTIAL_CHANNELS = PartialChannels()


@dataclass(frozen=True)
class NodeShape:
    """The shape of a cell's nodes.

    Args:
        channels: of a node.
        partial: which of them pass through the candidates.
        auxiliary: branch beside every edge.
        lean: recompute the candidates in the backward pass.
    """

    channels: int
    partial: PartialChannels
    auxiliary: Auxiliary
    lean: bool = False


class Nodes(nn.Module):
    """The nodes of a cell, a MixedOp for every edge between them, and the poolings that edges share."""

    def __init__(self, space: SearchSpace, cell_type: str, shape: NodeShape) -> None:
        super().__init__()
        self.partial, self.inputs, self.cell_type = shape.partial, INPUTS[space.family], cell_type
        channels = shape.channels // shape.partial.share
        self.edges = nn.ModuleList()
        leaving: dict[int, set[str]] = {}  # node -> the operations that read it; nodes come up in order
        for (_, source), names in zip(space.edges, space.candidates(cell_type), strict=True):
            leaving.setdefault(source, set()).update(names)
            self.edges.append(MixedOp(names, channels, self.stride(source), shape.auxiliary, shape.lean))
        self.pools = nn.ModuleList(
            [
                shared_pools(names, channels, self.stride(source), norm=space.family == "darts")
                for source, names in leaving.items()
            ]
        )
        self.incoming = [
            [(edge, space.edges[edge][1]) for edge in space.incoming(node)] for node in space.nodes
        ]

    def stride(self, source: int) -> int:
        """Return the stride of the edges that leave a node."""
        return 2 if self.cell_type == "reduce" and source < self.inputs else 1

    def forward(self, states: list[Tensor], mixture: CellMixture) -> list[Tensor]:
        """Return the cell's inputs and its nodes, each (N, C, H', W'); states: its inputs."""
        states = [*states]
        inputs: list[SharedInputs] = []
        weights, auxiliary = mixture.operations.unbind(), mixture.auxiliary_weights()
        for incoming in self.incoming:
            for source in range(len(inputs), len(states)):
                inputs.append(self.shared_inputs(states[source], source))
            terms = [
                self.edges[edge](
                    inputs[source],
                    weights[edge],
                    mixture.active[edge],
                    auxiliary[edge],
                    mixture.skip_dropout,
                )
                for edge, source in incoming
            ]
            states.append(self.with_bypass(add(terms), states, incoming, mixture))  # Eq. 8
        return states

    def shared_inputs(self, x: Tensor, source: int) -> SharedInputs:
        """Return what the edges that leave a node read of it."""
        pools = cast(nn.ModuleDict, self.pools[source])
        return SharedInputs(self.partial.through(x), cast(Mapping[str, nn.Module], pools))

    def with_bypass(
        self, node: Tensor, states: list[Tensor], incoming: list[tuple[int, int]], mixture: CellMixture
    ) -> Tensor:
        """Return the node with the channels that bypassed its open edges, weighed edge by edge."""
        if self.partial.share == 1:
            return node
        edge_weights = mixture.edge_weights()
        bypassed = [
            edge_weights[edge] * self.partial.bypass(states[source], self.stride(source))
            for edge, source in incoming
            if mixture.active[edge]
        ]
        return self.partial.join(node, add(bypassed))


class SearchCell(nn.Module):
    """A DARTS cell: two preprocessed inputs, nodes that read all nodes before them, their concatenation.

    kernels: computes the cell instead, once `install_kernels` has set it.
    """

    kernels: Callable[["SearchCell", Tensor, Tensor, CellMixture], Tensor] | None = None

    def __init__(
        self, space: SearchSpace, cell_type: str, in_chs: tuple[int, int], node: NodeShape, reduce_first: bool
    ) -> None:
        """Build the cell.

        Args:
            space: candidates of every edge.
            kind: of the cell.
            in_chs: channels of the outputs of cells k-2 and k-1.
            node: shape of the nodes.
            reduce_first: the output of cell k-2 is twice as wide and high as that of cell k-1.
        """
        super().__init__()
        first: nn.Module = (
            FactorizedReduce(in_chs[0], node.channels, affine=False)
            if reduce_first
            else relu_conv_bn(in_chs[0], node.channels, 1, 1, affine=False)
        )
        second = relu_conv_bn(in_chs[1], node.channels, 1, 1, affine=False)
        self.preprocess = nn.ModuleList([first, second])
        self.nodes = Nodes(space, cell_type, node)

    def forward(self, before: Tensor, last: Tensor, mixture: CellMixture) -> Tensor:
        """Return the output (N, nodes * C, H', W') from those of cells k-2 and k-1."""
        if self.kernels is not None:
            return self.kernels(self, before, last, mixture)
        states = self.nodes([self.preprocess[0](before), self.preprocess[1](last)], mixture)
        return torch.cat(states[2:], dim=1)


class SearchCell201(nn.Module):
    """A NAS-Bench-201 cell: one input, the last node is the output. kernels: see SearchCell."""

    kernels: Callable[["SearchCell201", Tensor, Tensor, CellMixture], Tensor] | None = None

    def __init__(self, space: SearchSpace, node: NodeShape) -> None:
        super().__init__()
        self.nodes = Nodes(space, "cell", node)

    def forward(self, before: Tensor, last: Tensor, mixture: CellMixture) -> Tensor:
        """Return the output (N, C, H, W); `before` is not read, so that both families share one loop."""
        if self.kernels is not None:
            return self.kernels(self, before, last, mixture)
        out: Tensor = self.nodes([last], mixture)[-1]
        return out
