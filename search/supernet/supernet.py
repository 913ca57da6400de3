"""Supernet: every candidate operation of a SearchSpace at once, mixed by weights that come as an argument.

Source: DARTS (ICLR 2019), Sec. 2 and its macro-architectures; DOTS (CVPR 2021), Eq. 1 (mixed operation), Eq.
3 and Eq. 8 (a node is the weighted sum of all its incoming edges), Sec. 5; NAS-Bench-201 (ICLR 2020), Fig. 1.
It holds no architecture parameters. The cells are in `mixed_op.py`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.cell import ResidualReduction
from dots_zoo.kernels.replace_layers import quicken
from dots_zoo.ops import FactorizedReduce, relu_conv_bn
from dots_zoo.runtime.errors import DotsZooError

from ..space.space import SearchSpace
from .bn_statistics import computed_again
from .factorized_reduce import Halving
from .mixed_op import WHOLE, Nodes, NodeShape, Partial
from .mixture import Mixture, Rows, taken_apart

Stem = Literal["cifar", "imagenet"]
Auxiliary = Literal["none", "skip", "projection"]
Memory = Literal["fast", "lean", "checkpoint"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a supernet: channels of the first cells, depth, classes, input channels, and how it begins.

    partial and auxiliary: see `mixed_op.py`; stem: `imagenet` divides the resolution by 8 before the first
    cell. memory: what a training step keeps for its backward pass; `lean` computes the separable convolutions
    again, `checkpoint` every cell, which is lean then."""

    channels: int
    cells: int
    classes: int
    in_chans: int
    stem: Stem = "cifar"
    partial: Partial = WHOLE
    auxiliary: Auxiliary = "none"
    memory: Memory = "fast"


