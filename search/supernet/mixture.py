"""What the supernet multiplies its candidates with, and what it leaves out.

Source: DOTS (CVPR 2021), Eq. 1 and Eq. 8; PC-DARTS (ICLR 2020), Sec. 3.3 (the weight of an edge); DARTS-
(ICLR 2021), Eq. 4 (auxiliary branch); P-DARTS (ICCV 2019), Sec. 3.3 (dropout behind a skip connection).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..space.space import SearchSpace

Active = tuple[frozenset[int], ...]  # edge -> the columns of its candidates that are computed


@dataclass(frozen=True)
class Mixture:
    """What the supernet multiplies with, and what it leaves out.

    operations: kind -> (E, O), the weight of every candidate of every edge. active: kind -> the candidates
    that are computed; the weights of all others are not looked at. edges: kind -> (E,), the weight of an edge
    as a whole, for what passes by its candidates: the channels that `Partial` leaves out and the auxiliary
    branch; None weighs all edges alike. auxiliary: of the auxiliary branch. skip_dropout: chance that an
    element behind a skip connection is dropped.
    """

    operations: Mapping[str, Tensor]
    active: Mapping[str, Active]
    edges: Mapping[str, Tensor] | None = None
    auxiliary: float = 0.0
    skip_dropout: float = 0.0


@dataclass(frozen=True)
class Row:
    """One edge of a Mixture: the weights of its candidates by column, and of the edge as a whole."""

    weights: tuple[Tensor, ...]
    active: frozenset[int]
    edge: Tensor | None


class Together:
    """Scalars as a vector, (K,): what all cells of a kind ask for is made once."""

    def __init__(self) -> None:
        self.made: dict[tuple[int, ...], tuple[Sequence[Tensor], Tensor]] = {}

    def __call__(self, scalars: Sequence[Tensor]) -> Tensor:
        key = tuple(map(id, scalars))  # which no other scalar gets as long as these are kept
        if key not in self.made:
            self.made[key] = scalars, torch.stack([*scalars])
        return self.made[key][1]


@dataclass(frozen=True)
class Rows:
    """The edges of one kind of cell, and how the weights of a node become a vector."""

    edges: Sequence[Row]
    together: Together = field(default_factory=Together)


def taken_apart(mixture: Mixture, kind: str) -> Rows:
    """The rows of one kind of cell."""
    rows, active = mixture.operations[kind].unbind(), mixture.active[kind]
    edges = (None,) * len(rows) if mixture.edges is None else mixture.edges[kind].unbind()
    return Rows([Row(row.unbind(), on, edge) for row, on, edge in zip(rows, active, edges, strict=True)])


def active_where(mask: Tensor) -> Active:
    """(E, O) bool, on the CPU -> for every edge, the columns that are True."""
    return tuple(frozenset(column for column, on in enumerate(row) if on) for row in mask.tolist())


def everything(space: SearchSpace, kind: str) -> Active:
    """All candidates of all edges."""
    return tuple(frozenset(range(len(names))) for names in space.candidates(kind))
