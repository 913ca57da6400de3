import copy

import pytest
import torch
from torch import nn

from dots_zoo.errors import DotsZooError
from dots_zoo.search.space import CellSpace, SearchSpace, darts_space
from dots_zoo.search.supernet import Supernet, cell_kinds
from reference_supernet import ReferenceSupernet, module_pairs

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


def mixture_for(space, dtype):
    draws = torch.Generator().manual_seed(3)
    shapes = {kind: (len(space.edges), max(map(len, space.candidates(kind)))) for kind in space.kinds}
    return {
        kind: torch.rand(shape, generator=draws, dtype=dtype).requires_grad_()
        for kind, shape in shapes.items()
    }


def pair(space, in_chans=3, cells=5):
    ours = Supernet(space, channels=4, cells=cells, classes=5, in_chans=in_chans).double()
    reference = ReferenceSupernet(space, 4, cells, 5, in_chans).double()
    for mine, theirs in module_pairs(ours, reference):
        for parameter, target in zip(mine.parameters(), theirs.parameters(), strict=True):
            target.data.copy_(parameter.data)
    return ours, reference


@pytest.mark.parametrize(
    ("space", "in_chans", "size"),
    [
        (OPERATION_STAGE, 3, (8, 8)),
        (OPERATION_STAGE, 1, (9, 7)),
        (TOPOLOGY_STAGE, 3, (9, 11)),
        (TOPOLOGY_STAGE, 1, (8, 8)),
    ],
)
def test_the_supernet_is_the_reference_in_logits_gradients_and_running_statistics(space, in_chans, size):
    ours, reference = pair(space, in_chans)
    images = torch.randn(3, in_chans, *size, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    mixtures = mixture_for(space, torch.double), mixture_for(space, torch.double)
    logits = ours(images, mixtures[0]), reference(images, mixtures[1])
    assert near(*logits)
    for found in logits:
        nn.functional.cross_entropy(found, torch.tensor([0, 3, 4])).backward()
    for kind in space.kinds:
        assert mixtures[0][kind].grad.abs().max() > 1e-3
        assert near(mixtures[0][kind].grad, mixtures[1][kind].grad)
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
    cell = Supernet(OPERATION_STAGE, channels=4, cells=3, classes=5, in_chans=3).cells[0]
    pools = [module for module in cell.modules() if isinstance(module, nn.MaxPool2d | nn.AvgPool2d)]
    assert len(pools) == 2 * 5  # two kinds, five nodes that are read
    depthwise = [m for m in cell.modules() if isinstance(m, nn.Conv2d) and m.groups == 4]
    assert len(depthwise) == 14 * (2 + 2 + 1 + 1)


def test_no_batch_norm_of_a_cell_has_weights_of_its_own():
    cells = Supernet(OPERATION_STAGE, channels=4, cells=3, classes=5, in_chans=3).cells
    norms = [module for module in cells.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.affine for norm in norms)


def test_none_adds_nothing_and_rows_may_differ_in_length():
    torch.manual_seed(0)
    supernet = Supernet(RAGGED, channels=4, cells=3, classes=5, in_chans=1)
    mixture = mixture_for(RAGGED, torch.float32)
    supernet(torch.randn(2, 1, 8, 8), mixture).sum().backward()
    gradient = mixture["normal"].grad
    assert gradient[0, 0] != 0 and not gradient[0, 1:].any()  # beyond the end of a short row
    assert gradient[1, 0] == 0 and gradient[1, 1:].all()  # none


def test_the_mixture_is_an_argument_and_not_kept():
    supernet = Supernet(
        darts_space(("skip_connect", "noise"), 1), channels=4, cells=3, classes=5, in_chans=1
    ).eval()
    images, skip = (
        torch.randn(2, 1, 8, 8),
        {kind: torch.tensor([[1.0, 0.0]] * 2) for kind in OPERATION_STAGE.kinds},
    )
    first = supernet(images, skip)
    supernet(images, {kind: torch.rand(2, 2) for kind in OPERATION_STAGE.kinds})
    assert torch.equal(supernet(images, skip), first)
    assert not any("alpha" in name or "mixture" in name for name in supernet.state_dict())


def test_a_copy_is_a_supernet_of_its_own():
    supernet = Supernet(
        darts_space(("skip_connect", "sep_conv_3x3"), 1), channels=4, cells=3, classes=5, in_chans=1
    )
    other, mixture = (
        copy.deepcopy(supernet),
        mixture_for(darts_space(("skip_connect",) * 2, 1), torch.float32),
    )
    other(torch.randn(2, 1, 8, 8), mixture).sum().backward()
    assert all(parameter.grad is None for parameter in supernet.parameters())


@pytest.mark.parametrize(("cells", "reductions"), [(3, [1, 2]), (8, [2, 5]), (14, [4, 9]), (20, [6, 13])])
def test_reduction_cells_stand_at_one_and_two_thirds(cells, reductions):
    assert [number for number, kind in enumerate(cell_kinds(cells)) if kind == "reduce"] == reductions


def test_fewer_than_three_cells_are_refused():
    with pytest.raises(DotsZooError, match="supernet: expected at least 3 cells, .* got 2"):
        Supernet(OPERATION_STAGE, channels=4, cells=2, classes=5, in_chans=3)
