from dataclasses import replace

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.darts import DartsConfig
from dots_zoo.search.methods.darts_pt import (
    PerturbationConfig,
    SelectionCriterion,
    choosable,
    decisions,
    performance,
)
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.stage import StepIndex
from dots_zoo.search.stages.steps import bilevel, train_weights
from dots_zoo.search.stages.validate import validate
from helpers.begun_search import begun, judged
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, search_toy, toy_config, toy_data, toy_derivation

UNIFORM = darts_space(PLANTED, 2)
THREE = darts_space(("none", "skip_connect", "sep_conv_3x3"), 2)
NOW = StepIndex(0, 0)


def perturbed(topology="none", selection="perturbation", **numbers):
    return toy_derivation(topology, selection=selection, perturbation=PerturbationConfig(1, **numbers))


def run_decisions(run, stages, search):
    """All decisions without the tuning between them: the search after each."""
    found = []
    for stage in stages:
        if stage.name.startswith("perturbation"):
            search = stage.initialise(run, search, NOW)
            found.append(search)
    return found


def test_the_paper_decides_14_edges_and_3_nodes_with_5_epochs_between_at_a_tenth_of_the_rate():
    config = DartsConfig()
    stages = plan("darts", config, Derivation(selection="perturbation"), named_space("S0_without_none"))
    search, *found = stages
    assert len(found) == 17 and [stage.epochs for stage in found] == [5] * 16 + [0]
    assert all(stage.step is bilevel and stage.images == "a" for stage in found)  # alpha keeps training
    assert found[0].learning_rate(50) == pytest.approx(0.0025)
    assert found[8].learning_rate(90) == pytest.approx((0.0025 + 0.001) / 2)  # half of the 80 epochs
    fixed = plan("fixed_alpha", toy_config("fixed_alpha"), perturbed(), UNIFORM)
    assert all(stage.step is train_weights for stage in fixed)


def test_how_many_decisions_a_space_needs():
    assert decisions(named_space("S0"), None, False) == (14, 3)
    assert decisions(named_space("S6"), None, False) == (6, 0)  # all edges stay
    assert decisions(named_space("S0"), "pairs", True) == (0, 3)  # one pair enters node 2
    assert decisions(named_space("S0"), "any", False) == (14, 4)
    rows = (("none", "skip_connect"), ("skip_connect", "sep_conv_3x3"))
    assert decisions(SearchSpace(1, (CellSpace("normal", rows),)), None, False) == (1, 0)


def test_a_weight_is_set_to_zero_and_the_others_stay_as_they_are(monkeypatch):
    run, stages, search = begun("darts", THREE, warm_up=0)
    selection = SelectionCriterion("accuracy", stages[0].relax, 8)
    seen = judged(monkeypatch, torch.ones(5, 3))
    accuracy, _ = performance(selection, run, search, NOW, [("alpha.normal", 3, 2)])
    expected = search.logits["alpha.normal"].detach().softmax(dim=1)
    expected[3, 2] = 0.0
    torch.testing.assert_close(seen[0].operations["normal"], expected)
    assert accuracy == pytest.approx(expected.sum().item())


def test_it_measures_the_supernet_on_half_b():
    run, stages, search = begun("darts", THREE, warm_up=0)
    figures = validate(run, search, stages[0].relax(search), NOW, 8)
    loss, accuracy = figures["validation_loss"], figures["validation_accuracy"]
    assert performance(SelectionCriterion("loss", stages[0].relax, 8), run, search, NOW, []) == (
        -loss,
        accuracy,
    )
    assert performance(SelectionCriterion("accuracy", stages[0].relax, 8), run, search, NOW, []) == (
        accuracy,
        -loss,
    )


@pytest.mark.parametrize("by", ["accuracy", "loss"])
def test_the_operation_that_is_missed_most_wins_whatever_it_weighs_and_none_is_not_asked(monkeypatch, by):
    run, stages, search = begun("darts", THREE, perturbed(by=by), warm_up=0)
    for logits in search.logits.values():
        logits.data.copy_(torch.tensor([[0.0, 2.0, 1.0]] * 5))  # skip_connect weighs most
    worth = torch.tensor([[9.0, 0.1, 5.0]] * 5)  # none is worth more than all
    judged(monkeypatch, worth)
    first, *_, last = run_decisions(run, stages, search)
    assert int((first.candidate_mask["alpha.normal"].sum(dim=1) == 1).sum()) == 1  # one edge a stage
    assert int((first.candidate_mask["alpha.reduce"].sum(dim=1) == 1).sum()) == 1
    operations = [edge.op for edge in last_cells(stages, last)["normal"].edges]
    assert operations == ["sep_conv_3x3"] * 4


def last_cells(stages, search):
    return stages[-1].derive(search.space, stages[-1].relax(search).compute_weights(search.logits, NOW))


