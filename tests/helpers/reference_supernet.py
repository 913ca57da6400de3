"""The supernet as the papers write it: one module per edge and operation, nothing shared, nothing skipped.

Source: DARTS (ICLR 2019), Eq. 1-2 and its macro-architectures; DOTS (CVPR 2021), Eq. 1, 3 and 8; PC-DARTS
(ICLR 2020), Eq. 2 and 4; DARTS- (ICLR 2021), Eq. 4; NAS-Bench-201 (ICLR 2020), Fig. 1. It is slow, obvious,
and the oracle for `dots_zoo.search.supernet.supernet`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.cell import ResidualReduction
from dots_zoo.ops import OPS, FactorizedReduce, relu_conv_bn
from dots_zoo.search.space.space import SearchSpace
from dots_zoo.search.supernet.supernet import Shape, Supernet


def candidate(name: str, channels: int, stride: int, family: str) -> nn.Module:
    operation = OPS[name](channels, stride, False)
    if "pool" in name and family == "darts":
        return nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False))
    return operation


class MixedEdge(nn.Module):
    """Candidates and auxiliary branch on the first channels, the other channels passed by."""

    def __init__(self, names: tuple[str, ...], channels: int, stride: int, family: str, shape: Shape) -> None:
        super().__init__()
        self.share, self.stride = shape.partial.share, stride
        self.own = channels // self.share
        self.operations = nn.ModuleList([candidate(name, self.own, stride, family) for name in names])
        if shape.auxiliary == "projection" and stride == 1:
            self.auxiliary: nn.Module = nn.Conv2d(self.own, self.own, 1, bias=False)
        else:
            self.auxiliary = nn.Identity() if stride == 1 else FactorizedReduce(self.own, self.own, False)

    def forward(self, x: Tensor, weights: Tensor, edge: Tensor, auxiliary: float) -> Tensor:
        through, by = x[:, : self.own], x[:, self.own :]
        mixed = sum(weights[o] * operation(through) for o, operation in enumerate(self.operations))
        if auxiliary:
            mixed = mixed + edge * auxiliary * self.auxiliary(through)
        if self.share == 1:
            return mixed
        by = F.max_pool2d(by, 2, 2, ceil_mode=True) if self.stride == 2 else by
        return torch.cat([mixed, edge * by], dim=1)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel i * (C / groups) + j goes to j * groups + i."""
    order = [i * (x.shape[1] // groups) + j for j in range(x.shape[1] // groups) for i in range(groups)]
    return x[:, order]


class ReferenceCell(nn.Module):
    def __init__(self, space: SearchSpace, kind: str, in_chs: tuple[int, int], channels: int, halve: bool,
                 shape: Shape) -> None:  # fmt: skip
        super().__init__()
        self.kind, self.space, self.shape = kind, space, shape
        if space.family == "darts":
            if halve:
                self.preprocess0: nn.Module = FactorizedReduce(in_chs[0], channels, affine=False)
            else:
                self.preprocess0 = relu_conv_bn(in_chs[0], channels, 1, 1, affine=False)
            self.preprocess1 = relu_conv_bn(in_chs[1], channels, 1, 1, affine=False)
        self.edges = nn.ModuleList()
        for (_, source), names in zip(space.edges, space.candidates(kind), strict=True):
            stride = 2 if kind == "reduce" and source in (0, 1) else 1
            self.edges.append(MixedEdge(names, channels, stride, space.family, shape))

    def forward(self, before: Tensor, last: Tensor, weights: Tensor, edges: Tensor, beta: float) -> Tensor:
        darts = self.space.family == "darts"
        states = [self.preprocess0(before), self.preprocess1(last)] if darts else [last]
        for node in self.space.nodes:
            total = sum(
                self.edges[number](states[source], weights[number], edges[number], beta)
                for number, (target, source) in enumerate(self.space.edges)
                if target == node
            )
            partial = self.shape.partial
            states.append(shuffled(total, partial.share) if partial.shuffle and partial.share > 1 else total)
        return torch.cat(states[2:], dim=1) if darts else states[-1]


class ReferenceSupernet(nn.Module):
    def __init__(self, space: SearchSpace, shape: Shape) -> None:
        super().__init__()
        self.cells, channels, in_chans = nn.ModuleList(), shape.channels, shape.in_chans
        width, halve = 3 * channels if space.family == "darts" else channels, shape.stem == "imagenet"
        if shape.stem == "imagenet":
            width = channels
            self.stem0 = nn.Sequential(
                nn.Sequential(
                    nn.Conv2d(in_chans, width // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(width // 2)
                ),
                nn.ReLU(),
                nn.Sequential(nn.Conv2d(width // 2, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width)),
            )
            convolution = nn.Conv2d(width, width, 3, 2, 1, bias=False)
            self.stem1 = nn.Sequential(nn.ReLU(), nn.Sequential(convolution, nn.BatchNorm2d(width)))
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(in_chans, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
            )
        in_chs, cells = (width, width), shape.cells
        for number in range(cells):
            reduction = number in (cells // 3, 2 * cells // 3)
            if reduction:
                channels = 2 * channels
            if space.family == "nasbench201":
                if reduction:
                    self.cells.append(ResidualReduction(channels // 2))
                self.cells.append(ReferenceCell(space, "cell", in_chs, channels, False, shape))
                in_chs = (channels, channels)
                continue
            kind = "reduce" if reduction else "normal"
            self.cells.append(ReferenceCell(space, kind, in_chs, channels, halve, shape))
            in_chs, halve = (in_chs[1], space.intermediate * channels), reduction
        last = in_chs[1]
        darts = space.family == "darts"
        self.norm = nn.Identity() if darts else nn.Sequential(nn.BatchNorm2d(last), nn.ReLU())
        self.classifier = nn.Linear(last, shape.classes)

    def forward(
        self, images: Tensor, mixture: dict[str, Tensor], edges: dict[str, Tensor], beta: float = 0.0
    ):
        if hasattr(self, "stem"):
            before = last = self.stem(images)
        else:
            before = self.stem0(images)
            last = self.stem1(before)
        for cell in self.cells:
            if isinstance(cell, ReferenceCell):
                before, last = last, cell(before, last, mixture[cell.kind], edges[cell.kind], beta)
            else:
                before, last = last, cell(before, last)
        return self.classifier(F.adaptive_avg_pool2d(self.norm(last), 1).flatten(1))


def module_pairs(ours: Supernet, reference: ReferenceSupernet) -> list[tuple[nn.Module, nn.Module]]:
    """Modules that play the same part. A pooling of ours is paired with that of every edge that shares it."""
    stems = [reference.stem] if hasattr(reference, "stem") else [reference.stem0, reference.stem1]
    pairs: list[tuple[nn.Module, nn.Module]] = list(zip(ours.stem, stems, strict=True))
    pairs += [(ours.classifier, reference.classifier), (ours.norm, reference.norm)]
    for mine, theirs in zip(ours.cells, reference.cells, strict=True):
        if not isinstance(theirs, ReferenceCell):
            pairs.append((mine, theirs))
            continue
        if theirs.space.family == "darts":
            pairs += [(mine.preprocess[0], theirs.preprocess0), (mine.preprocess[1], theirs.preprocess1)]
        for number, (_, source) in enumerate(theirs.space.edges):
            pairs += edge_pairs(mine.nodes, theirs, number, source)
    return pairs


def edge_pairs(nodes, theirs: ReferenceCell, number: int, source: int) -> list[tuple[nn.Module, nn.Module]]:
    pairs, edge, other = [], nodes.edges[number], theirs.edges[number]
    if edge.auxiliary is not None:
        pairs.append((edge.auxiliary, other.auxiliary))
    for column, name in enumerate(theirs.space.candidates(theirs.kind)[number]):
        if "pool" in name:
            pairs.append((nodes.sources[source].pools[name], other.operations[column]))
        elif name != "none":
            pairs.append((edge.operations[edge.columns.index(column)], other.operations[column]))
    return pairs
