import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.dots import DotsConfig, group_relaxation, searched_space, stages, surviving
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.space.named import darts_space, groups_by_weights, named_space
from dots_zoo.search.space.space import operation_choice
from dots_zoo.search.stages.stage import StepIndex
from dots_zoo.search.stages.steps import bilevel, one_level, train_weights
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED_SPACE, finds_the_planted, search_toy, toy_config, toy_training

SPACE = darts_space()
CPU = torch.device("cpu")


class Searched:
    """As much of a Search as a relaxation looks at."""

    def __init__(self, space, alpha):
        self.space, self.resting = space, {}
        self.logits = {f"alpha.{kind}": alpha.clone() for kind in space.cell_types}
        choices = {f"alpha.{kind}": operation_choice(space, kind) for kind in space.cell_types}
        self.candidate_mask = {
            name: torch.ones(choice.shape, dtype=torch.bool) for name, choice in choices.items()
        }


def test_the_paper_searches_for_30_and_40_epochs_and_each_starts_with_weights_only():
    found = plan("dots", DotsConfig(), Derivation(topology="pairs"), SPACE)
    assert [stage.epochs for stage in found] == [15, 15, 20, 20]
    assert [stage.step for stage in found] == [train_weights, bilevel, train_weights, one_level]
    assert [stage.images for stage in found] == ["a", "a", "a", "all"]
    assert [stage.architecture_images for stage in found] == [None, "b", None, None]
    assert {stage.batch_size for stage in found} == {64}
    assert found[3].learning_rate(0) == 0.025 and found[0].learning_rate(35) == pytest.approx(0.013)


def test_the_operations_of_an_edge_compete_in_their_groups():
    space = darts_space(("none", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"), 1)
    searched = Searched(space, torch.tensor([[3.0, 1.0, 4.0, 1.0], [0.0, 0.0, 0.0, 0.0]]).log1p())
    relaxation = group_relaxation(groups_by_weights(), searched)
    weights = relaxation.compute_weights(searched.logits, StepIndex(0, 0))
    expected = torch.tensor([[4 / 6, 2 / 6, 5 / 7, 2 / 7], [0.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(weights["alpha.normal"], expected)
    torch.testing.assert_close(
        relaxation.build_mixture(weights, StepIndex(0, 0)).operations["reduce"], expected
    )
    one = group_relaxation(None, searched).compute_weights(searched.logits, StepIndex(0, 0))
    torch.testing.assert_close(one["alpha.normal"][0], torch.tensor([4 / 13, 2 / 13, 5 / 13, 2 / 13]))


@pytest.mark.parametrize(
    ("groups", "keep", "survivors"),
    [
        ("v2", 1, ("skip_connect", "dil_conv_5x5")),
        ("v1", 1, ("skip_connect", "max_pool_3x3", "sep_conv_5x5", "dil_conv_5x5")),
        ("one", 1, ("dil_conv_5x5",)),
        ("one", 2, ("dil_conv_5x5", "skip_connect")),
    ],
)
def test_the_survivors_of_table_4b(groups, keep, survivors):
    config = DotsConfig(groups=groups)
    space = searched_space(config, SPACE)
    order = {name: i for i, name in enumerate(space.candidates("normal")[0])}
    alpha = torch.zeros(14, len(order))
    for name, value in (("skip_connect", 2.0), ("dil_conv_5x5", 3.0), ("sep_conv_5x5", 1.0)):
        alpha[:, order[name]] = value
    found = surviving(config, keep, Searched(space, alpha))
    assert set(found.candidates("normal")) == set(found.candidates("reduce")) == {survivors}


def test_a_closed_operation_does_not_survive():
    searched = Searched(SPACE, torch.zeros(14, 8))
    searched.candidate_mask["alpha.normal"][0, [0, 4]] = False
    found = surviving(DotsConfig(), 1, searched)
    assert found.candidates("normal")[:2] == (("max_pool_3x3", "sep_conv_5x5"), ("none", "sep_conv_3x3"))


def test_group_v1_searches_without_none():
    names = {
        name for row in searched_space(DotsConfig(groups="v1"), SPACE).candidates("normal") for name in row
    }
    assert len(names) == 7 and "none" not in names


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("topology", "end"), [("pairs", 0.05), ("any", 0.001)])
def test_the_search_finds_the_planted_operation_and_the_planted_edges(topology, end, seed):
    # So cold that three epochs settle; colder still, rounding would decide between pairs of edges.
    annealed = TopologyConfig(epochs=6, layers=3, temperature_end=end)
    derivation = Derivation(topology=topology, topology_search=annealed)
    epochs = search_toy("dots", derivation, training=toy_training(seed), groups="one")
    cells = epochs[-1].cells
    assert all(edge.op == "sep_conv_3x3" for cell in cells.values() for edge in cell.edges)
    assert topology == "any" or finds_the_planted(cells)
    for kind in PLANTED_SPACE.cell_types:
        assert list(epochs[-1].weights[f"alpha.{kind}"]["2<-0"]) == ["sep_conv_3x3"]  # noise did not survive
        name = f"entropy.beta.{kind}"
        assert epochs[-1].figures[name] < 0.01 < 0.5 < epochs[4].figures[name]


def test_a_search_that_learns_nothing_misses_what_is_planted():
    still = toy_training(logits=toy_training().logits.__class__(learning_rate=0.0, weight_decay=0.0))
    epochs = search_toy("dots", groups="one", training=still, epochs=1, warm_up=0)
    assert {edge.op for edge in epochs[-1].cells["normal"].edges} == {"noise"}
    assert [edge.input for edge in epochs[-1].cells["normal"].edges] == [0, 1, 0, 1]


def test_groups_that_do_not_fit_the_space_are_refused():
    with pytest.raises(DotsZooError, match="groups: expected noise of the normal cell in exactly one group"):
        stages(DotsConfig(groups="v1"), named_space("S4"), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: expected 1 or more, got 0"),
        ({"layers": 2}, "layers: expected 3 or more, got 2"),
        ({"warm_up": -1}, "warm_up: expected 0 or more, got -1"),
        ({"epochs": 4, "warm_up": 4}, "warm_up: expected fewer epochs than the 4 of the search, got 4"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(changes, message):
    with pytest.raises(DotsZooError, match=message):
        toy_config("dots", **{"warm_up": 0, **changes})
