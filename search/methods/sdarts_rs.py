"""SDARTS-RS: Stabilizing Differentiable Architecture Search via Perturbation-based Regularization.

Chen and Hsieh, ICML 2020, with random smoothing.

The weights of the supernet train for a perturbed architecture (Eq. 5-6), so that they stay good where
discretisation will move it:

    w <- argmin E[L_train(w, softmax(alpha) + delta)],   delta ~ U(-eps, eps),

and the logits train as in DARTS, unperturbed. eps rises linearly over the epochs (Algorithm 1). Perturbed
weights are clamped to [0, 1] and sum to one again.

Not specified in the paper: a row that the clamp sets to zero becomes its largest perturbed weight alone, as
in the public code (xiangning-chen/SmoothDARTS). DARTS-PT calls the noise Gaussian; paper and code are
uniform.

Differs from the public code: eps is reached in the last epoch, and not one epoch after it.
"""

from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from dots_zoo.runtime.to_device import to_device

from ..space.space import SearchSpace
from ..stages.config import TrainingConfig, check_span, require_at_least
from ..stages.gumbel import linear
from ..stages.operation_search import Formulation, open_operations, operation_search, softmax_relaxation
from ..stages.stage import Figures, Relaxation, Search, Stage, StepContext, StepIndex
from ..stages.steps import train_logits, train_weights_under
from ..supernet import MacroName
from .darts import darts_training
from .method import Method


@dataclass(frozen=True)
class SdartsRsConfig:
    """SDARTS-RS: the weights train under noise on the architecture, bilevel (ICML 2020).

    Args:
        epochs: of the operation search.
        warm_up: its first epochs, which train weights only.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells.
        channels: width of its first cells.
        noise_start: eps, the largest change of an operation's weight, at the first epoch.
        noise_end: eps at the last epoch.
        training: what the training loop needs.
    """

    epochs: int = 50  # Sec. 5: the settings of DARTS
    warm_up: int = 0
    macro: MacroName | None = None
    layers: int = 8  # Sec. 5: the settings of DARTS
    channels: int = 16  # as in DARTS
    noise_start: float = 0.03  # Sec. 5
    noise_end: float = 0.3  # Sec. 5
    training: TrainingConfig = field(default_factory=darts_training)  # Sec. 5: the settings of DARTS

    def __post_init__(self) -> None:
        check_span(self.epochs, self.warm_up, self.layers, self.channels)
        require_at_least("", noise_start=(self.noise_start, 0), noise_end=(self.noise_end, 0))


def stages(config: SdartsRsConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return the operation search, with its warm-up if any; `after` epochs follow on the same cosine."""
    return operation_search(
        config,
        space,
        after,
        step=smoothed,
        formulation=Formulation(relax=partial(noisy_relaxation, config)),
        warm_up_step=train_weights_perturbed,
    )


def noisy_relaxation(config: SdartsRsConfig, search: Search) -> Relaxation:
    """Return the relaxation of DARTS with eps among its schedules, for the log and the weights' step."""

    def schedules(step_index: StepIndex) -> dict[str, float]:
        return {"noise": linear(step_index.epoch, config.epochs, config.noise_start, config.noise_end)}

    return replace(softmax_relaxation(search), schedules=schedules)


def smoothed(context: StepContext) -> Figures:
    """Train the logits without noise, then the weights under noise (Algorithm 1)."""
    return train_logits(context) | train_weights_perturbed(context)


def train_weights_perturbed(context: StepContext) -> Figures:
    """Train the weights alone, with a perturbed mixture (Eq. 6)."""
    search, eps = context.search, context.relaxation.schedules(context.step_index)["noise"]
    with torch.no_grad():
        weights = dict(context.relaxation.compute_weights(search.logits, context.step_index))
        for cell_type in search.space.cell_types:
            name = f"alpha.{cell_type}"
            draws = context.step_index.generator(f"noise {name}")
            weights[name] = perturbed(weights[name], open_operations(search, cell_type)[0], eps, draws)
        mixture = context.relaxation.build_mixture(weights, context.step_index)
    return train_weights_under(context, mixture)


def perturbed(weights: Tensor, members: Tensor, eps: float, draws: torch.Generator) -> Tensor:
    """Add uniform noise in [-eps, eps] to the weights of the members, clamp and normalise again, (R, C)."""
    noise = to_device(2 * torch.rand(weights.shape, generator=draws) - 1, weights.device)
    moved = (weights + eps * noise).masked_fill(~members, float("-inf"))
    largest = torch.zeros_like(moved).scatter(-1, moved.argmax(dim=-1, keepdim=True), 1.0) * members
    clamped = moved.clamp(0.0, 1.0)
    kept = torch.where(clamped.sum(dim=-1, keepdim=True) > 0, clamped, largest)
    return kept / kept.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)


METHOD = Method("sdarts_rs", SdartsRsConfig, stages)
