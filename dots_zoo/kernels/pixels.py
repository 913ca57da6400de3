"""Every other pixel, for layers of stride 2, with a gradient that is channels last."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .jit import empty_map


@torch.library.custom_op("dots_zoo::take_pixels", mutates_args=())
def take_pixels(x: Tensor, first: int) -> Tensor:
    """Return x[:, :, first::2, first::2] of (N, C, H, W), channels last; nothing is kept for its gradient."""
    return x[:, :, first::2, first::2].clone(memory_format=torch.channels_last)


@torch.library.custom_op("dots_zoo::spread_pixels", mutates_args=())
def spread_pixels(pixels: Tensor, first: int, height: int, width: int) -> Tensor:
    """Return zeros (N, C, H, W), channels last, with `pixels` at [:, :, first::2, first::2].

    The gradient of an index would not be channels last, and slow down everything that it is added to.
    """
    out = empty_map(pixels, pixels.shape[1], height, width).zero_()
    out[:, :, first::2, first::2] = pixels
    return out


@take_pixels.register_fake
def _(x: Tensor, first: int) -> Tensor:
    return x[:, :, first::2, first::2].clone(memory_format=torch.channels_last)


@spread_pixels.register_fake
def _(pixels: Tensor, first: int, height: int, width: int) -> Tensor:
    return empty_map(pixels, pixels.shape[1], height, width)


def _save_sides(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.first, ctx.sides = inputs[1], inputs[0].shape[2:]


take_pixels.register_autograd(
    lambda ctx, grad: (spread_pixels(grad, ctx.first, *ctx.sides), None), setup_context=_save_sides
)
spread_pixels.register_autograd(
    lambda ctx, grad: (take_pixels(grad, ctx.first), None, None, None), setup_context=_save_sides
)


def even_odd_pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return every other pixel, from the first and from the second on, each (N, C, H', W').

    On an odd side the latter are padded with zeros at the end.
    """
    even, odd = take_pixels(x, 0), take_pixels(x, 1)
    return even, F.pad(odd, [0, even.shape[3] - odd.shape[3], 0, even.shape[2] - odd.shape[2]])
