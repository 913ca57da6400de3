"""Supernet: every candidate operation of a SearchSpace at once, mixed by weights that come as an argument.

Source: DARTS (ICLR 2019), Sec. 2 and its macro-architectures; DOTS (CVPR 2021), Sec. 5; NAS-Bench-201 (ICLR
2020), Fig. 1. It holds no architecture parameters.
"""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from dots_zoo.cell import ResidualReduction
from dots_zoo.macro import usual_macro
from dots_zoo.runtime.errors import DotsZooError

from ..space.space import SearchSpace
from .cell import NO_PARTIAL_CHANNELS, NodeShape, PartialChannels, SearchCell, SearchCell201
from .mixed_op import Auxiliary, MixedOp
from .mixture import CellMixture, Mixture
from .recompute import recompute

MacroName = Literal["cifar", "mobile", "nb201"]
Memory = Literal["fast", "lean", "checkpoint"]
MACROS_OF_FAMILY: Mapping[str, tuple[MacroName, ...]] = {
    "darts": ("cifar", "mobile"),
    "nasbench201": ("nb201",),
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a supernet.

    Args:
        channels: of the first cells.
        layers: number of cells.
        classes: of the classifier.
        in_chans: channels of an image.
        macro: cifar and nb201 keep the resolution of an image, mobile divides it by 8 before the first cell.
        partial: which channels pass through the candidates.
        auxiliary: branch beside every edge.
        memory: what a training step keeps for its backward pass; lean recomputes candidates, checkpoint
            cells.
    """

    channels: int
    layers: int
    classes: int
    in_chans: int
    macro: MacroName = "cifar"
    partial: PartialChannels = NO_PARTIAL_CHANNELS
    auxiliary: Auxiliary = "none"
    memory: Memory = "fast"


def supernet_macro(macro: MacroName | None, space: SearchSpace, size: int) -> MacroName:
    """Return the given macro-architecture, or that of networks for images with a side of `size` pixels.

    Raises:
        DotsZooError: if that is one of the user's own, of which there is no supernet.
    """
    if macro is not None:
        return macro
    usual, possible = usual_macro(space.family, size), MACROS_OF_FAMILY[space.family]
    for name in possible:
        if name == usual:
            return name
    raise DotsZooError(
        f"macro: networks for images of {size} pixels are {usual!r}, of which there is no supernet; choose "
        f"{' or '.join(possible)}"
    )


def cell_type_sequence(layers: int) -> tuple[str, ...]:
    """Return the kind of every cell in order: reduction cells stand at one and at two thirds of the depth."""
    reduced = layers // 3, 2 * layers // 3
    return tuple("reduce" if cell in reduced else "normal" for cell in range(layers))


def check_shape(
    space: SearchSpace,
    layers: int,
    channels: int,
    macro: MacroName | None,
    partial: PartialChannels = NO_PARTIAL_CHANNELS,
) -> None:
    """Raise DotsZooError if a supernet of this shape cannot be built.

    macro: None where the images, which decide, are not known yet.
    """
    if layers < 3:
        raise DotsZooError(
            f"layers: expected at least 3 cells in a supernet, one normal and two that reduce, got {layers}"
        )
    possible = MACROS_OF_FAMILY[space.family]
    if macro is not None and macro not in possible:
        raise DotsZooError(
            f"macro: expected {' or '.join(possible)} for a supernet of {space.family} cells, got {macro!r}"
        )
    if space.family == "nasbench201" and layers % 3:
        raise DotsZooError(
            "layers: expected a number of cells that is divisible by 3, for the three equal stages of the "
            f"supernet of NAS-Bench-201, got {layers}"
        )
    if macro == "mobile" and channels % 2:
        raise DotsZooError(f"channels: expected an even number for the macro mobile, got {channels}")
    if channels % partial.share:
        raise DotsZooError(
            "supernet: expected channels that are divisible by the share of partial channels, "
            f"{partial.share}, got {channels}"
        )


class Supernet(nn.Module):
    """Stem, cells and classifier: (N, in_chans, H, W) and a Mixture -> logits (N, classes)."""

    def __init__(self, space: SearchSpace, shape: Shape) -> None:
        """Build stem, cells and classifier.

        Raises:
            DotsZooError: if the shape does not fit the space.
        """
        super().__init__()
        check_shape(space, shape.layers, shape.channels, shape.macro, shape.partial)
        self.shape = shape
        build = _darts if space.family == "darts" else _nasbench201
        self.cell_types, self.stem, cells, self.norm, width = build(space, shape)
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(width, shape.classes)

    def forward(self, images: Tensor, mixture: Mixture) -> Tensor:
        """Return logits (N, classes)."""
        mixtures = {cell_type: mixture.of_cell(cell_type) for cell_type in mixture.operations}
        before, last = self._stem(images)
        for cell_type, cell in zip(self.cell_types, self.cells, strict=True):
            if cell_type:
                before, last = last, self._search_cell(cell, before, last, mixtures[cell_type])
            else:  # a residual block of NAS-Bench-201
                before, last = last, cell(before, last)
        logits: Tensor = self.classifier(self.norm(last).mean(dim=(2, 3)))
        return logits

    def _stem(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two maps that the first cell reads; a stem of one part gives the same one twice."""
        states = [images]
        for part in self.stem:
            states.append(part(states[-1]))
        return (states[-2], states[-1]) if len(self.stem) > 1 else (states[-1], states[-1])

    def _search_cell(self, cell: nn.Module, before: Tensor, last: Tensor, mixture: CellMixture) -> Tensor:
        if self.shape.memory == "checkpoint":
            return recompute(cell, before, last, mixture)
        out: Tensor = cell(before, last, mixture)
        return out


def without_kernels(supernet: Supernet) -> Supernet:
    """Return a copy of the supernet that computes without kernels and recomputes nothing.

    It can be differentiated twice.
    """
    plain = copy.deepcopy(supernet)
    plain.shape = dataclasses.replace(plain.shape, memory="fast")
    for module in plain.modules():
        if isinstance(module, SearchCell | SearchCell201):
            module.kernels = None
        elif isinstance(module, MixedOp):
            module.lean = False
    return plain


Parts = tuple[tuple[str, ...], nn.ModuleList, list[nn.Module], nn.Module, int]


def _darts(space: SearchSpace, shape: Shape) -> Parts:
    """Return kinds, stem, cells, the norm after them, and its channels: the macro-architecture of DARTS."""
    channels = shape.channels
    if shape.macro == "cifar":
        width = 3 * channels
        stem = nn.ModuleList([_conv_bn(shape.in_chans, width, 1)])
    else:
        width = channels
        first = [*_conv_bn(shape.in_chans, width // 2, 2), nn.ReLU(), *_conv_bn(width // 2, width, 2)]
        stem = nn.ModuleList([nn.Sequential(*first), nn.Sequential(nn.ReLU(), *_conv_bn(width, width, 2))])
    cells: list[nn.Module] = []
    in_chs, reduce_first = (width, width), shape.macro == "mobile"
    cell_types = cell_type_sequence(shape.layers)
    for cell_type in cell_types:
        channels *= 2 if cell_type == "reduce" else 1
        cells.append(SearchCell(space, cell_type, in_chs, _node_shape(shape, channels), reduce_first))
        in_chs, reduce_first = (in_chs[1], space.intermediate * channels), cell_type == "reduce"
    return cell_types, stem, cells, nn.Identity(), in_chs[1]


def _nasbench201(space: SearchSpace, shape: Shape) -> Parts:
    """Return three stages of equal length with a residual block, of kind "", between them."""
    cell_types: list[str] = []
    cells: list[nn.Module] = []
    for stage in range(3):
        width = shape.channels * 2**stage
        if stage:
            cell_types.append("")
            cells.append(ResidualReduction(width // 2))
        cell_types += ["cell"] * (shape.layers // 3)
        cells += [SearchCell201(space, _node_shape(shape, width)) for _ in range(shape.layers // 3)]
    norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
    return tuple(cell_types), nn.ModuleList([_conv_bn(shape.in_chans, shape.channels, 1)]), cells, norm, width


def _conv_bn(in_chs: int, out_chs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_chs, out_chs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_chs))


def _node_shape(shape: Shape, channels: int) -> NodeShape:
    return NodeShape(channels, shape.partial, shape.auxiliary, lean=shape.memory == "lean")
