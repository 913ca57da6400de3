"""The evaluation network as public code of the DARTS family has it: what `discrete.py` compares ours with.

Written from the papers: DARTS (ICLR 2019), Sec. 2.1, Eq. 1, and its macro-architectures. One module for every
edge, in the published order, each with its own ReLU; FactorizedReduce as two convolutions of stride 2, the
second on the image shifted by a pixel; states in a list; drop path by a mask. The auxiliary head is left out.
Parameters have the public names, so that `load_public_checkpoint` gives a CellNet the same weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.genotype import CellGenotype, Genotype


class Operation(nn.Module):
    """Layers one after the other, under the public name."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


def pointwise(in_chs: int, out_chs: int) -> Operation:
    """ReLU, 1x1 convolution, batch norm."""
    return Operation(nn.ReLU(), nn.Conv2d(in_chs, out_chs, 1, bias=False), nn.BatchNorm2d(out_chs))


def separable(channels: int, kernel: int, stride: int, dilation: int, times: int) -> Operation:
    """ReLU, depthwise, pointwise, batch norm; the stride is in the first."""
    layers: list[nn.Module] = []
    for step in (stride, 1)[:times]:
        numbers = step, dilation * (kernel // 2), dilation, channels
        layers += [
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, *numbers, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        ]
    return Operation(*layers)


class Halved(nn.Module):
    """FactorizedReduce: (N, C, H, W) -> (N, C', H / 2, W / 2), even sizes only."""

    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv_1 = nn.Conv2d(in_chs, out_chs // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(in_chs, out_chs // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        out: Tensor = self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))
        return out


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """Of one edge."""
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else Halved(channels, channels)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, padding=1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    dilation, times = (1, 2) if name.startswith("sep") else (2, 1)
    return separable(channels, int(name[-1]), stride, dilation, times)


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Whole samples to zero, the others scaled by what keeps the mean."""
    kept = torch.empty(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1 - rate)
    return x / (1 - rate) * kept


class PlainCell(nn.Module):
    """Outputs of cells k-2 and k-1 -> concatenation of the nodes."""

    def __init__(
        self, genotype: CellGenotype, in_chs: tuple[int, int], channels: int, halve: bool, reduction: bool
    ) -> None:
        super().__init__()
        self.edges, self.concat = genotype.edges, genotype.concat
        self.preprocess0 = Halved(in_chs[0], channels) if halve else pointwise(in_chs[0], channels)
        self.preprocess1 = pointwise(in_chs[1], channels)
        self._ops = nn.ModuleList(
            operation(edge.op, channels, 2 if reduction and edge.input < 2 else 1) for edge in self.edges
        )

    def forward(self, before: Tensor, last: Tensor, rate: float) -> Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        for edge, module in zip(self.edges, self._ops, strict=True):
            term = module(states[edge.input])
            if self.training and rate > 0 and not isinstance(module, nn.Identity):
                term = drop_path(term, rate)
            if edge.node < len(states):
                states[edge.node] = states[edge.node] + term
            else:
                states.append(term)
        return torch.cat([states[node] for node in self.concat], dim=1)


def stems(macro: str, channels: int) -> dict[str, nn.Module]:
    """The public stems of the two macro-architectures: name -> module."""

    def conv_norm(in_chs: int, out_chs: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(in_chs, out_chs, 3, stride, 1, bias=False), nn.BatchNorm2d(out_chs)]

    if macro == "cifar":
        return {"stem": nn.Sequential(*conv_norm(3, 3 * channels, 1))}
    first = nn.Sequential(*conv_norm(3, channels // 2, 2), nn.ReLU(), *conv_norm(channels // 2, channels, 2))
    return {"stem0": first, "stem1": nn.Sequential(nn.ReLU(), *conv_norm(channels, channels, 2))}


class PlainNetwork(nn.Module):
    """macro 'mobile' or 'cifar': (N, 3, H, W) -> logits (N, classes)."""

    def __init__(self, genotype: Genotype, macro: str, channels: int, layers: int, classes: int) -> None:
        super().__init__()
        self.drop_path_rate = 0.0
        self.stem_names = tuple(stems(macro, channels))
        for name, module in stems(macro, channels).items():
            self.add_module(name, module)
        halve = macro == "mobile"  # the first cell reads stems of strides 4 and 8
        in_chs = (channels, channels) if halve else (3 * channels, 3 * channels)
        self.cells = nn.ModuleList()
        for index in range(layers):
            reduction = index in (layers // 3, 2 * layers // 3)
            channels *= 2 if reduction else 1
            cell = genotype.reduce if reduction else genotype.normal
            self.cells.append(PlainCell(cell, in_chs, channels, halve, reduction))
            in_chs, halve = (in_chs[1], channels * len(cell.concat)), reduction
        self.classifier = nn.Linear(in_chs[1], classes)

    def forward(self, images: Tensor) -> Tensor:
        before = last = images
        for name in self.stem_names:
            before, last = last, self.get_submodule(name)(last)
        before = last if len(self.stem_names) == 1 else before
        for cell in self.cells:
            before, last = last, cell(before, last, self.drop_path_rate)
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(last, 1).flatten(1))
        return logits
