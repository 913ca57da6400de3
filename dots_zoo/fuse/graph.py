"""The graph that `fuse` rewrites: what a node is, new nodes, and the order and clean-up after a rewrite.

Four operations are known by name: conv, relu, add, cat; a `slice` is a range of channels of a tensor, which
the clean-up takes back into the concatenations that read it.
"""

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

FUNCTIONS: dict[Any, str] = {
    operator.add: "add",
    torch.add: "add",
    torch.cat: "cat",
    torch.narrow: "slice",
    F.relu: "relu",
}
MODULES: dict[type[nn.Module], str] = {nn.Conv2d: "conv", nn.BatchNorm2d: "norm", nn.ReLU: "relu"}


def kind(graph: fx.GraphModule, node: fx.Node) -> str:
    """'conv', 'norm', 'relu', 'add', 'cat', 'slice', or '' for everything else."""
    if node.op == "call_module":
        return MODULES.get(type(graph.get_submodule(str(node.target))), "")
    return FUNCTIONS.get(node.target, "") if node.op == "call_function" else ""


def conv(graph: fx.GraphModule, node: fx.Node) -> nn.Conv2d:
    """The module of a conv node."""
    module = graph.get_submodule(str(node.target))
    assert isinstance(module, nn.Conv2d)
    return module


def of_kind(graph: fx.GraphModule, name: str) -> Iterator[fx.Node]:
    """The nodes of one kind, as they are now."""
    return iter([node for node in graph.graph.nodes if kind(graph, node) == name])


def source(node: fx.Node) -> fx.Node:
    """The tensor that a node with one input reads."""
    [found] = node.all_input_nodes
    return found


def cat_inputs(node: fx.Node) -> list[fx.Node]:
    """What a cat node puts side by side."""
    return list(node.args[0])  # type: ignore[arg-type]


def only_user(node: fx.Node) -> fx.Node | None:
    """The node that reads this one, None where several do."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def geometry(module: nn.Conv2d) -> tuple[Any, ...]:
    """What two convolutions must have in common to be computed by one."""
    return module.kernel_size, module.stride, module.padding, module.dilation


def new_conv(weight: Tensor, bias: Tensor | None, like: nn.Conv2d, groups: int, **changes: Any) -> nn.Conv2d:
    """A convolution of these weights (out, in / groups, *kernel), the rest as in `like` or `changes`."""
    shape = {"stride": like.stride, "padding": like.padding, "dilation": like.dilation, **changes}
    out_chs, per_group = weight.shape[:2]
    kernel: Any = tuple(weight.shape[2:])
    with torch.device("meta"):
        made = nn.Conv2d(per_group * groups, out_chs, kernel, groups=groups, bias=bias is not None, **shape)
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return made.eval()


def bias_of(module: nn.Conv2d) -> Tensor:
    """The bias, zeros where there is none."""
    return module.weight.new_zeros(module.out_channels) if module.bias is None else module.bias


def insert(graph: fx.GraphModule, after: fx.Node, module: nn.Module, name: str, x: fx.Node) -> fx.Node:
    """A node that calls a new module on x."""
    count = sum(key.startswith(name) for key, _ in graph.named_children())
    graph.add_submodule(f"{name}_{count}", module)
    with graph.graph.inserting_after(after):
        return graph.graph.call_module(f"{name}_{count}", (x,))


def call(graph: fx.GraphModule, after: fx.Node, function: Any, *args: Any) -> fx.Node:
    """A node that calls a function."""
    with graph.graph.inserting_after(after):
        return graph.graph.call_function(function, args)


def slices(graph: fx.GraphModule, merged: fx.Node, old: Sequence[fx.Node], widths: Sequence[int]) -> None:
    """Let the users of the old nodes read their range of channels of the merged one."""
    begin = 0
    for node, width in zip(old, widths, strict=True):
        part = call(graph, merged, torch.narrow, merged, 1, begin, width)
        part.meta["width"] = width
        node.replace_all_uses_with(part)
        begin += width
    merged.meta["width"] = begin


def tidy(graph: fx.GraphModule) -> None:
    """After a rewrite: slices back into concatenations, no dead nodes and modules, code for the new graph."""
    settle(graph)
    for node in of_kind(graph, "cat"):
        _rejoin(graph, node)
    settle(graph)
    graph.delete_all_unused_submodules()
    graph.recompile()


def _rejoin(graph: fx.GraphModule, node: fx.Node) -> None:
    """cat(x[a:b], x[b:c], ...) -> cat(x[a:c], ...), and x itself where that is all of it."""
    parts: list[Any] = []  # [tensor, begin, end] of a slice, or a tensor
    for part in cat_inputs(node):
        if kind(graph, part) != "slice":
            parts.append(part)
            continue
        x, _, begin, width = part.args
        last = parts[-1] if parts else None
        if isinstance(last, list) and last[0] is x and last[2] == begin:
            last[2] += width
        else:
            parts.append([x, begin, begin + width])  # type: ignore[operator]
    joined = []
    for item in parts:
        if isinstance(item, list):
            x, begin, end = item
            whole = begin == 0 and end == x.meta["width"]
            joined.append(x if whole else call(graph, x, torch.narrow, x, 1, begin, end - begin))
        else:
            joined.append(item)
    if len(joined) == 1:
        node.replace_all_uses_with(joined[0])
    else:
        node.args = (joined, *node.args[1:])


def settle(graph: fx.GraphModule) -> None:
    """Put every node after what it reads, otherwise in the old order, and drop those that nothing reads."""
    done: set[fx.Node] = set()
    order: list[fx.Node] = []
    waiting = list(graph.graph.nodes)
    while waiting:
        later = []
        for node in waiting:
            if all(x in done for x in node.all_input_nodes):
                done.add(node)
                order.append(node)
            else:
                later.append(node)
        assert len(later) < len(waiting), f"a rewrite made a cycle through {later[0]}"
        waiting = later
    for before, node in zip(order, order[1:], strict=False):
        before.append(node)
    graph.graph.eliminate_dead_code()
