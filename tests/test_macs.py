"""Counts against hand formulas; the model stays as it was."""

import pytest
import timm
import torch
from torch import Tensor, nn

import dots_zoo  # noqa: F401
from dots_zoo.macs import count
from dots_zoo.runtime.errors import DotsZooError


def test_convolution_with_groups_stride_and_dilation():
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2)
    # (9 + 4 - 4 - 1) // 2 + 1 = 5 high, (11 + 4 - 4 - 1) // 2 + 1 = 6 wide, 4 / 2 * 3 * 3 products an element
    costs = count(conv, (4, 9, 11))
    assert costs.macs == 6 * 5 * 6 * (4 // 2 * 9)
    assert costs.activations == 6 * 5 * 6
    assert costs.params == 6 * 2 * 9 + 6
    assert costs.uncounted == {}


def test_depthwise_convolution():
    costs = count(nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False), (8, 7, 7))
    assert (costs.params, costs.macs, costs.activations) == (8 * 25, 8 * 49 * 25, 8 * 49)


def test_transposed_convolution():
    # every one of the 3 * 5 * 5 inputs is multiplied by 2 * 2 * 2 weights
    costs = count(nn.ConvTranspose2d(3, 2, 2, stride=2, bias=False), (3, 5, 5))
    assert (costs.macs, costs.activations) == (3 * 25 * 2 * 4, 2 * 100)


def test_linear_layer_pooling_and_batch():
    model = nn.Sequential(nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 5))
    costs = count(model, (3, 8, 8), batch=2)
    assert (costs.params, costs.macs, costs.activations) == (12 * 5 + 5, 2 * 12 * 5, 0)
    assert costs.uncounted == {"aten.avg_pool2d": 1, "aten.relu": 1}


def test_attention_is_two_matrix_products():
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    costs = count(Attention(), (2, 7, 3))  # 2 heads, 7 tokens of width 3
    assert costs.macs == 2 * (2 * 7 * 7 * 3)
    assert "aten._safe_softmax" in costs.uncounted


def test_a_shared_parameter_counts_once_and_its_calls_every_time():
    conv = nn.Conv2d(3, 3, 1, bias=False)
    costs = count(nn.Sequential(conv, conv), (3, 2, 2))
    assert (costs.params, costs.macs) == (9, 2 * 9 * 4)


def test_resnet18_and_its_features():
    model = timm.create_model("resnet18")
    # 1,814,073,344 is the count of the literature for 224x224; the classifier has 512 * 1000 of it
    assert count(model, (3, 224, 224)).macs == 1_814_073_344
    features = timm.create_model("resnet18", features_only=True)
    costs = count(features, (3, 224, 224))
    assert costs.macs == 1_814_073_344 - 512_000
    assert costs.params == 11_176_512


def test_features_of_dots_imagenet():
    # 587,347,392 is the count of the published network; its classifier has 768 * 1000 of it
    features = timm.create_model("dots_imagenet", features_only=True, device="meta")
    assert count(features, (3, 224, 224)).macs == 587_347_392 - 768_000


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool):
    model = timm.create_model("test_resnet").half().train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count(model, (3, 32, 32))
    assert all(module.training is training for module in model.modules())
    after = model.state_dict()
    assert all(after[key].device.type == "cpu" and torch.equal(after[key], before[key]) for key in before)


def test_input_that_cannot_run():
    with pytest.raises(DotsZooError, match=r"Conv2d cannot run an input of 1x4x8x8 \(NxCxHxW\)"):
        count(nn.Conv2d(3, 4, 3), (4, 8, 8))
