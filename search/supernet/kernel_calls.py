"""The kernels that a fast cell calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.kernels.batch_norm import normalise
from dots_zoo.kernels.malloc import return_freed_memory
from dots_zoo.kernels.norm_ops import dense
from dots_zoo.kernels.per_channel import has_loops
from dots_zoo.kernels.weighted_sum import weighted_sum

from .factorized_reduce import every_other, halves
from .max_pool import _Maximum
from .sep_conv import before_relu
from .sep_conv_sum import sum_of_separable

__all__ = [
    "SepConvBlock",
    "batch_norm",
    "even_odd_pixels",
    "every_other_pixel",
    "max_pool_3x3",
    "relu_mask_once",
    "return_freed_memory",
    "sep_conv_sum",
    "weighted_sum",
]

every_other_pixel, even_odd_pixels, relu_mask_once = every_other, halves, before_relu


class SepConvBlock(NamedTuple):
    """ReLU, depthwise and pointwise convolution, batch norm; even: it is fed every other pixel of its input,
    which is all that a depthwise convolution of dilation and stride 2 reads.
    """

    depthwise: nn.Conv2d
    pointwise: nn.Conv2d
    norm: nn.BatchNorm2d
    even: bool = False


def sep_conv_sum(
    candidates: Sequence[Sequence[SepConvBlock]], weights: Tensor, maps: Sequence[Tensor], lean: bool
) -> Tensor:
    """Return sum_k w_k candidate_k(x_k), with batch norm by the batch: weights (K,), maps (N, C, H, W) out of
    `relu_mask_once`; lean keeps nothing but the maps.
    """
    adapted: Any = [_Candidate(tuple(map(_adapted, blocks))) for blocks in candidates]
    return sum_of_separable(adapted, weights, maps, lean)


def batch_norm(x: Tensor, norm: nn.BatchNorm2d, weight: Tensor | None) -> Tensor:
    """Return the normalised map, scaled by weight (C,) if there is one; the norm has none of its own."""
    return normalise(x, norm, weight)


def max_pool_3x3(x: Tensor) -> Tensor:
    """Return the maxima of stride 1, (N, C, H, W), without keeping their indices."""
    out: Tensor = _Maximum.apply(dense(x)) if has_loops(x) else F.max_pool2d(x, 3, 1, padding=1)
    return out


@dataclass(frozen=True)
class _Depthwise:
    weight: Tensor
    numbers: tuple[int, int, int]  # stride, padding, dilation


@dataclass(frozen=True)
class _Block:
    layers: tuple[_Depthwise, nn.Conv2d, nn.BatchNorm2d]

    @property
    def norm(self) -> nn.BatchNorm2d:
        return self.layers[2]


@dataclass(frozen=True)
class _Candidate:
    parts: tuple[_Block, ...]


def _adapted(block: SepConvBlock) -> _Block:
    conv, by = block.depthwise, 2 if block.even else 1
    stride, padding, dilation = (
        cast(int, sizes[0]) // by for sizes in (conv.stride, conv.padding, conv.dilation)
    )
    return _Block((_Depthwise(conv.weight, (stride, padding, dilation)), block.pointwise, block.norm))
