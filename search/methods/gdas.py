"""GDAS: Searching for a Robust Neural Architecture in Four GPU Hours (Dong and Yang, CVPR 2019).

Every forward pass draws one operation an edge (Eq. 3) by adding Gumbel noise to the logits, and computes no
other. The backward pass sees the softmax of the same noisy logits (Eq. 5) through the one operation that was
drawn: a straight-through estimate, of which only the drawn entry of a row has a gradient of its own. The
temperature of that softmax falls linearly. Bilevel, and the weights come first (Algorithm 1): their step and
that of the logits draw independently.

Not specified in the paper: one draw holds for all cells of a kind, as in the public code. Log, decisions and
validation take the plain softmax of the logits. The drawn operations have to be known on the CPU, so that the
others can be skipped. The logits move last in a step, so both draws of the next are known before it begins,
and are read back from the device once, between the two (`sample_ops`): a small wait for an eighth of
the work.

Differs from the public code (D-X-Y/AutoDL-Projects): the noise is drawn once; there, again where it is not
finite, which cannot come up here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from dots_zoo.runtime.seeding import derive_seed

from ..space.space import SearchSpace
from ..stages.config import TrainingConfig, check_span
from ..stages.gumbel import check_temperatures, concrete, temperatures
from ..stages.operation_search import (
    Formulation,
    active_operations,
    open_operations,
    operation_search,
    softmax_relaxation,
)
from ..stages.stage import (
    Figures,
    Logits,
    Relaxation,
    SampledOps,
    Search,
    Stage,
    StepContext,
    StepIndex,
    Weights,
)
from ..stages.steps import train_logits, train_weights
from ..supernet import Active, MacroName
from .darts import darts_training
from .method import Method


@dataclass(frozen=True)
class GdasConfig:
    """GDAS: one operation an edge is drawn in every forward pass (CVPR 2019).

    Args:
        epochs: of the operation search.
        warm_up: its first epochs, which train weights only.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells.
        channels: width of its first cells.
        temperature_start: of the softmax that the gradient passes through, at the first epoch.
        temperature_end: of the same, at the last epoch.
        training: what the training loop needs.
    """

    epochs: int = 250  # Sec. 4.2
    warm_up: int = 0
    macro: MacroName | None = None
    layers: int = 8  # Sec. 4.2: N = 2
    channels: int = 16  # as in DARTS
    temperature_start: float = 10.0  # Sec. 4.2
    temperature_end: float = 1.0  # Sec. 4.2; 0.1 in the runs of NAS-Bench-201
    training: TrainingConfig = field(default_factory=darts_training)  # Sec. 4.2: the numbers of DARTS

    def __post_init__(self) -> None:
        check_span(self.epochs, self.warm_up, self.layers, self.channels)
        check_temperatures(self.temperature_start, self.temperature_end)


def stages(config: GdasConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return the operation search, with its warm-up if any; `after` epochs follow on the same cosine."""
    return operation_search(
        config,
        space,
        after,
        step=bilevel_apart,
        formulation=Formulation(relax=partial(sampled_relaxation, config)),
    )


def sampled_relaxation(config: GdasConfig, search: Search) -> Relaxation:
    """Weigh one operation an edge with 1, all others with 0, in a training step (Eq. 3-5)."""
    cell_types, may_be_drawn = search.space.cell_types, active_operations(search)
    groups = {f"alpha.{cell_type}": open_operations(search, cell_type) for cell_type in cell_types}
    schedules = temperatures(config.epochs, config.temperature_start, config.temperature_end)

    def sample_weights(logits: Logits, step_index: StepIndex) -> Weights:
        heat = schedules(step_index)["temperature"]
        return {
            name: straight_through(
                concrete(logits[name], group, heat, step_index.generator(f"gumbel {name}")), group
            )
            for name, group in groups.items()
        }

    def sample_ops(logits: Logits, step_index: StepIndex) -> SampledOps:
        step_indices = step_index, of_logits(step_index)
        with torch.no_grad():
            columns = [
                table.argmax(dim=-1)
                for index in step_indices
                for table in sample_weights(logits, index).values()
            ]
        rows = iter(
            torch.stack(columns).tolist()
        )  # (2 * kinds, E): of the weights' part, of the logits' part
        return {
            index: {cell_type: one_each(next(rows), may_be_drawn[cell_type]) for cell_type in cell_types}
            for index in step_indices
        }

    return replace(
        softmax_relaxation(search), sample_weights=sample_weights, sample_ops=sample_ops, schedules=schedules
    )


def one_each(columns: Sequence[int], may_be_drawn: Active) -> Active:
    """Return the drawn column of every edge, where it may be drawn; none on a closed edge."""
    return tuple(on & {column} for column, on in zip(columns, may_be_drawn, strict=True))


def straight_through(soft: Tensor, groups: Tensor) -> Tensor:
    """Return exactly 1 at the largest weight of a row, else 0, with the gradient of `soft` (Eq. 5): (R, C).

    A row without open alternatives stays zero.
    """
    hard = torch.zeros_like(soft).scatter(-1, soft.argmax(dim=-1, keepdim=True), 1.0) * groups[0]
    return hard + (soft - soft.detach())


def of_logits(step_index: StepIndex) -> StepIndex:
    """Return the index of the logits' part of a step, which draws independently."""
    return replace(step_index, seed=derive_seed(step_index.seed, "logits"))


def bilevel_apart(context: StepContext) -> Figures:
    """Train the weights on one draw, then the logits on another (Algorithm 1)."""
    return train_weights(context) | train_logits(replace(context, step_index=of_logits(context.step_index)))


METHOD = Method("gdas", GdasConfig, stages)
