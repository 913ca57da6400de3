"""SearchSpace: the candidate operations of every edge, and the combinations of edges of every node; nothing
learned.

Source: DARTS (ICLR 2019), Sec. 2.1 (the cell); DOTS (CVPR 2021), Sec. 3.1 (S0), Eq. 5 (pairs of edges), Eq.
11-13 (any number of edges); its supplementary, Sec. 2 (the groups).

All index arithmetic of the search is here. Edges are numbered node by node, inside a node by input: in the
DARTS cell 0..13 are 2<-0, 2<-1, 3<-0, 3<-1, 3<-2, ... 5<-4. Pruning gives the same class with fewer
candidates per edge, so a decision of any method is a smaller space.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dots_zoo.errors import DotsZooError
from dots_zoo.genotype import PRIMITIVES

INPUTS = 2  # nodes 0 and 1 are the outputs of cells k-2 and k-1
S0 = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
# Group-V2: topology-related and topology-agnostic operations, that is without and with weights of their own.
GROUP_V2 = (
    ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3"),
    ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
)

Groups = tuple[tuple[str, ...], ...]
EdgeRule = Literal["pairs", "any"]


@dataclass(frozen=True)
class CellSpace:
    """One kind of cell: `candidates[edge]` are the operations that this edge may become."""

    kind: str
    candidates: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SearchSpace:
    """The cells that can be found: how many intermediate nodes, and a CellSpace for every kind of cell."""

    intermediate: int
    cells: tuple[CellSpace, ...]

    def __post_init__(self) -> None:
        for cell in self.cells:
            self._check(cell)

    @property
    def nodes(self) -> range:
        """The numbers of the intermediate nodes."""
        return range(INPUTS, INPUTS + self.intermediate)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(node, input) of every edge, in order."""
        return tuple((node, source) for node in self.nodes for source in range(node))

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(cell.kind for cell in self.cells)

    def candidates(self, kind: str) -> tuple[tuple[str, ...], ...]:
        """The operations of every edge of a cell of this kind."""
        [found] = [cell.candidates for cell in self.cells if cell.kind == kind]
        return found

    def incoming(self, node: int) -> tuple[int, ...]:
        """The numbers of the edges that enter `node`, by input."""
        return tuple(number for number, (target, _) in enumerate(self.edges) if target == node)

    def combinations(self, node: int, rule: EdgeRule) -> tuple[tuple[int, ...], ...]:
        """The sets of edges, as edge numbers, that `node` may keep: all pairs (Eq. 5) or all but none (Eq.
        12).
        """
        incoming = self.incoming(node)
        sizes = (2,) if rule == "pairs" else range(1, len(incoming) + 1)
        return tuple(chosen for size in sizes for chosen in itertools.combinations(incoming, size))

    def _check(self, cell: CellSpace) -> None:
        place, known = f"search space, {cell.kind} cell", PRIMITIVES["darts"]
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
        for node in self.nodes:
            if all(set(cell.candidates[edge]) == {"none"} for edge in self.incoming(node)):
                raise DotsZooError(f"{place}, node {node}: expected an operation other than none on one edge")


@dataclass(frozen=True)
class Choice:
    """What one tensor of architecture logits decides: a title for every row, a label for every alternative in
    it.

    Rows may differ in length; the tensor is (rows, longest row), what lies beyond a row's end takes part in
    nothing.
    """

    rows: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), max(len(labels) for labels in self.labels)


def operation_choice(space: SearchSpace, kind: str) -> Choice:
    """alpha: an operation on every edge."""
    rows = tuple(f"{node}<-{source}" for node, source in space.edges)
    labels = tuple(tuple(_numbered(operations)) for operations in space.candidates(kind))
    return Choice(rows, labels)


def _numbered(operations: tuple[str, ...]) -> Iterator[str]:
    """The names, those that stand on an edge more than once told apart."""
    for column, name in enumerate(operations):
        yield name if operations.count(name) == 1 else f"{name} ({operations[:column].count(name) + 1})"


def edge_choice(space: SearchSpace, rule: EdgeRule) -> Choice:
    """beta: a combination of edges at every node, labelled by the inputs, such as `0+2`."""
    labels = tuple(
        tuple(
            "+".join(str(space.edges[edge][1]) for edge in chosen)
            for chosen in space.combinations(node, rule)
        )
        for node in space.nodes
    )
    return Choice(tuple(f"node {node}" for node in space.nodes), labels)


def darts_space(operations: tuple[str, ...] = S0, intermediate: int = 4) -> SearchSpace:
    """The space of the DARTS cell with the same candidate operations on every edge."""
    edges = sum(range(INPUTS, INPUTS + intermediate))
    return SearchSpace(
        intermediate, tuple(CellSpace(kind, (operations,) * edges) for kind in ("normal", "reduce"))
    )
