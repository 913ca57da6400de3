import dataclasses

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import plan
from dots_zoo.search.methods.topology import (
    TopologyConfig,
    active_edges,
    derive_from_topology,
    topology_relaxation,
)
from dots_zoo.search.space.named import darts_space
from dots_zoo.search.space.space import edge_choice, operation_choice
from dots_zoo.search.stages.config import LogitsConfig
from dots_zoo.search.stages.loop import run_of, run_stages
from dots_zoo.search.stages.stage import StepIndex
from helpers.toy_search import search_toy, toy_config, toy_data, toy_derivation, toy_training

SPACE = darts_space(("skip_connect", "sep_conv_3x3"), 2)
E = torch.e


class Searched:
    """As much of a Search as a relaxation looks at."""

    def __init__(self, rule, alpha=None, beta=None):
        self.space, self.logits, self.candidate_mask, self.resting = SPACE, {}, {}, {}
        for kind in SPACE.cell_types:
            choices = {"alpha": operation_choice(SPACE, kind), "beta": edge_choice(SPACE, rule)}
            for name, given in (("alpha", alpha), ("beta", beta)):
                shape = choices[name].shape
                self.logits[f"{name}.{kind}"] = torch.zeros(shape) if given is None else given.clone()
                lengths = torch.tensor([len(row) for row in choices[name].labels])
                self.candidate_mask[f"{name}.{kind}"] = torch.arange(shape[1]) < lengths[:, None]


def relaxed(config, searched, epoch, rule="pairs"):
    relaxation = topology_relaxation(rule, config, 30, searched)
    weights = relaxation.compute_weights(searched.logits, StepIndex(0, epoch))
    return weights, relaxation.build_mixture(weights, StepIndex(0, epoch)).operations


def test_edges_are_weighed_by_their_combinations_and_operations_by_a_colder_softmax():
    alpha = torch.tensor([[0.002, 0.0], [0.0, 0.0], [0.0, 0.002], [0.0, 0.0], [0.0, 0.0]])
    beta = torch.tensor([[0.0, 9.0, 9.0], [2.0, 0.0, 0.0]])  # node 2 has one pair, its row is padded
    config = TopologyConfig(epochs=40, temperature_start=2.0)
    weights, mixture = relaxed(config, Searched("pairs", alpha, beta), 50)
    pairs = torch.tensor([[1.0, 0.0, 0.0], [E / (E + 2), 1 / (E + 2), 1 / (E + 2)]])  # at temperature 2
    torch.testing.assert_close(weights["beta.normal"], pairs)
    operations = torch.tensor(
        [[E / (E + 1), 1 / (E + 1)], [0.5, 0.5], [1 / (E + 1), E / (E + 1)], [0.5, 0.5], [0.5, 0.5]]
    )
    torch.testing.assert_close(weights["alpha.reduce"], operations)  # at temperature 2 / 1000
    gamma = torch.tensor([0.5, 0.5, (E + 1) / (E + 2) / 2, (E + 1) / (E + 2) / 2, 1 / (E + 2)])  # Eq. 7
    torch.testing.assert_close(mixture["normal"], gamma[:, None] * operations)
    summed = dataclasses.replace(config, average_edges=False)
    _, mixture = relaxed(summed, Searched("pairs", alpha, beta), 50)
    torch.testing.assert_close(mixture["normal"], 2 * gamma[:, None] * operations)


def test_any_number_of_edges_is_weighed_by_all_combinations():
    """Node 2 may keep {0}, {1} or {0, 1}: with equal weights an edge has 1/3 + 1/3 * 1/2."""
    _, mixture = relaxed(TopologyConfig(), Searched("any"), 30, "any")
    torch.testing.assert_close(mixture["normal"][:2].sum(1), torch.tensor([0.5, 0.5]))
    beta = torch.zeros(2, 7)
    beta[0, 2] = torch.tensor(2.0).log() * 10  # twice the weight of the others at temperature 10
    _, mixture = relaxed(TopologyConfig(), Searched("any", beta=beta), 30, "any")
    torch.testing.assert_close(mixture["normal"][:2].sum(1), torch.tensor([1 / 4 + 1 / 4, 1 / 4 + 1 / 4]))
    beta[0, 0] = torch.tensor(4.0).log() * 10
    _, mixture = relaxed(TopologyConfig(), Searched("any", beta=beta), 30, "any")  # 4 : 1 : 2
    torch.testing.assert_close(mixture["normal"][:2].sum(1), torch.tensor([5 / 7, 2 / 7]))


