"""The methods by name, and how an operation search, a topology search and a selection become one search.

Source: DOTS (CVPR 2021), Sec. 4 and Table 2 (any operation search, then the topology search); DARTS-PT (ICLR
2021), Sec. 4 (any supernet, then perturbation-based selection). What cannot be combined is refused here,
before any work: groups or more than one operation an edge without a topology search, since the DARTS rule has
no use for them; SGAS with a topology search, since it decides about edges itself; perturbation-based
selection with the edge weights or the edge sigmoid of Table 4a, which are no alternatives of one decision;
NAS-Bench-201 with a topology search, since all edges of its cell stay; and perturbation straight behind a
random search that trains no weights, since it judges by them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from dots_zoo.runtime.errors import DotsZooError

from ..space.space import SearchSpace
from ..stages.operation_search import best_operations
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
from .darts_pt import PerturbationConfig, decisions, perturbation_stages
from .topology import TopologyConfig, topology_search


def surviving(config: Any, keep: int, search: Search) -> SearchSpace:
    """The `keep` best operations of every edge."""
    return best_operations(keep, search)


@dataclass(frozen=True)
class Method:
    """One way to search for operations.

    config: its numbers; the first line of their docstring is its title. stages: its operation search, of a
    configuration, a space and the number of epochs that follow on the same cosine of the learning rate.
    surviving: what of its search goes on to a topology search, of a configuration, how many operations an
    edge keeps, and the search. narrowed: closes what neither a topology search nor a selection may choose.
    """

    config: type[Any]
    stages: Callable[[Any, SearchSpace, int], tuple[Stage, ...]]
    surviving: Callable[[Any, int, Search], SearchSpace] = surviving
    narrowed: Callable[[Any, Search], Search] = lambda config, search: search


METHODS: Mapping[str, Method] = {
    "dots": Method(dots.DotsConfig, dots.stages, dots.surviving),
    "darts": Method(darts.DartsConfig, darts.stages),
    "darts_minus": Method(darts_minus.DartsMinusConfig, darts_minus.stages),
    "p_darts": Method(p_darts.PDartsConfig, p_darts.stages, narrowed=p_darts.narrowed),
    "sgas": Method(sgas.SgasConfig, sgas.stages),
    "dropnas": Method(dropnas.DropnasConfig, dropnas.stages),
    "gdas": Method(gdas.GdasConfig, gdas.stages),
    "snas": Method(snas.SnasConfig, snas.stages),
    "pc_darts": Method(pc_darts.PcDartsConfig, pc_darts.stages),
    "sdarts_rs": Method(sdarts_rs.SdartsRsConfig, sdarts_rs.stages),
    "fixed_alpha": Method(fixed_alpha.FixedAlphaConfig, fixed_alpha.stages),
    "random_search": Method(random_search.RandomSearchConfig, random_search.stages),
}


@dataclass(frozen=True)
class Derivation:
    """How a cell is derived from an operation search: which topology search follows, and what selects.

    Args:
        topology: search that decides between edges after the operations; none takes the DARTS rule. pairs
            keeps two edges a node, any one or more; edge_weights and edge_sigmoid are the baselines of Table
            4a.
        keep: operations that stay on an edge for the topology search, of every group where there are groups.
        selection: magnitude takes the largest weight, perturbation what the supernet misses most without
            (DARTS-PT), perturbation_magnitude the largest weight with the same tuning in between (its
            control). SGAS, which decides as it trains, keeps its own times and lets perturbation choose the
            operations.
        topology_search: numbers of the topology search.
        perturbation: numbers of the perturbation-based selection.
    """

    topology: Literal["none", "pairs", "any", "edge_weights", "edge_sigmoid"] = "none"
    keep: int = 1
    selection: Literal["magnitude", "perturbation", "perturbation_magnitude"] = "magnitude"
    topology_search: TopologyConfig = field(default_factory=TopologyConfig)
    perturbation: PerturbationConfig = field(default_factory=PerturbationConfig)

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise DotsZooError(f"keep: expected 1 or more, got {self.keep}")


def default_derivation(method: str) -> Derivation:
    """With the topology search where the method is one half of DOTS."""
    return Derivation(topology="pairs" if method == "dots" else "none")


def refusal(method: str, config: Any, derivation: Derivation, space: SearchSpace) -> str | None:
    """Why this cannot be searched, None where it can."""
    searched = derivation.topology != "none"
    if not searched and _grouped(config):
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
    if searched and method == "sgas":
        return f"it decides about edges itself: expected topology none, got {derivation.topology}"
    if derivation.selection != "magnitude" and derivation.topology in ("edge_weights", "edge_sigmoid"):
        return (
            f"selection {derivation.selection}: expected topology none, pairs or any, whose alternatives "
            f"exclude each other, got {derivation.topology}"
        )
    untrained = isinstance(config, random_search.RandomSearchConfig) and config.epochs == 0
    if untrained and derivation.selection == "perturbation" and not searched:
        return "perturbation judges by the weights of the supernet: expected epochs of 1 or more, got 0"
    depths = config.depths if isinstance(config, p_darts.PDartsConfig) else ()
    if space.family == "nasbench201" and any(depth % 3 for depth in depths):
        return (
            "the supernet of NAS-Bench-201 has three stages of equal length: expected depths that are "
            f"divisible by 3, such as 6, 12, 18, got {', '.join(map(str, depths))}"
        )
    return None


def _grouped(config: Any) -> bool:
    """Whether the operations of an edge compete in groups, of which each keeps its best."""
    return isinstance(config, dots.DotsConfig) and config.groups != "one"


def plan(method: str, config: Any, derivation: Derivation, space: SearchSpace) -> tuple[Stage, ...]:
    """All stages of a search; the last of its operation search and of its topology search are `kept` by these
    names. Raises DotsZooError where the parts cannot be combined.
    """
    reason = refusal(method, config, derivation, space)
    if reason:
        raise DotsZooError(f"search {method}: {reason}")
    found, rule = METHODS[method], derivation.topology
    if isinstance(config, sgas.SgasConfig):
        by = derivation.perturbation.by if derivation.selection == "perturbation" else "magnitude"
        return sgas.stages(config, space, 0, by)
    after = 0 if rule == "none" else derivation.topology_search.epochs
    stages = found.stages(config, space, after)
    narrowed = partial(found.narrowed, config)
    ends = {len(stages): "operation"}
    if rule != "none":
        epochs = sum(stage.epochs for stage in stages)

        def survivors(search: Search) -> SearchSpace:
            return found.surviving(config, derivation.keep, narrowed(search))

        stages += topology_search(rule, derivation.topology_search, config.training, epochs, survivors)
        ends[len(stages)] = "topology"
    if derivation.selection != "magnitude":
        stages += _selection(stages, config, derivation, space, narrowed)
    ends.pop(len(stages), None)  # where the search ends is in its checkpoint
    return tuple(replace(stage, kept=ends.get(number, "")) for number, stage in enumerate(stages, 1))


def _selection(
    stages: tuple[Stage, ...],
    config: Any,
    derivation: Derivation,
    space: SearchSpace,
    narrowed: Callable[[Search], Search],
) -> tuple[Stage, ...]:
    """The decisions of DARTS-PT behind all others; what a topology search is given is narrowed already."""
    rule = None if derivation.topology == "none" else derivation.topology
    one_left = rule is not None and derivation.keep == 1 and not _grouped(config)
    operations, combinations = decisions(space, rule, one_left)
    return perturbation_stages(
        derivation.perturbation,
        derivation.perturbation.by if derivation.selection == "perturbation" else "magnitude",
        last=stages[-1],
        training=config.training,
        start=sum(stage.epochs for stage in stages),
        operations=operations,
        combinations=combinations,
        rule=rule,
        narrowed=narrowed if rule is None else lambda search: search,
    )
