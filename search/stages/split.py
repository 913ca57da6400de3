"""The parts that the training images of a search are split into."""

from typing import Literal

import torch
from torch import Tensor

from dots_zoo.data.split import per_class

Part = Literal["a", "b", "all"]


def split(
    labels: Tensor, fractions: tuple[float, float] | None, generator: torch.Generator
) -> dict[Part, Tensor]:
    """Return the indices of the training images by part.

    `a` is the training split and `b` the validation split, two random halves or the given shares of every
    class; `all` is both.
    """
    if fractions is None:
        order = torch.randperm(len(labels), generator=generator)
        return {"a": order[: len(labels) // 2], "b": order[len(labels) // 2 :], "all": order}
    first, second = per_class(labels, fractions, generator)
    return {"a": first, "b": second, "all": torch.cat([first, second])}
