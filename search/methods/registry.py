"""The methods by name, and the plan of a search: operation search, topology search, selection.

Source: DOTS (CVPR 2021), Sec. 4 and Table 2 (any operation search, then the topology search); DARTS-PT (ICLR
2021), Sec. 4 (any supernet, then perturbation-based selection). Combinations that make no sense are refused
here, before any work: groups or more than one operation an edge without a topology search, since the DARTS
rule has no use for them; SGAS with a topology search, since it decides about edges itself; perturbation-based
selection with the edge weights or the edge sigmoid of Table 4a, which are no alternatives of one decision;
NAS-Bench-201 with a topology search, since all edges of its cell stay; and perturbation straight after a
random search that trains no weights, since it judges by them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.table import PLUGIN_HINT, look_up

from ..space.space import SearchSpace
from ..stages.config import TrainingConfig
from ..stages.stage import Search, Stage
from . import (
    darts,
    darts_minus,
    dots,
    dropnas,
    fixed_alpha,
    gdas,
    p_darts,
    pc_darts,
    random_search,
    sdarts_rs,
    sgas,
    snas,
)
from .darts_pt import By, PerturbationConfig, decisions, perturbation_stages
from .method import METHODS as METHODS
from .method import Method as Method
from .method import Topology
from .method import register_method as register_method
from .topology import TopologyConfig, topology_search

for _method in (
    dots.METHOD,
    darts.METHOD,
    darts_minus.METHOD,
    p_darts.METHOD,
    sgas.METHOD,
    dropnas.METHOD,
    gdas.METHOD,
    snas.METHOD,
    pc_darts.METHOD,
    sdarts_rs.METHOD,
    fixed_alpha.METHOD,
    random_search.METHOD,
):
    register_method(_method)


@dataclass(frozen=True)
class Derivation:
    """Derivation of a cell from an operation search: the topology search that follows, and the selection.

    Args:
        topology: search that decides between edges after the operations; none takes the DARTS rule. pairs
            keeps two edges a node, any one or more; edge_weights and edge_sigmoid are the baselines of Table
            4a.
        keep: operations that stay on an edge for the topology search, of every group where there are groups.
        selection: magnitude takes the largest weight, perturbation the alternative that the supernet misses
            most (DARTS-PT), perturbation_magnitude the largest weight with the same tuning in between (its
            control). SGAS, which decides as it trains, keeps its own times and lets perturbation choose the
            operations.
        topology_search: options of the topology search.
        perturbation: options of the perturbation-based selection.
    """

    topology: Topology = "none"
    keep: int = 1
    selection: Literal["magnitude", "perturbation", "perturbation_magnitude"] = "magnitude"
    topology_search: TopologyConfig = field(default_factory=TopologyConfig)
    perturbation: PerturbationConfig = field(default_factory=PerturbationConfig)

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise DotsZooError(f"keep: expected 1 or more, got {self.keep}")


def refusal(method: Method, config: Any, derivation: Derivation, space: SearchSpace) -> str | None:
    """Return the reason why this cannot be searched, None if it can."""
    searched = derivation.topology != "none"
    if not searched and method.grouped(config):
        return "groups keep more than one operation on an edge: expected a topology search, got topology none"
    if not searched and derivation.keep > 1:
        return (
            f"keep {derivation.keep}: expected a topology search, which decides between the operations of an "
            "edge, got topology none"
        )
    if searched and space.family == "nasbench201":
        return (
            "the space of NAS-Bench-201 keeps all edges of its cell: expected topology none, got "
            f"{derivation.topology}"
        )
    if searched and method.decides_edges:
        return f"it decides about edges itself: expected topology none, got {derivation.topology}"
    if derivation.selection != "magnitude" and derivation.topology in ("edge_weights", "edge_sigmoid"):
        return (
            f"selection {derivation.selection}: expected topology none, pairs or any, whose alternatives "
            f"exclude each other, got {derivation.topology}"
        )
    if not method.trains_weights(config) and derivation.selection == "perturbation" and not searched:
        return "perturbation judges by the weights of the supernet: expected epochs of 1 or more, got 0"
    depths = method.depths(config)
    if space.family == "nasbench201" and any(depth % 3 for depth in depths):
        return (
            "the supernet of NAS-Bench-201 has three stages of equal length: expected depths that are "
            f"divisible by 3, such as 6, 12, 18, got {', '.join(map(str, depths))}"
        )
    return None


def plan(name: str, config: Any, derivation: Derivation, space: SearchSpace) -> tuple[Stage, ...]:
    """Return all stages of a search.

    The last stage of its operation search and of its topology search are `kept` by these names, where others
    follow.

    Raises:
        DotsZooError: if there is no such method, or the parts cannot be combined.
    """
    method, rule = look_up(METHODS, name, "method", PLUGIN_HINT), derivation.topology
    reason = refusal(method, config, derivation, space)
    if reason:
        raise DotsZooError(f"search {name}: {reason}")
    if method.decides_edges:
        return method.stages(config, space, 0, _criterion(derivation))
    after = 0 if rule == "none" else derivation.topology_search.epochs
    stages = method.stages(config, space, after)
    restrict = partial(method.restrict_candidates, config)
    saved_names = {len(stages): "operation"}
    if rule != "none":
        epochs = sum(stage.epochs for stage in stages)

        def survivors(search: Search) -> SearchSpace:
            return method.surviving(config, derivation.keep, restrict(search))

        stages += topology_search(rule, derivation.topology_search, config, epochs, survivors)
        saved_names[len(stages)] = "topology"
    if derivation.selection != "magnitude":
        one_left = rule != "none" and derivation.keep == 1 and not method.grouped(config)
        stages += _selection(stages, config.training, derivation, space, one_left, restrict)
    saved_names.pop(len(stages), None)  # the end of the search is in its checkpoint
    return tuple(replace(stage, saved_as=saved_names.get(count, "")) for count, stage in enumerate(stages, 1))


def _criterion(derivation: Derivation) -> By:
    """Return the criterion of the selection."""
    return derivation.perturbation.by if derivation.selection == "perturbation" else "magnitude"


def _selection(
    stages: tuple[Stage, ...],
    training: TrainingConfig,
    derivation: Derivation,
    space: SearchSpace,
    one_left: bool,
    restrict: Callable[[Search], Search],
) -> tuple[Stage, ...]:
    """Return the decisions of DARTS-PT after all other stages.

    A topology search has been given the restricted candidates already. one_left: at most one operation
    besides `none` is left on an edge.
    """
    rule = None if derivation.topology == "none" else derivation.topology
    operations, combinations = decisions(space, rule, one_left)
    return perturbation_stages(
        derivation.perturbation,
        _criterion(derivation),
        stages,
        training=training,
        operations=operations,
        combinations=combinations,
        rule=rule,
        restrict_candidates=restrict if rule is None else lambda search: search,
    )
