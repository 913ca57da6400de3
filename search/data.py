"""Which training images a search uses for what."""

from typing import Literal

import torch
from torch import Tensor

Part = Literal["a", "b", "all"]


def split_halves(count: int, generator: torch.Generator) -> dict[Part, Tensor]:
    """Indices of the training images: `a` and `b` halve them at random, `all` are all."""
    order = torch.randperm(count, generator=generator)
    return {"a": order[: count // 2], "b": order[count // 2 :], "all": order}
