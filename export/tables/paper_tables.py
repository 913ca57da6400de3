"""The cost tables of the DOTS paper (CVPR 2021), and where their networks are to be had.

The figures are the paper's, typed from it: Table 3 (ImageNet) and, of the supplementary material, Table 1
(RetinaNet on COCO) and Table 2 (BiSeNet on Cityscapes). What the paper calls FLOPs or Multi-Add are MACs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Network:
    """A public network.

    name: of timm or torchvision. arguments: of its constructor. label: shown instead of the name.
    """

    name: str
    library: Literal["timm", "torchvision"] = "timm"
    arguments: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def key(self) -> str:
        """Its name in tables and file names."""
        return self.label or self.name


@dataclass(frozen=True)
class Line:
    """One row of a paper's table.

    score: as Table.score says. network: None where none is in timm, in torchvision or among the bundled
    cells. same: it is the row's own network and not its nearest relative.
    """

    architecture: str
    params: float
    macs: float
    score: str
    network: Network | None = None
    note: str = ""
    same: bool = True


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    task, size: how our networks are counted and measured. whole: the paper's costs are of the same network.
    """

    key: str
    title: str
    score: str
    task: Literal["classify", "features"]
    size: Size
    lines: tuple[Line, ...]
    whole: bool = True
    note: str = ""


M, G = 1e6, 1e9

DOTS_IMAGENET = Network("dots_imagenet")
# Of GoogLeNet without auxiliary heads.
GOOGLENET = Network("googlenet", "torchvision", {"init_weights": False, "aux_logits": False})
FAIR_DARTS_B = Network(
    "cell_mobile", arguments={"genotype": "fair_darts_cifar10_b"}, label="fair_darts_cifar10_b_mobile"
)
NOT_PUBLIC = "not in timm, in torchvision or among the bundled cells"


def _line(unit: float) -> Callable[..., Line]:
    """Return a function of (architecture, params in millions, MACs in `unit`, score, network, note)."""

    def line(
        architecture: str,
        params: float,
        macs: float,
        reached: float | str,
        network: Network | None = None,
        note: str = "",
        same: bool = True,
    ) -> Line:
        remark = note or ("" if network else NOT_PUBLIC)
        return Line(architecture, params * M, macs * unit, str(reached), network, remark, same)

    return line


_imagenet = _line(M)
IMAGENET = Table(
    key="imagenet",
    title="Paper, Table 3: ImageNet",
    score="top-1, %",
    task="classify",
    size=(3, 224, 224),
    lines=(
        _imagenet(
            "Inception-v1", 6.6, 1448, 69.8, GOOGLENET, "torchvision's has 3x3 where the paper has 5x5"
        ),
        _imagenet("MobileNet", 4.2, 569, 70.6, Network("mobilenetv1_100")),
        _imagenet("ShuffleNet 2x (v1)", 5.4, 524, 73.6),
        _imagenet("ShuffleNet 2x (v2)", 7.4, 591, 74.9, Network("shufflenet_v2_x2_0", "torchvision")),
        _imagenet("NASNet-A", 5.3, 564, 74.0, note="timm has only the large network"),
        _imagenet("AmoebaNet-C", 6.4, 570, 75.7),
        _imagenet("PNAS", 5.1, 588, 74.2, note="timm has only the large network"),
        _imagenet("MnasNet-92", 4.4, 388, 74.8, note="timm has MnasNet-A1 and -B1, which are other networks"),
        _imagenet("DARTS (2nd order) (CIFAR10)", 4.7, 574, 73.3, Network("darts_v2_mobile")),
        _imagenet("SNAS (CIFAR10)", 4.3, 522, 72.7),
        _imagenet("P-DARTS (CIFAR10)", 4.9, 557, 75.6, Network("p_darts_cifar10_mobile")),
        _imagenet("GDAS (CIFAR10)", 5.3, 581, 74.0),
        _imagenet("FairDARTS (CIFAR10)", 4.8, 541, 75.1, FAIR_DARTS_B),
        _imagenet("PC-DARTS (CIFAR10)", 5.3, 586, 74.9, Network("pc_darts_cifar10_mobile")),
        _imagenet("SDARTS-ADV (CIFAR10)", 5.4, 594, 74.8),
        _imagenet("DropNAS (CIFAR10)", 5.2, 572, 75.5, Network("dropnas_cifar10_mobile")),
        _imagenet("ASAP (CIFAR10)", 3.8, 427, 73.7),
        _imagenet("DOTS (CIFAR10)", 5.2, 581, 75.7, Network("dots_cifar10_mobile")),
        _imagenet("ProxylessNAS (ImageNet)", 7.1, 465, 75.1),
        _imagenet("FairDARTS (ImageNet)", 4.3, 440, 75.6),
        _imagenet("PC-DARTS (ImageNet)", 5.3, 597, 75.8, Network("pc_darts_imagenet")),
        _imagenet(
            *("DOTS (ImageNet)", 5.3, 596, 76.0, DOTS_IMAGENET),
            "48 channels; the 46 that the paper states give 4.95 M and 541 M",
        ),
    ),
    note="Cells named CIFAR10 or ImageNet after the images they were searched on.",
)

_coco = _line(M)
DETECTION = Table(
    key="detection",
    title="Supplementary, Table 1: backbones of RetinaNet on COCO",
    score="AP",
    task="classify",
    size=(3, 224, 224),
    lines=(
        _coco("ResNet-50", 25.6, 4120, "0.363", Network("resnet50")),
        _coco("MobileNet-V2", 3.4, 300, "0.283", Network("mobilenetv2_100")),
        _coco("SinglePath NAS", 4.3, 365, "0.307", Network("spnasnet_100")),
        _coco("MobileNet-V3", 5.4, 219, "0.299", Network("mobilenetv3_large_100")),
        _coco(
            *("MnasNet", 4.8, 340, "0.305", Network("semnasnet_100")),
            "the paper's costs are MnasNet-A2's, which timm lacks; ours are of its MnasNet-A1",
            same=False,
        ),
        _coco("FairDARTSC", 5.0, 386, "0.319"),
        _coco("DOTS", 5.3, 596, "0.357", DOTS_IMAGENET),
    ),
    note="The costs are those of the classification networks.",
)

_cityscapes = _line(G)
SEGMENTATION = Table(
    key="segmentation",
    title="Supplementary, Table 2: BiSeNet on Cityscapes",
    score="mIoU val / test, %",
    task="features",
    size=(3, 512, 1024),
    lines=(
        _cityscapes("ResNet-18", 14.1, 20.1, "74.8 / 74.7", Network("resnet18")),
        _cityscapes("Xception-39", 1.9, 4.1, "69.0 / 68.4"),
        _cityscapes(
            *("MnasNet", 6.8, 11.0, "76.8 / 74.2", Network("semnasnet_100")),
            "MnasNet-A1; the paper does not say which",
        ),
        _cityscapes("DOTS", 8.0, 12.9, "79.3 / 77.6", DOTS_IMAGENET),
    ),
    whole=False,
    note="The paper's costs are of the whole segmenter, at an input size that it does not state; ours are of "
    "the backbone alone, without its classifier, at 512x1024. They are not to be compared.",
)

TABLES = (IMAGENET, DETECTION, SEGMENTATION)
