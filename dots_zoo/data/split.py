"""Draw shares of every class of a data set by its labels alone."""

import torch
from torch import Tensor

from ..runtime.errors import DotsZooError


def fraction_of_every_class(labels: Tensor, fraction: float) -> Tensor:
    """Return sorted indices of a fraction of every class, at least one of each; always the same choice."""
    classes = _shuffled_classes(labels, torch.Generator().manual_seed(0))
    return torch.cat([members[: max(1, round(fraction * len(members)))] for members in classes]).sort().values


def per_class(
    labels: Tensor, fractions: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw two disjoint sets of sorted indices: these fractions of every class, at least one image of each.

    PC-DARTS (ICLR 2020), Sec. 4.3, and DOTS search on ImageNet with (0.1, 0.025), for weights and for logits.
    Raises DotsZooError where the fractions are not possible or a class has fewer than two images.
    """
    first, second = fractions
    if not (first > 0 and second > 0 and first + second <= 1):
        raise DotsZooError(f"fractions: expected two shares above 0 with a sum up to 1, got {fractions}")
    chosen = [_two_parts(members, first, second) for members in _shuffled_classes(labels, generator)]
    one, other = (torch.cat(parts).sort().values for parts in zip(*chosen, strict=True))
    return one, other


def _two_parts(members: Tensor, first: float, second: float) -> tuple[Tensor, Tensor]:
    count = len(members)
    if count < 2:
        raise DotsZooError("fractions: expected two images of every class or more, got a class with one")
    middle = min(max(1, round(first * count)), count - 1)
    end = min(max(middle + 1, round((first + second) * count)), count)
    return members[:middle], members[middle:end]


def _shuffled_classes(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the indices of every class that occurs, in random order."""
    labels = labels.cpu()
    order = torch.randperm(len(labels), generator=generator)
    by_class = order[labels[order].argsort(stable=True)]
    parts: tuple[Tensor, ...] = by_class.split([count for count in labels.bincount().tolist() if count])
    return parts
