"""The auxiliary branch of DARTS- and the schedule of its weight; any operation search can have one.

Source: DARTS- (ICLR 2021), Eq. 4 (the branch), Algorithm 1 and Sec. 4.4 (decay: linear, cosine, step at epoch
45, hold and decay over the last 50 epochs; beta_0; a 1x1 projection that starts as the identity instead).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from dots_zoo.runtime.errors import DotsZooError

from ..supernet import Auxiliary, Mixture
from .stage import Relaxation, Search, StepIndex, Weights


@dataclass(frozen=True)
class AuxiliaryConfig:
    """The branch beside the operations of every edge, and its weight beta over the epochs.

    Args:
        branch: none, a skip connection, or a 1x1 convolution that starts as the identity; where the
            resolution halves, a FactorizedReduce either way.
        weight: beta_0, at the first epoch.
        decay: schedule of beta. linear and cosine reach zero at the last epoch, step at `decay_epoch`; hold
            keeps beta_0 until `decay_epochs` before the end and falls linearly from there.
        decay_epoch: first epoch without the branch, for step.
        decay_epochs: epochs over which beta falls at the end, for hold.
    """

    branch: Auxiliary = "skip"
    weight: float = 1.0  # Sec. 4.4, Table 6
    decay: Literal["linear", "cosine", "step", "hold"] = "linear"  # Sec. 3.2
    decay_epoch: int = 45  # Sec. 4.4
    decay_epochs: int = 50  # Sec. 4.4

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise DotsZooError(f"auxiliary.weight: expected 0 or more, got {self.weight}")


def auxiliary_weight(config: AuxiliaryConfig, epoch: int, epochs: int) -> float:
    """Return beta at an epoch of a search of `epochs`, zero after the last one."""
    if epoch >= epochs or config.branch == "none":
        return 0.0
    done = epoch / max(1, epochs - 1)
    if config.decay == "linear":
        return config.weight * (1 - done)
    if config.decay == "cosine":
        return config.weight * (1 + math.cos(math.pi * done)) / 2
    if config.decay == "step":
        return config.weight * (epoch < config.decay_epoch)
    span = min(config.decay_epochs, epochs)
    return config.weight * min(1.0, (epochs - 1 - epoch) / max(1, span - 1))


def with_auxiliary(
    relax: Callable[[Search], Relaxation], config: AuxiliaryConfig, epochs: int, start: int = 0
) -> Callable[[Search], Relaxation]:
    """Add the auxiliary branch to a relaxation, for `epochs` of a run from epoch `start`."""

    def relax_beside(search: Search) -> Relaxation:
        plain = relax(search)

        def build_mixture(weights: Weights, step_index: StepIndex) -> Mixture:
            beta = auxiliary_weight(config, step_index.epoch - start, epochs)
            return replace(plain.build_mixture(weights, step_index), auxiliary=beta)

        def schedules(step_index: StepIndex) -> dict[str, float]:
            beta = auxiliary_weight(config, step_index.epoch - start, epochs)
            return {**plain.schedules(step_index), "auxiliary_weight": beta}

        return replace(plain, build_mixture=build_mixture, schedules=schedules)

    return relax_beside
