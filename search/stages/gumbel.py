"""What a step draws and what is annealed with it: Gumbel noise, linear schedules.

Source: The Concrete Distribution (ICLR 2017), Eq. 10, as SNAS (ICLR 2019), Eq. 4, and GDAS (CVPR 2019), Eq.
5, use it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.to_device import sent

from ..space.relax import group_softmax
from .stage import Moment


def gumbel(shape: torch.Size, draws: torch.Generator) -> Tensor:
    """Gumbel(0, 1) noise on the CPU: -log(-log u) of a uniform u, as -log of an exponential draw."""
    return -torch.empty(shape).exponential_(generator=draws).log()


def concrete(logits: Tensor, groups: Tensor, temperature: float, draws: torch.Generator) -> Tensor:
    """(R, C): softmax((logits + Gumbel noise) / temperature) in every group, as `group_softmax` has them.

    Its largest entry is that of a categorical draw with the probabilities softmax(logits), whatever the
    temperature.
    """
    noise = sent(gumbel(logits.shape, draws), logits.device)
    return group_softmax(logits + noise, groups, temperature)


def linear(epoch: int, epochs: int, start: float, end: float) -> float:
    """From `start` at epoch 0 to `end` at epoch `epochs - 1`, and `end` from there on; `start` if there is
    one.
    """
    return start + (end - start) * min(1.0, epoch / max(1, epochs - 1))


def temperatures(epochs: int, start: float, end: float) -> Callable[[Moment], dict[str, float]]:
    """The schedule of a temperature that falls linearly over the epochs of an operation search."""
    return lambda moment: {"temperature": linear(moment.epoch, epochs, start, end)}


def check_temperatures(start: float, end: float) -> None:
    """Raises DotsZooError where a temperature cannot divide logits."""
    for name, value in (("temperature_start", start), ("temperature_end", end)):
        if value <= 0:
            raise DotsZooError(f"{name}: expected more than 0, got {value}")
