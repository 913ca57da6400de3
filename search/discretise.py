"""Weights to decisions: which operations survive on an edge, and which cell the weights stand for.

Source: DARTS (ICLR 2019), Sec. 2.4 (two edges a node); DOTS (CVPR 2021), Sec. 3.1, Eq. 14-16 (survivors), Eq.
5-6 (the best combination of edges). Weights are (E, O) for operations and (nodes, C) for combinations, as
`space.py` numbers them. Equal weights go to the alternative that comes first: the operation listed first, the
lower input.

`none` takes part in the relaxation and is never built: an edge that is chosen becomes its best other
operation. Edges of a genotype are listed node by node and by input.
"""

from collections.abc import Container, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from dots_zoo.errors import DotsZooError
from dots_zoo.genotype import CellGenotype, Edge, Genotype

from .space import CellSpace, EdgeRule, Groups, SearchSpace, edge_choice, operation_choice

Best = dict[int, tuple[float, str]]  # edge -> weight and name of its best operation that can be built


def survivors(space: SearchSpace, weights: Mapping[str, Tensor], groups: Groups) -> SearchSpace:
    """The space that keeps the best operation of every group on every edge (Eq. 14 with one group, Eq.
    15-16).

    weights: kind -> (E, O); logits do as well, as only the order inside a group counts. Where `none` would be
    alone on an edge, the best other operation stays beside it, so that the edge can be built.
    """
    cells = []
    for cell in space.cells:
        rows = zip(cell.candidates, weights[cell.kind].tolist(), strict=True)
        cells.append(CellSpace(cell.kind, tuple(_edge_survivors(names, row, groups) for names, row in rows)))
    return SearchSpace(space.intermediate, tuple(cells))


def _edge_survivors(operations: Sequence[str], row: Sequence[float], groups: Groups) -> tuple[str, ...]:
    found = [column for group in groups for column in _best_column(operations, row, group)]
    if {operations[column] for column in found} == {"none"}:
        found += _best_column(operations, row, set(operations) - {"none"})
    return tuple(operations[column] for column in found)


def _best_column(operations: Sequence[str], row: Sequence[float], allowed: Container[str]) -> list[int]:
    """The column of the largest weight among the allowed operations, in a list that is empty where there is
    none.
    """
    columns = [column for column, name in enumerate(operations) if name in allowed]
    return [max(columns, key=lambda column: row[column])] if columns else []


def darts_rule(space: SearchSpace, weights: Mapping[str, Tensor]) -> dict[str, CellGenotype]:
    """The cells that keep at every node the two edges with the largest weight of an operation other than
    `none`.

    weights: kind -> (E, O).
    """
    cells = {}
    for kind in space.kinds:
        best = _best_operations(space, kind, weights[kind])
        chosen: list[int] = []
        for node in space.nodes:
            ranked = sorted(
                (edge for edge in space.incoming(node) if edge in best), key=lambda e: -best[e][0]
            )
            chosen += ranked[:2]
        cells[kind] = _cell(space, chosen, best)
    return cells


def topology_rule(
    space: SearchSpace, weights: Mapping[str, Tensor], combinations: Mapping[str, Tensor], rule: EdgeRule
) -> dict[str, CellGenotype]:
    """The cells that keep at every node the combination of edges with the largest weight.

    weights: kind -> (E, O); combinations: kind -> (nodes, C). A combination with an edge that has no
    operation but `none` cannot be built and is passed over; raises DotsZooError where a node has no other.
    """
    cells = {}
    for kind in space.kinds:
        best = _best_operations(space, kind, weights[kind])
        chosen: list[int] = []
        for node, row in zip(space.nodes, combinations[kind].tolist(), strict=True):
            weighed = zip(space.combinations(node, rule), row, strict=False)  # a shorter row is padded
            legal = [(edges, weight) for edges, weight in weighed if best.keys() >= set(edges)]
            if not legal:
                raise DotsZooError(
                    f"{kind} cell, node {node}: expected a combination of edges of which each has an "
                    "operation other than none, got no such combination"
                )
            chosen += max(legal, key=lambda pair: pair[1])[0]
        cells[kind] = _cell(space, chosen, best)
    return cells


def random_genotype(space: SearchSpace, draws: torch.Generator) -> Genotype:
    """At every node two edges, on every edge an operation, uniformly drawn from `draws`: the control of a
    search.
    """
    weights, combinations = {}, {}
    for kind in space.kinds:
        weights[kind] = torch.rand(operation_choice(space, kind).shape, generator=draws)
        combinations[kind] = torch.rand(edge_choice(space, "pairs").shape, generator=draws)
    cells = topology_rule(space, weights, combinations, "pairs")  # the largest of equal chances is uniform
    return Genotype("random", "darts", cells, {"method": "random"})


def _best_operations(space: SearchSpace, kind: str, weights: Tensor) -> Best:
    best: Best = {}
    for edge, (operations, row) in enumerate(zip(space.candidates(kind), weights.tolist(), strict=True)):
        for column in _best_column(operations, row, set(operations) - {"none"}):
            best[edge] = row[column], operations[column]
    return best


def _cell(space: SearchSpace, chosen: Iterable[int], best: Best) -> CellGenotype:
    edges = tuple(Edge(*space.edges[edge], best[edge][1]) for edge in sorted(chosen))
    return CellGenotype(edges, tuple(space.nodes))
