"""Parts that operation searches share: a softmax over the operations of an edge, the span of a search.

Source: DARTS (ICLR 2019), Eq. 2 (softmax over operations), Sec. 2.4 (derivation), Algorithm 1; DOTS (CVPR
2021), supplementary, Sec. 1 (the first epochs may train the weights alone).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from torch import Tensor

from dots_zoo.genotype import CellGenotype
from dots_zoo.runtime.to_device import to_device

from ..space.discretise import cells_of, survivors
from ..space.relax import cosine, group_softmax
from ..space.space import Choice, SearchSpace, operation_choice
from ..supernet import (
    NO_PARTIAL_CHANNELS,
    Active,
    Auxiliary,
    MacroName,
    Mixture,
    PartialChannels,
    active_where,
    check_shape,
)
from .config import BATCH, TrainingConfig
from .init_stage import continue_from, fresh
from .stage import Figures, Logits, Relaxation, Search, Stage, StepContext, StepIndex, Weights
from .steps import train_weights

Step = Callable[[StepContext], Figures]


def operation_choices(space: SearchSpace) -> dict[str, Choice]:
    """Return the choices of alpha: an operation on every edge of every cell type."""
    return {f"alpha.{cell_type}": operation_choice(space, cell_type) for cell_type in space.cell_types}


def open_operations(search: Search, cell_type: str) -> Tensor:
    """Return the candidates that may still be chosen, as one group on the logits' device, (1, E, O)."""
    name = f"alpha.{cell_type}"
    return to_device(search.candidate_mask[name][None], search.logits[name].device)


def active_operations(search: Search) -> dict[str, Active]:
    """Return the candidates that the supernet computes: those that may still be chosen and do not rest."""
    computed = dict(search.candidate_mask)
    for name, resting in search.resting.items():
        computed[name] = computed[name] & ~resting
    return {cell_type: active_where(computed[f"alpha.{cell_type}"]) for cell_type in search.space.cell_types}


def softmax_relaxation(search: Search) -> Relaxation:
    """Relax by one softmax over the open operations of every edge (Eq. 2 of DARTS)."""
    return grouped_relaxation(
        search, {cell_type: open_operations(search, cell_type) for cell_type in search.space.cell_types}
    )


def grouped_relaxation(search: Search, groups: Mapping[str, Tensor]) -> Relaxation:
    """Relax by a softmax in every group of an edge's operations; the edge is the sum of its groups.

    groups: cell type -> (G, E, O).
    """
    active = active_operations(search)

    def compute_weights(logits: Logits, step_index: StepIndex) -> Weights:
        return {f"alpha.{k}": group_softmax(logits[f"alpha.{k}"], groups[k]) for k in groups}

    def build_mixture(weights: Weights, step_index: StepIndex) -> Mixture:
        return Mixture({k: weights[f"alpha.{k}"] for k in groups}, active)

    return Relaxation(compute_weights=compute_weights, build_mixture=build_mixture)


def alphas(space: SearchSpace, weights: Weights) -> dict[str, Tensor]:
    """Return the weights of the operations by cell type, (E, O)."""
    return {cell_type: weights[f"alpha.{cell_type}"] for cell_type in space.cell_types}


def derive_from_operations(space: SearchSpace, weights: Weights) -> dict[str, CellGenotype]:
    """Derive the cells from the weights of the operations."""
    return cells_of(space, alphas(space, weights))


def best_operations(keep: int, search: Search) -> SearchSpace:
    """Return the space of the `keep` best open operations of every edge (Eq. 14 of DOTS)."""
    return survivors(search.space, open_logits(search), None, keep)


def open_logits(search: Search) -> dict[str, Tensor]:
    """Return the logits of the operations by cell type, (E, O), -inf where an operation is closed."""
    masked = {}
    for cell_type in search.space.cell_types:
        logits = search.logits[f"alpha.{cell_type}"].detach()
        masked[cell_type] = logits.masked_fill(~open_operations(search, cell_type)[0], float("-inf"))
    return masked


class Span(Protocol):
    """Length and depth of an operation search; the configuration of most methods is one."""

    @property
    def epochs(self) -> int: ...

    @property
    def warm_up(self) -> int: ...

    @property
    def macro(self) -> MacroName | None: ...

    @property
    def layers(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def training(self) -> TrainingConfig: ...


@dataclass(frozen=True)
class Numbers:
    """A Span for a method whose configuration has other fields."""

    epochs: int
    macro: MacroName | None
    layers: int
    channels: int
    training: TrainingConfig
    warm_up: int = 0


@dataclass(frozen=True, kw_only=True)
class Formulation:
    """The formulation of a search: what its logits decide and how they relax, and what an edge computes.

    Args:
        choices: space -> name of the logits -> what they decide.
        relax: relaxation of the logits of a search.
        derive: weights -> cells.
        partial_channels: channels that pass through the candidates of an edge.
        auxiliary: branch beside every edge.
    """

    choices: Callable[[SearchSpace], Mapping[str, Choice]] = operation_choices
    relax: Callable[[Search], Relaxation] = softmax_relaxation
    derive: Callable[[SearchSpace, Weights], Mapping[str, CellGenotype]] = derive_from_operations
    partial_channels: PartialChannels = NO_PARTIAL_CHANNELS
    auxiliary: Auxiliary = "none"


DARTS = Formulation()


def operation_search(
    span: Span,
    space: SearchSpace,
    after: int,
    step: Step,
    formulation: Formulation = DARTS,
    *,
    name: str = "operation",
    warm_up_step: Step = train_weights,
    one_level: bool = False,
) -> tuple[Stage, ...]:
    """Return the stages of an operation search, in a new supernet.

    The first `span.warm_up` epochs train the weights alone, the rest of `span.epochs` take `step`.

    Args:
        after: epochs that follow on the same cosine of the learning rate.
        name: of the supernet and of the stages.
        one_level: an epoch is all images, rather than the training split with second batches of the
            validation split.

    Raises:
        DotsZooError: if the supernet cannot be built.
    """
    training, weights = span.training, span.training.weights
    partial_channels, auxiliary = formulation.partial_channels, formulation.auxiliary
    check_shape(space, span.layers, span.channels, span.macro, partial_channels)
    initialise = fresh(
        name, span, span.layers, lambda before: space, formulation.choices, partial_channels, auxiliary
    )
    first = Stage(
        name=f"{name} warm-up",
        epochs=span.warm_up,
        initialise=initialise,
        builds=True,
        step=warm_up_step,
        batch_size=training.batch_size or BATCH,
        images="all" if one_level else "a",
        relax=formulation.relax,
        derive=formulation.derive,
        learning_rate=partial(
            cosine, epochs=span.epochs + after, start=weights.learning_rate, end=weights.learning_rate_end
        ),
    )
    searching = replace(
        first,
        name=f"{name} search",
        epochs=span.epochs - span.warm_up,
        initialise=continue_from if span.warm_up else initialise,
        builds=not span.warm_up,
        step=step,
        architecture_images=None if one_level else "b",
    )
    return (first, searching) if span.warm_up else (searching,)