def test_equal_accuracies_are_told_apart_by_the_loss(monkeypatch):
    run, stages, search = begun("darts", UNIFORM, perturbed(), warm_up=0)
    worth = torch.tensor([[0.0, 1.0]] * 5)
    judged(monkeypatch, worth, accuracy=0.5)
    row = run_decisions(run, stages, search)[-1].candidate_mask["alpha.normal"]
    assert not row[:, 0].any()


def test_edges_come_in_a_random_order_that_the_seed_decides(monkeypatch):
    judged(monkeypatch, torch.ones(14, 3))
    orders = []
    for seed in (0, 0, 1):
        space = darts_space(("none", "skip_connect", "sep_conv_3x3"), 4)
        run, stages, search = begun("darts", space, perturbed(), warm_up=0)
        found, order = search, []
        for number, stage in enumerate(stages[1:15]):
            before = found.candidate_mask["alpha.normal"]
            found = stage.initialise(run, found, StepIndex(seed, number))
            order += (found.candidate_mask["alpha.normal"] != before).any(dim=1).nonzero().flatten().tolist()
        orders.append(order)
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(14)) != orders[0]


def test_of_a_node_those_edges_go_first_that_are_missed_least(monkeypatch):
    """An edge of node 3 is worth what it is alone: 3<-1 goes, though its operation weighed most."""
    run, stages, search = begun("darts", UNIFORM, perturbed(), warm_up=0)
    judged(monkeypatch, torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 3.0], [0.0, 1.0], [0.0, 2.0]]))
    search.logits["alpha.normal"].data[3, 1] = 9.0
    last = run_decisions(run, stages, search)[-1]
    assert [(edge.node, edge.input) for edge in last_cells(stages, last)["normal"].edges][2:] == [
        (3, 0),
        (3, 2),
    ]
    weights = stages[-1].relax(last).compute_weights(last.logits, NOW)["alpha.normal"].detach()
    expected = torch.tensor([[0.0, 1.0]] * 5)
    expected[3] = 0.0
    torch.testing.assert_close(weights, expected)  # decided rows are one, closed ones zero


def test_edges_of_a_large_node_go_one_at_a_time(monkeypatch):
    """Without a partner each of two edges is missed by nobody, without both everybody misses them."""
    space = darts_space(("sep_conv_3x3",), 3)
    run, stages, search = begun("darts", space, perturbed(), warm_up=0)

    def worth(mixture):
        last = mixture.operations["normal"][5:, 0]  # 4<-0 ... 4<-3
        return (last[:2].max() + 0.1 * last[2:].sum()).item()  # one of the first two is enough

    judged(monkeypatch, worth)
    last = run_decisions(run, stages, search)[-1]
    inputs = [edge.input for edge in last_cells(stages, last)["normal"].edges if edge.node == 4]
    assert len(inputs) == 2 and len({0, 1} & set(inputs)) == 1


def test_the_control_takes_the_largest_weights_whatever_they_are_worth(monkeypatch):
    run, stages, search = begun("darts", UNIFORM, perturbed(selection="perturbation_magnitude"), warm_up=0)
    assert [stage.epochs for stage in stages[1:]] == [1] * 5 + [0]  # the same tuning
    strong = torch.tensor([[0.0, 0.5], [0.6, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 3.0]])
    judged(monkeypatch, -strong)
    search.logits["alpha.normal"].data.copy_(strong)
    found = run_decisions(run, stages, search)
    cell = last_cells(stages, found[-1])["normal"]
    assert [edge.op for edge in cell.edges] == ["sep_conv_3x3", "noise", "sep_conv_3x3", "sep_conv_3x3"]
    assert [edge.input for edge in cell.edges] == [0, 1, 0, 2]  # 3<-1 was weakest before it was decided
    torch.testing.assert_close(found[-1].method_state["strength.normal"], strong.softmax(dim=1).amax(dim=1))


def test_the_strength_of_an_edge_is_that_at_its_decision():
    derivation = perturbed(selection="perturbation_magnitude")
    run, stages, search = begun("darts", UNIFORM, derivation, warm_up=0)
    for number, stage in enumerate(stages[1:6], 1):
        search.logits["alpha.normal"].data.fill_(0.0)[:, 1] = float(number)
        before = search.candidate_mask["alpha.normal"]
        search = stage.initialise(run, search, StepIndex(0, number))
        [row] = (search.candidate_mask["alpha.normal"] != before).any(dim=1).nonzero().flatten().tolist()
        expected = torch.tensor(float(number)).sigmoid()
        torch.testing.assert_close(search.method_state["strength.normal"][row], expected)


def test_sgd_starts_anew_once_and_adam_goes_on():
    run, stages, search = begun("darts", UNIFORM, perturbed(), warm_up=0)
    first = stages[1].initialise(run, search, NOW)
    assert first.weights_optimiser is not search.weights_optimiser
    assert first.logits_optimiser is search.logits_optimiser and first.supernet is search.supernet
    assert stages[2].initialise(run, first, NOW).weights_optimiser is first.weights_optimiser


