import math

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.methods.sgas import SgasConfig, decided_edges, decisions, remember, scaled, scores
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.stages.stage import StepIndex
from dots_zoo.search.stages.steps import bilevel
from helpers.begun_search import begun, judged
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, PLANTED_SPACE, search_toy, toy_config, toy_data, toy_derivation

UNIFORM = darts_space(PLANTED, 2)
THREE = darts_space(("none", "skip_connect", "sep_conv_3x3"), 2)
MEMBERS = torch.tensor([[False, True, True]] * 3)


def entropy(*shares):
    return -sum(share * math.log(share) for share in shares) / math.log(2)


def test_the_paper_warms_up_for_10_epochs_and_decides_8_edges_every_5_with_a_growing_batch():
    stages = plan("sgas", SgasConfig(), Derivation(), darts_space())
    assert [stage.epochs for stage in stages] == [10] + [5] * 7 + [0]
    assert [stage.batch_size for stage in stages] == [64 + 8 * number for number in range(9)]
    assert all(stage.step is bilevel for stage in stages)
    assert stages[0].learning_rate(25) == pytest.approx(0.013)  # half of the 50 epochs of the cosine


def test_importance_and_certainty_leave_none_out_and_are_scaled():
    weights = torch.tensor([[[0.6, 0.2, 0.2], [0.2, 0.7, 0.1], [0.1, 0.5, 0.4]]])  # one epoch, three edges
    importance = [0.0, 0.8, 1.0]  # 0.4, 0.8, 0.9
    certainty = [1 - entropy(0.5, 0.5), 1 - entropy(7 / 8, 1 / 8), 1 - entropy(5 / 9, 4 / 9)]
    expected = [i * c / max(certainty) for i, c in zip(importance, certainty, strict=True)]
    torch.testing.assert_close(scores(weights, MEMBERS, 1), torch.tensor(expected))


def test_criterion_2_multiplies_with_what_the_last_epochs_have_in_common():
    now = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.7, 0.1], [0.1, 0.5, 0.4]])
    old = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.4, 0.4], [0.1, 0.4, 0.5]])
    older = torch.tensor([[0.6, 0.1, 0.3], [0.2, 0.7, 0.1], [0.1, 0.4, 0.5]])
    common = [(1 + 0.75) / 2, (0.625 + 1) / 2, 8 / 9]  # sums of the smaller shares, over two epochs
    stability = [(value - min(common)) / (max(common) - min(common)) for value in common]
    first = scores(now[None], MEMBERS, 1)
    torch.testing.assert_close(
        scores(torch.stack([older, old, now]), MEMBERS, 2), first * torch.tensor(stability)
    )


def test_values_are_scaled_to_one_and_equal_ones_to_zero():
    assert scaled(torch.tensor([2.0, 4.0, 3.0])).tolist() == [0.0, 1.0, 0.5]
    assert scaled(torch.tensor([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_an_edge_of_one_operation_is_certain_and_rows_may_differ_in_length():
    weights = torch.tensor([[[1.0, 0.0, 0.0], [0.7, 0.3, 0.0], [0.5, 0.0, 0.5]]])
    members = torch.tensor([[True, False, False], [True, True, False], [False, True, True]])
    torch.testing.assert_close(scores(weights, members, 1)[0], torch.tensor(1.0))


def decided_search(space, **changes):
    """The search after all decisions, and the edges of the normal cell in the order of their decision."""
    run, stages, search = begun("sgas", space, warm_up=1, interval=1, **changes)
    order = []
    for number, stage in enumerate(stages[1:]):
        search = stages[0].after(search, StepIndex(0, number), {})
        before = decided_edges(search)["normal"]
        search = stage.initialise(run, search, StepIndex(0, number + 1))
        order += (decided_edges(search)["normal"] != before).nonzero().flatten().tolist()
    return stages, search, order


def test_the_best_edge_is_decided_and_a_node_with_two_closes_its_others():
    stages, search, order = decided_search(THREE)
    assert len(order) == 4 and decisions(THREE) == 4
    opened = search.candidate_mask["alpha.normal"].sum(dim=1).tolist()
    assert sorted(opened) == [0, 1, 1, 1, 1] and opened[:2] == [1, 1]
    assert not search.candidate_mask["alpha.normal"][:, 0].any()  # none is never decided
    weights = stages[-1].relax(search).compute_weights(search.logits, StepIndex(0, 9))
    cell = stages[-1].derive(search.space, weights)["normal"]
    logits = search.logits["alpha.normal"].tolist()
    for edge in cell.edges:
        row = logits[search.space.edges.index((edge.node, edge.input))]
        assert edge.op == ("skip_connect" if row[1] > row[2] else "sep_conv_3x3")


def test_the_order_is_that_of_the_scores():
    run, stages, search = begun("sgas", THREE, warm_up=1, interval=1)
    search.logits["alpha.normal"].data.copy_(
        torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0], [-2.0, 0.0, 0.0], [-2.0, 0.0, 3.0], [-1.0, 0.0, 1.0]])
    )
    search = remember(4, search, StepIndex(0, 0), {})
    assert stages[1].initialise(run, search, StepIndex(0, 1)).candidate_mask["alpha.normal"].sum(
        dim=1
    ).tolist() == [
        3,
        3,
        3,
        1,
        3,
    ]


