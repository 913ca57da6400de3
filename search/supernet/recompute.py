"""Memory against time: what a backward pass computes a second time and not keep.

Source: Training deep nets with sublinear memory cost (Chen et al., 2016), Sec. 4.
"""

from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .bn_statistics import frozen_statistics


def recompute(module: nn.Module, *inputs: Any) -> Tensor:
    """Return module(*inputs) and keep the inputs alone; the backward pass computes it again, with the same
    draws, and without moving running statistics a second time.
    """
    out: Tensor = checkpoint(
        module,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), frozen_statistics(module)),
    )
    return out
