"""Prepacked convolutions compute what torch's do."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from dots_zoo.fuse.fuse import REWRITES, fuse
from dots_zoo.kernels.prepack import PrepackedConv, prepack
from dots_zoo.runtime.errors import DotsZooError
from helpers.fitting import assert_same, fitted, images, movement

SIZE = (3, 33, 33)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "groups", "numbers"),
    [
        (1, 1, {}),
        (1, 3, {}),
        (1, 1, {"stride": 2}),
        (3, 1, {"stride": 2, "padding": 1}),
        (3, 12, {"padding": 1}),
        (5, 12, {"padding": 4, "dilation": 2}),
        ((1, 7), 1, {"stride": (1, 2), "padding": (0, 3)}),
    ],
)
def test_a_layer(kernel: int, groups: int, numbers: dict[str, int], bias: bool, last: bool) -> None:
    conv = nn.Conv2d(12, 24, kernel, groups=groups, bias=bias, **numbers)
    x = torch.randn(2, 12, 9, 8).contiguous(
        memory_format=torch.channels_last if last else torch.contiguous_format
    )
    with torch.no_grad():
        torch.testing.assert_close(PrepackedConv(conv)(x), conv(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rewrites", [None, tuple(REWRITES)])
def test_a_network(rewrites: tuple[str, ...] | None) -> None:
    torch.manual_seed(0)
    model = fitted(timm.create_model("dots_imagenet", channels=16, layers=4, num_classes=7), SIZE)
    packed = copy.deepcopy(model) if rewrites is None else fuse(model, rewrites)
    packed.to(memory_format=torch.channels_last)
    prepack(packed)
    assert not any(isinstance(module, nn.Conv2d) for module in packed.modules())
    x = images(SIZE, 3)
    with torch.inference_mode():
        got = copy.deepcopy(packed)(x.contiguous(memory_format=torch.channels_last))
    assert_same(got, model(x), movement(model, SIZE))


def test_other_convolutions_stay() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 2, 3, padding="same"), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
    )
    prepack(model.eval())
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.Conv2d]


def test_the_weights_are_copies() -> None:
    conv = nn.Conv2d(2, 2, 1)
    packed, x = PrepackedConv(conv), torch.ones(1, 2, 3, 3)
    before = conv(x).detach()
    nn.init.zeros_(conv.weight), nn.init.zeros_(conv.bias)
    torch.testing.assert_close(packed(x), before)
    assert F.l1_loss(before, torch.zeros_like(before)) > 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Conv2d(2, 2, 1).train(), "prepack: expected a model in evaluation mode, got one in training"),
        (nn.Sequential(nn.Conv2d(2, 2, 1).double()).eval(), "but 0.weight is in torch.float64 on cpu"),
        (nn.Sequential(nn.Conv2d(2, 2, 1, device="meta")).eval(), "0.weight is in torch.float32 on meta"),
    ],
)
def test_what_cannot_be_prepacked(model: nn.Module, message: str) -> None:
    before = list(model.modules())
    with pytest.raises(DotsZooError, match=message):
        prepack(model)
    assert list(model.modules()) == before


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    with pytest.raises(DotsZooError, match="built without oneDNN"):
        prepack(nn.Conv2d(2, 2, 1).eval())
