"""Faster layers take the place of torch's in a whole model."""

import pytest
import timm
import torch
from torch import nn

from dots_zoo.genotype import load_genotype
from dots_zoo.kernels import DepthwiseConv, FastBatchNorm, replace_with_fast_layers
from dots_zoo.network import CellNet
from dots_zoo.public_weights import checkpoint_filter_fn, load_public_checkpoint
from helpers.fitting import images
from helpers.public_darts import Network


def test_a_model_keeps_its_parameters_and_names() -> None:
    inner = nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False))
    depthwise = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), inner, depthwise)
    model.eval()
    before = dict(model.state_dict(keep_vars=True))
    replace_with_fast_layers(model)
    assert isinstance(model[1], FastBatchNorm) and not model[1].training and type(inner[0]) is nn.BatchNorm2d
    assert isinstance(model[3], DepthwiseConv) and type(model[0]) is nn.Conv2d
    after = dict(model.state_dict(keep_vars=True))
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)


@pytest.mark.parametrize("name", ["dots_imagenet", "dots_cifar10"])
def test_a_training_step_is_that_of_the_public_network(name: str) -> None:
    """Logits, gradients and statistics of one module for every edge, each with a ReLU of its own."""
    genotype = load_genotype(name)
    torch.manual_seed(0)
    plain = Network(genotype, 4, 6, 5, imagenet=False)
    ours = CellNet(genotype, "cifar", 4, 6, num_classes=5, aux_head=True)
    load_public_checkpoint(ours, plain.state_dict())
    replace_with_fast_layers(ours)
    models = [model.double().train() for model in (ours, plain)]
    models[0].to(memory_format=torch.channels_last)
    inputs = [images((3, 32, 32), 3).double().requires_grad_() for _ in models]
    for model, x in zip(models, inputs, strict=True):
        logits, auxiliary = model(x)
        (logits.square().sum() + auxiliary.square().sum()).backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-9)
    gradients = {key: parameter.grad for key, parameter in plain.named_parameters()}
    renamed = checkpoint_filter_fn({**plain.state_dict(), **gradients}, ours)
    own = {**ours.state_dict(), **{key: parameter.grad for key, parameter in ours.named_parameters()}}
    assert own.keys() == renamed.keys()
    for key in own:
        torch.testing.assert_close(own[key], renamed[key], rtol=1e-9, atol=1e-9)


def test_a_network_computes_the_same_gradients() -> None:
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    gradients = []
    for replace in (False, True):
        torch.manual_seed(0)
        model = timm.create_model("cell_cifar", genotype="dots_cifar10", channels=4, layers=3, num_classes=5)
        model.double()
        if replace:
            replace_with_fast_layers(model)
            assert not any(type(m) is nn.Conv2d and m.groups > 1 for m in model.modules())
        model(images).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, fast in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-8, atol=1e-8)
