"""Define Edge, CellGenotype and Genotype: a searched cell as data, and the rules that it obeys.

A genotype from a bundled name, a JSON file or one of the field's text forms passes the same `validate`.
Nothing here needs torch.

A node is the sum of its incoming edges, so two edges of a node may share their input: FairDARTS publishes
such cells and its network adds the operations up. Edges stay in the published order, by which public
checkpoints number their operations; messages count them in the same way, from 0.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..runtime.errors import DotsZooError
from ..runtime.table import PLUGIN_HINT
from .operations import CELLS, OPS, primitives

NASBENCH201_EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))  # (node, input)

# Limits for a hostile file; the published cells have 4 nodes and at most 28 edges.
MAX_NODES = 64
MAX_EDGES = 1024
MAX_BYTES = 1_000_000
MAX_NAME = 100


class GenotypeError(DotsZooError):
    """A genotype that cannot be read or built; the message says file, cell, edge, and what was expected."""


@dataclass(frozen=True)
class Edge:
    """An edge of a cell: operation `op` on the output of node `input`, a term of the sum at node `node`."""

    node: int
    input: int
    op: str


@dataclass(frozen=True)
class CellGenotype:
    """A cell: its edges in published order, and the nodes whose concatenation on channels is its output.

    In space `darts` nodes 0 and 1 are the outputs of cells k-2 and k-1, the cell's own nodes count from 2; in
    `nasbench201` node 0 is the input, the own nodes count from 1.
    """

    edges: tuple[Edge, ...]
    concat: tuple[int, ...]

    @property
    def nodes(self) -> tuple[int, ...]:
        """Return the cell's own nodes, up to the last with an edge; others may be empty (FairDARTS)."""
        entered = [edge.node for edge in self.edges]
        return tuple(range(min(2, *entered), max(entered) + 1))  # only nasbench201 has an edge into node 1

    def edges_into(self, node: int) -> tuple[Edge, ...]:
        """Return the edges of `node` in published order; () where the cell leaves it empty."""
        return tuple(edge for edge in self.edges if edge.node == node)


@dataclass(frozen=True)
class Genotype:
    """The cells of a network by name: `normal` and `reduce` in space `darts`, `cell` in `nasbench201`.

    `provenance` is a JSON object (method, dataset, origin, paper, seed, ...) that equality ignores.
    """

    name: str
    space: str
    cells: Mapping[str, CellGenotype]
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def normal(self) -> CellGenotype:
        return self._cell("normal")

    @property
    def reduce(self) -> CellGenotype:
        return self._cell("reduce")

    @property
    def cell(self) -> CellGenotype:
        return self._cell("cell")

    def _cell(self, name: str) -> CellGenotype:
        if name not in self.cells:
            refuse(f"genotype {self.name} of space {self.space}", f"a cell {name!r}", list(self.cells))
        return self.cells[name]


def refuse(where: str, expected: str, got: object, hint: str = "") -> NoReturn:
    """Raise the GenotypeError "where: expected ..., got ...; hint"; a long `got` is cut."""
    cut = reprlib.Repr()
    cut.maxstring = cut.maxother = 200
    raise GenotypeError(f"{where}: expected {expected}, got {cut.repr(got)}{hint and f'; {hint}'}")


def cell_place(where: str, name: str) -> str:
    """Return the name of a cell in messages: "where: normal cell", or "where: cell" of space nasbench201."""
    return f"{where}: cell" if name == "cell" else f"{where}: {name} cell"


def validate(genotype: Genotype, where: str = "genotype") -> None:
    """Raise a GenotypeError that begins with `where` for what is not a genotype of its space.

    Every edge carries an operation of the space and starts before the node it enters; `concat` names nodes of
    the cell, each once. A node without an edge is legal as data; the builder of the network decides on it.
    """
    name, space = genotype.name, genotype.space
    if not (isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME):
        refuse(where, f"a printable name of 1 to {MAX_NAME} characters", name)
    if space not in list(CELLS):
        refuse(where, f"space {' or '.join(CELLS)}", space)
    if set(genotype.cells) != set(CELLS[space]):
        refuse(where, f"the cells of space {space} ({', '.join(CELLS[space])})", list(genotype.cells))
    for cell_name in CELLS[space]:
        _validate_cell(genotype.cells[cell_name], space, cell_place(where, cell_name))


def _validate_cell(cell: CellGenotype, space: str, place: str) -> None:
    if not 1 <= len(cell.edges) <= MAX_EDGES:
        refuse(place, f"1 to {MAX_EDGES} edges", len(cell.edges))
    for index, edge in enumerate(cell.edges):
        _validate_edge(edge, space, f"{place}, edge {index}")
    if space == "nasbench201" and tuple((edge.node, edge.input) for edge in cell.edges) != NASBENCH201_EDGES:
        pairs = [[edge.node, edge.input] for edge in cell.edges]
        refuse(place, f"[node, input] of its edges to be {NASBENCH201_EDGES}", pairs)
    legal = cell.nodes if space == "darts" else (3,)
    are_nodes = all(type(node) is int and node in legal for node in cell.concat)
    if not (cell.concat and are_nodes and len(set(cell.concat)) == len(cell.concat)):
        refuse(f"{place}, concat", f"one or more of the nodes {legal}, each once", list(cell.concat))


def _validate_edge(edge: Edge, space: str, place: str) -> None:
    first = 2 if space == "darts" else 1
    last = first + MAX_NODES - 1
    row = [edge.node, edge.input, edge.op]
    if type(edge.node) is not int or not first <= edge.node <= last:
        refuse(place, f"[node, input, operation] with a node from {first} to {last}", row)
    if type(edge.input) is not int or not 0 <= edge.input < edge.node:
        refuse(place, f"an input from 0 to {edge.node - 1}, a node before the edge's own", row)
    operations = primitives(space)
    if edge.op not in operations:
        hint = "" if edge.op in list(OPS) else PLUGIN_HINT
        refuse(place, f"an operation of space {space} ({', '.join(operations)})", row, hint)
