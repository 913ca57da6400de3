"""Networks as the bodies of segmenters and detectors: smp, torchvision, effdet."""

from collections import OrderedDict

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

import dots_zoo
from helpers.fitting import images

SIZE = (3, 64, 64)


@pytest.fixture(autouse=True)
def name() -> str:
    """A narrow network of stride 2 to 32 under a timm name."""
    dots_zoo.register("narrow_body", "dots_imagenet", channels=4, layers=4, overwrite=True)
    return "narrow_body"


def assert_all_learn(model: nn.Module, loss: Tensor) -> None:
    """Every weight of the body that the tapped maps depend on has a gradient that is not zero somewhere."""
    loss.backward()
    stems = [p for key, p in model.named_parameters() if "stem." in key]
    cells = [p for key, p in model.named_parameters() if "cells." in key]
    assert stems and cells and all(p.grad is not None for p in [*stems, *cells])
    assert any(p.grad.abs().max() > 0 for p in stems) and any(p.grad.abs().max() > 0 for p in cells)


@pytest.mark.parametrize("decoder", ["Unet", "FPN"])
def test_smp(decoder: str, name: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = getattr(smp, decoder)(f"tu-{name}", encoder_weights=None, classes=2)
    masks = model(images(SIZE))
    assert masks.shape == (2, 2, 64, 64)
    assert_all_learn(model, masks.square().mean())


class Pyramid(nn.Module):
    """The taps of stride 8 to 32, each with `out_channels` channels, as torchvision's detectors read them."""

    def __init__(self, name: str, out_channels: int) -> None:
        super().__init__()
        self.body = timm.create_model(name, features_only=True, out_indices=(2, 3, 4))
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pyramid: dict[str, Tensor] = self.fpn(
            OrderedDict((str(i), tap) for i, tap in enumerate(self.body(x)))
        )
        return pyramid


def test_torchvision(name: str) -> None:
    anchors = AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)
    model = FCOS(Pyramid(name, 32), num_classes=3, anchor_generator=anchors, min_size=64, max_size=64)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    losses = model(list(images(SIZE)), [target, target])
    assert_all_learn(model, torch.stack(list(losses.values())).sum())
    assert set(model.eval()(list(images(SIZE)))[0]) == {"boxes", "scores", "labels"}


def test_effdet(name: str) -> None:
    effdet = pytest.importorskip("effdet")
    config = effdet.get_efficientdet_config("tf_efficientdet_d0")
    config.backbone_name, config.backbone_args, config.backbone_indices = name, {}, (2, 3, 4)
    config.image_size, config.num_classes, config.fpn_channels = (128, 128), 3, 16
    model = effdet.DetBenchTrain(effdet.EfficientDet(config, pretrained_backbone=False), config)
    target = {"bbox": torch.tensor([[[8.0, 8.0, 40.0, 40.0]]] * 2), "cls": torch.ones(2, 1)}
    loss = model(images((3, 128, 128)), target)["loss"]
    assert torch.isfinite(loss)
    assert_all_learn(model, loss)
