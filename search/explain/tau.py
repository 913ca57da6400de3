"""Kendall's tau of the weights of edge combinations and the accuracy of networks with these edges.

Source: DOTS (CVPR 2021), Sec. 3.2 and Fig. 1: a node with five edges has ten pairs; each pair gives a
network, the rest of which is the cell that was found, and the networks are trained from scratch.

`beta` ranks by the combination's logit of a topology search, which orders as its weight does and does not
underflow at a low temperature. `alpha` is what the papers compare it with: an edge is as important as its
largest operation weight, none aside, and a pair as the sum of its two edges. An edge becomes its best
operation either way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from matplotlib.figure import Figure
from scipy.stats import kendalltau

from dots_zoo.genotype import Edge, Genotype
from dots_zoo.runtime.errors import DotsZooError

from ..methods.darts_pt import built_edges, choosable
from ..space.space import EdgeRule
from .discretise import check_alpha
from .edge_option import kind_of
from .finished_search import Finished, Look
from .stand_alone import StandAloneConfig, accuracies, described, means, with_edges

By = Literal["alpha", "beta"]


@dataclass(frozen=True)
class TauConfig:
    """Kendall's tau of edge combinations: their weights against stand-alone accuracies (DOTS Fig. 1).

    Args:
        by: beta of a topology search, or alpha, the sum of the importance of two edges; if not given beta
            where there was a topology search.
        kind: of the cell, normal or reduce; if not given the first.
        node: whose edges are combined; if not given the last.
        training: of the networks.
    """

    by: By | None = None
    kind: str | None = None
    node: int | None = None
    training: StandAloneConfig = field(default_factory=StandAloneConfig)


@dataclass(frozen=True)
class Combination:
    """Edges into a node, with their best operations, and their joint importance."""

    name: str  # the inputs, such as 0+2
    edges: tuple[Edge, ...]
    importance: float


def explain(finished: Finished, config: TauConfig, progress: bool) -> dict[str, Any]:
    """Train a network for every combination of the node's edges and rank them."""
    rule = finished.derivation.topology
    by: By = config.by or ("alpha" if rule == "none" else "beta")
    if finished.found.space == "nasbench201":
        raise DotsZooError("the cell of NAS-Bench-201 keeps all edges: expected a space with edges to choose")
    if by == "beta" and rule not in ("pairs", "any"):
        raise DotsZooError(
            f"{finished.folder}: expected a topology search of pairs or any for beta, got topology {rule}; "
            "--by alpha ranks by the operations"
        )
    if by == "alpha":
        check_alpha(finished)
    look = finished.look("topology" if by == "beta" else "operation")
    kind = kind_of(look.search.space, config.kind)
    node = look.search.space.nodes[-1] if config.node is None else config.node
    combinations = combinations_of(look, kind, node, "pairs" if by == "alpha" or rule == "none" else rule, by)
    cells: dict[str, Genotype] = {c.name: with_edges(finished.found, kind, c.edges) for c in combinations}
    shape, search = look.search.supernet.shape, finished.config.training
    tested = accuracies(cells, config.training, shape, search, finished.data, progress)
    figures = ranked([c.importance for c in combinations], means(tested))
    rows = [
        {
            "combination": c.name,
            "operations": [edge.op for edge in c.edges],
            "importance": c.importance,
            "accuracy": mean,
            "accuracies": seed_accuracies,
        }
        for c, mean, seed_accuracies in zip(combinations, means(tested), tested, strict=True)
    ]
    where = {"by": by, "kind": kind, "node": node, "combinations": rows}
    return figures | where | {"networks": described(config.training, shape, finished.data)}


def combinations_of(look: Look, kind: str, node: int, rule: EdgeRule, by: By) -> list[Combination]:
    """Return the combinations of a node's edges that can be built.

    Raises:
        DotsZooError: if the node does not exist, or has fewer than two of them.
    """
    search, space = look.search, look.search.space
    if node not in space.nodes:
        known = ", ".join(map(str, space.nodes))
        raise DotsZooError(f"node: expected one of {known}, got {node}")
    best = best_operations(look, kind, built_edges(search, kind, node))
    built = []
    for column, edges in enumerate(space.combinations(node, rule)):
        if not best.keys() >= set(edges):
            continue
        importance = (
            search.logits[f"beta.{kind}"][space.nodes.index(node), column].item()
            if by == "beta"
            else sum(best[edge][1] for edge in edges)
        )
        chosen = tuple(Edge(*space.edges[edge], best[edge][0]) for edge in edges)
        built.append(Combination("+".join(str(edge.input) for edge in chosen), chosen, importance))
    if len(built) < 2:
        raise DotsZooError(
            f"{kind} cell, node {node}: expected two combinations of edges or more to rank, got {len(built)}"
        )
    return built


def best_operations(look: Look, kind: str, edges: Sequence[int]) -> dict[int, tuple[str, float]]:
    """Return edge -> its best operation that can be built, and the weight of that in the supernet."""
    search = look.search
    weights, mixed = look.weights()[f"alpha.{kind}"], look.mixture().operations[kind]
    best = {}
    for edge in edges:
        columns = choosable(search, f"alpha.{kind}", edge, None)
        column = max(columns, key=lambda c: weights[edge, c].item())
        best[edge] = search.space.candidates(kind)[edge][column], mixed[edge, column].item()
    return best


def ranked(importances: Sequence[float], tested: Sequence[float]) -> dict[str, Any]:
    """Return Kendall's tau-b and its p-value, None where one side is constant."""
    if len(set(importances)) == 1 or len(set(tested)) == 1:
        return {"tau": None, "p_value": None}
    result = kendalltau(importances, tested)
    return {"tau": float(result.statistic), "p_value": float(result.pvalue)}


def draw(figures: dict[str, Any]) -> Figure:
    """Plot a point for every combination."""
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    panel = figure.subplots()
    for row in figures["combinations"]:
        panel.scatter(row["importance"], row["accuracy"], color="tab:blue")
        panel.annotate(
            row["combination"], (row["importance"], row["accuracy"]), xytext=(4, 4),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    of = {"beta": "logit of the combination", "alpha": "sum of the edges' largest operation weights"}
    panel.set_xlabel(of[figures["by"]])
    panel.margins(x=0.12)  # room for the names
    panel.set_ylabel("stand-alone accuracy")
    tau = figures["tau"]
    panel.set_title(
        f"edges of node {figures['node']}, {figures['kind']} cell: Kendall's tau "
        f"{'undefined' if tau is None else f'{tau:.2f}'}"
    )
    return figure


def line(figures: dict[str, Any]) -> str:
    """Summarise the result in one line."""
    tau = figures["tau"]
    shown = "undefined, as one side is constant" if tau is None else f"{tau:.2f} (p {figures['p_value']:.2f})"
    rows = figures["combinations"]
    return f"Kendall's tau of {figures['by']} over {len(rows)} combinations of edges: {shown}"
