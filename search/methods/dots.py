"""DOTS: Decoupling Operation and Topology in Differentiable Architecture Search (Gu et al., CVPR 2021).

Sec. 4.2, the operation search: operations compete in groups, so that the best of every group stays on every
edge (Eq. 15-16). Bilevel; the first half of the epochs trains weights only (supplementary, Sec. 1). The
topology search that decides between the edges is in `topology.py`.

Groups: `v2` (supplementary, Sec. 2) are the operations without and with weights; `v1` has skip connection,
poolings, separable and dilated convolutions, and no place for `none`, which is left out of the space; `one`
is the softmax of DARTS (Table 4b: DARTS-Top1, and with `keep` 2 DARTS-Top2).

Differs from the official code (guyuchao/DOTS@27e5004): 1e-4 for the logits, as the paper has it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch

from ..space.discretise import survivors
from ..space.named import Groups, groups_by_function, groups_by_weights, restricted
from ..space.relax import operation_groups
from ..space.space import SearchSpace
from ..stages.config import TrainingConfig, check_span
from ..stages.operation_search import (
    Formulation,
    grouped_relaxation,
    open_logits,
    open_operations,
    operation_search,
)
from ..stages.stage import Relaxation, Search, Stage
from ..stages.steps import bilevel
from ..supernet import MacroName
from .method import Method

GROUPS: Mapping[str, Callable[[], Groups | None]] = {
    "v1": groups_by_function,
    "v2": groups_by_weights,
    "one": lambda: None,
}


@dataclass(frozen=True)
class DotsConfig:
    """DOTS: operations in groups first, then pairs of edges (CVPR 2021).

    Args:
        epochs: of the operation search.
        warm_up: its first epochs, which train weights only.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells in the operation search.
        channels: width of its first cells.
        groups: the best operation of every group stays on an edge for the topology search.
        training: what the training loop needs.
    """

    epochs: int = 30  # supplementary, Sec. 1
    warm_up: int = 15  # supplementary, Sec. 1: half
    macro: MacroName | None = None
    layers: int = 8  # Sec. 5.1
    channels: int = 16  # as in DARTS
    groups: Literal["v1", "v2", "one"] = "v2"  # supplementary, Sec. 2
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check_span(self.epochs, self.warm_up, self.layers, self.channels)


def stages(config: DotsConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return the operation search; with the paper's hyperparameters its spans start at epochs 0 and 15.

    after: epochs of the topology search, which share the cosine of the learning rate.

    Raises:
        DotsZooError: if the groups do not fit the space.
    """
    space = searched_space(config, space)
    groups = GROUPS[config.groups]()
    for cell_type in space.cell_types if groups else ():
        operation_groups(space, cell_type, groups or (), torch.device("cpu"))
    return operation_search(
        config,
        space,
        after,
        step=bilevel,
        formulation=Formulation(relax=partial(group_relaxation, groups)),
    )


def searched_space(config: DotsConfig, space: SearchSpace) -> SearchSpace:
    """Return the space, without `none` if the groups have no place for it."""
    names = {name for cell_type in space.cell_types for row in space.candidates(cell_type) for name in row}
    return restricted(space, frozenset(names - {"none"})) if config.groups == "v1" else space


def group_relaxation(groups: Groups | None, search: Search) -> Relaxation:
    """Relax by a softmax in every group of an edge; the edge is the sum of its groups (Sec. 4.2.2)."""
    tables = {}
    for cell_type in search.space.cell_types:
        tables[cell_type] = open_operations(search, cell_type)
        if groups is not None:
            device = tables[cell_type].device
            tables[cell_type] = operation_groups(search.space, cell_type, groups, device) & tables[cell_type]
    return grouped_relaxation(search, tables)


def surviving(config: DotsConfig, keep: int, search: Search) -> SearchSpace:
    """Return O_n of Eq. 16: the best operations of every group, on every edge."""
    return survivors(search.space, open_logits(search), GROUPS[config.groups](), keep)


METHOD = Method(
    "dots",
    DotsConfig,
    stages,
    surviving,
    topology="pairs",
    grouped=lambda config: config.groups != "one",
)
