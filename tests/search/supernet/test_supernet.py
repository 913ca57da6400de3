"""The supernet of the papers: numbers made by hand, and what it leaves out."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dots_zoo.macro import usual_macro
from dots_zoo.ops import OPS
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.supernet import (
    Mixture,
    PartialChannels,
    Supernet,
    cell_type_sequence,
    everything,
    still_statistics,
    supernet_macro,
)
from helpers.supernets import OPERATION_STAGE, mixture_for, near, shape

RAGGED = SearchSpace(
    1,
    (
        CellSpace("normal", (("max_pool_3x3",), OPERATION_STAGE.candidates("normal")[0])),
        CellSpace("reduce", (("skip_connect",),) * 2),
    ),
)
NASBENCH201 = named_space("S6")


def of_batch(x):
    """Batch norm by the batch, written out."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-5).sqrt()


def depthwise_separable(x, depthwise, pointwise, dilation=1, stride=1):
    padding = dilation * (depthwise.shape[-1] // 2)
    x = F.conv2d(x.relu(), depthwise, None, stride, padding, dilation, groups=len(depthwise))
    return of_batch(torch.einsum("nchw,dc->ndhw", x, pointwise[:, :, 0, 0]))


def first_cell(operations, reduce=False, **changes):
    """A cell with one node, its two preprocessed inputs, and the weights of its two edges."""
    torch.manual_seed(0)
    supernet = Supernet(darts_space(operations, 1), shape(layers=3, **changes)).double()
    cell = supernet.cells[1 if reduce else 0]
    states = [torch.randn(2, supernet.shape.channels * (1 + reduce), 6, 6).double() for _ in range(2)]
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [-1.0, 2.0, 0.5, 0.7]], dtype=torch.double)
    weights = weights[:, : len(operations)]
    return cell, states, weights


def node_of(cell, states, weights, **changes):
    mixture = Mixture({"cell": weights}, {"cell": (frozenset(range(weights.shape[1])),) * 2}, **changes)
    return cell.nodes(states, mixture.of_cell("cell"))[2]


