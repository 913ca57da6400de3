import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.validate import still_statistics
from dots_zoo.search.supernet import sep_conv_sum as separable_sum
from dots_zoo.search.supernet.mixed_op import Partial
from dots_zoo.search.supernet.mixture import Mixture, everything
from dots_zoo.search.supernet.supernet import Shape, Supernet, cell_kinds
from helpers.reference_supernet import ReferenceSupernet, module_pairs

OPERATION_STAGE = darts_space()
TOPOLOGY_STAGE = SearchSpace(  # two survivors an edge, other ones on every edge, `none` among them
    2,
    (
        CellSpace(
            "normal",
            (
                ("skip_connect", "sep_conv_3x3"),
                ("none", "dil_conv_5x5"),
                ("max_pool_3x3", "sep_conv_5x5"),
                ("avg_pool_3x3", "dil_conv_3x3"),
                ("max_pool_3x3", "dil_conv_3x3"),
            ),
        ),
        CellSpace(
            "reduce",
            (
                ("skip_connect", "dil_conv_5x5"),
                ("max_pool_3x3", "sep_conv_3x3"),
                ("none", "sep_conv_5x5"),
                ("skip_connect", "dil_conv_3x3"),
                ("avg_pool_3x3", "sep_conv_3x3"),
            ),
        ),
    ),
)
RAGGED = SearchSpace(
    1,
    (
        CellSpace("normal", (("max_pool_3x3",), OPERATION_STAGE.candidates("normal")[0])),
        CellSpace("reduce", (("skip_connect",),) * 2),
    ),
)


NASBENCH201 = named_space("S6")
SKIPS = darts_space(("none", "skip_connect", "skip_connect", "dil_conv_3x3"), 2)  # as in 3-skip


def shape(channels=4, cells=5, classes=5, in_chans=3, **changes):
    return Shape(channels=channels, cells=cells, classes=classes, in_chans=in_chans, **changes)


def weights_for(space, dtype):
    draws = torch.Generator().manual_seed(3)
    shapes = {kind: (len(space.edges), max(map(len, space.candidates(kind)))) for kind in space.kinds}
    return {
        kind: torch.rand(shape, generator=draws, dtype=dtype).requires_grad_()
        for kind, shape in shapes.items()
    }


def mixture_for(space, dtype=torch.float32, **changes):
    return Mixture(weights_for(space, dtype), {k: everything(space, k) for k in space.kinds}, **changes)


def pair(space, **changes):
    ours = Supernet(space, shape(**changes)).double()
    reference = ReferenceSupernet(space, shape(**changes)).double()
    for mine, theirs in module_pairs(ours, reference):
        for parameter, target in zip(mine.parameters(), theirs.parameters(), strict=True):
            target.data.copy_(parameter.data)
    return ours, reference


