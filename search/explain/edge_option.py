"""Options that name one edge of a cell and the operations on it to analyse."""

from collections.abc import Sequence
from dataclasses import dataclass

from dots_zoo.runtime.errors import DotsZooError

from ..methods.darts_pt import choosable
from ..space.space import SearchSpace
from ..stages.stage import Search


@dataclass(frozen=True)
class EdgeConfig:
    """An edge, and operations on it.

    Args:
        cell_type: of the cell, normal or reduce, or cell in NAS-Bench-201; if not given the first.
        node: the node that the edge enters.
        input: the node that it leaves.
        operations: names of the operations; if not given all that were open on the edge, except none.
    """

    cell_type: str | None = None
    node: int = 2
    input: int = 0
    operations: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SelectedEdge:
    """An edge of a space, and the operations on it to analyse.

    Args:
        cell_type: of the cell.
        row: index of the edge.
        title: of the edge, such as 2<-0.
        columns: of the operations.
        names: of the operations.
    """

    cell_type: str
    row: int
    title: str
    columns: tuple[int, ...]
    names: tuple[str, ...]


def checked_cell_type(space: SearchSpace, cell_type: str | None) -> str:
    """Return the cell type, the first one for None.

    Raises:
        DotsZooError: if the space has no such kind.
    """
    if cell_type is not None and cell_type not in space.cell_types:
        raise DotsZooError(f"cell_type: expected one of {', '.join(space.cell_types)}, got {cell_type!r}")
    return space.cell_types[0] if cell_type is None else cell_type


def select_edge(search: Search, config: EdgeConfig) -> SelectedEdge:
    """Return the edge that the options name.

    Raises:
        DotsZooError: if there is no such edge, it lacks an operation, or fewer than two operations are left
            to compare.
    """
    space, cell_type = search.space, checked_cell_type(search.space, config.cell_type)
    edge = config.node, config.input
    if edge not in space.edges:
        known = ", ".join(f"{node}<-{source}" for node, source in space.edges)
        raise DotsZooError(f"edge {edge[0]}<-{edge[1]}: expected one of {known}")
    row = space.edges.index(edge)
    name, title = f"alpha.{cell_type}", f"{edge[0]}<-{edge[1]}"
    labels = search.choices[name].labels[row]
    columns = choosable(search, name, row, None)
    opened = [labels[column] for column in columns]
    wanted = opened if config.operations is None else _known(config.operations, opened, cell_type, title)
    if len(wanted) < 2:
        raise DotsZooError(
            f"{cell_type} cell, edge {title}: expected 2 operations or more to compare, got "
            f"{', '.join(wanted) or 'none'}; the search had decided the edge, or --operations names too few"
        )
    return SelectedEdge(cell_type, row, title, tuple(labels.index(label) for label in wanted), tuple(wanted))


def _known(wanted: Sequence[str], opened: Sequence[str], cell_type: str, title: str) -> list[str]:
    missing = [name for name in wanted if name not in opened]
    if missing:
        raise DotsZooError(
            f"{cell_type} cell, edge {title}: expected operations among {', '.join(opened)}, "
            f"got {', '.join(missing)}"
        )
    return list(dict.fromkeys(wanted))
