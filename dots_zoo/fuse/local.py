"""Rewrite the graph of `fuse` around one tensor and its readers, or around one sum."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..ops import FactorizedReduce
from .graph import (
    bias_of,
    call,
    cat_inputs,
    conv,
    geometry,
    insert,
    new_conv,
    nodes_of_type,
    only_user,
    op_type,
    slices,
    source,
)

# Channels in a block of ONNX Runtime's layout for convolutions on a CPU (AVX-512; 8 with AVX2).
BLOCK = 16


def fold(graph: fx.GraphModule) -> None:
    """Fold batch norm into the convolution before it, or into the convolutions concatenated before it.

    norm(Wx) = (s W) x + (b - s m), s = weight / sqrt(var + eps). A norm after any other operation stays.
    """
    for node in nodes_of_type(graph, "norm"):
        before = source(node)
        convs = cat_inputs(before) if op_type(graph, before) == "cat" else [before]
        if len(before.users) > 1 or any(len(c.users) > 1 or op_type(graph, c) != "conv" for c in convs):
            continue
        norm: Any = graph.get_submodule(str(node.target))
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else norm.weight * scale
        offset = -norm.running_mean * scale
        offset = offset if norm.bias is None else norm.bias + offset
        start = 0
        for c in convs:
            old = conv(graph, c)
            end = start + old.out_channels
            s, b = scale[start:end], offset[start:end]
            folded = new_conv(old.weight * s.reshape(-1, 1, 1, 1), bias_of(old) * s + b, old, old.groups)
            graph.set_submodule(str(c.target), folded)
            start = end
        node.replace_all_uses_with(before)


def share_relu(graph: fx.GraphModule) -> None:
    """Replace all ReLUs of one tensor by one."""
    first: dict[fx.Node, fx.Node] = {}
    for node in nodes_of_type(graph, "relu"):
        kept = first.setdefault(source(node), node)
        if kept is not node:
            node.replace_all_uses_with(kept)
            graph.graph.erase_node(node)


def early_relu(graph: fx.GraphModule) -> None:
    """Move ReLUs before a concatenation that only they read: relu(cat(x, y)) -> cat(relu(x), relu(y))."""
    for node in nodes_of_type(graph, "cat"):
        readers = list(node.users)
        if any(op_type(graph, reader) != "relu" for reader in readers):
            continue
        node.args = ([call(graph, x, F.relu, x) for x in cat_inputs(node)], *node.args[1:])
        for reader in readers:
            reader.replace_all_uses_with(node)
            graph.graph.erase_node(reader)
    share_relu(graph)


def shift(graph: fx.GraphModule) -> None:
    """Rewrite FactorizedReduce without strided slices.

    It becomes conv1x1_s2(relu(x)) and conv1x1(depthwise3x3_s2(relu(x))). The depthwise convolution has one
    weight of 1: the window of output (i, j) ends at (2i + 1, 2j + 1), which the last corner picks, and its
    padding is the zeros that an odd size needs.
    """
    for node in [n for n in graph.graph.nodes if n.op == "call_module"]:
        module = graph.get_submodule(str(node.target))
        if not isinstance(module, FactorizedReduce):
            continue
        x = call(graph, source(node), F.relu, source(node))
        corner = module.conv2.weight.new_zeros(module.conv2.in_channels, 1, 3, 3)
        corner[:, :, 2, 2] = 1
        halved = new_conv(module.conv1.weight, None, module.conv1, 1, stride=2)
        pick = new_conv(corner, None, module.conv2, module.conv2.in_channels, stride=2, padding=1)
        even = insert(graph, x, halved, "even", x)
        odd = insert(graph, x, pick, "shift", x)
        odd = insert(graph, odd, new_conv(module.conv2.weight, None, module.conv2, 1), "odd", odd)
        both = call(graph, odd, torch.cat, [even, odd], 1)
        node.replace_all_uses_with(insert(graph, both, module.bn, "bn", both))


def merge_parallel(graph: fx.GraphModule) -> None:
    """Merge dense convolutions of one tensor with one geometry into one of all their outputs."""
    readers: dict[Any, list[fx.Node]] = defaultdict(list)
    for node in nodes_of_type(graph, "conv"):
        module = conv(graph, node)
        if module.groups == 1:
            readers[source(node), geometry(module)].append(node)
    for (x, _), nodes in readers.items():
        if len(nodes) > 1:
            modules = [conv(graph, node) for node in nodes]
            merged = insert(graph, x, stack(modules, 1), "parallel", x)
            slices(graph, merged, nodes, [module.out_channels for module in modules])


def stack(modules: Sequence[nn.Conv2d], groups: int) -> nn.Conv2d:
    """Merge convolutions into one of all their outputs, on one input (groups=1) or on theirs side by side."""
    weight = torch.cat([module.weight for module in modules])
    return new_conv(weight, torch.cat([bias_of(module) for module in modules]), modules[0], groups)


def merge_sums(graph: fx.GraphModule) -> None:
    """Merge the dense convolutions of one geometry in a sum: W x + V y -> [W V] [x; y].

    Only where x has a multiple of BLOCK channels: others cannot be concatenated in the blocked layout.
    """
    for node in nodes_of_type(graph, "add"):
        if any(op_type(graph, user) == "add" for user in node.users) and len(node.users) == 1:
            continue  # part of a longer sum
        terms = summands(graph, node)
        alike: dict[Any, list[fx.Node]] = defaultdict(list)
        for term in terms:
            if op_type(graph, term) == "conv" and len(term.users) == 1 and _can_be_summed(conv(graph, term)):
                alike[geometry(conv(graph, term))].append(term)
        for group in alike.values():
            if len(group) > 1:
                rest = [term for term in terms if term not in group]
                terms = [*rest, _over_concatenation(graph, node, group)]
        _replace_sum(graph, node, terms)


def _can_be_summed(module: nn.Conv2d) -> bool:
    return module.groups == 1 and module.in_channels % BLOCK == 0


def summands(graph: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Return the terms of a sum, sums that only this sum reads expanded."""
    terms: list[fx.Node] = []
    for x in node.args:
        assert isinstance(x, fx.Node)
        inner = op_type(graph, x) == "add" and only_user(x) is node
        terms += summands(graph, x) if inner else [x]
    return terms


def _over_concatenation(graph: fx.GraphModule, place: fx.Node, nodes: Sequence[fx.Node]) -> fx.Node:
    modules = [conv(graph, node) for node in nodes]
    weight = torch.cat([module.weight for module in modules], 1)
    bias: Tensor = torch.stack([bias_of(module) for module in modules]).sum(0)
    inputs = call(graph, place, torch.cat, [source(node) for node in nodes], 1)
    return insert(graph, inputs, new_conv(weight, bias, modules[0], 1), "sum", inputs)


def _replace_sum(graph: fx.GraphModule, node: fx.Node, terms: Sequence[fx.Node]) -> None:
    total = terms[0]
    for term in terms[1:]:
        total = call(graph, term, torch.add, total, term)
    node.replace_all_uses_with(total)
