import dataclasses

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import plan
from dots_zoo.search.methods.sdarts_rs import SdartsRsConfig, noisy_relaxation, perturbed
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.stages.init_stage import close_edge, decide
from dots_zoo.search.stages.stage import StepIndex
from helpers.first_step import first_step
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, search_toy, toy_derivation

UNIFORM = darts_space(PLANTED, 2)
SPACE = darts_space(("none", "skip_connect", "sep_conv_3x3"), 2)


def test_the_paper_searches_as_darts_does():
    [stage] = plan("sdarts_rs", SdartsRsConfig(), toy_derivation(), darts_space())
    assert stage.epochs == 50 and stage.batch_size == 64
    assert (stage.images, stage.architecture_images) == ("a", "b")


def test_the_noise_grows_linearly_over_the_epochs():
    context = first_step("sdarts_rs", SPACE).context
    relaxation = noisy_relaxation(SdartsRsConfig(epochs=10), context.search)
    noise = [relaxation.schedules(StepIndex(0, epoch))["noise"] for epoch in (0, 3, 9, 50)]
    assert noise == pytest.approx([0.03, 0.12, 0.3, 0.3])


def test_shaken_weights_are_uniform_noise_clamped_and_normalised():
    weights = torch.tensor([0.05, 0.15, 0.8]).expand(5000, 3)
    members = torch.ones(5000, 3, dtype=torch.bool)
    found = perturbed(weights, members, 0.1, torch.Generator().manual_seed(0))
    noise = 2 * torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)) - 1
    moved = (weights + 0.1 * noise).clamp(0, 1)
    torch.testing.assert_close(found, moved / moved.sum(dim=-1, keepdim=True))
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(5000))
    assert (found[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)  # U(-0.05, 0.15)
    ratio = found[:, 1] / found[:, 2]
    assert ratio.min() >= 0.05 / 0.9 and ratio.max() <= 0.25 / 0.7  # bounded noise, not Gaussian
    assert ratio.max() > 0.22 / 0.73


def test_a_row_of_which_the_clamp_leaves_nothing_is_its_largest_weight():
    weights = torch.full((1000, 2), 0.5)
    members = torch.ones(1000, 2, dtype=torch.bool)
    found = perturbed(weights, members, 1e6, torch.Generator().manual_seed(0))
    noise = 2 * torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) - 1
    lost = (noise < -1e-3).all(dim=-1)
    assert 150 < lost.sum() < 350
    assert torch.equal(found[lost].argmax(dim=-1), noise[lost].argmax(dim=-1))
    assert (found[lost].amax(dim=-1) == 1).all()


def test_closed_alternatives_stay_zero():
    members = torch.tensor([[True, False], [False, False]]).repeat(100, 1)
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).repeat(100, 1)
    found = perturbed(weights, members, 5.0, torch.Generator().manual_seed(0))
    assert torch.equal(found, weights)


def mixtures_of_a_step(found):
    """Those that the supernet is given."""
    seen, supernet = [], found.context.search.supernet
    hook = supernet.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    found.step()
    hook.remove()
    return [mixture.operations["normal"].detach() for mixture in seen]


def test_the_weights_train_under_noise_and_the_logits_without():
    found = first_step("sdarts_rs", SPACE, epoch=3)
    before = found.context.search.logits["alpha.normal"].softmax(dim=-1).detach()
    logits_half, weights_half = mixtures_of_a_step(found)
    after = found.context.search.logits["alpha.normal"].softmax(dim=-1).detach()
    assert torch.equal(logits_half, before)
    draws = found.context.step_index.generator("noise alpha.normal")
    expected = perturbed(after, torch.ones_like(after, dtype=torch.bool), 0.3, draws)
    torch.testing.assert_close(weights_half, expected)
    assert (weights_half - after).abs().max() > 0.05


def test_every_step_draws_again():
    found = first_step("sdarts_rs", SPACE, stage=0, epoch=3)  # of the warm-up: the logits stay
    seen = []
    for step in (0, 0, 1):
        context = dataclasses.replace(found.context, step_index=StepIndex(0, 3, step))
        seen += mixtures_of_a_step(dataclasses.replace(found, context=context))
    assert len(seen) == 3 and torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_decided_and_closed_edges_are_not_shaken():
    found = first_step("sdarts_rs", SPACE, epoch=3)
    search = close_edge(decide(found.context.search, "alpha.normal", 1, 2), "normal", 3)
    context = dataclasses.replace(found.context, search=search, relaxation=found.stage.relax(search))
    weights_half = mixtures_of_a_step(dataclasses.replace(found, context=context))[1]
    assert weights_half[1].tolist() == [0.0, 0.0, 1.0] and weights_half[3].tolist() == [0.0, 0.0, 0.0]


def test_noise_is_not_negative():
    with pytest.raises(DotsZooError, match="noise_end: expected 0 or more, got -0.1"):
        SdartsRsConfig(noise_end=-0.1)


@pytest.mark.parametrize("space", ["S1", "S4", "3-skip", "S6"])
def test_every_space_is_searched(space):
    found = first_step("sdarts_rs", named_space(space), epochs=1, warm_up=0)
    assert torch.isfinite(found.step()["loss"])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planted_operation_is_found(seed):
    cells = search_toy("sdarts_rs", space=UNIFORM, seed=seed)[-1].cells
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"sep_conv_3x3"}
