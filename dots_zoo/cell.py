"""Build the modules of a cell: Node and Cell of a genotype, the cell and residual block of NAS-Bench-201.

Source: DARTS (ICLR 2019), Sec. 2.1, Eq. 1 (a node is the sum of its incoming edges, a cell the concatenation
of its nodes); NAS-Bench-201 (ICLR 2020), Sec. 2.1. Drop path as in the public retraining code of the family:
per sample, on every edge except the identity.
"""

from collections.abc import Sequence

import torch
from timm.layers import drop_path
from torch import Tensor, nn

from .genotype import CellGenotype, GenotypeError
from .ops import OPS, FactorizedReduce, relu_conv_bn


class DropPath(nn.Module):
    """Drop path per sample (timm's), at a rate that may change from epoch to epoch.

    Compiled, the rate is read from a tensor, so that one graph serves every rate. While no rate was ever set,
    nothing is drawn: drawing at rate zero costs as much as at any other.
    """

    __jit_unused_properties__ = ["drop_prob"]
    keep_prob: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.is_set = 0.0, False
        self.register_buffer("keep_prob", torch.ones(()), persistent=False)

    @property
    def drop_prob(self) -> float:
        """Return the probability with which an edge of a sample is dropped."""
        return self.rate

    @drop_prob.setter
    def drop_prob(self, rate: float) -> None:
        self.rate, self.is_set = rate, True
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Write the buffer anew: timm and transformers call this after building on the meta device."""
        self.keep_prob.fill_(1.0 - self.rate)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if not torch.jit.is_scripting():
            if torch.compiler.is_compiling():
                return self._traced(x)
        return drop_path(x, self.rate, self.training)  # type: ignore[no-any-return]

    def _traced(self, x: Tensor) -> Tensor:
        if not self.is_set:
            return x
        kept = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(self.keep_prob)
        return x * (kept / self.keep_prob).to(x.dtype)

    def extra_repr(self) -> str:
        return f"drop_prob={self.rate:.3f}"


class Node(nn.Module):
    """A node of a cell: the sum of its incoming edges, each an operation on an earlier state."""

    def __init__(self, edges: list[tuple[int, nn.Module]], names: Sequence[str] = ()) -> None:
        """Build a node of its edges.

        Args:
            edges: (index of the state that the edge reads, operation), at least one.
            names: names of the operations, in the order of the edges.
        """
        super().__init__()
        self.inputs = [index for index, _ in edges]
        self.ops = nn.ModuleList([op for _, op in edges])
        self.operations = tuple(names)
        self.droppable = [not isinstance(op, nn.Identity) for _, op in edges]
        self.drop_path = DropPath()

    def forward(self, states: list[Tensor]) -> Tensor:
        terms: list[Tensor] = []
        for i, op in enumerate(self.ops):
            term = op(states[self.inputs[i]])
            terms.append(self.drop_path(term) if self.droppable[i] else term)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total


def build_nodes(
    genotype: CellGenotype, cell_type: str, sources: int, channels: int, reduction: bool
) -> tuple[nn.ModuleList, list[int]]:
    """Return the nodes of a cell in order, and the index of every node of `concat` among the states.

    The states are the `sources` inputs of the cell followed by the nodes that have edges. In a reduction cell
    an operation that reads an input of the cell has stride 2. Raises GenotypeError where a node without edges
    is read.
    """
    state_of = {node: node for node in range(sources)}
    nodes = nn.ModuleList()
    for node in sorted({edge.node for edge in genotype.edges}):
        edges = genotype.edges_into(node)
        for edge in edges:
            _check_read(cell_type, f"edge {edge.op} of node {node}", edge.input, state_of)
        strides = [2 if reduction and edge.input < sources else 1 for edge in edges]
        reads_and_ops = [
            (state_of[edge.input], OPS[edge.op](channels, stride, True))
            for edge, stride in zip(edges, strides, strict=True)
        ]
        nodes.append(Node(reads_and_ops, [edge.op for edge in edges]))
        state_of[node] = sources + len(nodes) - 1
    for node in genotype.concat:
        _check_read(cell_type, "concat", node, state_of)
    return nodes, [state_of[node] for node in genotype.concat]


def _check_read(cell_type: str, reader: str, node: int, state_of: dict[int, int]) -> None:
    if node not in state_of:
        raise GenotypeError(
            f"{cell_type} cell: {reader} reads node {node}, which has no incoming edge; expected at least "
            "one edge into every node that is read: add an edge, or leave the node out of concat"
        )


class Cell(nn.Module):
    """A DARTS cell: maps the outputs of cells k-2 and k-1 to the concatenation of its nodes.

    (N, in_chs[0], H0, W0), (N, in_chs[1], H, W) -> (N, out_chs, H', W'), H' = ceil(H / 2) in a reduction
    cell, else H; H0 = H, or twice that (rounded) where the previous cell reduced.
    """

    def __init__(
        self,
        genotype: CellGenotype,
        in_chs: tuple[int, int],
        channels: int,
        reduction: bool,
        after_reduction: bool,
    ) -> None:
        super().__init__()
        self.genotype = genotype
        self.preprocess0: nn.Module = (
            FactorizedReduce(in_chs[0], channels)
            if after_reduction
            else relu_conv_bn(in_chs[0], channels, 1, 1)
        )
        self.preprocess1 = relu_conv_bn(in_chs[1], channels, 1, 1)
        cell_type = "reduce" if reduction else "normal"
        self.nodes, self.concat = build_nodes(genotype, cell_type, 2, channels, reduction)
        self.out_chs = channels * len(self.concat)

    def forward(self, prev_prev: Tensor, prev: Tensor) -> Tensor:
        states = [self.preprocess0(prev_prev), self.preprocess1(prev)]
        for node in self.nodes:
            states.append(node(states))
        return torch.cat([states[i] for i in self.concat], dim=1)


class NasBench201Cell(nn.Module):
    """A NAS-Bench-201 cell of one input and three nodes, the last its output: (N, C, H, W) -> the same.

    It also takes the output of cell k-2 and ignores it, so that every macro-architecture runs through one
    loop.
    """

    def __init__(self, genotype: CellGenotype, channels: int) -> None:
        super().__init__()
        self.nodes, _ = build_nodes(genotype, "cell", 1, channels, reduction=False)
        self.out_chs = channels

    def forward(self, prev_prev: Tensor, prev: Tensor) -> Tensor:
        states = [prev]
        for node in self.nodes:
            states.append(node(states))
        return states[-1]


class ResidualReduction(nn.Module):
    """NAS-Bench-201's residual block between stages: (N, C, H, W) -> (N, 2C, ceil(H / 2), ceil(W / 2))."""

    def __init__(self, in_chs: int) -> None:
        super().__init__()
        self.out_chs = 2 * in_chs
        self.conv1 = relu_conv_bn(in_chs, self.out_chs, 3, 2)
        self.conv2 = relu_conv_bn(self.out_chs, self.out_chs, 3, 1)
        # ceil_mode only matters for odd sizes, where the public code fails.
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(in_chs, self.out_chs, 1, bias=False)
        )

    def forward(self, prev_prev: Tensor, prev: Tensor) -> Tensor:
        out: Tensor = self.shortcut(prev) + self.conv2(self.conv1(prev))
        return out
