from dataclasses import replace

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.darts_pt import PerturbationConfig
from dots_zoo.search.methods.p_darts import (
    PDartsConfig,
    derive_limited,
    limited,
    restrict_candidates,
    skip_dropout,
)
from dots_zoo.search.methods.registry import METHODS, Derivation, plan
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.auxiliary_skip import AuxiliaryConfig
from dots_zoo.search.stages.operation_search import best_operations, softmax_relaxation
from dots_zoo.search.stages.stage import StepIndex
from dots_zoo.search.stages.steps import bilevel, train_weights
from helpers.begun_search import begun
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, search_toy, toy_config, toy_data, toy_derivation

NOW = StepIndex(0, 0)
TWO = ("skip_connect", "sep_conv_3x3")
SKIPS = darts_space(TWO, 2)
SMALL = {"depths": (3, 3, 3), "warm_up": 0}
WITHOUT = {"skip_dropout": (0.0, 0.0, 0.0), "skip_limit": None}


def test_the_paper_has_three_searches_of_25_epochs_with_new_supernets_and_rates():
    stages = plan("p_darts", PDartsConfig(), Derivation(), darts_space())
    assert [stage.epochs for stage in stages] == [10, 15] * 3
    assert [stage.step for stage in stages] == [train_weights, bilevel] * 3
    assert all(stage.batch_size == 96 for stage in stages)
    for number in range(3):
        first, second = stages[2 * number : 2 * number + 2]
        assert first.learning_rate(25 * number) == 0.025  # again at the start of every search
        assert second.learning_rate(25 * number + 25) == pytest.approx(0.0)
    logits = PDartsConfig().training.logits
    assert (logits.learning_rate, logits.betas) == (6e-4, (0.5, 0.999))


def test_supernets_grow_deeper_over_the_best_operations_of_every_edge():
    space = darts_space(("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"), 1)
    run, stages, search = begun("p_darts", space, depths=(3, 4, 5), operations=(3, 2))
    assert len(search.supernet.cells) == 3 and search.space == space
    for index, depth, width in ((2, 4, 3), (4, 5, 2)):
        rows = zip(search.space.candidates("normal"), search.logits["alpha.normal"].tolist(), strict=True)
        expected = []
        for names, row in rows:
            ranked = sorted(zip(row, names, strict=True), reverse=True)
            expected.append({name for _, name in ranked[:width]})
        before, search = search, stages[index].initialise(run, search, NOW)
        assert len(search.supernet.cells) == depth and search.supernet is not before.supernet
        assert [set(names) for names in search.space.candidates("normal")] == expected
        for logits in search.logits.values():
            assert (logits == 0).all()
            logits.data.copy_(torch.randn(logits.shape))


def test_a_small_space_keeps_what_it_has():
    run, stages, search = begun("p_darts", SKIPS, **SMALL)
    for stage in stages[1:]:
        search = stage.initialise(run, search, NOW)
    assert all(set(names) == set(TWO) for names in search.space.candidates("normal"))


def test_dropout_falls_in_every_search_and_stands_behind_skip_connections():
    config = PDartsConfig()
    assert [skip_dropout(config, 0, epoch) for epoch in (0, 24)] == [0.0, 0.0]
    assert skip_dropout(config, 1, 25) == pytest.approx(0.4 * 24 / 25)
    assert skip_dropout(config, 1, 34) == pytest.approx(0.4 * 15 / 25)  # the last that trains weights only
    assert skip_dropout(config, 1, 35) == pytest.approx(0.4)
    assert skip_dropout(config, 1, 40) == pytest.approx(0.4 * 0.36787944)  # exp(-0.2 * 5)
    assert skip_dropout(config, 2, 74) == pytest.approx(0.7 * 0.06081006)  # exp(-0.2 * 14)
    run, stages, search = begun("p_darts", SKIPS, skip_dropout=(0.5, 0.4, 0.7), **SMALL)
    relaxation = stages[0].relax(search)
    assert relaxation.mixture(search.logits, NOW).skip_dropout == 0.5
    assert relaxation.schedules(NOW)["skip_dropout"] == 0.5
    assert stages[1].relax(search).mixture(search.logits, StepIndex(0, 4)).skip_dropout == 0.4
    run, stages, search = begun("p_darts", SKIPS, **SMALL, **WITHOUT)
    assert stages[2].relax(search).mixture(search.logits, StepIndex(0, 8)).skip_dropout == 0.0


SKIPPING = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.55, 0.45], [0.3, 0.35]])


def edges_of(cell):
    return [(edge.node, edge.input, edge.op) for edge in cell.edges]


