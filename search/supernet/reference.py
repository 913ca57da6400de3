"""A supernet of plain torch operations, which can be differentiated twice.

The supernet's own backward passes are written by hand (`sep_conv_sum.py`, `candidates.py`, `max_pool.py`,
`quick_norm.py` of dots_zoo) and have no derivative. Here every operation of an edge, its batch norm, its
weight and the sum of a node are computed one by one, on the same weights; the result is the same, the time
is not.
"""

import copy
import functools
from typing import cast

import torch
from torch import Tensor, nn

from dots_zoo.kernels.batch_norm import QuickNorm

from .candidates import Normed
from .max_pool import MaxPool
from .mixed_op import Nodes, SearchEdge, Summands
from .mixture import Mixture, Row
from .supernet import Supernet


def plain(supernet: Supernet) -> Supernet:
    """A copy that computes the same, for batch norm by the batch and no dropout."""
    found = copy.deepcopy(supernet).eval()
    found.memory = "fast"
    for module in list(found.modules()):
        if isinstance(module, Nodes):
            module.edges = nn.ModuleList([_Edge(cast(SearchEdge, edge)) for edge in module.edges])
    for module in list(found.modules()):
        for name, child in module.named_children():
            if isinstance(child, QuickNorm):
                setattr(module, name, _norm(child))
            elif isinstance(child, MaxPool):
                setattr(module, name, child.pool)
    return found


class _Edge(nn.Module):
    """What a SearchEdge adds to its node, an operation at a time (Eq. 1 of DOTS, Eq. 4 of DARTS-)."""

    def __init__(self, edge: SearchEdge) -> None:
        super().__init__()
        self.edge = edge

    def read(self, active: frozenset[int], auxiliary: bool) -> set[str]:
        return self.edge.read(active, auxiliary)

    def forward(self, source: dict[str, Tensor], row: Row, mixture: Mixture, node: Summands) -> None:
        edge, terms = self.edge, [*node.maps]
        for column, read, operation in zip(edge.columns, edge.reads, edge.operations, strict=True):
            if column in row.active:
                terms.append(row.weights[column] * _value(operation, source[read]))
        if mixture.auxiliary and edge.auxiliary is not None:
            weight = mixture.auxiliary if row.edge is None else mixture.auxiliary * row.edge
            terms.append(weight * _value(edge.auxiliary, source[edge.auxiliary_read]))
        node.maps = [functools.reduce(torch.add, terms)] if terms else []


def _value(operation: nn.Module, x: Tensor) -> Tensor:
    """What an operation gives at a weight of one, of what it reads of its node."""
    out: Tensor = operation.norm(operation(x)) if isinstance(operation, Normed) else operation(x)
    return out


def _norm(quick: QuickNorm) -> nn.BatchNorm2d:
    """torch's, on the same weights and statistics."""
    norm = nn.BatchNorm2d(quick.num_features, quick.eps, quick.momentum, quick.affine)
    norm.weight, norm.bias = quick.weight, quick.bias
    norm.running_mean, norm.running_var = quick.running_mean, quick.running_var
    norm.num_batches_tracked = quick.num_batches_tracked
    return norm.eval()
