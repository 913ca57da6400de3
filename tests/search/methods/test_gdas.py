import dataclasses

import pytest
import torch
import torch.nn.functional as F

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.gdas import GdasConfig, of_logits, sampled_relaxation, straight_through
from dots_zoo.search.methods.registry import plan
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.gumbel import concrete, gumbel, linear
from dots_zoo.search.stages.init_stage import close_edge, decide
from dots_zoo.search.stages.stage import StepIndex
from dots_zoo.search.stages.steps import train_logits, train_weights
from dots_zoo.search.supernet import active_where
from helpers.first_step import computed, first_step, resampled, values
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, search_toy, toy_derivation

UNIFORM = darts_space(PLANTED, 2)
FOUR = ("none", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
SMALL = SearchSpace(1, tuple(CellSpace(kind, (FOUR, FOUR)) for kind in ("normal", "reduce")))


def test_the_paper_searches_for_250_epochs_as_darts_does():
    [stage] = plan("gdas", GdasConfig(), toy_derivation(), darts_space())
    assert stage.epochs == 250 and stage.batch_size == 64
    assert (stage.images, stage.architecture_images) == ("a", "b")
    assert GdasConfig().training.logits.betas == (0.5, 0.999)


def test_gumbel_noise_has_its_mean_and_variance():
    noise = gumbel(torch.Size([200000]), torch.Generator().manual_seed(0))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.05)


@pytest.mark.parametrize("temperature", [10.0, 0.1])
def test_an_operation_is_drawn_as_often_as_its_softmax_says_at_any_temperature(temperature):
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(20000, 3)
    groups = torch.ones(1, 20000, 3, dtype=torch.bool)
    soft = concrete(logits, groups, temperature, torch.Generator().manual_seed(0))
    drawn = straight_through(soft, groups).mean(dim=0)
    torch.testing.assert_close(drawn, torch.tensor([0.1, 0.2, 0.7]), atol=0.015, rtol=0)


def test_the_draw_is_exactly_one_operation_and_has_the_gradient_of_the_softmax():
    """d h_k / d a_j = p_k (delta_kj - p_j) / T for the drawn k, and nothing else reaches the loss."""
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log().requires_grad_()
    soft = (logits / 2).softmax(dim=-1)
    hard = straight_through(soft, torch.ones(1, 1, 3, dtype=torch.bool))
    assert hard.tolist() == [[0.0, 0.0, 1.0]]
    (3.0 * hard[0, 2]).backward()
    p = torch.tensor([1.0, 2.0, 5.0]).sqrt()
    p = p / p.sum()
    expected = 3.0 * p[2] * (torch.tensor([0.0, 0.0, 1.0]) - p) / 2
    torch.testing.assert_close(logits.grad[0], expected)


def test_a_closed_row_draws_nothing():
    groups = torch.tensor([[[False, False], [False, True]]])
    soft = concrete(torch.zeros(2, 2), groups, 1.0, torch.Generator().manual_seed(0))
    assert straight_through(soft, groups).tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_the_temperature_falls_linearly_and_stays():
    assert [linear(epoch, 4, 10.0, 1.0) for epoch in (0, 1, 2, 3, 9)] == [10.0, 7.0, 4.0, 1.0, 1.0]
    assert linear(0, 1, 10.0, 1.0) == 10.0
    context = first_step("gdas", SMALL).context
    relaxation = sampled_relaxation(GdasConfig(epochs=4), context.search)
    assert relaxation.schedules(StepIndex(0, 2)) == {"temperature": 4.0}


def test_the_temperature_scales_the_gradient_and_not_the_draw():
    context = first_step("gdas", SMALL).context
    alpha, found = context.search.logits["alpha.normal"], {}
    for heat in (10.0, 1.0):
        config = GdasConfig(temperature_start=heat, temperature_end=heat)
        weights = sampled_relaxation(config, context.search).sample_weights(
            context.search.logits, context.step_index
        )
        drawn = weights["alpha.normal"]
        [gradient] = torch.autograd.grad((drawn * drawn.detach()).sum(), alpha)
        found[heat] = drawn.detach(), gradient
    assert torch.equal(found[10.0][0], found[1.0][0])
    noise = gumbel(alpha.shape, context.step_index.generator("gumbel alpha.normal"))
    for heat, (drawn, gradient) in found.items():
        p = ((alpha.detach() + noise) / heat).softmax(dim=-1)
        assert torch.equal(drawn, F.one_hot(p.argmax(dim=-1), 4).float())
        expected = (p * drawn).sum(dim=-1, keepdim=True) * (drawn - p) / heat
        torch.testing.assert_close(gradient, expected)


def test_a_temperature_is_more_than_zero():
    with pytest.raises(DotsZooError, match="temperature_end: expected more than 0, got 0"):
        GdasConfig(temperature_end=0.0)


def test_a_forward_pass_computes_the_drawn_operation_and_no_other():
    context = first_step("gdas", SMALL).context
    mixture = context.mixture()
    for kind in ("normal", "reduce"):
        drawn = mixture.operations[kind]
        assert drawn.sum(dim=-1).tolist() == [1.0, 1.0] and drawn.amax(dim=-1).tolist() == [1.0, 1.0]
        assert [set(on) for on in mixture.active[kind]] == [{c} for c in drawn.argmax(dim=-1).tolist()]
    with torch.no_grad():
        seen = computed(context, lambda: context.search.supernet(context.batch[0], mixture))
    cells = enumerate(context.search.supernet.cell_types)
    wanted = [(c, edge, *on) for c, kind in cells for edge, on in enumerate(mixture.active[kind])]
    assert seen == [place for place in wanted if place[2] != 0]  # `none` is not built


