"""The weights that a supernet mixes its candidates with, and which candidates it leaves out.

Source: DOTS (CVPR 2021), Eq. 1 and Eq. 8; PC-DARTS (ICLR 2020), Sec. 3.3 (the weight of an edge); DARTS-
(ICLR 2021), Eq. 4 (auxiliary skip connection); P-DARTS (ICCV 2019), Sec. 3.3 (dropout after a skip
connection).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..space.space import SearchSpace

Active = tuple[frozenset[int], ...]  # edge -> the columns of its candidates that are computed


@dataclass(frozen=True)
class CellMixture:
    """The part of a Mixture that belongs to one cell type.

    Args:
        operations: weights of every candidate of every edge, (E, O).
        active: candidates that are computed, by edge; the weights of all others are not read.
        edges: weights of the edges as a whole, (E,); None weighs all edges alike.
        auxiliary: weight of the auxiliary skip connection.
        skip_dropout: probability that an element after a skip connection is dropped.
    """

    operations: Tensor
    active: Active
    edges: Tensor | None = None
    auxiliary: float = 0.0
    skip_dropout: float = 0.0

    def edge_weights(self) -> tuple[Tensor | float, ...]:
        """Return the weight of every edge as a whole, E scalars."""
        return (1.0,) * len(self.active) if self.edges is None else self.edges.unbind()

    def auxiliary_weights(self) -> tuple[Tensor | float | None, ...]:
        """Return beta times the weight of every edge, None where the auxiliary skip has no weight left."""
        if not self.auxiliary:
            return (None,) * len(self.active)
        return tuple(self.auxiliary * edge for edge in self.edge_weights())


@dataclass(frozen=True)
class Mixture:
    """The weights of a supernet: the fields of CellMixture, the first three by cell type."""

    operations: Mapping[str, Tensor]
    active: Mapping[str, Active]
    edges: Mapping[str, Tensor] | None = None
    auxiliary: float = 0.0
    skip_dropout: float = 0.0

    def of_cell(self, cell_type: str) -> CellMixture:
        """Return the part of one cell type."""
        edges = None if self.edges is None else self.edges[cell_type]
        return CellMixture(
            self.operations[cell_type], self.active[cell_type], edges, self.auxiliary, self.skip_dropout
        )


def active_where(mask: Tensor) -> Active:
    """Return the columns that are True, by edge, of a boolean (E, O) on the CPU."""
    return tuple(frozenset(column for column, on in enumerate(row) if on) for row in mask.tolist())


def everything(space: SearchSpace, cell_type: str) -> Active:
    """Return all candidates of all edges as active."""
    return tuple(frozenset(range(len(names))) for names in space.candidates(cell_type))
