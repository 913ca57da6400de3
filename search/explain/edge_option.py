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
        kind: of the cell, normal or reduce, or cell in NAS-Bench-201; if not given the first.
        node: the node that the edge enters.
        input: the node that it leaves.
        operations: names of the operations; if not given all that were open on the edge, except none.
    """

    kind: str | None = None
    node: int = 2
    input: int = 0
    operations: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Place:
    """An edge of a space, and the operations on it to analyse.

    Args:
        kind: of the cell.
        row: index of the edge.
        title: of the edge, such as 2<-0.
        columns: of the operations.
        names: of the operations.
    """

    kind: str
    row: int
    title: str
    columns: tuple[int, ...]
    names: tuple[str, ...]


def kind_of(space: SearchSpace, kind: str | None) -> str:
    """Return the kind of cell, the first one for None.

    Raises:
        DotsZooError: if the space has no such kind.
    """
    if kind is not None and kind not in space.kinds:
        raise DotsZooError(f"kind: expected one of {', '.join(space.kinds)}, got {kind!r}")
    return space.kinds[0] if kind is None else kind


def place_of(search: Search, config: EdgeConfig) -> Place:
    """Return the edge that the options name.

    Raises:
        DotsZooError: if there is no such edge, it lacks an operation, or fewer than two operations are left
            to compare.
    """
    space, kind = search.space, kind_of(search.space, config.kind)
    edge = config.node, config.input
    if edge not in space.edges:
        known = ", ".join(f"{node}<-{source}" for node, source in space.edges)
        raise DotsZooError(f"edge {edge[0]}<-{edge[1]}: expected one of {known}")
    row = space.edges.index(edge)
    name, title = f"alpha.{kind}", f"{edge[0]}<-{edge[1]}"
    labels = search.choices[name].labels[row]
    columns = choosable(search, name, row, None)
    opened = [labels[column] for column in columns]
    wanted = opened if config.operations is None else _known(config.operations, opened, kind, title)
    if len(wanted) < 2:
        raise DotsZooError(
            f"{kind} cell, edge {title}: expected 2 operations or more to compare, got "
            f"{', '.join(wanted) or 'none'}; the search had decided the edge, or --operations names too few"
        )
    return Place(kind, row, title, tuple(labels.index(label) for label in wanted), tuple(wanted))


def _known(wanted: Sequence[str], opened: Sequence[str], kind: str, title: str) -> list[str]:
    missing = [name for name in wanted if name not in opened]
    if missing:
        raise DotsZooError(
            f"{kind} cell, edge {title}: expected operations among {', '.join(opened)}, "
            f"got {', '.join(missing)}"
        )
    return list(dict.fromkeys(wanted))