def test_a_node_is_the_sum_of_its_edges_and_an_edge_the_weighted_sum_of_its_candidates():
    """Eq. 1 and Eq. 8, written out; the running mean of a pooling moves once for both of its edges."""
    cell, states, weights = first_cell(("none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3"))
    expected = 0
    for x, edge, w in zip(states, cell.nodes.edges, weights, strict=True):
        _, dw1, pw1, _, _, dw2, pw2, _ = edge.operations["2"]
        sep = depthwise_separable(x, dw1.weight, pw1.weight)
        sep = depthwise_separable(sep, dw2.weight, pw2.weight)
        pooled = of_batch(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        expected = expected + w[1] * x + w[2] * sep + w[3] * pooled
    assert near(node_of(cell, states, weights), expected)
    norm = cell.nodes.pools[0]["avg_pool_3x3"][1]
    mean = F.avg_pool2d(states[0], 3, 1, 1, count_include_pad=False).mean((0, 2, 3))
    assert near(norm.running_mean, 0.1 * mean) and norm.num_batches_tracked == 1


def test_where_the_resolution_halves_candidates_have_stride_2():
    cell, states, weights = first_cell(("max_pool_3x3", "skip_connect", "dil_conv_5x5"), reduce=True)
    expected = 0
    for x, edge, w in zip(states, cell.nodes.edges, weights, strict=True):
        reduce, (_, depthwise, pointwise, _) = edge.operations["1"], edge.operations["2"]
        halves = [
            torch.einsum("nchw,dc->ndhw", pixels.relu(), conv.weight[:, :, 0, 0])
            for pixels, conv in ((x[:, :, ::2, ::2], reduce.conv1), (x[:, :, 1::2, 1::2], reduce.conv2))
        ]
        dilated = depthwise_separable(x, depthwise.weight, pointwise.weight, dilation=2, stride=2)
        pooled = of_batch(F.max_pool2d(x, 3, 2, 1))
        expected = expected + w[0] * pooled + w[1] * of_batch(torch.cat(halves, 1)) + w[2] * dilated
    assert near(node_of(cell, states, weights), expected)


def test_the_output_of_a_cell_is_its_nodes_of_its_preprocessed_inputs():
    cell, _, weights = first_cell(("skip_connect",))
    inputs = [torch.randn(2, 12, 5, 5).double() for _ in range(2)]
    mixture = Mixture({"normal": weights}, {"normal": (frozenset({0}),) * 2}).of_cell("normal")
    expected = sum(
        w * of_batch(torch.einsum("nchw,dc->ndhw", x.relu(), part[1].weight[:, :, 0, 0]))
        for w, x, part in zip(weights[:, 0], inputs, cell.preprocess, strict=True)
    )
    assert near(cell(*inputs, mixture), expected)


def test_partial_channels_bypass_the_candidates_and_are_shuffled():
    """Channels 0 and 1 of 4 go through, 2 and 3 bypass; then they stand 0, 2, 1, 3 (PC-DARTS, Sec. 3.2)."""
    cell, (a, b), weights = first_cell(("skip_connect",), partial=PartialChannels(2))
    edges = {"cell": torch.tensor([0.25, 0.75]).double()}
    node = node_of(cell, [a, b], weights, edges=edges)
    through = 0.1 * a[:, :2] - b[:, :2]
    bypass = 0.25 * a[:, 2:] + 0.75 * b[:, 2:]
    assert near(node, torch.stack([through[:, 0], bypass[:, 0], through[:, 1], bypass[:, 1]], 1))


def test_the_auxiliary_skip_is_beta_times_the_weight_of_its_edge():
    """Eq. 4 of DARTS-; the projection starts as the identity."""
    for auxiliary in ("skip", "projection"):
        cell, (a, b), weights = first_cell(("skip_connect",), auxiliary=auxiliary)
        assert near(node_of(cell, [a, b], weights, auxiliary=0.5), 0.6 * a - 0.5 * b)
        edges = {"cell": torch.tensor([0.25, 0.75]).double()}
        assert near(node_of(cell, [a, b], weights, edges=edges, auxiliary=0.5), 0.225 * a - 0.625 * b)
        assert near(node_of(cell, [a, b], weights), 0.1 * a - b)


def test_pooling_is_shared_per_source_and_convolutions_are_not():
    cell = Supernet(OPERATION_STAGE, shape(layers=3)).cells[0]
    pools = [module for module in cell.modules() if isinstance(module, nn.MaxPool2d | nn.AvgPool2d)]
    assert len(pools) == 2 * 5  # two kinds, five nodes that are read
    depthwise = [m for m in cell.modules() if isinstance(m, nn.Conv2d) and m.groups == 4]
    assert len(depthwise) == 14 * (2 + 2 + 1 + 1)


def test_no_batch_norm_of_a_cell_has_weights_of_its_own():
    cells = Supernet(OPERATION_STAGE, shape(layers=3)).cells
    norms = [module for module in cells.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.affine for norm in norms)


def test_none_adds_nothing_and_rows_may_differ_in_length():
    torch.manual_seed(0)
    supernet = Supernet(RAGGED, shape(layers=3, in_chans=1))
    mixture = mixture_for(RAGGED)
    supernet(torch.randn(2, 1, 8, 8), mixture).sum().backward()
    gradient = mixture.operations["normal"].grad
    assert gradient[0, 0] != 0 and not gradient[0, 1:].any()  # beyond the end of a short row
    assert gradient[1, 0] == 0 and gradient[1, 1:].all()  # none


@pytest.mark.parametrize("partial", [PartialChannels(1), PartialChannels(2)])
def test_what_is_not_active_is_not_computed_and_counts_as_a_weight_of_zero(partial):
    torch.manual_seed(0)
    space = darts_space(("max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3"), 2)
    supernet, images = (
        Supernet(space, shape(layers=3, partial=partial)).double(),
        torch.randn(2, 3, 8, 8).double(),
    )
    active = tuple(frozenset({0, 2}) if edge else frozenset({1}) for edge in range(5))
    mixture = mixture_for(space, torch.double)
    zeroed = {k: w.detach().clone() for k, w in mixture.operations.items()}
    for table in zeroed.values():
        for edge, columns in enumerate(active):
            table[edge, [c for c in range(3) if c not in columns]] = 0
    found = supernet(images, replace(mixture, active={k: active for k in space.cell_types}))
    assert near(found, supernet(images, replace(mixture, operations=zeroed)))
    found.sum().backward()
    skipped = supernet.cells[0].nodes.edges[0].operations["2"]
    assert all(parameter.grad is None for parameter in skipped.parameters())
    assert not mixture.operations["normal"].grad[0, [0, 2]].any()


def test_a_closed_edge_lets_nothing_pass_by():
    torch.manual_seed(0)
    space = darts_space(("skip_connect",), 1)
    supernet = Supernet(space, shape(layers=3, partial=PartialChannels(2), in_chans=1)).double()
    images = torch.randn(2, 1, 8, 8).double()
    edges = {k: torch.tensor([1.0, 0.0]).double() for k in space.cell_types}
    ones = {k: torch.tensor([[1.0], [0.0]]).double() for k in space.cell_types}
    full = {k: everything(space, k) for k in space.cell_types}
    closed = {k: (frozenset({0}), frozenset()) for k in space.cell_types}
    assert near(supernet(images, Mixture(ones, full, edges)), supernet(images, Mixture(ones, closed, None)))


def test_a_node_of_which_every_edge_is_none_is_zero():
    supernet = Supernet(NASBENCH201, shape(layers=3, macro="nb201")).eval()
    none = tuple(frozenset({0}) for _ in range(6))
    logits = supernet(torch.randn(2, 3, 8, 8), replace(mixture_for(NASBENCH201), active={"cell": none}))
    assert torch.equal(logits[0], logits[1])  # nothing of the images arrives


def test_dropout_is_behind_skip_connections_alone_and_only_in_training():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    for operation, drops in (("skip_connect", True), ("sep_conv_3x3", False)):
        space = darts_space((operation,), 1)
        supernet = Supernet(space, shape(layers=3))
        with still_statistics(supernet):
            plain = supernet(images, mixture_for(space))
            assert torch.equal(plain, supernet(images, mixture_for(space, skip_dropout=0.5))) != drops
            supernet.eval()
            assert torch.allclose(plain, supernet(images, mixture_for(space, skip_dropout=0.5)), atol=1e-5)


def test_the_mixture_is_an_argument_and_not_kept():
    space = darts_space(("skip_connect", "noise"), 1)
    supernet = Supernet(space, shape(layers=3, in_chans=1)).eval()
    images, skip = torch.randn(2, 1, 8, 8), mixture_for(space)
    skip = replace(skip, operations={kind: torch.tensor([[1.0, 0.0]] * 2) for kind in space.cell_types})
    first = supernet(images, skip)
    supernet(images, mixture_for(space))
    assert torch.equal(supernet(images, skip), first)
    assert not any("alpha" in name or "mixture" in name for name in supernet.state_dict())


def test_a_copy_is_a_supernet_of_its_own():
    space = darts_space(("skip_connect", "sep_conv_3x3"), 1)
    supernet = Supernet(space, shape(layers=3, in_chans=1))
    copy.deepcopy(supernet)(torch.randn(2, 1, 8, 8), mixture_for(space)).sum().backward()
    assert all(parameter.grad is None for parameter in supernet.parameters())


@pytest.mark.parametrize(("cells", "reductions"), [(3, [1, 2]), (8, [2, 5]), (14, [4, 9]), (20, [6, 13])])
def test_reduction_cells_stand_at_one_and_two_thirds(cells, reductions):
    assert [number for number, kind in enumerate(cell_type_sequence(cells)) if kind == "reduce"] == reductions


def test_fewer_than_three_cells_are_refused():
    with pytest.raises(DotsZooError, match="layers: expected at least 3 cells in a supernet, .* got 2"):
        Supernet(OPERATION_STAGE, shape(layers=2))


def test_channels_that_partial_channels_do_not_divide_are_refused():
    with pytest.raises(DotsZooError, match="divisible by the share of partial channels, 4, got 6"):
        Supernet(OPERATION_STAGE, shape(channels=6, partial=PartialChannels(4)))


def test_a_nas_bench_201_supernet_has_three_equal_stages():
    with pytest.raises(DotsZooError, match="layers: .* divisible by 3, for the three equal stages .* got 4"):
        Supernet(NASBENCH201, shape(layers=4, macro="nb201"))


@pytest.mark.parametrize(
    ("space", "macro", "possible"),
    [(NASBENCH201, "mobile", "nb201"), (OPERATION_STAGE, "nb201", "cifar or mobile")],
)
def test_a_macro_architecture_of_other_cells_is_refused(space, macro, possible):
    with pytest.raises(DotsZooError, match=f"macro: expected {possible} for .* got '{macro}'"):
        Supernet(space, shape(layers=3, macro=macro))


def test_the_stem_of_mobile_needs_an_even_width():
    with pytest.raises(DotsZooError, match="channels: expected an even number for the macro mobile, got 5"):
        Supernet(OPERATION_STAGE, shape(channels=5, macro="mobile"))


@pytest.mark.parametrize(
    ("space", "size", "macro"),
    [(OPERATION_STAGE, 64, "cifar"), (OPERATION_STAGE, 65, "mobile"), (NASBENCH201, 224, "nb201")],
)
def test_the_usual_macro_architecture_is_that_of_a_training(space, size, macro):
    assert supernet_macro(None, space, size) == macro == usual_macro(space.family, size)
    assert supernet_macro("mobile", space, size) == "mobile"


def test_an_operation_needs_neither_a_relu_nor_a_norm(monkeypatch):
    monkeypatch.setitem(
        OPS,
        "noise",
        replace(
            OPS["noise"], build=lambda channels, stride, affine: nn.Conv2d(channels, channels, 1, stride)
        ),
    )
    cell, (a, b), weights = first_cell(("noise",))
    one, other = (edge.operations["0"] for edge in cell.nodes.edges)
    assert near(node_of(cell, [a, b], weights), 0.1 * one(a) - other(b))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo looks at it
def test_a_step_of_the_supernet_compiles_each_cell_as_one_graph():
    torch.manual_seed(0)
    space = darts_space(("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"), 1)
    eager = Supernet(space, shape(layers=3, auxiliary="skip")).double()
    compiled, outs = copy.deepcopy(eager), []
    compiled.cells = nn.ModuleList(
        [torch.compile(cell, backend="aot_eager", fullgraph=True) for cell in compiled.cells]
    )
    images = torch.randn(2, 3, 8, 8).double()
    for supernet in (eager, compiled):
        mixture = mixture_for(space, torch.double, auxiliary=0.5)
        loss = F.cross_entropy(supernet(images, mixture), torch.tensor([0, 4]))
        leaves = [*supernet.parameters(), *mixture.operations.values()]
        outs.append([loss, *torch.autograd.grad(loss, leaves), *supernet.buffers()])
    assert all(map(near, *outs))
