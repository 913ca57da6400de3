from collections import Counter

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.random_search import RandomSearchConfig
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.space.discretise import cells_of
from dots_zoo.search.space.named import S0, darts_space, named_space
from dots_zoo.search.stages.stage import StepIndex
from helpers.first_step import first_step, values
from helpers.toy_search import PLANTED, search_toy, toy_derivation, toy_training

UNIFORM = darts_space(PLANTED, 2)
SPACE = darts_space(S0, 2)


def drawn(seed, space=SPACE):
    """The cells of one draw."""
    [epoch] = search_toy("random_search", space=space, seed=seed, epochs=0)
    return epoch.cells


def test_it_decides_without_training():
    [stage] = plan("random_search", RandomSearchConfig(), Derivation(), darts_space())
    assert stage.epochs == 0
    [epoch] = search_toy("random_search", space=SPACE, epochs=0)
    assert "loss" not in epoch.figures
    assert all(len(cell.edges) == 4 for cell in epoch.cells.values())


def test_the_seed_alone_decides():
    assert drawn(3) == drawn(3)
    assert len({str(drawn(seed)) for seed in range(6)}) == 6
    normal, reduce = drawn(0).values()
    assert normal != reduce
    trained = search_toy("random_search", space=SPACE, seed=3, epochs=1)
    assert trained[-1].cells == drawn(3)  # training changes nothing of it


def test_every_pair_of_edges_and_every_operation_is_as_likely_as_any_other():
    [stage] = plan(
        "random_search",
        RandomSearchConfig(layers=3, channels=4, training=toy_training()),
        Derivation(),
        SPACE,
    )
    context = first_step("random_search", SPACE, epochs=0).context
    pairs, operations = Counter(), Counter()
    for seed in range(600):
        logits = {
            name: torch.randn(x.shape, generator=StepIndex(seed, 0).generator(f"random {name}"))
            for name, x in context.search.logits.items()
        }
        weights = context.relaxation.compute_weights(logits, StepIndex(0, 0))
        edges = stage.derive(SPACE, weights)["normal"].edges
        pairs[tuple(edge.input for edge in edges if edge.node == 3)] += 1
        operations.update(edge.op for edge in edges)
    assert set(pairs) == {(0, 1), (0, 2), (1, 2)}
    assert all(abs(count / 600 - 1 / 3) < 0.07 for count in pairs.values())
    assert set(operations) == set(S0) - {"none"}
    assert all(abs(count / 2400 - 1 / 7) < 0.03 for count in operations.values())


def test_the_cell_is_that_of_the_drawn_logits():
    """Standard normal ones, drawn for every kind of cell apart."""
    context = first_step("random_search", SPACE, epochs=0).context
    config = RandomSearchConfig(epochs=0, layers=3, channels=4, training=toy_training(5))
    [stage] = plan("random_search", config, Derivation(), SPACE)
    search = stage.initialise(context.run, None, StepIndex(5, 0))
    for name, logits in search.logits.items():
        expected = torch.randn(5, 8, generator=StepIndex(5, 0).generator(f"random {name}"))
        assert torch.equal(logits.detach(), expected)
    alphas = {kind: search.logits[f"alpha.{kind}"].softmax(dim=-1) for kind in SPACE.cell_types}
    assert drawn(5) == cells_of(SPACE, alphas)


def test_with_epochs_the_weights_train_and_no_logit_does():
    found = first_step("random_search", UNIFORM)
    assert found.stage.epochs == 4
    assert (found.stage.images, found.stage.architecture_images) == ("a", None)
    before = values(found.context)
    assert set(found.step()) == {"loss", "accuracy"}
    after = values(found.context)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert set(found.context.search.logits) <= still and len(still) < len(before) / 2


def test_a_topology_search_may_follow_it():
    derivation = Derivation("pairs", topology_search=TopologyConfig(epochs=2, layers=3))
    epochs = search_toy("random_search", derivation, SPACE, epochs=0)
    assert epochs[0].stage == "random search" and epochs[-1].stage == "topology search"
    chosen = {edge: max(row, key=row.get) for edge, row in epochs[0].weights["alpha.normal"].items()}
    kept = {edge: set(row) - {"none"} for edge, row in epochs[-1].weights["alpha.normal"].items()}
    assert all(chosen[edge] in kept[edge] for edge in chosen if chosen[edge] != "none")


def test_perturbation_asks_for_weights_that_were_trained():
    derivation = toy_derivation(selection="perturbation")
    with pytest.raises(DotsZooError, match="judges by the weights of the supernet: expected epochs of 1 or"):
        plan("random_search", RandomSearchConfig(), derivation, SPACE)
    assert plan("random_search", RandomSearchConfig(epochs=1), derivation, SPACE)


def test_numbers_have_to_make_a_search():
    with pytest.raises(DotsZooError, match="epochs: expected 0 or more, got -1"):
        RandomSearchConfig(epochs=-1)


@pytest.mark.parametrize("space", ["S1", "S4", "3-skip", "S6"])
def test_every_space_is_drawn_from(space):
    assert drawn(0, named_space(space)) != drawn(1, named_space(space))


def test_the_planted_operation_is_missed():
    found = [{edge.op for cell in drawn(seed, UNIFORM).values() for edge in cell.edges} for seed in range(5)]
    assert all("noise" in operations for operations in found)
