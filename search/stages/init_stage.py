"""How a stage begins: with a new search, with the one before, or with a decision taken in it.

Source: DARTS (ICLR 2019), Sec. 3.1 (optimisers); DOTS (CVPR 2021), supplementary, Sec. 1. A decision closes
alternatives; nothing is rebuilt, so what is learned stays.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from dots_zoo.runtime.seeding import seeded

from ..space.relax import one_group
from ..space.space import Choice, SearchSpace
from ..supernet import NO_PARTIAL_CHANNELS, Auxiliary, PartialChannels, Shape, Supernet
from ..supernet.install_kernels import install_kernels
from .config import TrainingConfig
from .stage import Moment, Run, Search

Choices = Callable[[SearchSpace], Mapping[str, Choice]]


def fresh(
    name: str,
    cells: int,
    space: Callable[[Search | None], SearchSpace],
    choices: Choices,
    partial: PartialChannels = NO_PARTIAL_CHANNELS,
    auxiliary: Auxiliary = "none",
) -> Callable[[Run, Search | None, Moment], Search]:
    """Begin with a new supernet, new optimisers, and logits of zero: every alternative weighs the same."""

    def begin(run: Run, before: Search | None, moment: Moment) -> Search:
        training, data, device = run.training, run.data, run.accelerator.device
        found = space(before)
        shape = Shape(
            channels=training.channels,
            cells=cells,
            classes=data.classes,
            in_chans=data.in_chans,
            stem=training.stem,
            partial=partial,
            auxiliary=auxiliary,
            memory=training.memory,
        )
        with seeded(torch.device("cpu"), training.seed, "supernet", name):
            supernet = build_supernet(found, shape, run)
        named = choices(found)
        logits = {k: nn.Parameter(torch.zeros(c.shape, device=device)) for k, c in named.items()}
        return Search(
            space=found,
            choices=named,
            supernet=supernet,
            logits=logits,
            open={key: one_group(choice, torch.device("cpu"))[0] for key, choice in named.items()},
            weights_optimiser=sgd(supernet, training),
            logits_optimiser=adam(logits.values(), training),
        )

    return begin


def build_supernet(space: SearchSpace, shape: Shape, run: Run) -> Supernet:
    """Return a supernet on the run's device, channels last, with kernels where they are on.

    Raises:
        DotsZooError: where they are on and cannot be installed.
    """
    supernet = Supernet(space, shape).to(run.accelerator.device).to(memory_format=torch.channels_last)
    if run.training.kernels == "on":
        install_kernels(supernet)
    return supernet


def sgd(supernet: Supernet, training: TrainingConfig) -> SGD:
    """A new optimiser of the weights."""
    numbers = training.weights
    return SGD(
        supernet.parameters(), numbers.learning_rate, numbers.momentum, weight_decay=numbers.weight_decay
    )


def adam(logits: Iterable[nn.Parameter], training: TrainingConfig) -> Adam:
    """A new optimiser of the logits."""
    numbers = training.logits
    return Adam(logits, numbers.learning_rate, numbers.betas, weight_decay=numbers.weight_decay)


def carry_on(run: Run, before: Search | None, moment: Moment) -> Search:
    """Begin where the stage before ended."""
    assert before is not None, "the first stage has nothing to carry on"
    return before


def decide(search: Search, name: str, row: int, column: int) -> Search:
    """Choose an alternative: no other of its row stays open."""
    return _with_row(search, name, row, torch.arange(search.open[name].shape[1]) == column)


def close_edge(search: Search, kind: str, edge: int) -> Search:
    """Take an edge out: its operations, and its own weight where edges have one."""
    found = _with_row(search, f"alpha.{kind}", edge, torch.tensor(False))
    beta = f"beta.{kind}"
    if beta not in search.open:
        return found
    node = search.space.edges[edge][0]
    row = search.space.nodes.index(node)
    own = torch.arange(search.open[beta].shape[1]) == search.space.incoming(node).index(edge)
    return _with_row(found, beta, row, search.open[beta][row] & ~own)


def _with_row(search: Search, name: str, row: int, opened: Tensor) -> Search:
    table = search.open[name].clone()
    table[row] = opened
    return replace(search, open={**search.open, name: table})
