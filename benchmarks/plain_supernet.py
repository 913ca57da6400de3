"""The supernet as public search code has it: what `search_step.py` compares ours with.

Written from the papers: DARTS (ICLR 2019), Eq. 2 and its macro-architecture; DOTS (CVPR 2021), Eq. 1 and Eq.
5-8. One module for every edge and operation, in the order of the definition: each edge computes all of its
operations and sums their weighted feature maps, each node sums its edges. The topology stage builds every
candidate of every edge as the operation stage does, and runs the two that survived.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.ops import OPS, FactorizedReduce, relu_conv_bn
from dots_zoo.search.space.space import SearchSpace
from dots_zoo.search.supernet import Mixture, cell_type_sequence


def candidate(name: str, channels: int, stride: int) -> nn.Module:
    """An operation of a supernet: batch norm without affine, behind poolings too."""
    operation = OPS[name](channels, stride, False)
    return nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False)) if "pool" in name else operation


class MixedOperation(nn.Module):
    """The candidates of one edge; `columns` are run, and weighted by the entries of their order."""

    def __init__(self, operations: Sequence[str], columns: Sequence[int], channels: int, stride: int) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.operations = nn.ModuleList([candidate(name, channels, stride) for name in operations])

    def forward(self, x: Tensor, weights: Tensor, active: frozenset[int]) -> Tensor:
        """active: of the columns, those that are run; in the public code only DropNAS leaves any out."""
        pairs = enumerate(zip(weights, self.columns, strict=False))
        terms = [weight * self.operations[c](x) for n, (weight, c) in pairs if n in active]
        total: Tensor = sum(terms[1:], terms[0])
        return total

    def run(self) -> Iterator[nn.Module]:
        """The operations that are run."""
        return (self.operations[column] for column in self.columns)


class PlainCell(nn.Module):
    """A cell of which nothing is decided: its 14 edges one after the other."""

    def __init__(
        self,
        space: SearchSpace,
        full: SearchSpace,
        kind: str,
        in_chs: tuple[int, int],
        channels: int,
        halve: bool,
    ) -> None:
        super().__init__()
        self.space = space
        self.preprocess0: nn.Module = (
            FactorizedReduce(in_chs[0], channels, affine=False)
            if halve
            else relu_conv_bn(in_chs[0], channels, 1, 1, affine=False)
        )
        self.preprocess1 = relu_conv_bn(in_chs[1], channels, 1, 1, affine=False)
        self.edges = nn.ModuleList()
        rows = zip(space.edges, full.candidates(kind), space.candidates(kind), strict=True)
        for (_, source), operations, run in rows:
            stride = 2 if kind == "reduce" and source < 2 else 1
            columns = [operations.index(name) for name in run]
            self.edges.append(MixedOperation(operations, columns, channels, stride))

    def forward(
        self, before: Tensor, last: Tensor, weights: Tensor, active: tuple[frozenset[int], ...]
    ) -> Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        for node in self.space.nodes:
            terms = [
                self.edges[edge](states[self.space.edges[edge][1]], weights[edge], active[edge])
                for edge in self.space.incoming(node)
            ]
            states.append(sum(terms[1:], terms[0]))
        return torch.cat(states[2:], dim=1)


class PlainSupernet(nn.Module):
    """Stem, cells, classifier: (N, 3, H, W) and a Mixture -> (N, classes)."""

    def __init__(
        self, space: SearchSpace, channels: int, cells: int, classes: int, full: SearchSpace | None = None
    ) -> None:
        """full: the space whose candidates are all built, where `space` is what survived of it."""
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.kinds, self.cells = cell_type_sequence(cells), nn.ModuleList()
        in_chs, halve = (width, width), False
        for kind in self.kinds:
            channels *= 2 if kind == "reduce" else 1
            self.cells.append(PlainCell(space, full or space, kind, in_chs, channels, halve))
            in_chs, halve = (in_chs[1], space.intermediate * channels), kind == "reduce"
        self.classifier = nn.Linear(in_chs[1], classes)

    def forward(self, images: Tensor, mixture: Mixture) -> Tensor:
        before = last = self.stem(images)
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            before, last = last, cell(before, last, mixture.operations[kind], mixture.active[kind])
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(last, 1).flatten(1))
        return logits

    def used(self) -> Iterator[nn.Parameter]:
        """The parameters that take part, in the order in which ours has its own."""
        yield from self.stem.parameters()
        for cell in self.cells:
            plain = cast(PlainCell, cell)
            yield from (*plain.preprocess0.parameters(), *plain.preprocess1.parameters())
            for edge in plain.edges:
                for operation in cast(MixedOperation, edge).run():
                    yield from operation.parameters()
        yield from self.classifier.parameters()
