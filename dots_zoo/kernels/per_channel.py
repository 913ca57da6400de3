"""Numbers of a channel, (K, C): arrays of numpy where maps `has_loops`, and tensors elsewhere.

They are few: an operator of PyTorch takes longer to be called than to compute them.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from .simd import LANES

Numbers = Any  # an array of numpy or a tensor

LIKE: dict[torch.dtype, Any] = {
    torch.float32: np.empty(0, np.float32),
    torch.float64: np.empty(0, np.float64),
}


def has_loops(x: Tensor) -> bool:
    """Whether a map is one for the compiled loops."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def tiles(x: Tensor, sides: Sequence[int]) -> bool:
    """Whether products with matrices of these sides have loops."""
    return has_loops(x) and not any(side % LANES for side in sides)


def numbers_of(x: Tensor, like: Tensor) -> Numbers:
    """Those of a tensor, to compute with what is found of a map."""
    return x.detach().numpy().astype(LIKE[like.dtype].dtype, copy=False) if has_loops(like) else x


def ones(like: Tensor) -> Numbers:
    """(C,) of a map."""
    shape = like.shape[1]
    return np.ones(shape, LIKE[like.dtype].dtype) if has_loops(like) else like.new_ones(shape)


def stacked(found: Sequence[Numbers]) -> Numbers:
    """K numbers of one shape, which comes behind K."""
    return torch.stack([*found]) if isinstance(found[0], Tensor) else np.stack(found)


def joined(found: Sequence[Numbers]) -> Tensor:
    """Vectors, one behind the other."""
    return torch.cat([*found]) if isinstance(found[0], Tensor) else torch.from_numpy(np.concatenate(found))


def as_parameters(found: Sequence[Numbers | None], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients, which lie as the parameters do, or they would be copied into place; all arrays of one shape
    become tensors in two calls.
    """
    out: list[Tensor | None] = [None] * len(found)
    same: dict[torch.Size, list[int]] = {}
    for number, (gradient, w) in enumerate(zip(found, parameters, strict=True)):
        if isinstance(gradient, Tensor):
            out[number] = gradient.to(w.dtype).as_strided(w.shape, w.stride())
        elif gradient is not None:
            same.setdefault(w.shape, []).append(number)
    for shape, numbers in same.items():
        arrays = np.empty((len(numbers), *shape), LIKE[parameters[numbers[0]].dtype].dtype)
        for place, number in zip(arrays, numbers, strict=True):
            place[...] = cast(Any, found[number]).reshape(shape)
        for number, gradient in zip(numbers, torch.from_numpy(arrays).unbind(), strict=True):
            out[number] = gradient
    return out


def tensor_of(found: Numbers, like: Tensor) -> Tensor:
    """Numbers in the precision of a map."""
    return (found if isinstance(found, Tensor) else torch.from_numpy(found)).to(like.dtype)
