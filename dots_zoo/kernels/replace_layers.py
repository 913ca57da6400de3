"""Layers with a faster backward pass on a CPU, in the place of torch's."""

from torch import nn

from .batch_norm import QuickNorm, is_moving_norm
from .depthwise import DepthwiseConv, is_square_depthwise


def quicken(model: nn.Module) -> None:
    """Replace the depthwise convolutions and the batch norms of a model in place; names and weights stay."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if is_moving_norm(child):
                setattr(module, name, QuickNorm(child))
            elif is_square_depthwise(child):
                setattr(module, name, DepthwiseConv(child))
