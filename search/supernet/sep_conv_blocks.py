"""Recognition of the separable convolutions that kernels can compute, by their layers."""

from typing import TypeGuard

from torch import nn

from dots_zoo.kernels import SepConvBlock
from dots_zoo.kernels.batch_norm import has_running_statistics
from dots_zoo.kernels.depthwise import is_square_depthwise

BLOCK = 4  # layers: ReLU, depthwise convolution, pointwise convolution, batch norm


def sep_conv_blocks(operation: nn.Module) -> tuple[SepConvBlock, ...]:
    """Return the one or two blocks of a separable convolution, none for any other operation."""
    layers = [*operation] if isinstance(operation, nn.Sequential) else []
    if len(layers) not in (BLOCK, 2 * BLOCK):
        return ()
    parts = [_block(*layers[start : start + BLOCK]) for start in range(0, len(layers), BLOCK)]
    blocks = tuple(block for block in parts if block is not None)
    if len(blocks) < len(parts) or len({block.depthwise.in_channels for block in blocks}) > 1:
        return ()
    if len(blocks) == 2 and blocks[1].depthwise.stride[0] > 1:  # all first blocks output maps of one size
        return ()
    return blocks


def has_fast_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Return True for a batch norm with running statistics and without affine."""
    return has_running_statistics(module) and not module.affine


def _block(
    relu: nn.Module, depthwise: nn.Module, pointwise: nn.Module, norm: nn.Module
) -> SepConvBlock | None:
    """Return the block of four layers, None where they are not one that keeps or halves the resolution."""
    if not (
        isinstance(relu, nn.ReLU)
        and is_square_depthwise(depthwise)
        and type(pointwise) is nn.Conv2d
        and pointwise.kernel_size == pointwise.stride == (1, 1)
        and pointwise.groups == 1
        and pointwise.padding == (0, 0)
        and pointwise.bias is None
        and pointwise.in_channels == pointwise.out_channels == depthwise.in_channels
        and has_fast_norm(norm)
    ):
        return None
    taps, dilation = depthwise.kernel_size[0], depthwise.dilation[0]
    if taps % 2 == 0 or depthwise.padding[0] != dilation * (taps // 2):
        return None
    return SepConvBlock(depthwise, pointwise, norm)
