"""Stack cells in a macro-architecture: `mobile` (ImageNet), `cifar` or `nb201`.

Source: DARTS (ICLR 2019), Sec. 3.1-3.3 and its public evaluation networks; NAS-Bench-201 (ICLR 2020), Fig. 1.
A macro-architecture is a stem, a list of cells, and the shape of the feature map after each of them. `MACROS`
holds one record for each; `zoo.register_macro` adds a record and gives it a timm name.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from .cell import Cell, NasBench201Cell, ResidualReduction
from .genotype import CELLS, Genotype, GenotypeError
from .runtime.errors import DotsZooError
from .runtime.table import PLUGIN_HINT, look_up


@dataclass(frozen=True)
class Block:
    """The output of one block of the stem, or of one cell."""

    module: str
    num_chs: int
    reduction: int  # stride with respect to the image


@dataclass(frozen=True)
class Macro:
    """A network's parts in order; the first cell reads the stem's last two outputs, or its only one twice."""

    stem: list[nn.Module]
    cells: list[nn.Module]
    blocks: list[Block]  # one per stem block, then one per cell
    norm: nn.Module  # between the last cell and the head
    aux: (
        tuple[int, int] | None
    )  # the auxiliary head: the cell whose output it reads, the stride of its pooling

    def taps(self) -> list[int]:
        """Return the indices into `blocks` of the feature maps to tap: the last block at each stride."""
        strides = [block.reduction for block in self.blocks]
        return [i for i, stride in enumerate(strides) if i + 1 == len(strides) or strides[i + 1] != stride]

    def feature_info(self) -> list[dict[str, Any]]:
        """Return timm's `feature_info` of the taps."""
        blocks = [self.blocks[i] for i in self.taps()]
        return [{"num_chs": b.num_chs, "reduction": b.reduction, "module": b.module} for b in blocks]


def conv_bn(in_chs: int, out_chs: int, stride: int) -> list[nn.Module]:
    """Return a 3x3 convolution without bias and its batch norm."""
    return [nn.Conv2d(in_chs, out_chs, 3, stride, 1, bias=False), nn.BatchNorm2d(out_chs)]


