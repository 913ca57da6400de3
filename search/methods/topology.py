"""The topology search of DOTS: choice of a node's edges, in a new supernet of the surviving operations.

Source: DOTS (CVPR 2021), Sec. 4.1: pairs of edges (Eq. 5-8), any number of edges (Eq. 11-13), annealing (Eq.
9), one-level (Eq. 10); Table 4a: weights of single edges as in PC-DARTS, and a sigmoid for every edge;
supplementary, Sec. 1: the first half of the epochs trains weights only.

Not specified in the paper: the logits start at zero, those of the operations again (at T/1000 what they had
learned would freeze them at once); the one cosine of the learning rate runs over both searches; the epochs of
weights alone see the training split, the others all images. The baselines of Table 4a are annealed alike, so
that nothing but the parameters of the topology differs; a sigmoid above one half keeps its edge.

Differs from the official code (guyuchao/DOTS@27e5004): Eq. 7 with its 1/N(c); one relaxation for training,
log and decision; 20 cells as in the paper.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from dots_zoo.genotype import CellGenotype
from dots_zoo.runtime.errors import DotsZooError

from ..space.discretise import topology_rule
from ..space.relax import cosine, edge_membership, edge_weights, group_softmax, sigmoid_weights, temperature
from ..space.space import Choice, EdgeRule, SearchSpace, edge_choice
from ..stages.config import BATCH, SupernetConfig
from ..stages.init_stage import continue_from, fresh
from ..stages.operation_search import active_operations, alphas, open_operations, operation_choices
from ..stages.resting import resting_operations
from ..stages.stage import Logits, Relaxation, Search, Stage, StepIndex, Weights
from ..stages.steps import one_level, train_weights
from ..supernet import Active, Mixture


@dataclass(frozen=True)
class TopologyConfig:
    """The topology search: its length, its depth, and its temperatures.

    Args:
        epochs: of the topology search; the first half of them trains weights only.
        layers: number of cells of its supernet.
        average_edges: divide a combination's weight by its number of edges, as Eq. 7 does.
        temperature_start: of the topology, at its first epoch after the warm-up.
        temperature_end: of the topology, at its last epoch.
        operation_temperature: of the operations in the topology search, a fraction of the topology's.
    """

    epochs: int = 40  # supplementary, Sec. 1
    layers: int = 20  # Sec. 5.1
    average_edges: bool = True  # Eq. 7; the public code sums
    temperature_start: float = 10.0  # T0, Sec. 5.1
    temperature_end: float = 0.02  # Sec. 5.1; gives theta = 0.72 over 20 epochs
    operation_temperature: float = 1e-3  # Sec. 4.2.2, Fig. 3

    def __post_init__(self) -> None:
        for name, smallest in (("epochs", 1), ("layers", 3)):
            if getattr(self, name) < smallest:
                raise DotsZooError(
                    f"topology_search.{name}: expected {smallest} or more, got {getattr(self, name)}"
                )
        for name in ("temperature_start", "temperature_end", "operation_temperature"):
            if getattr(self, name) <= 0:
                raise DotsZooError(f"topology_search.{name}: expected more than 0, got {getattr(self, name)}")


def topology_search(
    rule: EdgeRule,
    config: TopologyConfig,
    supernet: SupernetConfig,
    operation_epochs: int,
    survivors: Callable[[Search], SearchSpace],
) -> tuple[Stage, ...]:
    """Return the two spans after an operation search of `operation_epochs`, on the space of `survivors`.

    supernet: configuration of the operation search, whose macro-architecture and width it shares.
    """
    training, warm_up = supernet.training, config.epochs // 2
    weights = training.weights

    def surviving(before: Search | None) -> SearchSpace:
        assert before is not None, "a topology search follows an operation search"
        return survivors(before)

    first = Stage(
        name="topology warm-up",
        epochs=warm_up,
        initialise=fresh("topology", supernet, config.layers, surviving, partial(topology_choices, rule)),
        builds=True,
        step=train_weights,
        batch_size=training.batch_size or BATCH,
        images="a",
        relax=partial(topology_relaxation, rule, config, operation_epochs),
        derive=partial(derive_from_topology, rule),
        learning_rate=partial(
            cosine,
            epochs=operation_epochs + config.epochs,
            start=weights.learning_rate,
            end=weights.learning_rate_end,
        ),
        rest=partial(settled_operations, config, operation_epochs),
    )
    searching = replace(
        first,
        name="topology search",
        epochs=config.epochs - warm_up,
        initialise=continue_from if warm_up else first.initialise,
        builds=not warm_up,
        step=one_level,
        images="all",
    )
    return (first, searching) if warm_up else (searching,)


def topology_choices(rule: EdgeRule, space: SearchSpace) -> dict[str, Choice]:
    """Return the choices of alpha as before, and of beta: a combination of edges at every node."""
    betas = {f"beta.{cell_type}": edge_choice(space, rule) for cell_type in space.cell_types}
    return operation_choices(space) | betas


def temperature_at(config: TopologyConfig, operation_epochs: int, step_index: StepIndex) -> float:
    """Return the temperature of the topology in an epoch: T0 while the weights warm up, then Eq. 9."""
    warm_up = config.epochs // 2
    span = config.epochs - warm_up
    epoch = min(max(0, step_index.epoch - operation_epochs - warm_up), span - 1)
    return temperature(epoch, span, config.temperature_start, config.temperature_end)


def settled_operations(
    config: TopologyConfig, operation_epochs: int, search: Search, step_index: StepIndex, steps: int
) -> dict[str, Tensor]:
    """Return the mask of operations whose weight is zero throughout an epoch, by the logits' name, (E, O)."""
    t_alpha = config.operation_temperature * temperature_at(config, operation_epochs, step_index)
    names = [f"alpha.{cell_type}" for cell_type in search.space.cell_types]
    return {name: resting_operations(search, name, t_alpha, steps) for name in names}


