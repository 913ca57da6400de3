"""The inside of a search cell: edges that mix their candidates, and nodes that sum their edges.

Source: DOTS (CVPR 2021), Eq. 1 (mixed operation), Eq. 3 and Eq. 8 (nodes); PC-DARTS (ICLR 2020), Sec. 3.2 and
3.3 (partial channels, edge normalisation); DARTS- (ICLR 2021), Eq. 4 (auxiliary skip connection) and Sec. 4.4
(1x1 projection); P-DARTS (ICCV 2019), Sec. 3.3 (dropout behind a skip connection).

A pooling with its affine-free batch norm, the identity, and the ReLU in front of an operation have no weights
of their own, so all edges that leave a node with the same stride share one of each; what remains of an edge
is in `candidates.py`. The result is that of a module per edge and operation
(`tests/reference_supernet.py`), running statistics included. `none` adds nothing and is not built.
NAS-Bench-201 pools without a batch norm.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.kernels.batch_norm import QuickNorm
from dots_zoo.ops import OPS

from ..space.space import INPUTS, SearchSpace
from .candidates import POOLS, Normed, auxiliary_branch, candidate, sum_of_normed, weighted_sum
from .factorized_reduce import every_other, halves
from .max_pool import MaxPool
from .mixture import Mixture, Row, Rows, Together
from .sep_conv import Separable, before_relu
from .sep_conv_sum import sum_of_separable


@dataclass(frozen=True)
class Partial:
    """One in `share` channels goes through the candidates, the rest passes by; then all are shuffled."""

    share: int = 1
    shuffle: bool = True


WHOLE = Partial()  # no channel passes by


@dataclass(frozen=True)
class NodeShape:
    """How the nodes of a cell are built: channels of a node, which auxiliary branch an edge has, and whether
    the separable convolutions are computed again in the backward pass, a group at a time.
    """

    channels: int
    partial: Partial
    auxiliary: str
    lean: bool = False


class Source(nn.Module):
    """What the edges that leave one node share: all that a candidate `reads` (`candidates.py`)."""

    def __init__(self, operations: set[str], channels: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.pools = nn.ModuleDict()
        for name in POOLS:
            if name in operations:
                after = QuickNorm(nn.BatchNorm2d(channels, affine=False)) if norm else nn.Identity()
                pool = OPS[name](channels, stride, False)
                self.pools[name] = nn.Sequential(MaxPool(pool) if "max" in name else pool, after)

    def forward(self, x: Tensor, reads: set[str]) -> dict[str, Tensor]:
        """(N, C, H, W) -> what is read of it."""
        found = {name: pool(x) for name, pool in self.pools.items() if name in reads}
        found["identity"] = x
        if "relu" in reads:
            found["relu"] = F.relu(x)
        if reads & {"before_relu", "even"}:
            found["before_relu"] = before_relu(x)
        if "even" in reads:
            found["even"] = every_other(found["before_relu"])
        if "halves" in reads:
            found["halves"] = F.relu(torch.cat(halves(x), dim=1))
        return found


class Summands:
    """What a node is the sum of (Eq. 8); lean: see NodeShape."""

    def __init__(self, lean: bool, together: Together) -> None:
        self.lean, self.together = lean, together
        self.maps: list[Tensor] = []
        self.separable: list[tuple[Separable, Tensor, Tensor]] = []  # with their weights and what they read
        self.weighted: list[tuple[Tensor, Tensor]] = []  # maps that are yet to be multiplied by a weight

    def add(self, module: nn.Module, y: Tensor, weight: Tensor) -> None:
        """What any candidate but a separable convolution gave."""
        if isinstance(module, Normed):
            self.maps.append(sum_of_normed(module, y, weight))
        else:
            self.weighted.append((weight, y))

    def total(self) -> Tensor | None:
        """Their sum, None of nothing."""
        maps = [*self.maps]
        if self.separable:
            candidates, scalars, read = zip(*self.separable, strict=True)
            maps.append(sum_of_separable(candidates, self.together(scalars), read, self.lean))
        if not self.weighted and len(maps) < 2:
            return maps[0] if maps else None
        scalars, weighted = zip(*self.weighted, strict=True) if self.weighted else ((), ())
        return weighted_sum(self.together(scalars) if scalars else None, weighted, maps)


class SearchEdge(nn.Module):
    """The candidates of one edge: `columns[i]` is the i-th's column in (E, O), `reads[i]` what it is fed."""

    def __init__(self, operations: tuple[str, ...], shape: NodeShape, stride: int) -> None:
        super().__init__()
        self.columns = [column for column, name in enumerate(operations) if name != "none"]
        self.skips = {column for column, name in enumerate(operations) if name == "skip_connect"}
        self.reads: list[str] = []
        self.operations = nn.ModuleList()
        channels = shape.channels // shape.partial.share
        for column in self.columns:
            read, module = candidate(operations[column], channels, stride)
            self.reads.append(read)
            self.operations.append(module)
        self.auxiliary: nn.Module | None = None
        if shape.auxiliary != "none":
            self.auxiliary_read, self.auxiliary = auxiliary_branch(shape.auxiliary, channels, stride)

    def read(self, active: frozenset[int], auxiliary: bool) -> set[str]:
        """What its active candidates are fed."""
        reads = {read for column, read in zip(self.columns, self.reads, strict=True) if column in active}
        return reads | ({self.auxiliary_read} if auxiliary and self.auxiliary is not None else set())

    def forward(self, source: dict[str, Tensor], row: Row, mixture: Mixture, node: Summands) -> None:
        """Adds the mixed operation of Eq. 1 to a node."""
        for column, read, operation in zip(self.columns, self.reads, self.operations, strict=True):
            if column not in row.active:
                continue
            weight = row.weights[column]
            if isinstance(operation, Separable):
                node.separable.append((operation, weight, source[read]))
                continue
            y = operation(source[read])
            if mixture.skip_dropout and column in self.skips:
                if isinstance(operation, Normed):
                    y = sum_of_normed(operation, y, torch.ones_like(weight))
                node.weighted.append((weight, F.dropout(y, mixture.skip_dropout, self.training)))
            else:
                node.add(operation, y, weight)
        if mixture.auxiliary and self.auxiliary is not None:
            whole = row.weights[0].new_ones(()) if row.edge is None else row.edge
            y = self.auxiliary(source[self.auxiliary_read])
            node.add(self.auxiliary, y, mixture.auxiliary * whole)  # Eq. 4 of DARTS-