def test_a_decided_edge_draws_its_operation():
    found = first_step("gdas", SMALL)
    search = decide(found.context.search, "alpha.reduce", 1, 2)
    relaxation = found.stage.relax(search)
    for step in range(20):
        for drawn in relaxation.sampled_ops(search.logits, StepIndex(0, 0, step)).values():
            assert drawn["reduce"][1] == {2}


def test_what_is_read_before_a_step_is_what_both_its_halves_draw():
    """The weights' half before the logits have moved, and the logits' half; a closed edge draws nothing."""
    search = close_edge(first_step("gdas", SMALL).context.search, "normal", 0)
    relaxation = sampled_relaxation(GdasConfig(), search)
    for step_index in (StepIndex(0, 0, step) for step in range(20)):
        drawn = relaxation.sampled_ops(search.logits, step_index)
        assert list(drawn) == [step_index, of_logits(step_index)]
        for half, found in drawn.items():
            sampled = relaxation.mixture(search.logits, half).operations
            assert found == {kind: active_where(table != 0) for kind, table in sampled.items()}
            assert found["normal"][0] == frozenset() and len(found["normal"][1]) == 1


def test_without_what_was_drawn_no_step_is_taken():
    context = dataclasses.replace(first_step("gdas", SMALL).context, sampled_ops={})
    with pytest.raises(KeyError):
        context.mixture()


def test_the_weights_descend_first_and_the_logits_see_them_moved():
    """Algorithm 1: `train_weights`, then the gradient of the logits with the weights that it has left."""
    whole, apart = first_step("gdas", SMALL), first_step("gdas", SMALL)
    before, context = values(apart.context), apart.context
    figures = whole.step()
    expected = train_weights(context)
    assert not torch.equal(before["classifier.weight"], values(context)["classifier.weight"])
    assert all(torch.equal(before[name], values(context)[name]) for name in context.search.logits)
    expected |= train_logits(dataclasses.replace(context, step_index=of_logits(context.step_index)))
    found = values(whole.context)
    assert all(torch.equal(found[name], tensor) for name, tensor in values(context).items())
    assert figures == expected


def test_log_and_validation_take_the_plain_softmax():
    context = first_step("gdas", SMALL).context
    alpha = context.search.logits["alpha.normal"]
    weights = context.relaxation.compute_weights(context.search.logits, context.step_index)
    torch.testing.assert_close(weights["alpha.normal"], alpha.softmax(dim=-1))
    mixture = context.relaxation.build_mixture(weights, context.step_index)
    assert all(on == frozenset(range(4)) for on in mixture.active["normal"])
    assert active_where(torch.tensor([[True, False], [False, False]])) == (frozenset({0}), frozenset())


def mixtures_of_a_step(found):
    """Those of the weights' and of the logits' half."""
    seen, supernet = [], found.context.search.supernet
    hook = supernet.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    found.step()
    hook.remove()
    return [mixture.operations["normal"].detach() for mixture in seen]


def test_the_two_halves_of_a_step_draw_apart_and_every_step_draws_again():
    found = first_step("gdas")
    halves = []
    for step in range(10):
        step_index = dataclasses.replace(found.context.step_index, step=step)
        now = dataclasses.replace(found, context=dataclasses.replace(found.context, step_index=step_index))
        found.context.search.logits["alpha.normal"].data.zero_()
        halves.append(mixtures_of_a_step(now))
    assert all(len(pair) == 2 for pair in halves)
    assert sum(torch.equal(first, second) for first, second in halves) < 5
    assert len({str(first) for first, _ in halves}) > 5


def test_the_logits_step_moves_what_was_not_drawn_as_well():
    context = first_step("gdas", SMALL).context
    context.search.logits["alpha.normal"].data[:, 0] = -9  # not `none`, which adds nothing
    loss = context.search.supernet(context.batch[0], resampled(context).mixture()).square().sum()
    [gradient] = torch.autograd.grad(loss, [context.search.logits["alpha.normal"]])
    assert (gradient[:, 1:] != 0).all()


@pytest.mark.parametrize("space", ["S0", "S1", "S4", "3-skip", "S6"])
def test_every_space_is_searched(space):
    found = first_step("gdas", named_space(space), epochs=1, warm_up=0)
    figures = found.step()
    assert torch.isfinite(figures["loss"]) and torch.isfinite(figures["architecture_loss"])


def test_a_step_in_which_nothing_but_none_is_drawn_is_taken():
    space = darts_space(("none", "sep_conv_3x3"), 1)
    found = first_step("gdas", space)
    for logits in found.context.search.logits.values():
        logits.data[:, 0] = 1000.0
    before = [x.detach().clone() for x in found.context.search.logits.values()]
    assert torch.isfinite(found.step()["loss"])
    assert all(torch.equal(x, y) for x, y in zip(before, found.context.search.logits.values(), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planted_operation_is_found(seed):
    cells = search_toy("gdas", space=UNIFORM, seed=seed, epochs=12)[-1].cells  # 4 are decided by luck
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"sep_conv_3x3"}