def topology_relaxation(
    rule: EdgeRule, config: TopologyConfig, operation_epochs: int, search: Search
) -> Relaxation:
    """Relax by weighing edges by the combinations that contain them (Eq. 6-8), annealed (Eq. 9)."""
    space, device = search.space, next(iter(search.logits.values())).device
    membership = edge_membership(space, rule, config.average_edges, device)
    alpha_groups = {cell_type: open_operations(search, cell_type) for cell_type in space.cell_types}
    beta_open = {
        cell_type: search.candidate_mask[f"beta.{cell_type}"].to(device) for cell_type in space.cell_types
    }
    active = active_edges(search, rule)

    def schedules(step_index: StepIndex) -> dict[str, float]:
        return {"temperature": temperature_at(config, operation_epochs, step_index)}

    def compute_weights(logits: Logits, step_index: StepIndex) -> Weights:
        t_beta = schedules(step_index)["temperature"]
        t_alpha = config.operation_temperature * t_beta  # operations settle first (Fig. 3)
        weights: dict[str, Tensor] = {}
        for cell_type in space.cell_types:
            alpha, beta = f"alpha.{cell_type}", f"beta.{cell_type}"
            weights[alpha] = group_softmax(logits[alpha], alpha_groups[cell_type], t_alpha)  # (E, O)
            if rule == "edge_sigmoid":
                weights[beta] = sigmoid_weights(logits[beta], beta_open[cell_type], t_beta)
            else:
                weights[beta] = group_softmax(logits[beta], beta_open[cell_type][None], t_beta)  # Eq. 6
        return weights

    def build_mixture(weights: Weights, step_index: StepIndex) -> Mixture:
        operations = {}
        for cell_type in space.cell_types:
            gamma = edge_weights(weights[f"beta.{cell_type}"], membership)  # (E,), Eq. 7
            operations[cell_type] = gamma[:, None] * weights[f"alpha.{cell_type}"]  # Eq. 8
        return Mixture(operations, active)

    return Relaxation(compute_weights=compute_weights, build_mixture=build_mixture, schedules=schedules)


def active_edges(search: Search, rule: EdgeRule) -> dict[str, Active]:
    """Return the open operations of the edges that are in an open combination, by cell type."""
    active = {}
    for cell_type, operations in active_operations(search).items():
        kept: set[int] = set()
        for node, row in zip(
            search.space.nodes, search.candidate_mask[f"beta.{cell_type}"].tolist(), strict=True
        ):
            for chosen, is_open in zip(search.space.combinations(node, rule), row, strict=False):
                kept |= set(chosen) if is_open else set()
        active[cell_type] = tuple(on if edge in kept else frozenset() for edge, on in enumerate(operations))
    return active


def derive_from_topology(rule: EdgeRule, space: SearchSpace, weights: Weights) -> dict[str, CellGenotype]:
    """Derive the cells: the best combination of edges at every node, the best operation on each."""
    betas = {cell_type: weights[f"beta.{cell_type}"] for cell_type in space.cell_types}
    return topology_rule(space, alphas(space, weights), betas, rule)
