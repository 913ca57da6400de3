"""Count parameters, MACs and activations of a torch model, and list the operators without a formula.

One MAC is one multiplication with its addition; FLOPs are twice that. Counted, by the formulas of
torch.utils.flop_counter halved: convolutions (transposed ones too) and matrix products (linear layers,
attention). Not counted: biases, batch norm, activations, pooling, sums. Tools differ here (thop counts two
for each element of a batch norm, the DOTS paper one), so a number goes with the name of its counter.
"""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from .runtime.errors import DotsZooError


@dataclass(frozen=True)
class Costs:
    """The cost of one forward pass in evaluation mode.

    Args:
        params: elements of all parameters, each counted once.
        macs: MACs of convolutions and matrix products, over the whole batch.
        activations: elements of all convolution outputs (RegNet, CVPR 2020, Sec. 3.1), over the whole batch.
        uncounted: calls of each operator without a formula; views are left out, since they compute nothing.
    """

    params: int
    macs: int
    activations: int
    uncounted: Mapping[str, int]


class _Recorder(TorchDispatchMode):
    """A counter of activations and of operators without a formula, entered before the FLOP counter.

    In that order it sees what is left once the FLOP counter has decomposed the operators.
    """

    def __init__(self, counted: Mapping[Any, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = counted
        self.activations = 0
        self.uncounted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: OpOverload[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet is torch.ops.aten.convolution:
            self.activations += out.numel()
        elif packet not in self.counted and not _is_free(func):
            self.uncounted[str(packet)] += 1
        return out


def _is_free(func: OpOverload[..., Any]) -> bool:
    """Return True for views, and for the empty tensor that batch norm makes on the meta device."""
    aliases = [r.alias_info for r in func._schema.returns]
    is_view = any(alias is not None and not alias.is_write for alias in aliases)
    return is_view or func.overloadpacket is torch.ops.aten.empty


def _on_meta(model: nn.Module) -> nn.Module:
    """Copy a model to the meta device in evaluation mode: shapes without weights, whatever its device."""
    memo: dict[int, Tensor] = {id(b): b.to("meta") for b in model.buffers()}
    memo |= {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo).eval()


def count(model: nn.Module, input_size: tuple[int, int, int], batch: int = 1) -> Costs:
    """Count one forward pass of a batch of images of `input_size` (channels, height, width).

    The pass runs on a copy on the meta device, so that the model is left as it is and nothing is computed.
    Raises DotsZooError where the model cannot run an input of that size.
    """
    meta_model = _on_meta(model)
    dtype = next((p.dtype for p in meta_model.parameters()), torch.float32)
    image = torch.empty(batch, *input_size, device="meta", dtype=dtype)  # (N, C, H, W)
    counter = FlopCounterMode(display=False)
    recorder = _Recorder(counter.flop_registry)
    try:
        with torch.no_grad(), recorder, counter:
            meta_model(image)
    except (AssertionError, RuntimeError) as error:
        name, size, reason = (
            type(model).__name__,
            "x".join(map(str, image.shape)),
            str(error).partition("\n")[0],
        )
        raise DotsZooError(f"{name} cannot run an input of {size} (NxCxHxW): {reason}") from error
    return Costs(
        params=sum(p.numel() for p in meta_model.parameters()),
        macs=counter.get_total_flops() // 2,
        activations=recorder.activations,
        uncounted=dict(sorted(recorder.uncounted.items())),
    )
