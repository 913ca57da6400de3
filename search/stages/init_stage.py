"""Initialisation of a stage: a new search, the one of the stage before, or that with a decision taken.

Source: DARTS (ICLR 2019), Sec. 3.1 (optimisers); DOTS (CVPR 2021), supplementary, Sec. 1. A decision closes
alternatives; nothing is rebuilt, so learned weights stay.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from dots_zoo.runtime.seeding import seeded

from ..space.relax import one_group
from ..space.space import Choice, SearchSpace
from ..supernet import NO_PARTIAL_CHANNELS, Auxiliary, PartialChannels, Shape, Supernet, supernet_macro
from ..supernet.install_kernels import install_kernels
from .config import SupernetConfig
from .stage import Run, Search, StepIndex

Choices = Callable[[SearchSpace], Mapping[str, Choice]]


def fresh(
    name: str,
    config: SupernetConfig,
    layers: int,
    space: Callable[[Search | None], SearchSpace],
    choices: Choices,
    partial: PartialChannels = NO_PARTIAL_CHANNELS,
    auxiliary: Auxiliary = "none",
) -> Callable[[Run, Search | None, StepIndex], Search]:
    """Return the initialisation of a stage with a new supernet, new optimisers and logits of zero.

    All alternatives of a row then have equal weights.

    Args:
        name: of the supernet; its initial weights are seeded by it.
        config: macro-architecture, channels and memory of the supernet; hyperparameters of both optimisers.
        layers: number of cells of the supernet.
        space: search of the stage before (None for the first stage) -> space of the supernet.
        choices: space -> name of the logits -> what they decide.
        partial: channels that pass through the candidates.
        auxiliary: branch beside every edge.
    """

    training = config.training
    sgd, adam = training.weights, training.logits

    def initialise(run: Run, before: Search | None, step_index: StepIndex) -> Search:
        cell_space, device = space(before), run.accelerator.device
        shape = Shape(
            channels=config.channels,
            layers=layers,
            classes=run.data.classes,
            in_chans=run.data.in_chans,
            macro=supernet_macro(config.macro, cell_space, run.data.size),
            partial=partial,
            auxiliary=auxiliary,
            memory=training.memory,
        )
        with seeded(torch.device("cpu"), run.seed, "supernet", name):
            supernet = build_supernet(cell_space, shape, run)
        named = choices(cell_space)
        logits = {k: nn.Parameter(torch.zeros(c.shape, device=device)) for k, c in named.items()}
        return Search(
            space=cell_space,
            choices=named,
            supernet=supernet,
            logits=logits,
            candidate_mask={key: one_group(choice, torch.device("cpu"))[0] for key, choice in named.items()},
            weights_optimiser=SGD(
                supernet.parameters(), sgd.learning_rate, sgd.momentum, weight_decay=sgd.weight_decay
            ),
            logits_optimiser=Adam(
                logits.values(), adam.learning_rate, adam.betas, weight_decay=adam.weight_decay
            ),
        )

    return initialise


def build_supernet(space: SearchSpace, shape: Shape, run: Run) -> Supernet:
    """Return a supernet on the run's device, channels last, with kernels if they are on.

    Raises:
        DotsZooError: if they are on and cannot be installed.
    """
    supernet = Supernet(space, shape).to(run.accelerator.device).to(memory_format=torch.channels_last)
    if run.kernels:
        install_kernels(supernet)
    return supernet


def restart_sgd(search: Search) -> Search:
    """Return the search with a new SGD of the same hyperparameters, without momentum so far."""
    new = SGD(search.supernet.parameters(), **search.weights_optimiser.defaults)
    return replace(search, weights_optimiser=new)


def continue_from(run: Run, before: Search | None, step_index: StepIndex) -> Search:
    """Return the search as the stage before left it."""
    assert before is not None, "the first stage has no stage to continue from"
    return before


def decide(search: Search, name: str, row: int, column: int) -> Search:
    """Choose an alternative of a row: close all others."""
    return _with_row(search, name, row, torch.arange(search.candidate_mask[name].shape[1]) == column)


def close_edge(search: Search, cell_type: str, edge: int) -> Search:
    """Close an edge: its operations, and its own weight where edges have one."""
    without_operations = _with_row(search, f"alpha.{cell_type}", edge, torch.tensor(False))
    beta = f"beta.{cell_type}"
    if beta not in search.candidate_mask:
        return without_operations
    node = search.space.edges[edge][0]
    row = search.space.nodes.index(node)
    column = torch.arange(search.candidate_mask[beta].shape[1]) == search.space.incoming(node).index(edge)
    return _with_row(without_operations, beta, row, search.candidate_mask[beta][row] & ~column)


def _with_row(search: Search, name: str, row: int, opened: Tensor) -> Search:
    table = search.candidate_mask[name].clone()
    table[row] = opened
    return replace(search, candidate_mask={**search.candidate_mask, name: table})
