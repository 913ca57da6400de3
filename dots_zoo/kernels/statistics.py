"""By which statistics a batch norm normalises, and whether they move.

Source: Ioffe and Szegedy (2015), Sec. 3.1.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .elementwise import move


def precisely(device: torch.device) -> AbstractContextManager[Any]:
    """Outside autocast: statistics and what is made of them are in single precision at least."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def by_batch(norm: nn.BatchNorm2d) -> bool:
    """Whether it normalises by the statistics of the batch."""
    return norm.training or norm.running_mean is None


def track(norms: Sequence[nn.BatchNorm2d], means: Any, variances: Any, count: int) -> None:
    """Move the running statistics, where they are kept: means and variances (K, C) of `count` pixels each,
    tensors or arrays of numpy.
    """
    if norms[0].running_mean is None:
        return
    rate, unbiased = norms[0].momentum or 0.0, variances * (count / max(1, count - 1))
    if isinstance(means, Tensor):
        torch._foreach_lerp_([cast(Tensor, norm.running_mean) for norm in norms], list(means), rate)
        torch._foreach_lerp_([cast(Tensor, norm.running_var) for norm in norms], list(unbiased), rate)
        torch._foreach_add_([cast(Tensor, norm.num_batches_tracked) for norm in norms], 1)
        return
    kept = [
        [cast(Tensor, x) for x in (norm.running_mean, norm.running_var, norm.num_batches_tracked)]
        for norm in norms
    ]
    assert all(x.numpy().dtype == means.dtype for row in kept for x in row[:2]), "a loop moves one type"
    move(np.array([[x.data_ptr() for x in row] for row in kept], np.int64), means, unbiased, rate)
