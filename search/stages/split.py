"""Which training images a search uses for what."""

from typing import Literal

import torch
from torch import Tensor

from dots_zoo.data.split import per_class

Part = Literal["a", "b", "all"]


def split(
    labels: Tensor, fractions: tuple[float, float] | None, generator: torch.Generator
) -> dict[Part, Tensor]:
    """Indices of the training images: `a` and `b` halve them at random, or are those shares of every class;
    `all` are both.
    """
    if fractions is None:
        order = torch.randperm(len(labels), generator=generator)
        return {"a": order[: len(labels) // 2], "b": order[len(labels) // 2 :], "all": order}
    first, second = per_class(labels, fractions, generator)
    return {"a": first, "b": second, "all": torch.cat([first, second])}
