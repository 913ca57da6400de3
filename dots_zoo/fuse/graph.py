"""Read and edit the graph that `fuse` rewrites: kinds of nodes, new nodes, order and clean-up.

Four operations are known by name: conv, relu, add, cat; a `slice` is a range of channels of a tensor, which
the clean-up joins back into the concatenations that read it.
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


def op_type(graph: fx.GraphModule, node: fx.Node) -> str:
    """Return 'conv', 'norm', 'relu', 'add', 'cat' or 'slice', or '' for any other node."""
    if node.op == "call_module":
        return MODULES.get(type(graph.get_submodule(str(node.target))), "")
    return FUNCTIONS.get(node.target, "") if node.op == "call_function" else ""


def conv(graph: fx.GraphModule, node: fx.Node) -> nn.Conv2d:
    """Return the module of a conv node."""
    module = graph.get_submodule(str(node.target))
    assert isinstance(module, nn.Conv2d)
    return module


def nodes_of_type(graph: fx.GraphModule, name: str) -> Iterator[fx.Node]:
    """Yield the nodes of one type; the graph may change meanwhile."""
    return iter([node for node in graph.graph.nodes if op_type(graph, node) == name])


def source(node: fx.Node) -> fx.Node:
    """Return the tensor that a node with one input reads."""
    [tensor] = node.all_input_nodes
    return tensor


def cat_inputs(node: fx.Node) -> list[fx.Node]:
    """Return the tensors that a cat node concatenates."""
    return list(node.args[0])  # type: ignore[arg-type]


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the node that reads this one, None where several do."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def geometry(module: nn.Conv2d) -> tuple[Any, ...]:
    """Return the parameters that convolutions must share to be computed as one."""
    return module.kernel_size, module.stride, module.padding, module.dilation


def new_conv(weight: Tensor, bias: Tensor | None, like: nn.Conv2d, groups: int, **changes: Any) -> nn.Conv2d:
    """Return a convolution with weights (out, in / groups, *kernel), the rest as in `like` or `changes`."""
    shape = {"stride": like.stride, "padding": like.padding, "dilation": like.dilation, **changes}
    out_chs, per_group = weight.shape[:2]
    kernel: Any = tuple(weight.shape[2:])
    with torch.device("meta"):
        module = nn.Conv2d(per_group * groups, out_chs, kernel, groups=groups, bias=bias is not None, **shape)
    module.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return module.eval()


def bias_of(module: nn.Conv2d) -> Tensor:
    """Return the bias, zeros where there is none."""
    return module.weight.new_zeros(module.out_channels) if module.bias is None else module.bias


def insert(graph: fx.GraphModule, after: fx.Node, module: nn.Module, name: str, x: fx.Node) -> fx.Node:
    """Insert a node that calls a new module on x."""
    count = sum(key.startswith(name) for key, _ in graph.named_children())
    graph.add_submodule(f"{name}_{count}", module)
    with graph.graph.inserting_after(after):
        return graph.graph.call_module(f"{name}_{count}", (x,))


def call(graph: fx.GraphModule, after: fx.Node, function: Any, *args: Any) -> fx.Node:
    """Insert a node that calls a function."""
    with graph.graph.inserting_after(after):
        return graph.graph.call_function(function, args)


def slices(graph: fx.GraphModule, merged: fx.Node, old: Sequence[fx.Node], widths: Sequence[int]) -> None:
    """Replace the old nodes by their ranges of channels of the merged one."""
    start = 0
    for node, width in zip(old, widths, strict=True):
        part = call(graph, merged, torch.narrow, merged, 1, start, width)
        part.meta["width"] = width
        node.replace_all_uses_with(part)
        start += width
    merged.meta["width"] = start


def tidy(graph: fx.GraphModule) -> None:
    """Clean up after a rewrite: join slices, sort, remove dead nodes and modules, recompile."""
    settle(graph)
    for node in nodes_of_type(graph, "cat"):
        _rejoin(graph, node)
    settle(graph)
    graph.delete_all_unused_submodules()
    graph.recompile()


def _rejoin(graph: fx.GraphModule, node: fx.Node) -> None:
    """Join neighbouring slices: cat(x[a:b], x[b:c], ...) -> cat(x[a:c], ...), or x where it is whole."""
    parts: list[Any] = []  # [tensor, start, end] of a slice, or a tensor
    for part in cat_inputs(node):
        if op_type(graph, part) != "slice":
            parts.append(part)
            continue
        x, _, start, width = part.args
        last = parts[-1] if parts else None
        if isinstance(last, list) and last[0] is x and last[2] == start:
            last[2] += width
        else:
            parts.append([x, start, start + width])  # type: ignore[operator]
    joined = []
    for item in parts:
        if isinstance(item, list):
            x, start, end = item
            whole = start == 0 and end == x.meta["width"]
            joined.append(x if whole else call(graph, x, torch.narrow, x, 1, start, end - start))
        else:
            joined.append(item)
    if len(joined) == 1:
        node.replace_all_uses_with(joined[0])
    else:
        node.args = (joined, *node.args[1:])


def settle(graph: fx.GraphModule) -> None:
    """Sort the nodes topologically, otherwise in the old order, and remove those that nothing reads."""
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