def test_the_baselines_weigh_edges_one_by_one():
    beta = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 2.0]]).log1p() * 10  # 4 : 2 and 1 : 1 : 3
    _, mixture = relaxed(TopologyConfig(), Searched("edge_weights", beta=beta), 30, "edge_weights")
    torch.testing.assert_close(mixture["normal"].sum(1), torch.tensor([4 / 6, 2 / 6, 1 / 5, 1 / 5, 3 / 5]))
    _, mixture = relaxed(TopologyConfig(), Searched("edge_sigmoid", beta=beta), 30, "edge_sigmoid")
    torch.testing.assert_close(mixture["normal"].sum(1), torch.tensor([4 / 5, 2 / 3, 1 / 2, 1 / 2, 3 / 4]))


@pytest.mark.parametrize(
    ("rule", "row", "inputs"),
    [
        ("edge_weights", [0.2, 0.5, 0.3], [1, 2]),
        ("edge_sigmoid", [0.2, 0.5, 0.3], [1]),  # none above one half: the best
        ("edge_sigmoid", [0.9, 0.51, 0.3], [0, 1]),
        ("edge_sigmoid", [0.6, 0.7, 0.8], [0, 1, 2]),
        ("pairs", [0.2, 0.5, 0.3], [0, 2]),
        ("any", [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4], [0, 1, 2]),
    ],
)
def test_each_rule_derives_its_own_edges(rule, row, inputs):
    searched = Searched(rule)
    width = searched.logits["beta.normal"].shape[1]
    beta = torch.tensor([[1.0] * width, row])
    weights = {f"beta.{k}": beta for k in SPACE.cell_types} | {
        f"alpha.{k}": torch.ones(5, 2) for k in SPACE.cell_types
    }
    edges = derive_from_topology(rule, SPACE, weights)["reduce"].edges
    assert [edge.input for edge in edges if edge.node == 3] == inputs


def test_the_temperature_stays_through_the_warm_up_and_falls_as_eq_9_has_it():
    relaxation = topology_relaxation("pairs", TopologyConfig(), 30, Searched("pairs"))
    series = [relaxation.schedules(StepIndex(0, epoch))["temperature"] for epoch in range(30, 75)]
    assert series[:21] == [10.0] * 21
    theta = series[21] / 10
    assert theta == pytest.approx(0.72, abs=0.002)
    assert series[20:40] == pytest.approx([10 * theta**epoch for epoch in range(20)])
    assert series[39:] == pytest.approx([0.02] * 6)  # and stays while a selection tunes


def test_edges_in_no_open_combination_are_not_computed():
    searched = Searched("pairs")
    searched.candidate_mask["beta.normal"][1] = torch.tensor([False, False, True])  # 1+2
    active = active_edges(searched, "pairs")
    assert active["normal"][2] == frozenset() and active["normal"][3] == frozenset({0, 1})
    assert active["reduce"][2] == frozenset({0, 1})


@pytest.mark.parametrize("groups", ["one", "v2"])
def test_where_none_wins_on_every_edge_a_cell_is_still_derived(groups):
    space = darts_space(("none", "skip_connect", "sep_conv_3x3"), 2)
    still = toy_training(logits=LogitsConfig(learning_rate=0.0, weight_decay=0.0))
    config = toy_config("dots", groups=groups, training=still, epochs=1, warm_up=0)

    def with_none(begin):
        def begin_with_none(*args):
            found = begin(*args)
            for name, logits in found.logits.items():
                if name.startswith("alpha"):
                    logits.data[:, 0] = 10.0
            return found

        return begin_with_none

    stages = [
        dataclasses.replace(stage, initialise=with_none(stage.initialise))
        for stage in plan("dots", config, toy_derivation("pairs"), space)
    ]
    for epoch in run_stages(stages, run_of(still, toy_data()), progress=False):
        assert epoch.weights["alpha.normal"]["3<-2"]["none"] > 0.99
        for cell in epoch.cells.values():
            assert len(cell.edges) == 4 and all(edge.op != "none" for edge in cell.edges)


@pytest.mark.parametrize("topology", ["edge_weights", "edge_sigmoid"])
def test_the_baselines_learn_which_edges_matter(topology):
    last = search_toy("dots", toy_derivation(topology), groups="one")[-1]
    for kind in ("normal", "reduce"):
        row = last.weights[f"beta.{kind}"]["node 3"]
        assert row["0"] < min(row["1"], row["2"])  # 3<-0 can only be noise


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "topology_search.epochs: expected 1 or more, got 0"),
        ({"layers": 2}, "topology_search.layers: expected 3 or more, got 2"),
        ({"temperature_end": 0.0}, "topology_search.temperature_end: expected more than 0, got 0.0"),
        ({"temperature_start": -1.0}, "topology_search.temperature_start: expected more than 0, got -1.0"),
        ({"operation_temperature": 0.0}, "operation_temperature: expected more than 0, got 0.0"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(changes, message):
    with pytest.raises(DotsZooError, match=message):
        TopologyConfig(**changes)