def mobile(genotype: Genotype, channels: int, layers: int, in_chans: int) -> Macro:
    """Build the ImageNet network: stem to stride 8, cells that reduce at layers // 3 and 2 * layers // 3.

    Widths at 48 channels: 24 at stride 2, 48 at 4, 192 at 8, 384 at 16, 768 at 32.
    """
    _check_size("mobile", channels, layers, even=True)
    stem: list[nn.Module] = [
        nn.Sequential(*conv_bn(in_chans, channels // 2, 2), nn.ReLU()),
        nn.Sequential(*conv_bn(channels // 2, channels, 2)),
        # Not in place: its input is the feature map at stride 4.
        nn.Sequential(nn.ReLU(), *conv_bn(channels, channels, 2)),
    ]
    stem_blocks = [
        Block("stem.0", channels // 2, 2),
        Block("stem.1", channels, 4),
        Block("stem.2", channels, 8),
    ]
    cells, blocks = _darts_cells(genotype, (channels, channels), channels, layers, 8, after_reduction=True)
    return Macro(stem, cells, stem_blocks + blocks, nn.Identity(), aux=(2 * layers // 3, 2))


def cifar(genotype: Genotype, channels: int, layers: int, in_chans: int) -> Macro:
    """Build the CIFAR network: stem of 3 * channels, cells that reduce at layers // 3 and 2 * layers // 3."""
    _check_size("cifar", channels, layers)
    width = 3 * channels
    stem: list[nn.Module] = [nn.Sequential(*conv_bn(in_chans, width, 1))]
    cells, blocks = _darts_cells(genotype, (width, width), channels, layers, 1, after_reduction=False)
    return Macro(stem, cells, [Block("stem.0", width, 1), *blocks], nn.Identity(), aux=(2 * layers // 3, 3))


def nb201(genotype: Genotype, channels: int, layers: int, in_chans: int) -> Macro:
    """Build the NAS-Bench-201 network: three stages of layers // 3 cells, residual blocks between."""
    _check_size("nb201", channels, layers)
    if layers % 3:
        raise DotsZooError(
            f"macro nb201 has three stages of equal length: expected layers divisible by 3, got {layers}"
        )
    stem: list[nn.Module] = [nn.Sequential(*conv_bn(in_chans, channels, 1))]
    cells: list[nn.Module] = []
    blocks = [Block("stem.0", channels, 1)]
    for stage in range(3):
        width = channels * 2**stage
        if stage:
            cells.append(ResidualReduction(width // 2))
        cells.extend(NasBench201Cell(genotype.cell, width) for _ in range(layers // 3))
        blocks.extend(Block(f"cells.{i}", width, 2**stage) for i in range(len(blocks) - 1, len(cells)))
    norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
    return Macro(stem, cells, blocks, norm, aux=None)


def _darts_cells(
    genotype: Genotype,
    in_chs: tuple[int, int],
    channels: int,
    layers: int,
    stride: int,
    after_reduction: bool,
) -> tuple[list[nn.Module], list[Block]]:
    cells: list[nn.Module] = []
    blocks: list[Block] = []
    for i in range(layers):
        reduction = i in (layers // 3, 2 * layers // 3)
        if reduction:
            channels, stride = 2 * channels, 2 * stride
        cell = Cell(
            genotype.reduce if reduction else genotype.normal, in_chs, channels, reduction, after_reduction
        )
        cells.append(cell)
        blocks.append(Block(f"cells.{i}", cell.out_chs, stride))
        in_chs, after_reduction = (in_chs[1], cell.out_chs), reduction
    return cells, blocks


def _check_size(macro: str, channels: int, layers: int, even: bool = False) -> None:
    if layers < 3:
        raise DotsZooError(f"macro {macro} halves the resolution twice: expected layers >= 3, got {layers}")
    if channels < 1 or (even and channels % 2):
        raise DotsZooError(
            f"macro {macro}: expected a positive{' even' if even else ''} number of channels, got {channels}"
        )


@dataclass(frozen=True)
class MacroArchitecture:
    """A macro-architecture by name.

    Args:
        name: lower-case letters, digits and underscores; timm knows it as cell_NAME.
        build: function of (genotype, channels, layers, in_chans) that returns the parts of the network.
        channels: default width.
        layers: default number of cells.
        strides: strides of the feature maps that it taps, in order.
        cfg: entries of timm's pretrained cfg, such as input_size, mean, std and num_classes.
        space: search space of the genotypes that it stacks.
        usual_up_to: side in pixels of the largest images for which it is the default of its space; 0: never.

    Raises DotsZooError for a record that cannot be used.
    """

    name: str
    build: Callable[[Genotype, int, int, int], Macro]
    channels: int
    layers: int
    strides: tuple[int, ...] = (1, 2, 4)
    cfg: Mapping[str, Any] = field(default_factory=lambda: SMALL_IMAGES)
    space: str = "darts"
    usual_up_to: float = 0

    def __post_init__(self) -> None:
        place = f"macro-architecture {self.name!r}"
        if not callable(self.build):
            raise DotsZooError(
                f"{place}, build: expected a function of (genotype, channels, layers, in_chans), "
                f"got {self.build!r}"
            )
        if self.space not in CELLS:
            raise DotsZooError(f"{place}, space: expected one of {', '.join(CELLS)}, got {self.space!r}")
        if not re.fullmatch(r"[a-z0-9_]+", self.name):
            raise DotsZooError(
                f"{place}: expected a name of lower-case letters, digits and underscores, which timm's "
                "cell_NAME can hold; rename it"
            )


MACROS: dict[str, MacroArchitecture] = {}


def build_macro(macro: str, genotype: Genotype, channels: int, layers: int, in_chans: int) -> Macro:
    """Return the parts of a network.

    Raises DotsZooError where the macro-architecture is unknown or cannot have this size, GenotypeError where
    it stacks cells of another space.
    """
    record = look_up(MACROS, macro, "macro", PLUGIN_HINT)
    if genotype.space != record.space:
        others = [name for name, other in MACROS.items() if other.space == genotype.space]
        raise GenotypeError(
            f"genotype {genotype.name!r} is of the space {genotype.space!r}, but macro {macro!r} is built of "
            f"{record.space!r} cells: use macro {' or '.join(others)}"
        )
    return record.build(genotype, channels, layers, in_chans)


def usual_macro(space: str, size: float) -> str:
    """Return the default macro-architecture of a space, for images with a side of `size` pixels."""
    usual = [macro for macro in MACROS.values() if macro.space == space and macro.usual_up_to >= size]
    return min(usual, key=lambda macro: macro.usual_up_to).name


SMALL_IMAGES: Mapping[str, Any] = {
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.4914, 0.4822, 0.4465),  # CIFAR-10, training images
    "std": (0.2470, 0.2435, 0.2616),
    "num_classes": 10,
}
IMAGENET: Mapping[str, Any] = {
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bilinear",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "num_classes": 1000,
}
MOBILE = MacroArchitecture("mobile", mobile, 48, 14, (2, 4, 8, 16, 32), IMAGENET, usual_up_to=math.inf)
CIFAR = MacroArchitecture("cifar", cifar, 36, 20, usual_up_to=64)
NB201 = MacroArchitecture("nb201", nb201, 16, 15, space="nasbench201", usual_up_to=math.inf)
