"""Weights to decisions: which operations survive on an edge, and which cell the weights stand for.

Source: DARTS (ICLR 2019), Sec. 2.4 (two edges a node); DOTS (CVPR 2021), Sec. 3.1, Eq. 14-16 (survivors), Eq.
5-6 (the best combination of edges). Weights are (E, O) for operations and (nodes, C) for combinations, as
`space.py` numbers them. Equal weights go to the alternative that comes first: the operation listed first, the
lower input.

In a DARTS cell `none` takes part in the relaxation and is never built: a chosen edge becomes its best other
operation. Edges of a genotype are listed node by node and by input.
"""

from collections.abc import Container, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from dots_zoo.genotype import CellGenotype, Edge, Genotype
from dots_zoo.runtime.errors import DotsZooError

from .named import Groups
from .space import CellSpace, EdgeRule, SearchSpace, edge_choice, operation_choice

Best = dict[int, tuple[float, str]]  # edge -> weight and name of its best operation that can be built


def survivors(
    space: SearchSpace, weights: Mapping[str, Tensor], groups: Groups | None, keep: int = 1
) -> SearchSpace:
    """Return the space of the `keep` best operations of every group on every edge (Eq. 14, Eq. 15-16).

    Where only `none` would stay on an edge, the best other operation stays too, so that the edge can be
    built.

    Args:
        space: candidates of every edge.
        weights: cell type -> (E, O), or logits, as only their order inside a group counts.
        groups: of operations; None lets all operations of an edge compete.
        keep: operations that stay in a group.
    """
    cells = []
    for cell in space.cells:
        rows = zip(cell.candidates, weights[cell.cell_type].tolist(), strict=True)
        kept = tuple(_edge_survivors(names, row, groups or (names,), keep) for names, row in rows)
        cells.append(CellSpace(cell.cell_type, kept))
    return SearchSpace(space.intermediate, tuple(cells), space.family)


def _edge_survivors(
    operations: Sequence[str], row: Sequence[float], groups: Groups, keep: int
) -> tuple[str, ...]:
    columns = [column for group in groups for column in _best_columns(operations, row, group, keep)]
    if {operations[column] for column in columns} == {"none"}:
        columns += _best_columns(operations, row, set(operations) - {"none"}, 1)
    return tuple(operations[column] for column in columns)


def _best_columns(
    operations: Sequence[str], row: Sequence[float], allowed: Container[str], keep: int
) -> list[int]:
    """Return the columns of the largest weights among the allowed operations, best first; -inf is closed."""
    columns = [c for c, name in enumerate(operations) if name in allowed and row[c] > float("-inf")]
    return sorted(columns, key=lambda column: -row[column])[:keep]


def cells_of(space: SearchSpace, weights: Mapping[str, Tensor]) -> dict[str, CellGenotype]:
    """Discretise the weights of the operations alone, by the rule of the space's family."""
    rule = darts_rule if space.family == "darts" else nasbench201_rule
    return rule(space, weights)


def nasbench201_rule(space: SearchSpace, weights: Mapping[str, Tensor]) -> dict[str, CellGenotype]:
    """Return the cells that have on every edge the operation with its largest weight; `none` is one of them.

    weights: cell type -> (E, O).
    """
    cells = {}
    for cell_type in space.cell_types:
        edges = []
        rows = zip(space.edges, space.candidates(cell_type), weights[cell_type].tolist(), strict=True)
        for (node, source), operations, row in rows:
            [column] = _best_columns(operations, row, operations, 1)
            edges.append(Edge(node, source, operations[column]))
        cells[cell_type] = CellGenotype(tuple(edges), (space.nodes[-1],))
    return cells


def darts_rule(space: SearchSpace, weights: Mapping[str, Tensor]) -> dict[str, CellGenotype]:
    """Return the cells that keep at every node the two edges with the largest weight of an operation.

    `none` is not counted. weights: cell type -> (E, O).
    """
    cells = {}
    for cell_type in space.cell_types:
        best = _best_operations(space, cell_type, weights[cell_type])
        chosen: list[int] = []
        for node in space.nodes:
            ranked = sorted(
                (edge for edge in space.incoming(node) if edge in best), key=lambda e: -best[e][0]
            )
            chosen += ranked[:2]
        cells[cell_type] = _cell(space, chosen, best)
    return cells


def topology_rule(
    space: SearchSpace, weights: Mapping[str, Tensor], combinations: Mapping[str, Tensor], rule: EdgeRule
) -> dict[str, CellGenotype]:
    """Return the cells that have at every node the combination of edges with the largest weight.

    Combinations of `edge_weights` are single edges, of which the best two stay; of `edge_sigmoid` those above
    one half stay, at least one. A combination with an edge that has no operation but `none` cannot be built
    and is passed over.

    Args:
        space: candidates and edges.
        weights: cell type -> (E, O).
        combinations: cell type -> (nodes, C).
        rule: meaning of the combinations.

    Raises:
        DotsZooError: if no combination of a node can be built.
    """
    cells = {}
    for cell_type in space.cell_types:
        best = _best_operations(space, cell_type, weights[cell_type])
        chosen: list[int] = []
        for node, row in zip(space.nodes, combinations[cell_type].tolist(), strict=True):
            weighed = zip(space.combinations(node, rule), row, strict=False)  # a shorter row is padded
            legal = [(edges, weight) for edges, weight in weighed if best.keys() >= set(edges)]
            if not legal:
                raise DotsZooError(
                    f"{cell_type} cell, node {node}: expected a combination of edges of which each has an "
                    "operation other than none, got no such combination"
                )
            ranked = sorted(legal, key=lambda pair: -pair[1])
            for edges, _ in ranked[: _how_many(rule, [weight for _, weight in ranked])]:
                chosen += edges
        cells[cell_type] = _cell(space, chosen, best)
    return cells


def _how_many(rule: EdgeRule, weights: Sequence[float]) -> int:
    """Return the number of a node's combinations, best first, that are kept."""
    if rule == "edge_sigmoid":
        return max(1, sum(weight > 0.5 for weight in weights))
    return 2 if rule == "edge_weights" else 1


def random_genotype(space: SearchSpace, draws: torch.Generator) -> Genotype:
    """Draw two edges at every node and an operation on every edge, uniformly: the control of a search."""
    weights, combinations = {}, {}
    for cell_type in space.cell_types:
        weights[cell_type] = torch.rand(operation_choice(space, cell_type).shape, generator=draws)
        combinations[cell_type] = torch.rand(edge_choice(space, "pairs").shape, generator=draws)
    cells = topology_rule(space, weights, combinations, "pairs")  # the largest of equal chances is uniform
    return Genotype("random", "darts", cells, {"method": "random"})


def _best_operations(space: SearchSpace, cell_type: str, weights: Tensor) -> Best:
    best: Best = {}
    for edge, (operations, row) in enumerate(zip(space.candidates(cell_type), weights.tolist(), strict=True)):
        for column in _best_columns(operations, row, set(operations) - {"none"}, 1):
            best[edge] = row[column], operations[column]
    return best


def _cell(space: SearchSpace, chosen: Iterable[int], best: Best) -> CellGenotype:
    edges = tuple(Edge(*space.edges[edge], best[edge][1]) for edge in sorted(chosen))
    return CellGenotype(edges, tuple(space.nodes))
