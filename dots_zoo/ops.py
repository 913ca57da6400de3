"""The candidate operations of the DARTS and NAS-Bench-201 search spaces: modules and records.

Source: DARTS (ICLR 2019), Sec. 3.2 and its search space; DOTS (CVPR 2021), Sec. 3.1; NAS-Bench-201 (ICLR
2020), Fig. 1; `noise` is S4 of RobustDARTS (ICLR 2020), Sec. 3. Every operation maps (N, C, H, W) to (N, C,
H', W') with H' = ceil(H / stride), has no bias, and starts with its own ReLU where it has weights.

Differs from the public code: FactorizedReduce pads by one pixel before it shifts, so that odd sizes work
(even sizes are unchanged), and no ReLU works in place, since a node's output may be a tapped feature map.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .genotype.operations import OPS as OPS
from .genotype.operations import Operation, register_operation


def sep_conv(channels: int, stride: int, affine: bool, kernel: int) -> nn.Sequential:
    """Build a depthwise separable convolution applied twice; the first has the stride."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, 1, kernel // 2, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def dil_conv(channels: int, stride: int, affine: bool, kernel: int) -> nn.Sequential:
    """Build a depthwise separable convolution of dilation 2; its padding keeps the size at stride 1."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, kernel - 1, dilation=2, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def conv_7x1_1x7(channels: int, stride: int, affine: bool) -> nn.Sequential:
    """Build a 7x7 receptive field of two dense one-dimensional convolutions (DARTS's extended vocabulary)."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
        nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def relu_conv_bn(in_chs: int, out_chs: int, kernel: int, stride: int, affine: bool = True) -> nn.Sequential:
    """Build ReLU, convolution, batch norm: a cell's preprocessing, and NAS-Bench-201's convolutions."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_chs, out_chs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_chs, affine=affine),
    )


class FactorizedReduce(nn.Module):
    """Halving of the resolution that reads every pixel: 1x1 convolutions of even and of odd pixels.

    (N, in_chs, H, W) -> (N, out_chs, ceil(H / 2), ceil(W / 2)). The public code gives the convolutions stride
    2 and shifts the second one's input by a pixel: the same values, but half of its ReLU's output is never
    read.
    """

    def __init__(self, in_chs: int, out_chs: int, affine: bool = True) -> None:
        super().__init__()
        # One for each half: tools that hook modules, such as captum, refuse one that is called twice.
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.conv1 = nn.Conv2d(in_chs, out_chs // 2, 1, bias=False)
        self.conv2 = nn.Conv2d(in_chs, out_chs - out_chs // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_chs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
        # On an odd side the shifted image lacks the last row or column, which is zero.
        odd = F.pad(odd, [0, even.shape[3] - odd.shape[3], 0, even.shape[2] - odd.shape[2]])
        out: Tensor = self.bn(torch.cat([self.conv1(self.relu1(even)), self.conv2(self.relu2(odd))], dim=1))
        return out


class Zero(nn.Module):
    """The operation `none`: zeros of the output's size."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class Noise(nn.Module):
    """The operation `noise`: standard normal values, whatever the input (RobustDARTS, S4)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


def skip_connect(channels: int, stride: int, affine: bool) -> nn.Module:
    """Build the identity, or FactorizedReduce where the resolution halves."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


def nor_conv(channels: int, stride: int, affine: bool, kernel: int) -> nn.Sequential:
    """Build a dense convolution of NAS-Bench-201."""
    return relu_conv_bn(channels, channels, kernel, stride, affine)


def max_pool(channels: int, stride: int, affine: bool) -> nn.MaxPool2d:
    """Build 3x3 max pooling."""
    return nn.MaxPool2d(3, stride, padding=1)


def avg_pool(channels: int, stride: int, affine: bool) -> nn.AvgPool2d:
    """Build 3x3 average pooling that leaves the padding out of the mean."""
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


BOTH = ("darts", "nasbench201")
# The palette of Okabe and Ito, which colour-blind readers can tell apart.
DARK, ORANGE, BLUE, GREEN, PURPLE, RED = "#555555", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00"

# The groups v1 of DOTS come in the order of this table.
for _operation in (
    Operation("none", lambda channels, stride, affine: Zero(stride), parametric=False, spaces=BOTH),
    Operation("skip_connect", skip_connect, "skip", DARK, "skip", parametric=False, skip=True, spaces=BOTH),
    Operation("max_pool_3x3", max_pool, "max 3×3", ORANGE, "pool", parametric=False),
    Operation("avg_pool_3x3", avg_pool, "avg 3×3", ORANGE, "pool", parametric=False, spaces=BOTH),
    Operation("sep_conv_3x3", partial(sep_conv, kernel=3), "sep 3×3", BLUE, "sep_conv"),
    Operation("sep_conv_5x5", partial(sep_conv, kernel=5), "sep 5×5", BLUE, "sep_conv"),
    Operation("sep_conv_7x7", partial(sep_conv, kernel=7), "sep 7×7", BLUE, "sep_conv"),
    Operation("dil_conv_3x3", partial(dil_conv, kernel=3), "dil 3×3", GREEN, "dil_conv"),
    Operation("dil_conv_5x5", partial(dil_conv, kernel=5), "dil 5×5", GREEN, "dil_conv"),
    Operation("conv_7x1_1x7", conv_7x1_1x7, "7×1 1×7", PURPLE),
    Operation(
        "noise", lambda channels, stride, affine: Noise(stride), colour=RED, parametric=False, random=True
    ),
    Operation("nor_conv_1x1", partial(nor_conv, kernel=1), "conv 1×1", PURPLE, spaces=("nasbench201",)),
    Operation("nor_conv_3x3", partial(nor_conv, kernel=3), "conv 3×3", PURPLE, spaces=("nasbench201",)),
):
    register_operation(_operation)
