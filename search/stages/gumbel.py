"""Gumbel noise, the concrete distribution, and linear schedules of what is annealed.

Source: The Concrete Distribution (ICLR 2017), Eq. 10, as SNAS (ICLR 2019), Eq. 4, and GDAS (CVPR 2019), Eq.
5, use it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.to_device import to_device

from ..space.relax import group_softmax
from .stage import StepIndex


def gumbel(shape: torch.Size, draws: torch.Generator) -> Tensor:
    """Return Gumbel(0, 1) noise on the CPU: -log(-log u) of a uniform u, as -log of an exponential draw."""
    return -torch.empty(shape).exponential_(generator=draws).log()


def concrete(logits: Tensor, groups: Tensor, temperature: float, draws: torch.Generator) -> Tensor:
    """Return softmax((logits + Gumbel noise) / temperature) in every group of every row, (R, C).

    The largest entry is that of a categorical draw with the probabilities softmax(logits), whatever the
    temperature.

    Args:
        logits: (R, C).
        groups: (G, R, C), as in `group_softmax`.
        temperature: of the softmax.
        draws: source of the noise.
    """
    noise = to_device(gumbel(logits.shape, draws), logits.device)
    return group_softmax(logits + noise, groups, temperature)


def linear(epoch: int, epochs: int, start: float, end: float) -> float:
    """Return the value at an epoch between `start` at epoch 0 and `end` from epoch `epochs - 1` on.

    A single epoch has the value `start`.
    """
    return start + (end - start) * min(1.0, epoch / max(1, epochs - 1))


def temperatures(epochs: int, start: float, end: float) -> Callable[[StepIndex], dict[str, float]]:
    """Return the schedule of a temperature that falls linearly over the epochs of an operation search."""
    return lambda step_index: {"temperature": linear(step_index.epoch, epochs, start, end)}


def check_temperatures(start: float, end: float) -> None:
    """Raise DotsZooError if a temperature is not positive."""
    for name, value in (("temperature_start", start), ("temperature_end", end)):
        if value <= 0:
            raise DotsZooError(f"{name}: expected more than 0, got {value}")
