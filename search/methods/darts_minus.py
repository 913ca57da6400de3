"""DARTS-: Robustly Stepping out of Performance Collapse Without Indicators (Chu et al., ICLR 2021).

DARTS, first order, with a skip connection beside the candidates of every edge (Eq. 4): it does the work that
a skip connection does in any deep network, so that the candidate of that name weighs what it is worth in the
cell. Its weight beta falls to zero, where the supernet is that of DARTS (`search/stages/auxiliary_skip.py`).
Algorithm 1, line 6: the logits are those of the epoch with the best validation accuracy.

Not specified in the paper: epochs that train weights only are not considered, and of equally accurate epochs
the last is taken, whose logits have trained longest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from ..space.space import SearchSpace
from ..stages.auxiliary_skip import AuxiliaryConfig, with_auxiliary
from ..stages.config import TrainingConfig, check_span
from ..stages.init_stage import continue_from
from ..stages.operation_search import Formulation, operation_search, softmax_relaxation
from ..stages.stage import Run, Search, Stage, StepIndex, unchanged
from ..stages.steps import bilevel
from ..supernet import MacroName
from .darts import darts_training
from .method import Method


@dataclass(frozen=True)
class DartsMinusConfig:
    """DARTS-: DARTS with an auxiliary skip connection that fades (ICLR 2021).

    Args:
        epochs: of the operation search.
        warm_up: its first epochs, which train weights only.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells.
        channels: width of its first cells.
        auxiliary: the branch beside every edge and its decay.
        training: what the training loop needs.
    """

    epochs: int = 50  # Sec. 4.1: as DARTS
    warm_up: int = 0
    macro: MacroName | None = None
    layers: int = 8  # Sec. 4.1: as DARTS
    channels: int = 16  # as in DARTS
    auxiliary: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    training: TrainingConfig = field(default_factory=darts_training)

    def __post_init__(self) -> None:
        check_span(self.epochs, self.warm_up, self.layers, self.channels)


def stages(config: DartsMinusConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return the search, and a decision after it: the logits of its best epoch.

    after: epochs that follow on the same cosine of the learning rate.
    """
    *warm_up, searching = operation_search(
        config,
        space,
        after,
        step=bilevel,
        formulation=Formulation(
            relax=with_auxiliary(softmax_relaxation, config.auxiliary, config.epochs),
            auxiliary=config.auxiliary.branch,
        ),
    )
    searching = replace(searching, validate=True, after=keep_best)
    best = replace(
        searching,
        name="best epoch",
        epochs=0,
        initialise=return_to_best,
        builds=False,
        validate=False,
        after=unchanged,
    )
    return (*warm_up, searching, best)


def keep_best(search: Search, step_index: StepIndex, figures: Mapping[str, float]) -> Search:
    """Remember the logits of an epoch that is as accurate as any before it, or more."""
    accuracy = figures["validation_accuracy"]
    if "best.accuracy" in search.method_state and accuracy < search.method_state["best.accuracy"].item():
        return search
    best = {f"best.{name}": logits.detach().clone() for name, logits in search.logits.items()}
    best_accuracy = torch.tensor(accuracy, dtype=torch.float64)
    return replace(search, method_state={**search.method_state, **best, "best.accuracy": best_accuracy})


def return_to_best(run: Run, before: Search | None, step_index: StepIndex) -> Search:
    """Restore the logits of the best epoch, from which later stages start."""
    search = continue_from(run, before, step_index)
    with torch.no_grad():
        for name, logits in search.logits.items():
            logits.copy_(search.method_state[f"best.{name}"])
    return search


METHOD = Method("darts_minus", DartsMinusConfig, stages)
