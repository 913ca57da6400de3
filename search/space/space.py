"""SearchSpace: the candidate operations of every edge, the combinations of edges of every node.

Nothing in it is learned. `named.py` holds the spaces of the papers.

Source: DARTS (ICLR 2019), Sec. 2.1 (the cell); DOTS (CVPR 2021), Eq. 5 (pairs of edges), Eq. 11-13 (any
number of edges), Table 4a (every edge by itself).

All index arithmetic of the search is here. Edges are numbered node by node, inside a node by input: in the
DARTS cell 0..13 are 2<-0, 2<-1, 3<-0, 3<-1, 3<-2, ... 5<-4. Pruning gives the same class with fewer
candidates per edge, so a decision of any method is a smaller space.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dots_zoo.genotype import OPS, Operation, primitives
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.table import PLUGIN_HINT, look_up

Family = Literal["darts", "nasbench201"]
EdgeRule = Literal["pairs", "any", "edge_weights", "edge_sigmoid"]

INPUTS: dict[Family, int] = {"darts": 2, "nasbench201": 1}  # nodes that stand for other cells' outputs


@dataclass(frozen=True)
class CellSpace:
    """The candidates of one cell type: `candidates[edge]` are the operations that the edge may become."""

    cell_type: str
    candidates: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SearchSpace:
    """The cells that can be found: the number of intermediate nodes, and a CellSpace for every cell type.

    family: `darts` cells read two cells before them, `nasbench201` cells one.
    """

    intermediate: int
    cells: tuple[CellSpace, ...]
    family: Family = "darts"

    def __post_init__(self) -> None:
        for cell in self.cells:
            self._check(cell)

    @property
    def nodes(self) -> range:
        """Return the numbers of the intermediate nodes."""
        inputs = INPUTS[self.family]
        return range(inputs, inputs + self.intermediate)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Return (node, input) of every edge, in order."""
        return tuple((node, source) for node in self.nodes for source in range(node))

    @property
    def cell_types(self) -> tuple[str, ...]:
        return tuple(cell.cell_type for cell in self.cells)

    def candidates(self, cell_type: str) -> tuple[tuple[str, ...], ...]:
        """Return the operations of every edge of a cell type."""
        [candidates] = [cell.candidates for cell in self.cells if cell.cell_type == cell_type]
        return candidates

    def incoming(self, node: int) -> tuple[int, ...]:
        """Return the edges that enter `node`, by input."""
        return tuple(edge for edge, (target, _) in enumerate(self.edges) if target == node)

    def combinations(self, node: int, rule: EdgeRule) -> tuple[tuple[int, ...], ...]:
        """Return the sets of edges that the logits of `node` stand for.

        They are every pair (Eq. 5), every set but the empty one (Eq. 12), or every edge by itself (the
        baselines of Table 4a).
        """
        incoming = self.incoming(node)
        sizes = {"pairs": range(2, 3), "any": range(1, len(incoming) + 1)}.get(rule, range(1, 2))
        return tuple(chosen for size in sizes for chosen in itertools.combinations(incoming, size))

    def _check(self, cell: CellSpace) -> None:
        place, known = f"search space, {cell.cell_type} cell", primitives(self.family)
        if len(cell.candidates) != len(self.edges):
            raise DotsZooError(
                f"{place}: expected candidates for the {len(self.edges)} edges of {self.intermediate} nodes, "
                f"got {len(cell.candidates)}"
            )
        for (node, source), operations in zip(self.edges, cell.candidates, strict=True):
            unknown = set(operations) - set(known)
            if unknown or not operations:
                raise DotsZooError(
                    f"{place}, edge {node}<-{source}: expected one or more of {', '.join(known)}, "
                    f"got {', '.join(sorted(unknown)) or 'nothing'}"
                )
        for node in self.nodes if self.family == "darts" else ():
            if all(set(cell.candidates[edge]) == {"none"} for edge in self.incoming(node)):
                raise DotsZooError(f"{place}, node {node}: expected an operation other than none on one edge")


@dataclass(frozen=True)
class Choice:
    """The decision that a tensor of architecture logits takes: an alternative in every row.

    Rows may differ in length; the tensor is (rows, longest row), and entries beyond a row's end are ignored.

    Args:
        rows: title of every row.
        labels: label of every alternative of every row.
    """

    rows: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), max(len(labels) for labels in self.labels)


def operation_choice(space: SearchSpace, cell_type: str) -> Choice:
    """Return the choice of alpha: an operation on every edge."""
    rows = tuple(f"{node}<-{source}" for node, source in space.edges)
    labels = tuple(tuple(_numbered(operations)) for operations in space.candidates(cell_type))
    return Choice(rows, labels)


def _numbered(operations: tuple[str, ...]) -> Iterator[str]:
    """Yield the names, with a number if they stand on the edge more than once."""
    for column, name in enumerate(operations):
        yield name if operations.count(name) == 1 else f"{name} ({operations[:column].count(name) + 1})"


def operation_of(label: str) -> Operation:
    """Return the operation that a label of `operation_choice` names.

    Raises:
        DotsZooError: if it is not known.
    """
    return look_up(OPS, label.partition(" ")[0], "operation", PLUGIN_HINT)


def edge_choice(space: SearchSpace, rule: EdgeRule) -> Choice:
    """Return the choice of beta: a combination of edges at every node, labelled by the inputs, as `0+2`."""
    labels = tuple(
        tuple(
            "+".join(str(space.edges[edge][1]) for edge in chosen)
            for chosen in space.combinations(node, rule)
        )
        for node in space.nodes
    )
    return Choice(tuple(f"node {node}" for node in space.nodes), labels)
