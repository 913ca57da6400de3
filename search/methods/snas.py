"""SNAS: Stochastic Neural Architecture Search (Xie, Zheng, Liu and Lin, ICLR 2019).

Every forward pass draws soft weights for the operations of an edge from the concrete distribution (Eq. 4):

    Z = softmax((alpha + G) / T),   G ~ Gumbel(0, 1).

Weights and logits descend on one loss of all training images (one level, Sec. 2.2), and T falls until the
draws are nearly one operation an edge, so that the supernet ends close to the cell it stands for.

Not specified in the paper: one draw holds for all cells of a kind; log, decisions and validation take the
plain softmax of the logits. The paper says that T is annealed; how far and how (linearly, by epoch) is the
public code's (SNAS-Series). Its resource constraint is left out: cells are compared by accuracy alone.
"""

from dataclasses import dataclass, field, replace
from functools import partial

from ..space.space import SearchSpace
from ..stages.config import TrainingConfig, check_span
from ..stages.gumbel import check_temperatures, concrete, temperatures
from ..stages.operation_search import Formulation, open_operations, operation_search, softmax_relaxation
from ..stages.stage import Logits, Relaxation, Search, Stage, StepIndex, Weights
from ..stages.steps import one_level
from ..supernet import MacroName
from .darts import darts_training
from .method import Method


@dataclass(frozen=True)
class SnasConfig:
    """SNAS: soft weights drawn at a falling temperature, one level (ICLR 2019).

    Args:
        epochs: of the operation search.
        warm_up: its first epochs, which train weights only.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells.
        channels: width of its first cells.
        temperature_start: of the draws, at the first epoch.
        temperature_end: of the draws, at the last epoch.
        training: what the training loop needs.
    """

    epochs: int = 150  # Sec. 3.1
    warm_up: int = 0
    macro: MacroName | None = None
    layers: int = 8  # Sec. 3.1
    channels: int = 16  # as in DARTS
    temperature_start: float = 1.0  # the public code's
    temperature_end: float = 0.03  # the public code's
    training: TrainingConfig = field(default_factory=darts_training)  # Sec. 3.1: the numbers of DARTS

    def __post_init__(self) -> None:
        check_span(self.epochs, self.warm_up, self.layers, self.channels)
        check_temperatures(self.temperature_start, self.temperature_end)


def stages(config: SnasConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return the operation search, with its warm-up if any; `after` epochs follow on the same cosine."""
    return operation_search(
        config,
        space,
        after,
        step=one_level,
        formulation=Formulation(relax=partial(concrete_relaxation, config)),
        one_level=True,
    )


def concrete_relaxation(config: SnasConfig, search: Search) -> Relaxation:
    """Relax a training step by a draw from the concrete distribution (Eq. 4)."""
    groups = {
        f"alpha.{cell_type}": open_operations(search, cell_type) for cell_type in search.space.cell_types
    }
    schedules = temperatures(config.epochs, config.temperature_start, config.temperature_end)

    def sample_weights(logits: Logits, step_index: StepIndex) -> Weights:
        heat = schedules(step_index)["temperature"]
        return {
            name: concrete(logits[name], group, heat, step_index.generator(f"gumbel {name}"))
            for name, group in groups.items()
        }

    return replace(softmax_relaxation(search), sample_weights=sample_weights, schedules=schedules)


METHOD = Method("snas", SnasConfig, stages)
