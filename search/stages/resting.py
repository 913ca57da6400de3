"""Operations that rest for an epoch: their weight is exactly zero and cannot change within it.

DOTS anneals the operations at T/1000 (Sec. 4.2.2). Where the logits of an edge are so far apart that the
softmax underflows, one operation has all of its weight. The gradient of such a row of logits is zero,

    dL/dalpha_o = w_o (g_o - sum_p w_p g_p) / T = 0   for w one-hot,

so only weight decay and Adam's moments move it. Their effect over the steps of an epoch is computed
beforehand, by Adam itself with gradients of zero; where the row stays one-hot throughout, its other
operations rest: they are not computed, and neither their weights and statistics nor their logits and moments
move.

Not in the papers. Outputs, and the gradients of everything that does not rest, are the same as without
resting. It is decided between two epochs, since it reads logits back from the device.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest

import torch
from torch import Tensor
from torch.optim import Adam

from .stage import Search

MOMENTS = ("exp_avg", "exp_avg_sq")  # in Adam's state


def underflow(dtype: torch.dtype) -> float:
    """Return the distance from which on exp(-distance) is zero, plus one for rounding."""
    limits = torch.finfo(dtype)
    return 1 - math.log(limits.tiny) - math.log(limits.eps)  # tiny * eps is the smallest subnormal number


def resting_operations(search: Search, name: str, temperature: float, steps: int) -> Tensor:
    """Return the alternatives of some logits that rest for an epoch, bool (R, C), on the CPU.

    Args:
        search: the search before the epoch.
        name: of the logits.
        temperature: of their softmax in the epoch.
        steps: of the epoch.
    """
    logits, candidates = search.logits[name], search.candidate_mask[name]  # (R, C)
    start = logits.detach().double().cpu()
    moved = start.clone().requires_grad_()
    adam = _adam_of(search, logits, moved)
    best = start.masked_fill(~candidates, -math.inf).argmax(dim=1, keepdim=True)  # (R, 1)
    nearest = torch.full_like(start, math.inf)
    for step in range(steps + 1):
        if step:
            adam.step()
        # An alternative that rests stays where it is, one that is computed decays: neither may come near.
        lead = moved.detach().gather(1, best) - torch.maximum(moved.detach(), start)
        nearest = torch.minimum(nearest, lead)
    leader = torch.zeros_like(candidates).scatter_(1, best, True)
    weightless = nearest > underflow(logits.dtype) * temperature
    one_hot = (weightless | leader | ~candidates).all(dim=1, keepdim=True)  # (R, 1)
    return candidates & ~leader & one_hot


def _adam_of(search: Search, logits: Tensor, copy: Tensor) -> Adam:
    """Return a copy of the logits' optimiser that steps `copy`, on the CPU, with gradients of zero."""
    group = search.logits_optimiser.param_groups[0]
    adam = Adam([copy], group["lr"], group["betas"], group["eps"], group["weight_decay"])
    for key, value in search.logits_optimiser.state.get(logits, {}).items():
        adam.state[copy][key] = value.detach().cpu().clone().to(value.dtype if key == "step" else copy.dtype)
    copy.grad = torch.zeros_like(copy)
    return adam


@contextmanager
def unmoved(search: Search, still: Mapping[str, Tensor]) -> Iterator[None]:
    """Keep some logits, and their moments in Adam, unchanged by a step within the block.

    Adam's count of steps, which only corrects the bias of the first ones, is shared by all logits.

    Args:
        search: whose optimiser takes the step.
        still: name of the logits -> bool (R, C) on their device, True where nothing moves.
    """
    before = {name: [tensor.clone() for tensor in _moving(search, name)] for name in still}
    yield
    for name, mask in still.items():
        for now, then in zip_longest(_moving(search, name), before[name]):  # no moments before a first step
            now.copy_(torch.where(mask, 0.0 if then is None else then, now))


def _moving(search: Search, name: str) -> list[Tensor]:
    """Return the tensors that Adam moves: the logits, and their moments once it has them."""
    state = search.logits_optimiser.state[search.logits[name]]
    return [search.logits[name].detach(), *(state[key] for key in MOMENTS if key in state)]