def test_a_decided_edge_keeps_its_weights_in_the_scores():
    run, stages, search = begun("sgas", THREE, warm_up=1, interval=1)
    search = remember(4, search, StepIndex(0, 0), {})
    search = stages[1].initialise(run, search, StepIndex(0, 1))
    [edge] = decided_edges(search)["normal"].nonzero().flatten().tolist()
    for logits in search.logits.values():
        logits.data += torch.randn(logits.shape)
    search = remember(4, search, StepIndex(0, 1), {})
    first, second = search.method_state["weights.normal"]
    same = (first == second).all(dim=1).tolist()
    assert same == [number == edge for number in range(5)]


def test_as_many_epochs_are_remembered_as_stability_looks_back():
    _, _, search = begun("sgas", THREE)
    for epoch in range(9):
        search.logits["alpha.normal"].data.fill_(0.0)[:, 2] = epoch
        search = remember(4, search, StepIndex(0, epoch), {})
    kept = search.method_state["weights.normal"][:, 0]
    expected = torch.tensor([[0.0, 0.0, epoch] for epoch in (4.0, 5.0, 6.0, 7.0, 8.0)]).softmax(dim=1)
    torch.testing.assert_close(kept, expected)


@pytest.mark.parametrize(("criterion", "decided"), [(1, 3), (2, 1)])
def test_criterion_2_passes_over_the_best_edge_where_it_is_unstable(criterion, decided):
    run, stages, search = begun("sgas", THREE, warm_up=1, interval=1, criterion=criterion)
    logits = search.logits["alpha.normal"].data
    logits.copy_(torch.tensor([[0.0, 0, 0], [1, 0, 2], [-2, 0, 0], [-2, 3, 0], [-1, 0, 1]]))
    search = remember(4, search, StepIndex(0, 0), {})
    logits[3] = torch.tensor([-2.0, 0, 3])  # the best edge, which preferred the other operation before
    search = remember(4, search, StepIndex(0, 1), {})
    rows = stages[1].initialise(run, search, StepIndex(0, 2)).candidate_mask["alpha.normal"].sum(dim=1)
    assert (rows == 1).nonzero().flatten().tolist() == [decided]


def test_nas_bench_201_decides_all_six_edges_and_closes_none():
    run, stages, search = begun("sgas", named_space("S6"), warm_up=1, interval=1)
    assert len(stages) == 7
    for number, stage in enumerate(stages[1:]):
        search = stage.initialise(
            run, remember(4, search, StepIndex(0, number), {}), StepIndex(0, number + 1)
        )
    assert (search.candidate_mask["alpha.cell"].sum(dim=1) == 1).all()


def test_perturbation_chooses_the_operation_of_the_edge_at_the_same_times(monkeypatch):
    judged(monkeypatch, torch.tensor([[9.0, 2.0, 1.0]] * 5))
    derivation = toy_derivation(selection="perturbation")
    run, stages, search = begun("sgas", THREE, derivation, warm_up=1, interval=1)
    assert len(stages) == 5 and [stage.epochs for stage in stages] == [1, 1, 1, 1, 0]
    for logits in search.logits.values():
        logits.data.copy_(torch.tensor([[0.0, 1.0, 1.2]] * 5))
    for number, stage in enumerate(stages[1:]):
        search = stage.initialise(
            run, remember(4, search, StepIndex(0, number), {}), StepIndex(0, number + 1)
        )
    decided = search.candidate_mask["alpha.normal"].sum(dim=0).tolist()
    assert decided == [0, 4, 0]  # skip_connect weighs less than sep_conv_3x3 and is missed more


def test_a_topology_search_is_refused():
    with pytest.raises(
        DotsZooError, match="it decides about edges itself: expected topology none, got pairs"
    ):
        plan("sgas", toy_config("sgas"), toy_derivation("pairs"), UNIFORM)


def test_the_numbers_are_checked():
    with pytest.raises(DotsZooError, match="interval: expected 1 or more, got 0"):
        SgasConfig(interval=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_finds_the_planted_operation(seed):
    cells = search_toy("sgas", space=UNIFORM, seed=seed, warm_up=3, interval=1)[-1].cells
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"sep_conv_3x3"}
    assert all([edge.node for edge in cell.edges] == [2, 2, 3, 3] for cell in cells.values())


def test_a_run_ends_with_two_decided_edges_a_node():
    epochs = search_toy("sgas", space=PLANTED_SPACE, data=toy_data(192), warm_up=1, interval=1, criterion=2)
    assert [epoch.stage for epoch in epochs] == [
        "warm-up search", *[f"decision {number} of 4" for number in (1, 2, 3, 4)]
    ]  # fmt: skip
    rows = epochs[-1].weights["alpha.normal"]
    assert sorted(max(row.values()) for row in rows.values()) == [0.0, 1.0, 1.0, 1.0, 1.0]
