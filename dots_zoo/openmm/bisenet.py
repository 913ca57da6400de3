"""Extend MMSegmentation: BiSeNet over any timm backbone, the CamVid data set, IoU by class.

Source: Yu et al., BiSeNet (ECCV 2018), Sec. 3 and Fig. 2; the spatial path, attention refinement and feature
fusion are mmseg's modules. Differs from mmseg's BiSeNetV1: the context path is 128 channels wide whatever the
backbone's channels are; there its width and the backbone's are tied together.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..runtime.errors import DotsZooError
from .backbone import DotsBackbone
from .check_data import VOID

# isort: off
# mmseg is imported after .backbone, which puts mmcv's operators in place.
from mmcv.cnn import ConvModule
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from mmseg.models.backbones.bisenetv1 import AttentionRefinementModule, FeatureFusionModule, SpatialPath
from mmseg.registry import DATASETS, METRICS

# isort: on

NORM = {"type": "BN"}


class ContextPath(BaseModule):  # type: ignore[misc]
    """Refined and upsampled features: (N, 3, H, W) -> (N, width, H/8, W/8), (N, width, H/16, W/16)."""

    def __init__(self, backbone_cfg: Mapping[str, Any], width: int) -> None:
        super().__init__()
        self.backbone: DotsBackbone = MODELS.build(dict(backbone_cfg))
        at16, at32 = self.backbone.out_channels[-2:]
        self.arm16 = AttentionRefinementModule(at16, width)
        self.arm32 = AttentionRefinementModule(at32, width)
        self.head16 = ConvModule(width, width, 3, padding=1, norm_cfg=NORM)
        self.head32 = ConvModule(width, width, 3, padding=1, norm_cfg=NORM)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(at32, width, 1, norm_cfg=NORM))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        _, at8, at16, at32 = self.backbone(images)
        out32 = self.arm32(at32) + self.pool(at32)
        out32 = self.head32(F.interpolate(out32, at16.shape[2:]))
        out16 = self.head16(F.interpolate(self.arm16(at16) + out32, at8.shape[2:]))
        return out16, out32


@MODELS.register_module()
class DotsBiSeNet(BaseModule):  # type: ignore[misc]
    """BiSeNet's two paths and their fusion, a `backbone` of mmseg's EncoderDecoder.

    (N, 3, H, W) -> fused (N, out_channels, H/8, W/8) for the decoder, and the context path's two maps of
    `width` channels at strides 8 and 16 for the auxiliary heads.

    Args:
        backbone_cfg: config of a DotsBackbone with features of strides 4, 8, 16 and 32.
        width: channels of the context path.
        spatial_channels: channels of the spatial path's four layers.
        out_channels: channels of the fusion.
    """

    def __init__(
        self,
        backbone_cfg: Mapping[str, Any],
        width: int = 128,
        spatial_channels: Sequence[int] = (64, 64, 64, 128),
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        self.context_path = ContextPath(backbone_cfg, width)
        self.spatial_path = SpatialPath(num_channels=tuple(spatial_channels))
        self.fusion = FeatureFusionModule(spatial_channels[-1] + width, out_channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at8, at16 = self.context_path(images)
        return self.fusion(self.spatial_path(images), at8), at8, at16


@MODELS.register_module()
class WeightedCrossEntropy(nn.Module):
    """Cross-entropy with a weight per class; void pixels count for nothing.

    mmseg's CrossEntropyLoss(class_weight=...) looks the void label up among the weights and fails.
    """

    def __init__(self, class_weight: Sequence[float], loss_name: str = "loss_ce") -> None:
        super().__init__()
        self.class_weight: Tensor
        self.register_buffer("class_weight", torch.tensor(class_weight), persistent=False)
        self.loss_name = loss_name

    def forward(
        self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, ignore_index: int = VOID
    ) -> Tensor:
        """Return the mean over pixels, weighted by class, for logits (N, C, H, W) and labels (N, H, W)."""
        if weight is not None:
            raise DotsZooError("WeightedCrossEntropy: pixel samplers are not supported; leave sampler out")
        return F.cross_entropy(logits, labels, self.class_weight, ignore_index=ignore_index)


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):  # type: ignore[misc]
    """CamVid with the 11 classes of SegNet (Badrinarayanan et al., 2015); label 11 is void.

    By default images/*.jpg and labels/*.png in a folder a split; `img_suffix=".png"` and `data_prefix` fit
    the layout of the SegNet tutorial (train/, trainannot/).
    """

    METAINFO: dict[str, Any] = {
        "classes": (
            "Sky",
            "Building",
            "Pole",
            "Road",
            "Pavement",
            "Tree",
            "SignSymbol",
            "Fence",
            "Car",
            "Pedestrian",
            "Bicyclist",
        ),
        "palette": [
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    }

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Return the mapping of a label file's values to indices among the classes used, or to void."""
        names = list(cls.METAINFO["classes"])
        used = names if new_classes is None else list(new_classes)
        labels = {index: used.index(name) if name in used else VOID for index, name in enumerate(names)}
        return {**labels, len(names): VOID}


@METRICS.register_module()
class ClassIoU(IoUMetric):  # type: ignore[misc]
    """mmseg's IoUMetric that returns the IoU of every class as well, in %, as `IoU/NAME`."""

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        intersection, union = (sum(part) for part in list(zip(*results, strict=True))[:2])
        iou = 100 * intersection / union  # nan where a class is neither there nor predicted
        names = self.dataset_meta["classes"]
        metrics: dict[str, float] = copy.copy(super().compute_metrics(results))
        return metrics | {f"IoU/{name}": float(value) for name, value in zip(names, iou, strict=True)}
