"""Prepack the weights of convolutions in oneDNN's layout for inference on a CPU: `prepack(model)`.

PyTorch rewrites the weights of a convolution into that layout on every call, and for a single image on a
single thread it gives the 1x1 convolutions to a slower matrix product. The cost of both for a `fuse`d network
is measured by `benchmarks/discrete.py`. The operator is the one that PyTorch's compiler uses.
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from ..runtime.errors import DotsZooError


class PrepackedConv(nn.Module):
    """An nn.Conv2d for inference with prepacked weights: (N, C, H, W) -> (N, C', H', W').

    It has no parameters and no gradient, and cannot be saved: a state dict holds no packed weights.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.geometry = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self.bias = None if conv.bias is None else conv.bias.detach().clone()
        weight = conv.weight.detach().to_mkldnn()
        self.weight: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(weight, *self.geometry)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.geometry, "none", [], ""
        )
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> "PrepackedConv":
        return self  # immutable, and PyTorch cannot copy a packed tensor


def prepack(model: nn.Module) -> None:
    """Replace the convolutions of a model in place; then it can run, but not be trained, saved or exported.

    model: in evaluation mode, in float32 on a CPU; channels_last is its faster layout. Raises DotsZooError,
    with the model unchanged, for any other model, and where PyTorch was built without oneDNN.
    """
    _check(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if _can_be_prepacked(child):
                setattr(module, name, PrepackedConv(child))


def _can_be_prepacked(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and isinstance(module.padding, tuple)


def _check(model: nn.Module) -> None:
    if not torch.backends.mkldnn.is_available():
        raise DotsZooError("prepack: this PyTorch was built without oneDNN, whose layout prepack is for")
    if model.training:
        raise DotsZooError(
            "prepack: expected a model in evaluation mode, got one in training mode: call eval()"
        )
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu" or parameter.dtype is not torch.float32:
            raise DotsZooError(
                f"prepack: expected parameters in float32 on the CPU, but {name} is in {parameter.dtype} on "
                f"{parameter.device}"
            )