@pytest.mark.parametrize(
    ("space", "size", "changes"),
    [
        (OPERATION_STAGE, (8, 8), {}),
        (OPERATION_STAGE, (9, 7), {"in_chans": 1}),
        (TOPOLOGY_STAGE, (9, 11), {}),
        (TOPOLOGY_STAGE, (8, 8), {"in_chans": 1, "cells": 3}),
        (SKIPS, (9, 7), {"cells": 3}),
        (SKIPS, (37, 43), {"stem": "imagenet"}),
        (NASBENCH201, (9, 7), {"cells": 6}),
        (OPERATION_STAGE, (9, 7), {"cells": 3, "partial": Partial(4), "edges": True}),
        (TOPOLOGY_STAGE, (8, 8), {"partial": Partial(2, shuffle=False), "edges": True}),
        (NASBENCH201, (8, 8), {"cells": 3, "partial": Partial(2), "edges": True, "beta": 0.5,
                               "auxiliary": "skip"}),
        (TOPOLOGY_STAGE, (9, 7), {"beta": 0.7, "auxiliary": "skip"}),
        (TOPOLOGY_STAGE, (8, 8), {"beta": 0.3, "auxiliary": "projection", "partial": Partial(2),
                                  "edges": True}),
    ],
)  # fmt: skip
def test_the_supernet_is_the_reference_in_logits_gradients_and_running_statistics(space, size, changes):
    changes = {"cells": 5, "in_chans": 3, **changes}
    beta, weighed = changes.pop("beta", 0.0), changes.pop("edges", False)
    ours, reference = pair(space, **changes)
    draws = torch.Generator().manual_seed(1)
    images = torch.randn(3, changes["in_chans"], *size, dtype=torch.double, generator=draws)
    edges = [
        {k: torch.linspace(0.5, 1.5, len(space.edges)).double().requires_grad_() for k in space.kinds}
        for _ in range(2)
    ]
    mixture = mixture_for(space, torch.double, auxiliary=beta, edges=edges[0] if weighed else None)
    other = weights_for(space, torch.double)
    ones = {kind: torch.ones(len(space.edges)).double() for kind in space.kinds}
    logits = ours(images, mixture), reference(images, other, edges[1] if weighed else ones, beta)
    assert near(*logits)
    for found in logits:
        nn.functional.cross_entropy(found, torch.tensor([0, 3, 4])).backward()
    for kind in space.kinds:
        assert mixture.operations[kind].grad.abs().max() > 1e-3
        assert near(mixture.operations[kind].grad, other[kind].grad)
        if weighed:
            assert edges[0][kind].grad.abs().min() > 0 and near(edges[0][kind].grad, edges[1][kind].grad)
    paired = set()
    for mine, theirs in module_pairs(ours, reference):
        for parameter, target in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert parameter.grad.abs().max() > 0 and near(parameter.grad, target.grad)
            paired.add(parameter)
        for buffer, target in zip(mine.buffers(), theirs.buffers(), strict=True):
            assert near(buffer, target)
    assert paired == set(ours.parameters())


def near(ours, reference):
    return (ours - reference).abs().max().item() <= 1e-9


def test_pooling_is_shared_per_source_and_convolutions_are_not():
    cell = Supernet(OPERATION_STAGE, shape(cells=3)).cells[0]
    pools = [module for module in cell.modules() if isinstance(module, nn.MaxPool2d | nn.AvgPool2d)]
    assert len(pools) == 2 * 5  # two kinds, five nodes that are read
    depthwise = [m for m in cell.modules() if isinstance(m, nn.Conv2d) and m.groups == 4]
    assert len(depthwise) == 14 * (2 + 2 + 1 + 1)


def test_the_cells_that_read_an_output_share_its_relu_and_the_classifier_reads_it_as_it_is():
    supernet, seen = Supernet(OPERATION_STAGE, shape(cells=4)), []
    for cell in supernet.cells:
        assert not [module for module in cell.preprocess.modules() if isinstance(module, nn.ReLU)]
        cell.register_forward_hook(lambda module, given, out: seen.append(out.min().item()))
    supernet(torch.randn(2, 3, 16, 16), mixture_for(OPERATION_STAGE))
    assert seen[:3] == [0, 0, 0] and seen[3] < 0


def test_no_batch_norm_of_a_cell_has_weights_of_its_own():
    cells = Supernet(OPERATION_STAGE, shape(cells=3)).cells
    norms = [module for module in cells.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.affine for norm in norms)


def test_none_adds_nothing_and_rows_may_differ_in_length():
    torch.manual_seed(0)
    supernet = Supernet(RAGGED, shape(cells=3, in_chans=1))
    mixture = mixture_for(RAGGED)
    supernet(torch.randn(2, 1, 8, 8), mixture).sum().backward()
    gradient = mixture.operations["normal"].grad
    assert gradient[0, 0] != 0 and not gradient[0, 1:].any()  # beyond the end of a short row
    assert gradient[1, 0] == 0 and gradient[1, 1:].all()  # none


