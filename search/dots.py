"""DOTS: Decoupling Operation and Topology in Differentiable Architecture Search (Gu et al., CVPR 2021).

Sec. 4.2: operations first. They compete in groups (Group-V2), so that the best topology-related and the best
topology-agnostic operation stay on every edge (Eq. 15-16). Bilevel. Sec. 4.1: then pairs of edges (Eq. 5-8)
in a new and deeper supernet of the operations that stayed, annealed (Eq. 9), one-level (Eq. 10). The first
half of both trains weights only (supplementary, Sec. 1).

Between the lines: the logits start at zero in both searches, and those of the operations start again with the
new supernet (at T/1000 what they had learned would freeze them at once); the one cosine of the learning rate
runs over both searches; the weights-only half of the topology search sees half of the images, the rest of it
all of them.

Differs from the official code (guyuchao/DOTS@27e5004): Eq. 7 with its 1/N(c); one relaxation for training,
log and decision; 20 cells in the topology search and 1e-4 for the logits, both as the paper has them.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dots_zoo.genotype import CellGenotype

from .config import DotsConfig
from .discretise import darts_rule, survivors, topology_rule
from .relax import (
    cosine,
    edge_membership,
    edge_weights,
    group_softmax,
    one_group,
    operation_groups,
    temperature,
)
from .space import Choice, SearchSpace, edge_choice, operation_choice
from .stages import Logits, Moment, Relax, Relaxed, Search, Stage, carry_on, fresh
from .steps import bilevel, one_level, train_weights


def stages(config: DotsConfig, space: SearchSpace) -> tuple[Stage, ...]:
    """The four spans of a search; with the paper's numbers they start at epochs 0, 15, 30 and 50 of 70.

    Raises DotsZooError where `config.groups` do not fit the space.
    """
    for kind in space.kinds:
        operation_groups(space, kind, config.groups, torch.device("cpu"))
    weights = config.training.weights
    rate = partial(
        cosine,
        epochs=config.operation_epochs + config.topology_epochs,
        start=weights.learning_rate,
        end=weights.learning_rate_end,
    )
    operation_warm_up = Stage(
        name="operation warm-up",
        epochs=config.operation_epochs // 2,
        begin=fresh("operation", config.operation_cells, lambda before: space, operation_choices),
        step=train_weights,
        batch_size=config.training.batch_size,
        images="a",
        relax=partial(relax_operations, config),
        derive=derive_from_operations,
        learning_rate=rate,
    )
    operation_search = replace(
        operation_warm_up,
        name="operation search",
        epochs=config.operation_epochs - operation_warm_up.epochs,
        begin=carry_on,
        step=bilevel,
        architecture_images="b",
    )
    topology_warm_up = replace(
        operation_warm_up,
        name="topology warm-up",
        epochs=config.topology_epochs // 2,
        begin=fresh(
            "topology",
            config.topology_cells,
            partial(surviving_space, config),
            partial(topology_choices, config),
        ),
        relax=partial(relax_topology, config),
        derive=partial(derive_from_topology, config),
    )
    topology_search = replace(
        topology_warm_up,
        name="topology search",
        epochs=config.topology_epochs - topology_warm_up.epochs,
        begin=carry_on,
        step=one_level,
        images="all",
    )
    return operation_warm_up, operation_search, topology_warm_up, topology_search


# Sec. 4.2, the operation search


def operation_choices(space: SearchSpace) -> dict[str, Choice]:
    """alpha: an operation on every edge of every kind of cell."""
    return {f"alpha.{kind}": operation_choice(space, kind) for kind in space.kinds}


def relax_operations(config: DotsConfig, space: SearchSpace, device: torch.device) -> Relax:
    """Every group of an edge has a softmax of its own; the edge is their sum (Sec. 4.2.2)."""
    groups = {kind: operation_groups(space, kind, config.groups, device) for kind in space.kinds}

    def relax(logits: Logits, moment: Moment) -> Relaxed:
        mixture = {kind: group_softmax(logits[f"alpha.{kind}"], groups[kind]) for kind in groups}  # (E, O)
        return Relaxed({f"alpha.{kind}": weights for kind, weights in mixture.items()}, mixture, {})

    return relax


def derive_from_operations(space: SearchSpace, weights: Mapping[str, Tensor]) -> dict[str, CellGenotype]:
    """The cell that DARTS would take here; the topology search replaces it."""
    return darts_rule(space, {kind: weights[f"alpha.{kind}"] for kind in space.kinds})


def surviving_space(config: DotsConfig, before: Search | None) -> SearchSpace:
    """O_n of Eq. 16: the best operation of every group, on every edge."""
    assert before is not None
    alphas = {kind: before.logits[f"alpha.{kind}"] for kind in before.space.kinds}
    return survivors(before.space, alphas, config.groups)


# Sec. 4.1, the topology search


def topology_choices(config: DotsConfig, space: SearchSpace) -> dict[str, Choice]:
    """alpha as before, and beta: a combination of edges at every node of every kind of cell."""
    betas = {f"beta.{kind}": edge_choice(space, config.edges) for kind in space.kinds}
    return operation_choices(space) | betas


def relax_topology(config: DotsConfig, space: SearchSpace, device: torch.device) -> Relax:
    """The edges of a node weighted by the combinations that contain them (Eq. 6-8), at falling temperatures
    (Eq. 9).
    """
    membership = edge_membership(space, config.edges, config.average_edges, device)
    groups = {name: one_group(choice, device) for name, choice in topology_choices(config, space).items()}
    warm_up = config.topology_epochs // 2
    annealing = partial(
        temperature,
        epochs=config.topology_epochs - warm_up,
        start=config.temperature_start,
        end=config.temperature_end,
    )

    def relax(logits: Logits, moment: Moment) -> Relaxed:
        t_beta = annealing(max(0, moment.epoch - config.operation_epochs - warm_up))
        t_alpha = config.operation_temperature * t_beta  # operations settle first (Fig. 3)
        weights, mixture = {}, {}
        for kind in space.kinds:
            alpha, beta = f"alpha.{kind}", f"beta.{kind}"
            weights[alpha] = group_softmax(logits[alpha], groups[alpha], t_alpha)  # (E, O)
            weights[beta] = group_softmax(logits[beta], groups[beta], t_beta)  # (nodes, C), Eq. 6
            gamma = edge_weights(weights[beta], membership)  # (E,), Eq. 7
            mixture[kind] = gamma[:, None] * weights[alpha]  # Eq. 8
        return Relaxed(weights, mixture, {"temperature": t_beta})

    return relax


def derive_from_topology(
    config: DotsConfig, space: SearchSpace, weights: Mapping[str, Tensor]
) -> dict[str, CellGenotype]:
    """The best combination of edges at every node, the best operation on each."""
    alphas = {kind: weights[f"alpha.{kind}"] for kind in space.kinds}
    betas = {kind: weights[f"beta.{kind}"] for kind in space.kinds}
    return topology_rule(space, alphas, betas, config.edges)