def test_the_weakest_of_too_many_skip_connections_go_and_the_cell_is_derived_again():
    """2<-0, 2<-1, 3<-0 and 3<-1 are chosen as skip connections. 3<-1 loses its own and stays as 0.45; then
    2<-0 loses its own and stays, since node 2 has no other edge."""
    weights = {"alpha.normal": SKIPPING, "alpha.reduce": SKIPPING}
    found = derive_limited(2, SKIPS, weights)
    assert edges_of(found["normal"]) == [
        (2, 0, "sep_conv_3x3"), (2, 1, "skip_connect"), (3, 0, "skip_connect"), (3, 1, "sep_conv_3x3")
    ]  # fmt: skip
    assert [op for *_, op in edges_of(found["reduce"])] == ["skip_connect"] * 4  # the normal cell only
    assert edges_of(derive_limited(None, SKIPS, weights)["normal"]) == edges_of(found["reduce"])
    kept = limited(2, SKIPS, {"normal": SKIPPING, "reduce": SKIPPING})["normal"]
    assert kept[:, 0].tolist() == pytest.approx([0.0, 0.7, 0.8, 0.0, 0.3])
    assert SKIPPING[0, 0] == pytest.approx(0.6)  # the weights themselves are not touched


def test_an_edge_that_loses_its_skip_connection_may_lose_its_place():
    weights = SKIPPING.clone()
    weights[4] = torch.tensor([0.1, 0.5])  # 3<-2 beats the 0.45 that is left of 3<-1
    found = derive_limited(2, SKIPS, {"alpha.normal": weights, "alpha.reduce": weights})["normal"]
    assert edges_of(found)[2:] == [(3, 0, "skip_connect"), (3, 2, "sep_conv_3x3")]


def test_one_that_comes_in_anew_goes_too():
    """Without skip connections allowed, 3<-2 comes in with one when 3<-1 falls to 0.1, and loses it."""
    weights = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1], [0.5, 0.15]])
    found = derive_limited(0, SKIPS, {"alpha.normal": weights, "alpha.reduce": weights})["normal"]
    assert edges_of(found)[2:] == [(3, 0, "sep_conv_3x3"), (3, 2, "sep_conv_3x3")]


def test_edges_that_can_be_nothing_else_keep_their_skip_connection():
    rows = (("skip_connect",), ("skip_connect", "skip_connect", "none"))
    space = SearchSpace(1, (CellSpace("normal", rows),))
    weights = {"alpha.normal": torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.5, 0.1]])}
    assert [op for *_, op in edges_of(derive_limited(0, space, weights)["normal"])] == ["skip_connect"] * 2


def test_all_copies_of_a_skip_connection_go():
    names = ("skip_connect", "skip_connect", "sep_conv_3x3")
    weights = {f"alpha.{kind}": torch.tensor([[0.5, 0.4, 0.1]] * 2) for kind in ("normal", "reduce")}
    found = derive_limited(1, darts_space(names, 1), weights)["normal"]
    assert sorted(op for *_, op in edges_of(found)) == ["sep_conv_3x3", "skip_connect"]


def test_what_survives_for_a_topology_search_respects_the_limit():
    run, stages, search = begun("p_darts", SKIPS, **SMALL)
    for logits in search.logits.values():
        logits.data.copy_(SKIPPING.log())
    config = toy_config("p_darts", **SMALL)
    survivors = METHODS["p_darts"].surviving(config, 1, restrict_candidates(config, search))
    rows = survivors.candidates("normal")
    assert rows == (("sep_conv_3x3",), ("skip_connect",), ("skip_connect",), *(("sep_conv_3x3",),) * 2)
    assert survivors.candidates("reduce")[:4] == (("skip_connect",),) * 4
    both = METHODS["p_darts"].surviving(config, 2, restrict_candidates(config, search)).candidates("normal")
    assert sum("skip_connect" in names for names in both) == 2  # what is closed does not survive
    free = replace(config, skip_limit=None)
    assert (
        best_operations(1, restrict_candidates(free, search)).candidates("normal")[:4]
        == (("skip_connect",),) * 4
    )


def test_the_plan_narrows_before_a_topology_search_and_before_a_selection():
    for topology in ("pairs", "none"):
        selection = "magnitude" if topology == "pairs" else "perturbation_magnitude"
        derivation = toy_derivation(topology, selection=selection, keep=2 if topology == "pairs" else 1)
        run, stages, search = begun("p_darts", SKIPS, derivation, skip_limit=1, **SMALL)
        found = stages[3].initialise(run, search, NOW)  # the first stage behind the searches
        if topology == "pairs":
            assert sum("skip_connect" in names for names in found.space.candidates("normal")) == 1
        else:
            assert int(found.candidate_mask["alpha.normal"][:, 0].sum()) <= 1


