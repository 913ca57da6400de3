"""The evaluation networks in the form and with the names of the public DARTS-family code, as an oracle.

Written from the names that public checkpoints hold and from DARTS's description of the operations: one module
per edge in published order, operations as `op` sequences, two edges per node.
"""

import torch
from torch import Tensor, nn

from dots_zoo.genotype import CellGenotype, Genotype


class ReLUConvBN(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.op = nn.Sequential(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Separable(nn.Module):
    def __init__(self, c: int, k: int, stride: int, dilation: int, repeats: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(repeats):
            s = stride if i == 0 else 1
            pad = dilation * (k - 1) // 2
            layers += [
                nn.ReLU(),
                nn.Conv2d(c, c, k, s, pad, dilation, groups=c, bias=False),
                nn.Conv2d(c, c, 1, bias=False),
                nn.BatchNorm2d(c),
            ]
        self.op = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class FactorizedReduce(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.conv_2 = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], 1))


def operation(name: str, c: int, stride: int) -> nn.Module:
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    kind, size = name[:3], int(name[-1])
    return Separable(c, size, stride, 1, 2) if kind == "sep" else Separable(c, size, stride, 2, 1)


class Cell(nn.Module):
    def __init__(
        self, g: CellGenotype, c_pp: int, c_p: int, c: int, reduction: bool, reduction_prev: bool
    ) -> None:
        super().__init__()
        self.preprocess0 = FactorizedReduce(c_pp, c) if reduction_prev else ReLUConvBN(c_pp, c)
        self.preprocess1 = ReLUConvBN(c_p, c)
        self._edges = [(edge.node, edge.input) for edge in g.edges]
        self._concat = g.concat
        self._ops = nn.ModuleList(operation(e.op, c, 2 if reduction and e.input < 2 else 1) for e in g.edges)

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        states = {0: self.preprocess0(s0), 1: self.preprocess1(s1)}
        for (node, source), op in zip(self._edges, self._ops, strict=True):
            h = op(states[source])
            states[node] = states[node] + h if node in states else h
        return torch.cat([states[i] for i in self._concat], 1)


class Auxiliary(nn.Module):
    def __init__(self, c: int, num_classes: int, imagenet: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ReLU(),
            nn.AvgPool2d(5, 2 if imagenet else 3, 0, count_include_pad=False),
            nn.Conv2d(c, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
        ]
        layers += [nn.ReLU()] if imagenet else [nn.BatchNorm2d(768), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class Network(nn.Module):
    """Returns (logits, auxiliary logits); the auxiliary head reads cell 2 * layers // 3."""

    def __init__(self, g: Genotype, c: int, layers: int, num_classes: int, imagenet: bool) -> None:
        super().__init__()
        if imagenet:
            self.stem0 = nn.Sequential(
                nn.Conv2d(3, c // 2, 3, 2, 1, bias=False),
                nn.BatchNorm2d(c // 2),
                nn.ReLU(),
                nn.Conv2d(c // 2, c, 3, 2, 1, bias=False),
                nn.BatchNorm2d(c),
            )
            self.stem1 = nn.Sequential(nn.ReLU(), nn.Conv2d(c, c, 3, 2, 1, bias=False), nn.BatchNorm2d(c))
            widths, reduction_prev = (c, c), True
        else:
            self.stem = nn.Sequential(nn.Conv2d(3, 3 * c, 3, padding=1, bias=False), nn.BatchNorm2d(3 * c))
            widths, reduction_prev = (3 * c, 3 * c), False
        self.imagenet, self.layers = imagenet, layers
        self.cells = nn.ModuleList()
        for i in range(layers):
            reduction = i in (layers // 3, 2 * layers // 3)
            c = c * 2 if reduction else c
            cell = g.reduce if reduction else g.normal
            self.cells.append(Cell(cell, *widths, c, reduction, reduction_prev))
            widths, reduction_prev = (widths[1], c * len(cell.concat)), reduction
            if i == 2 * layers // 3:
                self.auxiliary_head = Auxiliary(widths[1], num_classes, imagenet)
        self.classifier = nn.Linear(widths[1], num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s0 = self.stem0(x) if self.imagenet else self.stem(x)
        s1 = self.stem1(s0) if self.imagenet else s0
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1)
            if i == 2 * self.layers // 3:
                auxiliary = self.auxiliary_head(s1)
        return self.classifier(s1.mean((2, 3))), auxiliary