class Nodes(nn.Module):
    """The nodes of a cell and the edges between them."""

    def __init__(self, space: SearchSpace, kind: str, shape: NodeShape) -> None:
        super().__init__()
        self.partial, self.inputs, self.kind = shape.partial, INPUTS[space.family], kind
        self.lean = shape.lean
        channels = shape.channels // shape.partial.share
        self.edges = nn.ModuleList()
        leaving: dict[int, set[str]] = {}  # node -> the operations that read it; nodes come up in order
        for (_, source), operations in zip(space.edges, space.candidates(kind), strict=True):
            leaving.setdefault(source, set()).update(operations)
            self.edges.append(SearchEdge(operations, shape, self.stride(source)))
        self.sources = nn.ModuleList(
            [Source(o, channels, self.stride(n), space.family == "darts") for n, o in leaving.items()]
        )
        self.incoming = [
            [(edge, space.edges[edge][1]) for edge in space.incoming(node)] for node in space.nodes
        ]

    def stride(self, source: int) -> int:
        """Of the edges that leave this node."""
        return 2 if self.kind == "reduce" and source < self.inputs else 1

    def forward(self, states: list[Tensor], rows: Rows, mixture: Mixture) -> list[Tensor]:
        """The maps of the cell's inputs -> those and the maps of its nodes, each (N, C, H', W')."""
        shared: list[dict[str, Tensor]] = []
        reads = self._reads(rows.edges, mixture)
        for incoming in self.incoming:
            for number in range(len(shared), len(states)):
                shared.append(self.sources[number](self._through(states[number]), reads[number]))
            node = Summands(self.lean, rows.together)
            for edge, source in incoming:
                self.edges[edge](shared[source], rows.edges[edge], mixture, node)
            total = node.total()
            total = self._nothing(states, incoming) if total is None else total
            states = [*states, self._joined(total, states, incoming, rows.edges)]
        return states

    def _reads(self, rows: Sequence[Row], mixture: Mixture) -> list[set[str]]:
        """What of each source is read by any edge that leaves it."""
        reads: list[set[str]] = [set() for _ in self.sources]
        for edge, source in (pair for incoming in self.incoming for pair in incoming):
            search_edge = cast(SearchEdge, self.edges[edge])
            reads[source] |= search_edge.read(rows[edge].active, mixture.auxiliary != 0)
        return reads

    def _through(self, x: Tensor) -> Tensor:
        """The channels that go through the candidates."""
        return x if self.partial.share == 1 else x[:, : x.shape[1] // self.partial.share]

    def _nothing(self, states: list[Tensor], incoming: list[tuple[int, int]]) -> Tensor:
        """Zeros for a node of which every edge is closed or `none`."""
        source = incoming[0][1]
        stride = self.stride(source)
        return torch.zeros_like(self._through(states[source])[:, :, ::stride, ::stride])

    def _joined(
        self, total: Tensor, states: list[Tensor], incoming: list[tuple[int, int]], rows: Sequence[Row]
    ) -> Tensor:
        """The node: what went through, and beside it what passed by, shuffled (PC-DARTS, Sec. 3.2)."""
        if self.partial.share == 1:
            return total
        passed = []
        for edge, source in incoming:
            if not rows[edge].active:
                continue  # a closed edge
            by = states[source][:, states[source].shape[1] // self.partial.share :]
            by = F.max_pool2d(by, 2, 2, ceil_mode=True) if self.stride(source) == 2 else by
            weight = rows[edge].edge
            passed.append(by if weight is None else weight * by)
        node = torch.cat([total, functools.reduce(torch.add, passed)], dim=1)
        return F.channel_shuffle(node, self.partial.share) if self.partial.shuffle else node