def cell_kinds(cells: int) -> tuple[str, ...]:
    """The kind of every cell in order: reduction cells stand at one and at two thirds of the depth."""
    return tuple("reduce" if cell in (cells // 3, 2 * cells // 3) else "normal" for cell in range(cells))


def check_shape(space: SearchSpace, cells: int, channels: int, stem: Stem, partial: Partial = WHOLE) -> None:
    """Raises DotsZooError where a supernet of this shape cannot be built."""
    if cells < 3:
        raise DotsZooError(
            f"supernet: expected at least 3 cells, one normal and two that reduce, got {cells}"
        )
    if space.family == "nasbench201" and (cells % 3 or stem != "cifar"):
        raise DotsZooError(
            "supernet of NAS-Bench-201: expected a number of cells that is divisible by 3, for three equal "
            f"stages, and the stem 'cifar', got {cells} and {stem!r}"
        )
    if channels % partial.share:
        raise DotsZooError(
            "supernet: expected channels that are divisible by the share of partial channels, "
            f"{partial.share}, got {channels}"
        )


class SearchCell(nn.Module):
    """A DARTS cell of which nothing is decided: every node reads all nodes before it (Eq. 8).

    Both cells that read its output begin with a ReLU; they share one, which is at its end.
    """

    def __init__(
        self,
        space: SearchSpace,
        kind: str,
        in_chs: tuple[int, int],
        node: NodeShape,
        halve_first: bool,
        is_last: bool,
    ) -> None:
        """in_chs: channels of the outputs of cells k-2 and k-1; halve_first: the former is twice as large;
        is_last: no cell reads what it gives.
        """
        super().__init__()
        first: nn.Module = (
            Halving(FactorizedReduce(in_chs[0], node.channels, affine=False))
            if halve_first
            else relu_conv_bn(in_chs[0], node.channels, 1, 1, affine=False)
        )
        second = relu_conv_bn(in_chs[1], node.channels, 1, 1, affine=False)
        self.preprocess = nn.ModuleList([first, second])
        quicken(self.preprocess)
        for module in self.preprocess:
            _remove_relu(module)
        self.nodes, self.is_last = Nodes(space, kind, node), is_last

    def forward(self, before: Tensor, last: Tensor, rows: Rows, mixture: Mixture) -> Tensor:
        """ReLU of the outputs of cells k-2 and k-1 -> that of its own, (N, nodes * C, H', W')."""
        states = self.nodes([self.preprocess[0](before), self.preprocess[1](last)], rows, mixture)
        out = torch.cat(states[2:], dim=1)
        return out if self.is_last else F.relu(out)


def _remove_relu(module: nn.Module) -> None:
    """Of what preprocesses the input of a cell."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.Identity())


class SearchCell201(nn.Module):
    """A NAS-Bench-201 cell of which nothing is decided: one input, the last node is the output."""

    def __init__(self, space: SearchSpace, node: NodeShape) -> None:
        super().__init__()
        self.nodes = Nodes(space, "cell", node)

    def forward(self, before: Tensor, last: Tensor, rows: Rows, mixture: Mixture) -> Tensor:
        """(N, C, H, W) -> the same; `before` is not read, so that both families run through one loop."""
        out: Tensor = self.nodes([last], rows, mixture)[-1]
        return out


class Supernet(nn.Module):
    """Stem, cells and classifier: (N, in_chans, H, W) and a Mixture -> logits (N, classes)."""

    def __init__(self, space: SearchSpace, shape: Shape) -> None:
        """Raises DotsZooError where the shape does not fit the space."""
        super().__init__()
        check_shape(space, shape.cells, shape.channels, shape.stem, shape.partial)
        self.shape = shape
        build = _darts if space.family == "darts" else _nasbench201
        self.kinds, self.stem, cells, self.norm, width = build(space, shape)
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(width, shape.classes)
        self.memory = shape.memory

    def forward(self, images: Tensor, mixture: Mixture) -> Tensor:
        # Taken apart once for all cells: an index in a cell would write an (E, O) gradient for its scalar.
        rows = {kind: taken_apart(mixture, kind) for kind in mixture.operations}
        before, last = self._begin(images)
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            if kind == "":
                before, last = last, cell(before, last)
            else:
                before, last = last, self._search_cell(cell, before, last, rows[kind], mixture)
        logits: Tensor = self.classifier(self.norm(last).mean(dim=(2, 3)))
        return logits

    def _search_cell(
        self, cell: nn.Module, before: Tensor, last: Tensor, rows: Rows, mixture: Mixture
    ) -> Tensor:
        """The output of a cell, which the backward pass computes again where memory is `checkpoint`."""
        if self.memory == "checkpoint" and torch.is_grad_enabled():
            return computed_again(cell, cell, before, last, rows, mixture, whole=True)
        out: Tensor = cell(before, last, rows, mixture)
        return out

    def _begin(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The two maps that the first cell reads."""
        states = [images]
        for part in self.stem:
            states.append(part(states[-1]))
        return (states[-2], states[-1]) if len(self.stem) > 1 else (states[-1], states[-1])


Parts = tuple[tuple[str, ...], nn.ModuleList, list[nn.Module], nn.Module, int]


def _darts(space: SearchSpace, shape: Shape) -> Parts:
    """Kinds, stem, cells, what follows them, and its channels: the macro-architecture of DARTS."""
    channels = shape.channels
    if shape.stem == "cifar":
        width = 3 * channels
        stem = nn.ModuleList([_conv_bn(shape.in_chans, width, 1).append(nn.ReLU())])
    else:
        width = channels
        first = [
            _conv_bn(shape.in_chans, width // 2, 2),
            nn.ReLU(),
            _conv_bn(width // 2, width, 2),
            nn.ReLU(),
        ]
        stem = nn.ModuleList([nn.Sequential(*first), _conv_bn(width, width, 2).append(nn.ReLU())])
    cells: list[nn.Module] = []
    in_chs, halve_first = (width, width), shape.stem == "imagenet"
    kinds = cell_kinds(shape.cells)
    for number, kind in enumerate(kinds, 1):
        channels *= 2 if kind == "reduce" else 1
        node, is_last = _node_shape(shape, channels), number == len(kinds)
        cells.append(SearchCell(space, kind, in_chs, node, halve_first, is_last))
        in_chs, halve_first = (in_chs[1], space.intermediate * channels), kind == "reduce"
    return kinds, stem, cells, nn.Identity(), in_chs[1]


def _nasbench201(space: SearchSpace, shape: Shape) -> Parts:
    """Three stages of equal length with a residual block, of kind "", between them."""
    kinds: list[str] = []
    cells: list[nn.Module] = []
    for stage in range(3):
        width = shape.channels * 2**stage
        if stage:
            kinds.append("")
            cells.append(ResidualReduction(width // 2))
        kinds += ["cell"] * (shape.cells // 3)
        cells += [SearchCell201(space, _node_shape(shape, width)) for _ in range(shape.cells // 3)]
    norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
    return tuple(kinds), nn.ModuleList([_conv_bn(shape.in_chans, shape.channels, 1)]), cells, norm, width


def _conv_bn(in_chs: int, out_chs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_chs, out_chs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_chs))


def _node_shape(shape: Shape, channels: int) -> NodeShape:
    return NodeShape(channels, shape.partial, shape.auxiliary, shape.memory != "fast")