def test_an_edge_with_nothing_else_keeps_its_operation_and_is_never_asked():
    rows = (("none", "sep_conv_3x3"), ("sep_conv_3x3",), ("none",), *(("none", "sep_conv_3x3"),) * 2)
    space = SearchSpace(2, tuple(CellSpace(kind, rows) for kind in ("normal", "reduce")))
    run, stages, search = begun("darts", space, perturbed(), warm_up=0)
    assert [stage.name for stage in stages[1:]] == ["perturbation 1 of 1"]
    found = stages[1].initialise(run, search, NOW)
    assert found.candidate_mask["alpha.normal"].tolist()[:2] == [[False, True], [True, False]]
    assert choosable(found, "alpha.normal", 2, None) == []
    assert [(e.node, e.input) for e in last_cells(stages, found)["normal"].edges] == [
        (2, 0),
        (2, 1),
        (3, 1),
        (3, 2),
    ]


@pytest.mark.parametrize("rule", ["pairs", "any"])
def test_behind_a_topology_search_combinations_of_edges_are_alternatives(monkeypatch, rule):
    derivation = perturbed(rule, "perturbation")
    run, stages, search = begun("darts", UNIFORM, replace(derivation, keep=2), warm_up=0)
    topology = [stage for stage in stages if stage.name.startswith("topology")]
    search = topology[0].initialise(run, search, NOW)
    rows = zip((1.0, 1.0, 3.0, 1.0, 2.0), search.space.candidates("normal"), strict=True)
    judged(monkeypatch, torch.tensor([[own * (name != "noise") for name in names] for own, names in rows]))
    found = run_decisions(run, stages, search)
    assert len(found) == 5 + (1 if rule == "pairs" else 2)
    assert (
        not found[4].candidate_mask["beta.normal"].equal(found[-1].candidate_mask["beta.normal"])
    )  # rows of alpha first
    assert (found[4].candidate_mask["alpha.normal"].sum(dim=1) == 1).all()
    assert (found[-1].candidate_mask["beta.normal"].sum(dim=1) == 1).all()
    edges = [
        (edge.input, edge.op) for edge in last_cells(stages, found[-1])["normal"].edges if edge.node == 3
    ]
    if rule == "pairs":
        assert edges == [(0, "sep_conv_3x3"), (2, "sep_conv_3x3")]  # worth 3 and 2
    else:
        assert edges == [(0, "sep_conv_3x3")]  # 1/N(c): alone it weighs most


def test_one_operation_an_edge_leaves_only_combinations_to_decide():
    stages = plan("darts", toy_config("darts"), perturbed("pairs"), UNIFORM)
    assert [stage.name for stage in stages if stage.name.startswith("perturbation")] == [
        "perturbation 1 of 1"
    ]


def test_an_edge_of_partial_channels_goes_with_its_own_weight(monkeypatch):
    run, stages, search = begun("pc_darts", UNIFORM, perturbed(), warm_up=0)
    last = run_decisions_until_node(run, stages, search)
    seen = judged(monkeypatch, lambda mixture: 0.0)
    stages[-1].initialise(run, last, NOW)
    assert [int((mixture.edges["normal"] == 0).sum()) for mixture in seen[:3]] == [1, 1, 1]


def run_decisions_until_node(run, stages, search):
    for stage in stages[1:-1]:
        search = stage.initialise(run, search, NOW)
    return search


def test_nas_bench_201_decides_six_edges_and_may_choose_none(monkeypatch):
    run, stages, search = begun("darts", named_space("S6"), perturbed(), warm_up=0)
    worth = torch.zeros(6, 5)
    worth[:3, 0], worth[3:, 3] = 1.0, 1.0

    judged(monkeypatch, worth, "cell")
    found = run_decisions(run, stages, search)
    assert len(found) == 6
    operations = [edge.op for edge in last_cells(stages, found[-1])["cell"].edges]
    assert operations == ["none"] * 3 + ["nor_conv_3x3"] * 3


@pytest.mark.parametrize("topology", ["edge_weights", "edge_sigmoid"])
def test_weights_of_single_edges_are_refused(topology):
    with pytest.raises(DotsZooError, match=f"topology none, pairs or any.*got {topology}"):
        plan("darts", toy_config("darts"), perturbed(topology), UNIFORM)


def test_the_numbers_are_checked():
    with pytest.raises(DotsZooError, match="perturbation.tuning: expected 0 or more, got -1"):
        PerturbationConfig(tuning=-1)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_finds_the_planted_operation_where_the_weights_say_nothing(seed):
    """With alpha fixed, magnitude would take the operation that is listed first: noise."""
    cells = search_toy("fixed_alpha", perturbed(by="loss"), UNIFORM, toy_data(128), seed=seed)[-1].cells
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"sep_conv_3x3"}
    assert all(len(cell.edges) == 4 for cell in cells.values())
