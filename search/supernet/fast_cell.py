"""A search cell in fewer passes over memory: the equations of `cell.py` and `mixed_op.py`, on their modules.

Source: DARTS (ICLR 2019), Sec. 3.2 (the candidates); DOTS (CVPR 2021), Eq. 1 and Eq. 8. Nothing here has
parameters or buffers: it looks up those of the modules whenever it computes. What is saved:

- the ReLU in front of candidates is taken once for a node, and of the input of a cell once for both cells
  that read it;
- separable convolutions of all edges that enter a node are one sum (`sep_conv_sum`);
- the weight of any other candidate that ends in a batch norm is the scale of that norm;
- FactorizedReduce reads even and odd pixels, which are taken out once for a node.

Every other candidate is computed by its MixedOp.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.kernels import (
    SepConvBlock,
    batch_norm,
    even_odd_pixels,
    max_pool_3x3,
    sep_conv_sum,
    weighted_sum,
)
from dots_zoo.ops import OPS, FactorizedReduce
from dots_zoo.runtime.malloc import return_freed_memory

from .cell import Nodes, SearchCell, SearchCell201
from .mixed_op import MixedOp, SharedInputs
from .mixture import CellMixture
from .sep_conv_blocks import has_fast_norm, sep_conv_blocks


class EvenOddReduce:
    """The two convolutions of a FactorizedReduce as one, over even and odd pixels side by side.

    (N, 2 C, H', W') -> (N, C', H', W').
    """

    def __init__(self, reduce: FactorizedReduce) -> None:
        self.reduce = reduce

    def __call__(self, even_odd: Tensor) -> Tensor:
        matrices = self.reduce.conv1.weight.flatten(1), self.reduce.conv2.weight.flatten(1)
        return F.conv2d(even_odd, torch.block_diag(*matrices)[:, :, None, None])


@dataclass(frozen=True)
class FastCandidate:
    """A candidate that has a fast implementation.

    Args:
        reads: form of the node that it reads, of FastInputs.
        blocks: of a separable convolution; empty for any other candidate.
        body: of any other candidate, its layers before the last batch norm.
        norm: the last batch norm.
    """

    reads: str
    norm: nn.BatchNorm2d
    blocks: tuple[SepConvBlock, ...] = ()
    body: Callable[[Tensor], Tensor] = nn.Identity()


def fast_candidate(operation: nn.Module) -> FastCandidate | None:
    """Return the fast implementation of an operation, None if it has none."""
    blocks = sep_conv_blocks(operation)
    if blocks:
        return FastCandidate("node", blocks[-1].norm, blocks)
    if isinstance(operation, FactorizedReduce) and has_fast_norm(operation.bn):
        return FastCandidate("even_odd", operation.bn, body=EvenOddReduce(operation))
    if (
        isinstance(operation, nn.Sequential)
        and len(operation) > 2
        and isinstance(operation[0], nn.ReLU)
        and has_fast_norm(operation[-1])
    ):
        return FastCandidate("relu", operation[-1], body=operation[1:-1])
    return None


class FastPool:
    """A shared pooling, max pooling of stride 1 without indices, and its batch norm."""

    def __init__(self, pool: nn.Sequential) -> None:
        self.pool = pool

    def __call__(self, x: Tensor) -> Tensor:
        pool, norm = self.pool
        fast = isinstance(pool, nn.MaxPool2d) and pool.stride == 1
        y = max_pool_3x3(x) if fast else pool(x)
        return batch_norm(y, norm, None) if isinstance(norm, nn.BatchNorm2d) else y


class FastInputs:
    """A node (N, C, H, W) in the forms that fast candidates read, each computed when first read.

    node: as it is, for kernels that apply the ReLU while reading. relu: its ReLU. even_odd: the ReLU of even
    and of odd pixels, (N, 2 C, H', W').
    """

    def __init__(self, shared: SharedInputs) -> None:
        self.shared = shared
        self.forms: dict[str, Tensor] = {}

    def read(self, form: str) -> Tensor:
        """Return the node in one of its forms."""
        if form not in self.forms:
            self.forms[form] = self._computed(form)
        return self.forms[form]

    def _computed(self, form: str) -> Tensor:
        x = self.shared.x
        if form == "node":
            return x
        if form == "relu":
            return F.relu(x)
        assert form == "even_odd", form
        return F.relu(torch.cat(even_odd_pixels(x), dim=1))


@dataclass
class NodeAccumulator:
    """The terms whose sum is a node (Eq. 8); each has its weight at an index of `weights`.

    Args:
        weights: of all candidates of the cell, see `flat_weights`.
        lean: keep only the inputs of separable convolutions for the backward pass.
        maps: terms that are added as they are.
        sep_convs: separable convolutions, and the indices and inputs of each.
        weighted: maps that are yet to be multiplied by their weights, and the indices of these.
    """

    weights: Tensor
    lean: bool
    maps: list[Tensor] = field(default_factory=list)
    sep_convs: list[tuple[tuple[SepConvBlock, ...], int, Tensor]] = field(default_factory=list)
    weighted: list[tuple[Tensor, int]] = field(default_factory=list)

    def add(self, candidate: FastCandidate, index: int, inputs: FastInputs) -> None:
        """Add w o(x) of a candidate that has a fast implementation."""
        x = inputs.read(candidate.reads)
        if candidate.blocks:
            self.sep_convs.append((candidate.blocks, index, x))
        else:
            scale = self.weights[index].expand(candidate.norm.num_features)
            self.maps.append(batch_norm(candidate.body(x), candidate.norm, scale))

    def total(self) -> Tensor | None:
        """Return the sum of all terms, (N, C, H', W'), None where there are none."""
        maps = [*self.maps]
        if self.sep_convs:
            candidates, indices, inputs = zip(*self.sep_convs, strict=True)
            maps.append(sep_conv_sum(candidates, self._weights_at(indices), inputs, self.lean))
        if self.weighted:
            weighted, indices = zip(*self.weighted, strict=True)
            return weighted_sum(self._weights_at(indices), weighted, maps)
        return sum(maps[1:], maps[0]) if maps else None

    def _weights_at(self, indices: Sequence[int]) -> Tensor:
        return self.weights.index_select(0, torch.tensor(indices, device=self.weights.device))


def flat_weights(mixture: CellMixture) -> Tensor:
    """Return the weights of all candidates, (E * O,), then of the auxiliary skips, (E,), if there are any."""
    operations = mixture.operations.flatten()
    if not mixture.auxiliary:
        return operations
    auxiliary = [torch.as_tensor(w, dtype=operations.dtype) for w in mixture.auxiliary_weights()]
    return torch.cat([operations, torch.stack(auxiliary)])


class FastCell:
    """The kernels that compute a SearchCell or a SearchCell201.

    In a DARTS supernet a cell outputs its ReLU, since both cells that read it begin with one.
    """

    def __init__(
        self, cell: SearchCell | SearchCell201, reads_relu: tuple[bool, bool], gives_relu: bool, memory: str
    ) -> None:
        """Look up the fast implementations of a cell's operations.

        Args:
            cell: that is computed.
            reads_relu: True where the output of cell k-2, of cell k-1, comes with its ReLU already applied.
            gives_relu: apply the ReLU to the output.
            memory: as in Shape.
        """
        self.reads_relu, self.gives_relu = reads_relu, gives_relu
        self.lean, self.returns_memory = memory != "fast", memory == "checkpoint"
        self.pools = [
            {name: FastPool(cast(nn.Sequential, pool)) for name, pool in pools.items()}
            for pools in cast(Iterator[nn.ModuleDict], cell.nodes.pools)
        ]
        edges = cast(Iterator[MixedOp], cell.nodes.edges)
        self.candidates = [
            {int(column): fast_candidate(operation) for column, operation in edge.operations.items()}
            for edge in edges
        ]
        self.auxiliary = [
            None if edge.auxiliary is None else fast_candidate(edge.auxiliary)
            for edge in cast(Iterator[MixedOp], cell.nodes.edges)
        ]

    def __call__(
        self, cell: SearchCell | SearchCell201, before: Tensor, last: Tensor, mixture: CellMixture
    ) -> Tensor:
        """Return the output of `cell.forward`, with its ReLU applied if `gives_relu`."""
        if self.returns_memory:
            return_freed_memory()
        if isinstance(cell, SearchCell201):
            return self._nodes(cell.nodes, [last], mixture)[-1]
        last_relu = last if self.reads_relu[1] else F.relu(last)
        before_relu = last_relu if before is last else before if self.reads_relu[0] else F.relu(before)
        first, second = cell.preprocess
        inputs = [preprocess(first, before_relu), preprocess(second, last_relu)]
        out = torch.cat(self._nodes(cell.nodes, inputs, mixture)[2:], dim=1)
        return F.relu(out) if self.gives_relu else out

    def _nodes(self, nodes: Nodes, states: list[Tensor], mixture: CellMixture) -> list[Tensor]:
        """Return the cell's inputs and its nodes, as `Nodes.forward` does."""
        states = [*states]
        inputs: list[FastInputs] = []
        weights = flat_weights(mixture)
        for incoming in nodes.incoming:
            for source in range(len(inputs), len(states)):
                through = nodes.partial.through(states[source])
                inputs.append(FastInputs(SharedInputs(through, self.pools[source])))
            node = NodeAccumulator(weights, self.lean)
            for edge, source in incoming:
                self._add_candidates(node, nodes, edge, inputs[source], mixture)
                if mixture.auxiliary:
                    self._add_auxiliary(node, nodes, edge, inputs[source], mixture)
            total = node.total()
            if total is None:
                edge, source = incoming[0]
                total = cast(MixedOp, nodes.edges[edge]).zeros(inputs[source].shared.x)
            states.append(nodes.with_bypass(total, states, incoming, mixture))
        return states

    def _add_candidates(
        self, node: NodeAccumulator, nodes: Nodes, edge: int, inputs: FastInputs, mixture: CellMixture
    ) -> None:
        """Add the mixed operation of an edge (Eq. 1)."""
        mixed_op, first = cast(MixedOp, nodes.edges[edge]), edge * mixture.operations.shape[1]
        for column, name in enumerate(mixed_op.names):
            if column not in mixture.active[edge] or name == "none":
                continue
            fast = self.candidates[edge].get(column)
            dropped = bool(mixture.skip_dropout) and OPS[name].skip
            if fast is not None and not dropped and is_fast_now(fast):
                node.add(fast, first + column, inputs)
                continue
            y = mixed_op.candidate(column, inputs.shared)
            if dropped:
                y = F.dropout(y, mixture.skip_dropout, mixed_op.training)
            node.weighted.append((y, first + column))

    def _add_auxiliary(
        self, node: NodeAccumulator, nodes: Nodes, edge: int, inputs: FastInputs, mixture: CellMixture
    ) -> None:
        """Add the auxiliary skip of an edge (Eq. 4 of DARTS-)."""
        module, fast = cast(MixedOp, nodes.edges[edge]).auxiliary, self.auxiliary[edge]
        if module is None:
            return
        index = mixture.operations.numel() + edge
        if fast is not None and is_fast_now(fast):
            node.add(fast, index, inputs)
        else:
            node.weighted.append((module(inputs.shared.x), index))


def is_fast_now(candidate: FastCandidate) -> bool:
    """Return False for a separable convolution that normalises by running statistics, else True."""
    return not candidate.blocks or candidate.norm.training or candidate.norm.running_mean is None


def preprocess(module: nn.Module, relu: Tensor) -> Tensor:
    """Return the preprocessed input of a cell, (N, C, H', W'), from the ReLU of that input."""
    if isinstance(module, FactorizedReduce):
        even, odd = even_odd_pixels(relu)
        return batch_norm(torch.cat([module.conv1(even), module.conv2(odd)], dim=1), module.bn, None)
    _, conv, norm = cast(nn.Sequential, module)
    return batch_norm(conv(relu), cast(nn.BatchNorm2d, norm), None)
