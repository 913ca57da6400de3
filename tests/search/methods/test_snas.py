import dataclasses

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import plan
from dots_zoo.search.methods.snas import SnasConfig, concrete_relaxation
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.stages.gumbel import gumbel
from dots_zoo.search.stages.init_stage import decide
from dots_zoo.search.stages.stage import StepIndex
from dots_zoo.search.stages.steps import one_level
from helpers.first_step import first_step
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, search_toy, toy_derivation

UNIFORM = darts_space(PLANTED, 2)
SPACE = darts_space(("none", "skip_connect", "sep_conv_3x3"), 2)


def test_the_paper_searches_one_level_for_150_epochs():
    [stage] = plan("snas", SnasConfig(), toy_derivation(), darts_space())
    assert stage.epochs == 150 and stage.step is one_level and stage.batch_size == 64
    assert (stage.images, stage.architecture_images) == ("all", None)


def test_a_step_draws_from_the_concrete_distribution():
    context = first_step("snas", SPACE).context
    config = SnasConfig(epochs=3, temperature_start=0.9, temperature_end=0.1)
    relaxation = concrete_relaxation(config, context.search)
    step_index = StepIndex(0, 1, 7)  # the middle of the annealing
    drawn = relaxation.mixture(context.search.logits, step_index).operations["reduce"]
    alpha = context.search.logits["alpha.reduce"]
    noise = gumbel(alpha.shape, step_index.generator("gumbel alpha.reduce"))
    torch.testing.assert_close(drawn, ((alpha + noise) / 0.5).softmax(dim=-1))
    assert relaxation.schedules(step_index) == {"temperature": pytest.approx(0.5)}


def test_every_step_draws_again_and_the_gradient_reaches_all_logits():
    context = first_step("snas", SPACE).context
    first, again, other = (
        context.relaxation.sample_weights(context.search.logits, StepIndex(0, 0, step))["alpha.normal"]
        for step in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    [gradient] = torch.autograd.grad(first[:, 0].sum(), context.search.logits["alpha.normal"])
    assert (gradient != 0).all()


def test_the_draws_become_one_operation_as_the_temperature_falls():
    context = first_step("snas", SPACE, epochs=10).context

    def sharpness(epoch):
        steps = [StepIndex(0, epoch, step) for step in range(40)]
        draws = [
            context.relaxation.sample_weights(context.search.logits, step_index)["alpha.normal"]
            for step_index in steps
        ]
        return torch.stack(draws).amax(dim=-1).mean().item()

    assert sharpness(0) < 0.75 and sharpness(9) > 0.97
    schedule = [context.relaxation.schedules(StepIndex(0, epoch))["temperature"] for epoch in (0, 9, 30)]
    assert schedule == [1.0, pytest.approx(0.03), pytest.approx(0.03)]


def test_log_and_validation_take_the_plain_softmax():
    context = first_step("snas", SPACE).context
    weights = context.relaxation.compute_weights(context.search.logits, context.step_index)
    alpha = context.search.logits["alpha.normal"]
    torch.testing.assert_close(weights["alpha.normal"], alpha.softmax(dim=-1))


def test_a_decided_edge_is_its_operation():
    found = first_step("snas", SPACE)
    search = decide(found.context.search, "alpha.reduce", 1, 2)
    drawn = found.stage.relax(search).mixture(search.logits, StepIndex(0, 0, 3)).operations["reduce"]
    assert drawn[1].tolist() == [0.0, 0.0, 1.0] and (drawn[0] > 0).all()


def test_a_step_moves_weights_and_logits_on_one_batch():
    context = dataclasses.replace(first_step("snas", SPACE).context, architecture_batch=None)
    before = [x.detach().clone() for x in context.search.logits.values()]
    assert set(one_level(context)) == {"loss", "accuracy"}
    assert not any(torch.equal(x, y) for x, y in zip(before, context.search.logits.values(), strict=True))


def test_a_temperature_is_more_than_zero():
    with pytest.raises(DotsZooError, match="temperature_start: expected more than 0, got -1"):
        SnasConfig(temperature_start=-1.0)


@pytest.mark.parametrize("space", ["S1", "S4", "3-skip", "S6"])
def test_every_space_is_searched(space):
    found = first_step("snas", named_space(space), epochs=1, warm_up=0)
    assert torch.isfinite(found.step()["loss"])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planted_operation_is_found(seed):
    cells = search_toy("snas", space=UNIFORM, seed=seed)[-1].cells
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"sep_conv_3x3"}