@pytest.mark.parametrize("partial", [Partial(1), Partial(2)])
def test_what_is_not_active_is_not_computed_and_counts_as_a_weight_of_zero(partial):
    torch.manual_seed(0)
    space = darts_space(("max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3"), 2)
    supernet, images = (
        Supernet(space, shape(cells=3, partial=partial)).double(),
        torch.randn(2, 3, 8, 8).double(),
    )
    active = tuple(frozenset({0, 2}) if edge else frozenset({1}) for edge in range(5))
    mixture = mixture_for(space, torch.double)
    zeroed = {k: w.detach().clone() for k, w in mixture.operations.items()}
    for table in zeroed.values():
        for edge, columns in enumerate(active):
            table[edge, [c for c in range(3) if c not in columns]] = 0
    found = supernet(images, replace(mixture, active={k: active for k in space.kinds}))
    assert near(found, supernet(images, replace(mixture, operations=zeroed)))
    found.sum().backward()
    skipped = supernet.cells[0].nodes.edges[0].operations[2]
    assert all(parameter.grad is None for parameter in skipped.parameters())
    assert not mixture.operations["normal"].grad[0, [0, 2]].any()


def test_a_closed_edge_lets_nothing_pass_by():
    torch.manual_seed(0)
    space = darts_space(("skip_connect",), 1)
    supernet = Supernet(space, shape(cells=3, partial=Partial(2), in_chans=1)).double()
    images = torch.randn(2, 1, 8, 8).double()
    edges = {k: torch.tensor([1.0, 0.0]).double() for k in space.kinds}
    ones = {k: torch.tensor([[1.0], [0.0]]).double() for k in space.kinds}
    full = {k: everything(space, k) for k in space.kinds}
    closed = {k: (frozenset({0}), frozenset()) for k in space.kinds}
    assert near(supernet(images, Mixture(ones, full, edges)), supernet(images, Mixture(ones, closed, None)))


def test_a_node_of_which_every_edge_is_none_is_zero():
    supernet = Supernet(NASBENCH201, shape(cells=3)).eval()
    none = tuple(frozenset({0}) for _ in range(6))
    logits = supernet(torch.randn(2, 3, 8, 8), replace(mixture_for(NASBENCH201), active={"cell": none}))
    assert torch.equal(logits[0], logits[1])  # nothing of the images arrives


def test_dropout_is_behind_skip_connections_alone_and_only_in_training():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    for operation, drops in (("skip_connect", True), ("sep_conv_3x3", False)):
        space = darts_space((operation,), 1)
        supernet = Supernet(space, shape(cells=3))
        with still_statistics(supernet):
            plain = supernet(images, mixture_for(space))
            assert torch.equal(plain, supernet(images, mixture_for(space, skip_dropout=0.5))) != drops
            supernet.eval()
            assert torch.allclose(plain, supernet(images, mixture_for(space, skip_dropout=0.5)), atol=1e-5)


def test_the_mixture_is_an_argument_and_not_kept():
    space = darts_space(("skip_connect", "noise"), 1)
    supernet = Supernet(space, shape(cells=3, in_chans=1)).eval()
    images, skip = torch.randn(2, 1, 8, 8), mixture_for(space)
    skip = replace(skip, operations={kind: torch.tensor([[1.0, 0.0]] * 2) for kind in space.kinds})
    first = supernet(images, skip)
    supernet(images, mixture_for(space))
    assert torch.equal(supernet(images, skip), first)
    assert not any("alpha" in name or "mixture" in name for name in supernet.state_dict())


def test_a_copy_is_a_supernet_of_its_own():
    space = darts_space(("skip_connect", "sep_conv_3x3"), 1)
    supernet = Supernet(space, shape(cells=3, in_chans=1))
    copy.deepcopy(supernet)(torch.randn(2, 1, 8, 8), mixture_for(space)).sum().backward()
    assert all(parameter.grad is None for parameter in supernet.parameters())


@pytest.mark.parametrize(("cells", "reductions"), [(3, [1, 2]), (8, [2, 5]), (14, [4, 9]), (20, [6, 13])])
def test_reduction_cells_stand_at_one_and_two_thirds(cells, reductions):
    assert [number for number, kind in enumerate(cell_kinds(cells)) if kind == "reduce"] == reductions


