"""PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search (Xu et al., ICLR 2020).

Sec. 3.2: one in K channels goes through the operations of an edge, the others pass by, and a shuffle mixes
them after every node (`supernet/cell.py`). Sec. 3.3, edge normalisation: a softmax over the edges that enter
a node weighs them (Eq. 3), since sampled channels make the operations' weights fluctuate,

    x_j = sum_i gamma_ij * f_ij(x_i),   gamma_ij = exp(beta_ij) / sum_i' exp(beta_i'j),

and a cell is derived by the products of gamma and the operations' softmax. Bilevel, first order, after 15
epochs of weights alone. gamma weighs the channels that pass by as well.

PC-DARTS- (DARTS-, ICLR 2021, Sec. 4.4 and Table 5: K = 2, no shuffle) has the auxiliary branch beside the
operations of every edge. If a topology search follows, it takes over only the operations: it has edge weights
of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dots_zoo.genotype import CellGenotype

from ..space.discretise import cells_of
from ..space.relax import edge_membership, edge_weights, group_softmax
from ..space.space import Choice, SearchSpace, edge_choice
from ..stages.auxiliary_skip import AuxiliaryConfig, with_auxiliary
from ..stages.config import LogitsConfig, TrainingConfig, WeightsConfig, check_span, require_at_least
from ..stages.operation_search import Formulation, active_operations, operation_choices, operation_search
from ..stages.stage import Logits, Relaxation, Search, Stage, StepIndex, Weights
from ..stages.steps import bilevel
from ..supernet import MacroName, Mixture, PartialChannels
from .method import Method


def pc_darts_training() -> TrainingConfig:
    """Return the hyperparameters of the paper for CIFAR-10 (Sec. 4.2)."""
    return TrainingConfig(
        batch_size=256,
        weights=WeightsConfig(learning_rate=0.1, learning_rate_end=0.001),  # the end is the public code's
        logits=LogitsConfig(learning_rate=6e-4, betas=(0.5, 0.999), weight_decay=1e-3),
    )


def no_auxiliary() -> AuxiliaryConfig:
    """Return the configuration without an auxiliary branch, as in PC-DARTS."""
    return AuxiliaryConfig(branch="none")


@dataclass(frozen=True)
class PcDartsConfig:
    """PC-DARTS: partial channels and edge normalisation; with a branch, PC-DARTS- (ICLR 2020, ICLR 2021).

    Args:
        epochs: of the operation search.
        warm_up: its first epochs, which train weights only.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells.
        channels: width of its first cells.
        share: K; one in so many channels goes through the operations.
        shuffle: mix the channels after every node.
        auxiliary: the branch of PC-DARTS- and its decay.
        training: what the training loop needs.
    """

    epochs: int = 50  # Sec. 4.2
    warm_up: int = 15  # Sec. 4.2
    macro: MacroName | None = None
    layers: int = 8  # Sec. 4.2
    channels: int = 16  # as in DARTS
    share: int = 4  # Sec. 4.2
    shuffle: bool = True  # Fig. 1
    auxiliary: AuxiliaryConfig = field(default_factory=no_auxiliary)
    training: TrainingConfig = field(default_factory=pc_darts_training)

    def __post_init__(self) -> None:
        check_span(self.epochs, self.warm_up, self.layers, self.channels)
        require_at_least("", share=(self.share, 1))


def stages(config: PcDartsConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return the operation search, with its warm-up if any; `after` epochs follow on the same cosine."""
    return operation_search(
        config,
        space,
        after,
        step=bilevel,
        formulation=Formulation(
            choices=operation_and_edge_choices,
            relax=with_auxiliary(edge_normalisation, config.auxiliary, config.epochs),
            derive=derive_from_products,
            partial_channels=PartialChannels(config.share, config.shuffle),
            auxiliary=config.auxiliary.branch,
        ),
    )


def operation_and_edge_choices(space: SearchSpace) -> dict[str, Choice]:
    """Return the choices of alpha, an operation on every edge, and of beta, an edge at every node."""
    betas = {f"beta.{cell_type}": edge_choice(space, "edge_weights") for cell_type in space.cell_types}
    return operation_choices(space) | betas


def edge_normalisation(search: Search) -> Relaxation:
    """Relax by a softmax over the operations of an edge, and by another over the edges of a node (Eq. 3)."""
    device = next(iter(search.logits.values())).device
    groups = {name: table[None].to(device) for name, table in search.candidate_mask.items()}  # (1, R, C)
    membership, active = edges_of_nodes(search.space, device), active_operations(search)

    def compute_weights(logits: Logits, step_index: StepIndex) -> Weights:
        return {name: group_softmax(logits[name], group) for name, group in groups.items()}

    def build_mixture(weights: Weights, step_index: StepIndex) -> Mixture:
        gamma = {k: edge_weights(weights[f"beta.{k}"], membership) for k in search.space.cell_types}
        return Mixture({k: gamma[k][:, None] * weights[f"alpha.{k}"] for k in gamma}, active, gamma)

    return Relaxation(compute_weights=compute_weights, build_mixture=build_mixture)


def edges_of_nodes(space: SearchSpace, device: torch.device) -> Tensor:
    """Return the membership of edges in the alternatives of a node, 1 or 0, (nodes, C, E)."""
    return edge_membership(space, "edge_weights", average=False, device=device)


def derive_from_products(space: SearchSpace, weights: Weights) -> Mapping[str, CellGenotype]:
    """Derive the cells by the rule of the space's family, from gamma times the softmax of the operations."""
    membership = edges_of_nodes(space, weights[f"beta.{space.cell_types[0]}"].device)
    products = {}
    for cell_type in space.cell_types:
        gamma = edge_weights(weights[f"beta.{cell_type}"], membership)  # (E,)
        products[cell_type] = gamma[:, None] * weights[f"alpha.{cell_type}"]  # (E, O)
    return cells_of(space, products)


METHOD = Method("pc_darts", PcDartsConfig, stages)
