import collections

import pytest
import torch

from dots_zoo.genotype import validate
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.space.discretise import darts_rule, random_genotype, survivors, topology_rule
from dots_zoo.search.space.named import darts_space, groups_by_weights
from dots_zoo.search.space.space import CellSpace, SearchSpace

SPACE = darts_space()

OPERATIONS = ("none", "skip_connect", "sep_conv_3x3")


def both(weights):
    return {"normal": weights, "reduce": weights}


def edges_of(cell):
    return [(edge.node, edge.input, edge.op) for edge in cell.edges]


def test_the_best_of_every_group_survives_on_its_edge_as_in_eq_15():
    weights = torch.full((14, 8), 0.1)
    weights[0, [3, 6]] = 0.9  # skip_connect, dil_conv_3x3
    weights[13, [0, 5]] = 0.9  # none, sep_conv_5x5
    found = survivors(SPACE, {"normal": weights, "reduce": -weights}, groups_by_weights())
    assert found.candidates("normal")[0] == ("skip_connect", "dil_conv_3x3")
    assert found.candidates("normal")[13] == ("none", "sep_conv_5x5")  # none may survive, as in Fig. 5
    assert found.candidates("normal")[5] == ("none", "sep_conv_3x3")  # equal weights: the first listed
    assert found.candidates("reduce")[0] == ("none", "sep_conv_3x3")
    assert found.edges == SPACE.edges


def test_survivors_stand_in_the_order_of_the_groups_and_a_group_without_members_leaves_none():
    edges = (("sep_conv_3x3", "max_pool_3x3"), ("sep_conv_3x3", "dil_conv_3x3"))
    space = SearchSpace(1, (CellSpace("normal", edges),))
    found = survivors(space, {"normal": torch.tensor([[0.9, 0.1], [0.2, 0.3]])}, groups_by_weights())
    assert found.candidates("normal") == (("max_pool_3x3", "sep_conv_3x3"), ("dil_conv_3x3",))


def test_none_never_survives_alone():
    weights = torch.tensor([[0.8, 0.05, 0.15]] * 2)
    found = survivors(darts_space(OPERATIONS, 1), both(weights), (OPERATIONS,))
    assert found.candidates("normal") == (("none", "sep_conv_3x3"),) * 2


def test_the_darts_rule_keeps_the_two_edges_with_the_largest_operation_that_is_not_none():
    weights = torch.tensor(
        [
            [0.9, 0.02, 0.08],  # 2<-0: none wins, the edge is still built
            [0.2, 0.5, 0.3],
            [0.1, 0.3, 0.6],  # 3<-0
            [0.8, 0.1, 0.1],  # 3<-1: only none is strong, so the weakest edge
            [0.1, 0.7, 0.2],  # 3<-2
        ]
    )
    cell = darts_rule(darts_space(OPERATIONS, 2), both(weights))["normal"]
    assert edges_of(cell) == [
        (2, 0, "sep_conv_3x3"),
        (2, 1, "skip_connect"),
        (3, 0, "sep_conv_3x3"),
        (3, 2, "skip_connect"),
    ]
    assert cell.concat == (2, 3)


def test_equal_weights_go_to_the_lower_input_and_the_operation_listed_first():
    cell = darts_rule(darts_space(OPERATIONS, 2), both(torch.ones(5, 3)))["reduce"]
    assert edges_of(cell) == [(node, source, "skip_connect") for node in (2, 3) for source in (0, 1)]


def test_the_topology_rule_keeps_the_best_pair_whatever_the_operation_weights():
    weights = torch.tensor(
        [[0.0, 0.4, 0.6], [0.0, 0.4, 0.6], [0.0, 1.0, 0.0], [0.9, 0.02, 0.08], [0.8, 0.15, 0.05]]
    )
    pairs = torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.3, 0.4]])  # node 3: 0+1, 0+2, 1+2
    cell = topology_rule(darts_space(OPERATIONS, 2), both(weights), both(pairs), "pairs")["normal"]
    assert edges_of(cell)[2:] == [(3, 1, "sep_conv_3x3"), (3, 2, "skip_connect")]
    tie = torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.35, 0.35]])
    cell = topology_rule(darts_space(OPERATIONS, 2), both(weights), both(tie), "pairs")["normal"]
    assert [edge.input for edge in cell.edges[2:]] == [0, 2]


def test_the_topology_rule_keeps_any_number_of_edges():
    choice = torch.zeros(2, 7)
    choice[0, 1] = choice[1, 6] = 1  # node 2: {1}; node 3: {0, 1, 2}
    cell = topology_rule(darts_space(OPERATIONS, 2), both(torch.rand(5, 3)), both(choice), "any")["normal"]
    assert [(edge.node, edge.input) for edge in cell.edges] == [(2, 1), (3, 0), (3, 1), (3, 2)]


def test_a_pair_with_an_edge_that_is_only_none_is_passed_over():
    edges = (("skip_connect",), ("skip_connect",), ("none",), ("skip_connect",), ("skip_connect",))
    space = SearchSpace(2, (CellSpace("normal", edges), CellSpace("reduce", edges)))
    pairs = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.4, 0.1]])
    cell = topology_rule(space, both(torch.ones(5, 1)), both(pairs), "pairs")["normal"]
    assert [edge.input for edge in cell.edges[2:]] == [1, 2]
    cell = darts_rule(space, both(torch.ones(5, 1)))["normal"]
    assert [edge.input for edge in cell.edges[2:]] == [1, 2]


def test_a_node_without_a_pair_that_can_be_built_is_refused():
    edges = (("skip_connect",), ("none",))
    space = SearchSpace(1, (CellSpace("normal", edges),))
    with pytest.raises(
        DotsZooError, match="normal cell, node 2: expected a combination of edges of which each has"
    ):
        topology_rule(space, {"normal": torch.ones(2, 1)}, {"normal": torch.ones(1, 1)}, "pairs")


def test_random_cells_can_be_built_and_come_from_the_generator_alone():
    first = random_genotype(SPACE, torch.Generator().manual_seed(5))
    validate(first)
    assert first == random_genotype(SPACE, torch.Generator().manual_seed(5))
    assert first != random_genotype(SPACE, torch.Generator().manual_seed(6))
    for cell in first.cells.values():
        assert [edge.node for edge in cell.edges] == [2, 2, 3, 3, 4, 4, 5, 5]
        assert all(edge.op != "none" for edge in cell.edges)


def test_random_cells_draw_pairs_and_operations_uniformly():
    draws, pairs, operations = torch.Generator().manual_seed(0), collections.Counter(), collections.Counter()
    for _ in range(300):
        for cell in random_genotype(SPACE, draws).cells.values():
            pairs[tuple(edge.input for edge in cell.edges if edge.node == 5)] += 1
            operations.update(edge.op for edge in cell.edges)
    assert len(pairs) == 10 and all(
        abs(count - 60) < 30 for count in pairs.values()
    )  # 600 / 10, 4 deviations
    assert len(operations) == 7 and all(abs(count - 4800 / 7) < 100 for count in operations.values())
