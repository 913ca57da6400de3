"""Recomputation in the backward pass: less memory for more time.

Source: Training deep nets with sublinear memory cost (Chen et al., 2016), Sec. 4.
"""

from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .bn_statistics import frozen_statistics


def recompute(module: nn.Module, *inputs: Any) -> Tensor:
    """Return module(*inputs), keeping only the inputs for the backward pass, which recomputes the rest.

    The recomputation has the same draws and does not move running statistics a second time.
    """
    out: Tensor = checkpoint(
        module,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), frozen_statistics(module)),
    )
    return out
