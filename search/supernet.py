"""Supernet: every candidate operation of a SearchSpace at once, mixed by weights that come as an argument.

Source: DARTS (ICLR 2019), Sec. 2 and its CIFAR macro-architecture; DOTS (CVPR 2021), Eq. 1 (mixed operation),
Eq. 3 and Eq. 8 (a node is the weighted sum of all its incoming edges), Sec. 5.1. It holds no architecture
parameters.

A pooling with its affine-free batch norm, the identity, and the ReLU in front of an operation have no weights
of their own, so all edges that leave a node with the same stride share one of each: the result is that of a
module per edge and operation (`tests/reference_supernet.py`), running statistics included. `none` adds
nothing and is not built.
"""

import functools
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.errors import DotsZooError
from dots_zoo.ops import OPS, FactorizedReduce, relu_conv_bn

from .space import INPUTS, SearchSpace

Mixture = Mapping[str, Tensor]  # kind of cell -> (E, O): the weight of every candidate of every edge
POOLS = ("max_pool_3x3", "avg_pool_3x3")


def cell_kinds(cells: int) -> tuple[str, ...]:
    """The kind of every cell in order: reduction cells stand at one and at two thirds of the depth."""
    return tuple("reduce" if cell in (cells // 3, 2 * cells // 3) else "normal" for cell in range(cells))


def without_relu(operation: nn.Module) -> nn.Module:
    """An operation of OPS less its leading ReLU, to be fed with a ReLU's output that others share."""
    if isinstance(operation, FactorizedReduce):
        operation.add_module("relu", nn.Identity())
        return operation
    assert isinstance(operation, nn.Sequential) and isinstance(operation[0], nn.ReLU), operation
    return operation[1:]


class Source(nn.Module):
    """What the edges that leave one node share: the node, its ReLU, its poolings with their batch norm."""

    def __init__(self, operations: set[str], channels: int, stride: int) -> None:
        super().__init__()
        self.pools = nn.ModuleDict(
            {
                name: nn.Sequential(
                    OPS[name](channels, stride, False), nn.BatchNorm2d(channels, affine=False)
                )
                for name in POOLS
                if name in operations
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> the node itself, its ReLU, and a map for every pooling."""
        return {"identity": x, "relu": F.relu(x), **{name: pool(x) for name, pool in self.pools.items()}}


class SearchEdge(nn.Module):
    """The candidates of one edge: `columns[i]` is the i-th's column in (E, O), `reads[i]` what it is fed."""

    def __init__(self, operations: tuple[str, ...], channels: int, stride: int) -> None:
        super().__init__()
        self.columns = [column for column, name in enumerate(operations) if name != "none"]
        self.reads: list[str] = []
        self.operations = nn.ModuleList()
        for column in self.columns:
            read, module = self._candidate(operations[column], channels, stride)
            self.reads.append(read)
            self.operations.append(module)

    @staticmethod
    def _candidate(name: str, channels: int, stride: int) -> tuple[str, nn.Module]:
        if name in POOLS:
            return name, nn.Identity()
        operation = OPS[name](channels, stride, False)
        if name == "noise" or isinstance(operation, nn.Identity):
            return "identity", operation
        return "relu", without_relu(operation)

    def forward(
        self, source: dict[str, Tensor], weights: tuple[Tensor, ...]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The pairs (weight, feature map) whose products sum to the mixed operation of Eq. 1."""
        for column, read, operation in zip(self.columns, self.reads, self.operations, strict=True):
            yield weights[column], operation(source[read])


class SearchCell(nn.Module):
    """A cell of which nothing is decided: every node reads all nodes before it (Eq. 8)."""

    def __init__(
        self, space: SearchSpace, kind: str, in_chs: tuple[int, int], channels: int, halve_first: bool
    ) -> None:
        """in_chs: channels of the outputs of cells k-2 and k-1; halve_first: the former is twice as large."""
        super().__init__()
        first: nn.Module = (
            FactorizedReduce(in_chs[0], channels, affine=False)
            if halve_first
            else relu_conv_bn(in_chs[0], channels, 1, 1, affine=False)
        )
        self.preprocess = nn.ModuleList([first, relu_conv_bn(in_chs[1], channels, 1, 1, affine=False)])
        self.edges = nn.ModuleList()
        leaving: dict[int, set[str]] = {}  # node -> the operations that read it; nodes come up in order
        for (_, source), operations in zip(space.edges, space.candidates(kind), strict=True):
            leaving.setdefault(source, set()).update(operations)
            self.edges.append(SearchEdge(operations, channels, _stride(kind, source)))
        self.sources = nn.ModuleList(
            [Source(names, channels, _stride(kind, node)) for node, names in leaving.items()]
        )
        self.incoming = [
            [(edge, space.edges[edge][1]) for edge in space.incoming(node)] for node in space.nodes
        ]

    def forward(self, before: Tensor, last: Tensor, weights: list[tuple[Tensor, ...]]) -> Tensor:
        """Outputs of cells k-2 and k-1, and E rows of O scalars -> (N, nodes * C, H', W')."""
        states = [self.preprocess[0](before), self.preprocess[1](last)]
        shared: list[dict[str, Tensor]] = []
        for incoming in self.incoming:
            shared += [self.sources[node](states[node]) for node in range(len(shared), len(states))]
            terms = (
                weight * output
                for edge, source in incoming
                for weight, output in self.edges[edge](shared[source], weights[edge])
            )
            states.append(functools.reduce(torch.add, terms))  # Eq. 8, one feature map at a time
        return torch.cat(states[INPUTS:], dim=1)


def _stride(kind: str, source: int) -> int:
    return 2 if kind == "reduce" and source < INPUTS else 1


class Supernet(nn.Module):
    """Stem, cells and classifier: (N, in_chans, H, W) and a Mixture -> logits (N, classes)."""

    def __init__(self, space: SearchSpace, *, channels: int, cells: int, classes: int, in_chans: int) -> None:
        """channels: of the first cells, doubled in each reduction cell. Raises DotsZooError under 3 cells."""
        super().__init__()
        if cells < 3:
            raise DotsZooError(
                f"supernet: expected at least 3 cells, one normal and two that reduce, got {cells}"
            )
        width = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(in_chans, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.cells = nn.ModuleList()
        in_chs, halve_first = (width, width), False
        self.kinds = cell_kinds(cells)
        for kind in self.kinds:
            channels *= 2 if kind == "reduce" else 1
            self.cells.append(SearchCell(space, kind, in_chs, channels, halve_first))
            in_chs, halve_first = (in_chs[1], space.intermediate * channels), kind == "reduce"
        self.classifier = nn.Linear(in_chs[1], classes)

    def forward(self, images: Tensor, mixture: Mixture) -> Tensor:
        # Taken apart once for all cells: an index in a cell would write an (E, O) gradient for its scalar.
        scalars = {kind: [row.unbind() for row in weights.unbind()] for kind, weights in mixture.items()}
        before = last = self.stem(images)
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            before, last = last, cell(before, last, scalars[kind])
        logits: Tensor = self.classifier(last.mean(dim=(2, 3)))
        return logits
