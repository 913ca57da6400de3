import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.darts_pt import PerturbationConfig
from dots_zoo.search.methods.fixed_alpha import FixedAlphaConfig
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.space.named import darts_space, named_space
from helpers.first_step import first_step, values
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, search_toy

UNIFORM = darts_space(PLANTED, 2)


def test_the_weights_train_on_half_a_as_long_as_in_darts():
    [stage] = plan("fixed_alpha", FixedAlphaConfig(), Derivation(), darts_space())
    assert stage.epochs == 50 and (stage.images, stage.architecture_images) == ("a", None)
    assert stage.learning_rate(0) == 0.025 and stage.learning_rate(50) == pytest.approx(0.001)


def test_a_step_moves_weights_and_no_logit():
    found = first_step("fixed_alpha", UNIFORM)
    before = values(found.context)
    assert set(found.step()) == {"loss", "accuracy"}
    after = values(found.context)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert set(found.context.search.logits) <= still and len(still) < len(before) / 2


def test_all_operations_weigh_the_same_to_the_end():
    last = search_toy("fixed_alpha", space=UNIFORM, epochs=2)[-1]
    weights = [w for rows in last.weights.values() for row in rows.values() for w in row.values()]
    assert set(weights) == {0.5}


@pytest.mark.parametrize("seed", SEEDS)
def test_magnitude_takes_the_first_operation_and_misses_the_planted_one(seed):
    cells = search_toy("fixed_alpha", space=UNIFORM, seed=seed, epochs=1)[-1].cells
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"noise"}


def test_perturbation_finds_what_its_logits_do_not_say():
    derivation = Derivation(selection="perturbation", perturbation=PerturbationConfig(tuning=1))
    cells = search_toy("fixed_alpha", derivation, UNIFORM)[-1].cells
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"sep_conv_3x3"}


def test_a_supernet_has_to_be_trained():
    with pytest.raises(DotsZooError, match="epochs: expected 1 or more, got 0"):
        FixedAlphaConfig(epochs=0)


@pytest.mark.parametrize("space", ["S1", "S6"])
def test_every_space_is_trained(space):
    found = first_step("fixed_alpha", named_space(space), epochs=1)
    assert torch.isfinite(found.step()["loss"])
