"""Rewrite separable convolutions side by side as grouped convolutions (a step of `fuse`).

The nodes of a cell are sums of chains such as depthwise, pointwise, ReLU, depthwise, pointwise. Where the
last pointwise convolutions of several nodes have one shape and do not depend on each other, one grouped
convolution computes them all, and so on up the chains to their first depthwise convolutions, as far as
neighbours have one shape. Only groups of a multiple of BLOCK channels are made: on a CPU, ONNX Runtime
computes those in its blocked layout, and all others by a loop over matrix products that is far slower than
the separate convolutions. The channels stay in the order in which they are read at the end, and nodes that
something else reads beside the cell's concatenation are left alone, so that nothing is sliced: graphs with
slices came out slower.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import fx

from .graph import (
    call,
    cat_inputs,
    conv,
    geometry,
    insert,
    nodes_of_type,
    only_user,
    op_type,
    settle,
    slices,
    source,
)
from .local import BLOCK, merge_sums, stack


def merge_chains(graph: fx.GraphModule) -> None:
    """Merge the last pointwise convolutions of the nodes of each cell, and the chains above them."""
    merge_sums(graph)
    settle(graph)
    for cell in _cells(graph):
        while cell:
            group = [cell.pop(0)]
            for node in list(cell):
                wider = [*group, node]
                alike = _alike(graph, group[0], node) and _side_by_side(graph, wider)
                if alike and _independent(graph, wider):
                    group.append(node)
                    cell.remove(node)
            if len(group) > 1:
                _merge(graph, group)
                settle(graph)


def _cells(graph: fx.GraphModule) -> Iterator[list[fx.Node]]:
    """Yield the last pointwise convolutions, grouped by the tensors that their chains read."""
    groups: list[tuple[set[fx.Node], list[fx.Node]]] = []
    for node in nodes_of_type(graph, "conv"):
        roots = _roots(graph, node)
        if roots:
            joined = [group for group in groups if group[0] & roots]
            groups = [group for group in groups if group not in joined]
            members = [member for group in joined for member in group[1]]
            groups.append((roots.union(*(group[0] for group in joined)), [*members, node]))
    return iter([sorted(members, key=lambda node: _place(graph, node)) for _, members in groups])


def _side_by_side(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> bool:
    """Return True if only concatenations read the sums, each in a row, so that merging slices nothing."""
    chain_ends = [_end(graph, node) for node in nodes]
    readers = chain_ends[0].users
    if any(end.users != readers for end in chain_ends) or any(
        op_type(graph, user) != "cat" for user in readers
    ):
        return False
    places = [[cat_inputs(user).index(end) for end in chain_ends] for user in readers]
    return all(row == list(range(row[0], row[0] + len(row))) for row in places)


def _place(graph: fx.GraphModule, last: fx.Node) -> int:
    """Return the position of a node in the cell's concatenation; merging in that order slices nothing."""
    end = _end(graph, last)
    places = [cat_inputs(user).index(end) for user in end.users if op_type(graph, user) == "cat"]
    return min(places, default=-1)


def _roots(graph: fx.GraphModule, last: fx.Node) -> set[fx.Node]:
    """Return the tensors whose chains end in this dense convolution; none where it ends no chain."""
    module = conv(graph, last)
    reader = only_user(last)
    if (
        module.groups > 1
        or module.kernel_size != (1, 1)
        or reader is None
        or op_type(graph, reader) == "relu"
    ):
        return set()  # the chain continues after a ReLU
    parts = _parts(graph, source(last))
    if any(not _is_depthwise(graph, part) or only_user(part) is None for part in parts):
        return set()
    return {_root(graph, part) for part in parts}


def _root(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Follow a chain up to the tensor where it branches off."""
    while op_type(graph, node) in ("conv", "relu"):
        above = source(node)
        if op_type(graph, node) == "relu" and (len(node.users) > 1 or op_type(graph, above) != "conv"):
            return above
        node = above
    return node


def _parts(graph: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Return the inputs of a concatenation with one reader, else the node itself."""
    if op_type(graph, node) != "cat" or only_user(node) is None:
        return [node]
    return cat_inputs(node)


def _is_depthwise(graph: fx.GraphModule, node: fx.Node) -> bool:
    return op_type(graph, node) == "conv" and conv(graph, node).groups == conv(graph, node).in_channels > 1


def _alike(graph: fx.GraphModule, one: fx.Node, other: fx.Node) -> bool:
    a, b = conv(graph, one).weight.shape, conv(graph, other).weight.shape
    return a == b and a[0] % BLOCK == a[1] % BLOCK == 0


def _end(graph: fx.GraphModule, last: fx.Node) -> fx.Node:
    """Return the sum that the convolution is one of two terms of, else the convolution."""
    user = only_user(last)
    return user if user is not None and op_type(graph, user) == "add" else last


def _independent(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> bool:
    """Return True if none of the sums depends on another one's convolution."""
    chain_ends = [_end(graph, node) for node in nodes]
    for node, end in zip(nodes, chain_ends, strict=True):
        above: set[fx.Node] = set()
        waiting = list(end.all_input_nodes)
        while waiting:
            x = waiting.pop()
            if x not in above:
                above.add(x)
                waiting += x.all_input_nodes
        if above & {other for other in (*nodes, *chain_ends) if other not in (node, end)}:
            return False
    return True


def _merge(graph: fx.GraphModule, group: Sequence[fx.Node]) -> None:
    """Merge a group into one grouped convolution, and one sum where each of them is a term of a sum."""
    widths = [conv(graph, node).out_channels for node in group]
    merged = side_by_side(graph, group)
    chain_ends = [_end(graph, node) for node in group]
    if all(end is not node for end, node in zip(chain_ends, group, strict=True)):
        other_terms = [next(x for x in e.args if x is not n) for e, n in zip(chain_ends, group, strict=True)]
        beside = call(graph, merged, torch.cat, other_terms, 1)
        slices(graph, call(graph, beside, torch.add, merged, beside), chain_ends, widths)
    else:
        slices(graph, merged, group, widths)


def side_by_side(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> fx.Node:
    """Concatenate the nodes, neighbours merged into one operation where they can be."""
    flat = [part for node in nodes for part in _parts(graph, node)]
    runs: list[list[fx.Node]] = []
    for node in flat:
        if runs and _joins(graph, runs[-1][0], node):
            runs[-1].append(node)
        else:
            runs.append([node])
    results = [_one(graph, run) if len(run) > 1 else run[0] for run in runs]
    return results[0] if len(results) == 1 else call(graph, results[-1], torch.cat, results, 1)


def _joins(graph: fx.GraphModule, one: fx.Node, other: fx.Node) -> bool:
    """Return True if two nodes can merge: both with one reader, ReLUs, or convolutions of one shape."""
    if only_user(one) is None or only_user(other) is None:
        return False
    if op_type(graph, one) != op_type(graph, other) or op_type(graph, one) not in ("conv", "relu"):
        return False
    if op_type(graph, one) == "relu":
        return True
    a, b = conv(graph, one), conv(graph, other)
    return (geometry(a), a.weight.shape, a.groups) == (geometry(b), b.weight.shape, b.groups)


def _one(graph: fx.GraphModule, run: Sequence[fx.Node]) -> fx.Node:
    above = side_by_side(graph, [source(node) for node in run])
    if op_type(graph, run[0]) == "relu":
        return call(graph, above, F.relu, above)
    modules = [conv(graph, node) for node in run]
    return insert(graph, above, stack(modules, sum(module.groups for module in modules)), "chain", above)
