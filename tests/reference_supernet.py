"""The supernet as the papers write it: one module per edge and operation, nothing shared, nothing skipped.

Source: DARTS (ICLR 2019), Eq. 1-2 and its macro-architecture; DOTS (CVPR 2021), Eq. 1, 3 and 8. It is slow,
obvious, and the oracle for `dots_zoo.search.supernet`.
"""

import torch
from torch import Tensor, nn

from dots_zoo.ops import OPS, FactorizedReduce, relu_conv_bn
from dots_zoo.search.space import SearchSpace
from dots_zoo.search.supernet import Supernet


def candidate(name: str, channels: int, stride: int) -> nn.Module:
    operation = OPS[name](channels, stride, False)
    return nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False)) if "pool" in name else operation


class ReferenceCell(nn.Module):
    def __init__(
        self, space: SearchSpace, kind: str, in_chs: tuple[int, int], channels: int, halve: bool
    ) -> None:
        super().__init__()
        self.kind, self.space = kind, space
        if halve:
            self.preprocess0: nn.Module = FactorizedReduce(in_chs[0], channels, affine=False)
        else:
            self.preprocess0 = relu_conv_bn(in_chs[0], channels, 1, 1, affine=False)
        self.preprocess1 = relu_conv_bn(in_chs[1], channels, 1, 1, affine=False)
        self.edges = nn.ModuleList()
        for (_, source), names in zip(space.edges, space.candidates(kind), strict=True):
            stride = 2 if kind == "reduce" and source in (0, 1) else 1
            self.edges.append(nn.ModuleList([candidate(name, channels, stride) for name in names]))

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        for node in self.space.nodes:
            mixed = []
            for number, (target, source) in enumerate(self.space.edges):
                if target == node:
                    outputs = [operation(states[source]) for operation in self.edges[number]]
                    mixed.append(sum(weights[number, o] * output for o, output in enumerate(outputs)))
            states.append(sum(mixed))
        return torch.cat(states[2:], dim=1)


class ReferenceSupernet(nn.Module):
    def __init__(self, space: SearchSpace, channels: int, cells: int, classes: int, in_chans: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, 3 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(3 * channels)
        )
        self.cells = nn.ModuleList()
        in_chs, halve = (3 * channels, 3 * channels), False
        for number in range(cells):
            reduction = number in (cells // 3, 2 * cells // 3)
            if reduction:
                channels = 2 * channels
            kind = "reduce" if reduction else "normal"
            self.cells.append(ReferenceCell(space, kind, in_chs, channels, halve))
            in_chs, halve = (in_chs[1], space.intermediate * channels), reduction
        self.classifier = nn.Linear(in_chs[1], classes)

    def forward(self, images: Tensor, mixture: dict[str, Tensor]) -> Tensor:
        before = last = self.stem(images)
        for cell in self.cells:
            before, last = last, cell(before, last, mixture[cell.kind])
        return self.classifier(torch.nn.functional.adaptive_avg_pool2d(last, 1).flatten(1))


def module_pairs(ours: Supernet, reference: ReferenceSupernet) -> list[tuple[nn.Module, nn.Module]]:
    """Modules that play the same part. A pooling of ours is paired with that of every edge that shares it."""
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (ours.stem, reference.stem),
        (ours.classifier, reference.classifier),
    ]
    for mine, theirs in zip(ours.cells, reference.cells, strict=True):
        pairs += [(mine.preprocess[0], theirs.preprocess0), (mine.preprocess[1], theirs.preprocess1)]
        for number, (_, source) in enumerate(theirs.space.edges):
            for column, name in enumerate(theirs.space.candidates(theirs.kind)[number]):
                operation = theirs.edges[number][column]
                if "pool" in name:
                    pairs.append((mine.sources[source].pools[name], operation))
                elif name != "none":
                    edge = mine.edges[number]
                    pairs.append((edge.operations[edge.columns.index(column)], operation))
    return pairs
