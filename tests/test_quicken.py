"""Faster layers take the place of torch's in a whole model."""

import timm
import torch
from torch import nn

from dots_zoo.depthwise import DepthwiseConv
from dots_zoo.quick_norm import QuickNorm
from dots_zoo.quicken import quicken


def test_a_model_keeps_its_parameters_and_names() -> None:
    inner = nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False))
    depthwise = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), inner, depthwise)
    model.eval()
    before = dict(model.state_dict(keep_vars=True))
    quicken(model)
    assert isinstance(model[1], QuickNorm) and not model[1].training and type(inner[0]) is nn.BatchNorm2d
    assert isinstance(model[3], DepthwiseConv) and type(model[0]) is nn.Conv2d
    after = dict(model.state_dict(keep_vars=True))
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)


def test_a_network_computes_the_same_gradients() -> None:
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    gradients = []
    for replace in (False, True):
        torch.manual_seed(0)
        model = timm.create_model("cell_cifar", genotype="dots_cifar10", channels=4, layers=3, num_classes=5)
        model.double()
        if replace:
            quicken(model)
            assert not any(type(m) is nn.Conv2d and m.groups > 1 for m in model.modules())
        model(images).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, quick in zip(*gradients, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-8, atol=1e-8)