def test_skip_connections_of_the_derived_cell_come_first_then_the_strongest():
    run, stages, search = begun("p_darts", SKIPS, **SMALL)
    weights = torch.tensor([[0.45, 0.55], [0.6, 0.4], [0.3, 0.7], [0.3, 0.7], [0.4, 0.6]])
    for logits in search.logits.values():
        logits.data.copy_(weights.log())
    opened = restrict_candidates(toy_config("p_darts", **SMALL), search).candidate_mask["alpha.normal"][:, 0]
    assert opened.tolist() == [True, True, False, False, False]  # 2<-1 is in the cell, 0.45 is the strongest
    one = restrict_candidates(toy_config("p_darts", skip_limit=1, **SMALL), search).candidate_mask[
        "alpha.normal"
    ][:, 0]
    assert one.tolist() == [False, True, False, False, False]


def test_p_darts_minus_has_a_branch_that_fades_in_every_search():
    numbers = {**SMALL, **WITHOUT, "auxiliary": AuxiliaryConfig("skip"), "epochs": 3}
    epochs = search_toy("p_darts", space=darts_space(TWO, 1), data=toy_data(64), **numbers)
    assert [epoch.figures["auxiliary_weight"] for epoch in epochs] == [1.0, 0.5, 0.0] * 3
    run, stages, search = begun("p_darts", SKIPS, **numbers)
    assert all(edge.auxiliary is not None for edge in search.supernet.cells[0].nodes.edges)
    run, stages, search = begun("p_darts", SKIPS, **SMALL, **WITHOUT)
    assert all(edge.auxiliary is None for edge in search.supernet.cells[0].nodes.edges)


def test_without_priors_and_branch_it_weighs_and_derives_as_darts_does():
    run, stages, search = begun("p_darts", SKIPS, **SMALL, **WITHOUT)
    relaxation, plain = stages[-1].relax(search), softmax_relaxation(search)
    weights = plain.compute_weights(search.logits, NOW)
    assert all(
        torch.equal(relaxation.compute_weights(search.logits, NOW)[name], weights[name]) for name in weights
    )
    mixture = relaxation.mixture(search.logits, NOW)
    assert (mixture.skip_dropout, mixture.auxiliary) == (0.0, 0.0)


def test_nas_bench_201_needs_depths_that_are_divisible_by_three():
    with pytest.raises(DotsZooError, match="divisible by 3, such as 6, 12, 18, got 5, 11, 17"):
        plan("p_darts", PDartsConfig(), Derivation(), named_space("S6"))
    epochs = search_toy(
        "p_darts", space=named_space("S6"), data=toy_data(64), depths=(3, 3, 3), epochs=1, warm_up=0
    )
    cell = epochs[-1].cells["cell"]
    assert len(cell.edges) == 6
    assert sum(edge.op == "skip_connect" for edge in cell.edges) <= 2


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"depths": (5, 2, 3)}, "layers: expected 3 or more, got 2"),
        ({"operations": (5, 0)}, "operations: expected 1 or more, got 0"),
        (
            {"skip_dropout": (0.0, 1.1, 0.0)},
            r"skip_dropout: expected rates from 0 to 1, got \(0.0, 1.1, 0.0\)",
        ),
        ({"skip_limit": -1}, "skip_limit: expected 0 or more, got -1"),
    ],
)
def test_the_numbers_are_checked(numbers, message):
    with pytest.raises(DotsZooError, match=message):
        PDartsConfig(**numbers)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_finds_the_planted_operation(seed):
    space = darts_space(PLANTED, 2)
    cells = search_toy("p_darts", space=space, seed=seed, depths=(3, 3, 3), epochs=3, warm_up=1)[-1].cells
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"sep_conv_3x3"}


def test_perturbation_selects_in_the_last_supernet():
    derivation = toy_derivation(selection="perturbation", perturbation=PerturbationConfig(1))
    numbers = {"depths": (3, 3, 4), "epochs": 1, "warm_up": 0, "skip_limit": 1}
    epochs = search_toy("p_darts", derivation, SKIPS, toy_data(64), **numbers)
    assert len(epochs) == 3 + 5 + 1
    assert sum(edge.op == "skip_connect" for edge in epochs[-1].cells["normal"].edges) <= 1
    assert [edge.node for edge in epochs[-1].cells["normal"].edges] == [2, 2, 3, 3]
