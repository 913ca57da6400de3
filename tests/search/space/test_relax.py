import math

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.space.named import darts_space
from dots_zoo.search.space.relax import (
    cosine,
    edge_membership,
    edge_weights,
    entropy,
    group_softmax,
    one_group,
    operation_groups,
    temperature,
)
from dots_zoo.search.space.space import CellSpace, Choice, SearchSpace

SPACE = darts_space()

CPU = torch.device("cpu")
close = torch.testing.assert_close


def test_softmax_with_temperature_is_eq_6():
    logits = torch.tensor([[math.log(2), 0.0, math.log(4)]])
    one = torch.ones(1, 1, 3, dtype=torch.bool)
    close(group_softmax(logits, one), torch.tensor([[2 / 7, 1 / 7, 4 / 7]]))
    close(group_softmax(logits, one, 0.5), torch.tensor([[4 / 21, 1 / 21, 16 / 21]]))  # squares: 4, 1, 16


def test_every_group_of_a_row_has_a_softmax_of_its_own():
    logits = torch.tensor([[math.log(3), 0.0, math.log(4), 0.0]])
    groups = torch.tensor([[[True, True, False, False]], [[False, False, True, True]]])
    close(group_softmax(logits, groups), torch.tensor([[0.75, 0.25, 0.8, 0.2]]))


def test_what_is_in_no_group_weighs_nothing_and_gets_no_gradient():
    logits = torch.zeros(2, 3, requires_grad=True)
    groups = torch.tensor([[[True, True, False], [False, False, False]]])
    weights = group_softmax(logits, groups, 1e-5)
    close(weights, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    (weights * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, :2].abs().min() > 0 and not logits.grad[0, 2] and not logits.grad[1].any()


def test_groups_follow_the_candidates_of_each_edge():
    edges = (("skip_connect", "sep_conv_3x3"), ("dil_conv_3x3",))
    space = SearchSpace(1, (CellSpace("normal", edges),))
    groups = (("none", "skip_connect"), ("sep_conv_3x3", "dil_conv_3x3"))
    found = operation_groups(space, "normal", groups, CPU)
    assert found.tolist() == [[[True, False], [False, False]], [[False, True], [True, False]]]


@pytest.mark.parametrize("groups", [(("skip_connect",),), (("skip_connect", "none"), ("none",))])
def test_a_candidate_must_be_in_exactly_one_group(groups):
    with pytest.raises(DotsZooError, match="groups: expected none of the normal cell in exactly one group"):
        operation_groups(darts_space(("none", "skip_connect"), 1), "normal", groups, CPU)


def test_one_group_leaves_out_what_lies_beyond_the_end_of_a_row():
    found = one_group(Choice(("a", "b"), (("x",), ("x", "y"))), CPU)
    assert found.tolist() == [[[True, False], [True, True]]]


def test_edge_weights_of_pairs_are_eq_7():
    space = darts_space(("skip_connect",), 2)
    beta = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.3, 0.2]])  # node 2: {0, 1}; node 3: {2, 3}, {2, 4}, {3, 4}
    halved = edge_weights(beta, edge_membership(space, "pairs", True, CPU))
    close(
        halved, torch.tensor([0.5, 0.5, 0.4, 0.35, 0.25])
    )  # (0.5 + 0.3) / 2, (0.5 + 0.2) / 2, (0.3 + 0.2) / 2
    close(halved[2:].sum(), torch.tensor(1.0))
    summed = edge_weights(beta, edge_membership(space, "pairs", False, CPU))
    close(summed, torch.tensor([1.0, 1.0, 0.8, 0.7, 0.5]))


def test_edge_weights_of_any_number_of_edges_divide_by_each_combinations_own_size():
    space = darts_space(("skip_connect",), 1)
    beta = torch.tensor([[0.2, 0.3, 0.5]])  # {0}, {1}, {0, 1}
    close(edge_weights(beta, edge_membership(space, "any", True, CPU)), torch.tensor([0.45, 0.55]))
    close(edge_weights(beta, edge_membership(space, "any", False, CPU)), torch.tensor([0.7, 0.8]))


def test_membership_of_the_darts_cell_counts_every_edge_in_its_own_node_alone():
    table = edge_membership(SPACE, "pairs", False, CPU)
    assert table.shape == (4, 10, 14)
    assert table.sum(dim=(0, 1)).tolist() == [1] * 2 + [2] * 3 + [3] * 4 + [4] * 5  # n - 1 pairs hold an edge


def test_the_temperature_is_eq_9_and_ends_where_it_should():
    series = [temperature(epoch, 20, 10.0, 0.02) for epoch in range(20)]
    theta = series[1] / series[0]
    assert series == pytest.approx([10 * theta**epoch for epoch in range(20)])
    assert theta == pytest.approx(0.72, abs=0.002) and series[0] == 10 and series[19] == pytest.approx(0.02)


def test_one_epoch_keeps_the_first_temperature():
    assert temperature(0, 1, 10.0, 0.02) == 10


def test_the_cosine_starts_at_the_first_rate_and_is_half_way_at_half_time():
    assert cosine(0, 70, 0.025, 0.001) == 0.025
    assert cosine(35, 70, 0.025, 0.001) == pytest.approx(0.013)
    assert cosine(70, 70, 0.025, 0.001) == pytest.approx(0.001)
    assert cosine(30, 70, 0.025, 0.001) == pytest.approx(0.013 + 0.012 * math.cos(math.pi * 3 / 7))


def test_entropy_is_the_mean_over_the_softmaxes():
    weights = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    close(entropy(weights), torch.tensor(math.log(2) / 2))
