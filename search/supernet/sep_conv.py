"""Separable convolutions as candidates of a search: modules, and how they share a ReLU.

A half is a ReLU, a depthwise convolution, a pointwise one and batch norm; a candidate has one or two. In
training their weighted sum is computed by `sep_conv_sum.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.kernels.depthwise import DepthwiseConv


class Half(nn.Module):
    """A ReLU, a depthwise convolution, of every other pixel where even, a pointwise one, and a norm."""

    def __init__(self, depthwise: nn.Module, pointwise: nn.Module, norm: nn.Module, *, even: bool) -> None:
        super().__init__()
        assert isinstance(depthwise, nn.Conv2d) and isinstance(pointwise, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        self.depthwise, self.pointwise, self.norm = DepthwiseConv(depthwise, even), pointwise, norm
        self.layers = self.depthwise, pointwise, norm  # found without the search for names of nn.Module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.pointwise(self.depthwise(F.relu(x))))
        return out


class Separable(nn.Module):
    """One or two halves."""

    def __init__(self, halves: Sequence[Half]) -> None:
        super().__init__()
        self.halves, self.parts = nn.ModuleList(halves), tuple(halves)

    def forward(self, x: Tensor) -> Tensor:
        for half in self.halves:
            x = half(x)
        return x


def before_relu(x: Tensor) -> Tensor:
    """x itself, for candidates that take its ReLU as they read it, and give the gradient of that: of the
    sum of theirs the gradient of x is made once.
    """
    out: Tensor = _BeforeRelu.apply(x)
    return out


class _BeforeRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        out: Tensor = torch.ops.aten.threshold_backward(grad, ctx.saved_tensors[0], 0)
        return out