def test_fewer_than_three_cells_are_refused():
    with pytest.raises(DotsZooError, match="supernet: expected at least 3 cells, .* got 2"):
        Supernet(OPERATION_STAGE, shape(cells=2))


def test_channels_that_partial_channels_do_not_divide_are_refused():
    with pytest.raises(DotsZooError, match="divisible by the share of partial channels, 4, got 6"):
        Supernet(OPERATION_STAGE, shape(channels=6, partial=Partial(4)))


@pytest.mark.parametrize("changes", [{"cells": 4}, {"cells": 3, "stem": "imagenet"}])
def test_a_nas_bench_201_supernet_has_three_equal_stages_and_the_cifar_stem(changes):
    with pytest.raises(DotsZooError, match="divisible by 3, for three equal stages, and the stem"):
        Supernet(NASBENCH201, shape(**changes))


@pytest.mark.parametrize("memory", ["lean", "checkpoint"])
def test_what_is_computed_again_changes_nothing(memory):
    """Neither the logits, nor a gradient, nor the running statistics: those move once."""
    space, images = darts_space(("max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"), 2), None
    found = []
    for kept in ("fast", memory):
        torch.manual_seed(0)
        supernet = Supernet(space, shape(cells=3, memory=kept)).double()
        images = torch.randn(2, 3, 9, 7).double() if images is None else images
        mixture = mixture_for(space, torch.double)
        logits = supernet(images, mixture)
        logits.square().sum().backward()
        gradients = [p.grad for p in (*supernet.parameters(), *mixture.operations.values())]
        found.append([logits, *gradients, *(buffer.double() for buffer in supernet.buffers())])
    for fast, again in zip(*found, strict=True):
        assert torch.equal(fast, again)


@pytest.mark.parametrize("group", [1, 3, 100])
def test_how_many_are_computed_together_changes_nothing(group, monkeypatch):
    """16 channels: the compiled loops take several maps in one call."""
    found, images = [], torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(1)).double()
    for size in (separable_sum.GROUP, group):
        monkeypatch.setattr(separable_sum, "GROUP", size)
        torch.manual_seed(0)
        supernet = Supernet(OPERATION_STAGE, shape(channels=16, cells=3)).double()
        mixture = mixture_for(OPERATION_STAGE, torch.double)
        logits = supernet(images, mixture)
        logits.square().sum().backward()
        gradients = [p.grad for p in (*supernet.parameters(), *mixture.operations.values())]
        found.append([logits, *gradients, *(buffer.double() for buffer in supernet.buffers())])
    for four, others in zip(*found, strict=True):
        torch.testing.assert_close(others, four, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cells", [3, 6])
def test_the_weights_of_a_node_become_a_vector_once_for_all_cells(cells, monkeypatch):
    """One for separable convolutions and one for the rest, at two nodes of two kinds of cell."""
    space, stack, made = darts_space(("sep_conv_3x3", "max_pool_3x3", "skip_connect"), 2), torch.stack, []

    def noted(tensors, *rest, **options):
        made.append(tensors)
        return stack(tensors, *rest, **options)

    monkeypatch.setattr(torch, "stack", noted)
    Supernet(space, shape(cells=cells))(torch.randn(2, 3, 16, 16), mixture_for(space))
    assert sum(tensors[0].dim() == 0 for tensors in made) == 2 * 2 * 2


def test_less_is_kept_where_memory_is_lean_or_checkpointed():
    space, sizes = darts_space(("sep_conv_3x3", "dil_conv_3x3"), 2), {}
    for memory in ("fast", "lean", "checkpoint"):
        supernet, seen = Supernet(space, shape(cells=3, memory=memory)), {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, seen=seen: seen.setdefault(t.data_ptr(), t), lambda t: t
        ):
            supernet(torch.randn(2, 3, 16, 16), mixture_for(space))
        sizes[memory] = sum(t.numel() for t in seen.values())
    assert sizes["lean"] < 0.4 * sizes["fast"]
    assert sizes["checkpoint"] < 0.6 * sizes["lean"]
