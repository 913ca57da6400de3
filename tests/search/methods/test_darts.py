import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dots_zoo.search.methods import darts
from dots_zoo.search.methods.darts import DartsConfig, train_logits_ahead, unrolled
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.space.named import darts_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.config import WeightsConfig
from dots_zoo.search.stages.loop import run_of
from dots_zoo.search.stages.stage import StepContext, StepIndex
from dots_zoo.search.stages.steps import bilevel, train_logits
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, search_toy, toy_config, toy_data, toy_derivation, toy_training

UNIFORM = darts_space(PLANTED, 2)
TWO = ("skip_connect", "sep_conv_3x3")
SMALL = SearchSpace(1, tuple(CellSpace(kind, (TWO, TWO)) for kind in ("normal", "reduce")))


def test_the_paper_searches_for_50_epochs_and_takes_the_logits_with_adam():
    [stage] = plan("darts", DartsConfig(), Derivation(), darts_space())
    assert stage.epochs == 50 and stage.step is bilevel and stage.batch_size == 64
    assert (stage.images, stage.architecture_images) == ("a", "b")
    assert stage.learning_rate(0) == 0.025 and stage.learning_rate(25) == pytest.approx(0.013)
    logits = DartsConfig().training.logits
    assert (logits.learning_rate, logits.betas, logits.weight_decay) == (3e-4, (0.5, 0.999), 1e-3)
    [second] = plan("darts", DartsConfig(order="second"), Derivation(), darts_space())
    assert second.step is unrolled


HEAVY = WeightsConfig(weight_decay=0.1)  # heavy enough to be seen in the second order


@pytest.fixture
def context():
    """In float64, with a momentum of its own and logits that prefer something."""
    training, data = toy_training(weights=HEAVY), toy_data(32)
    run = run_of(training, data)
    [stage] = plan(
        "darts", toy_config("darts", channels=2, training=training, warm_up=0), Derivation(), SMALL
    )
    search = stage.initialise(run, None, StepIndex(0, 0))
    search.supernet.double()
    draws = torch.Generator().manual_seed(0)
    for logits in search.logits.values():
        logits.data = torch.randn(logits.shape, generator=draws).double()
    images = [torch.randn(8, 1, 8, 8, generator=draws).double() for _ in range(2)]
    labels = torch.arange(8) % 4
    found = StepContext(
        run, search, stage.relax(search), StepIndex(0, 0), (images[0], labels), (images[1], labels)
    )
    for parameter in search.supernet.parameters():
        momentum = torch.randn(parameter.shape, generator=draws).double() * 0.1
        search.weights_optimiser.state[parameter]["momentum_buffer"] = momentum
    return found


def brute_force(context, rate):
    """d L_val(w - rate * (momentum + gradient + decay), alpha) / d alpha, by central differences."""
    search, training = context.search, HEAVY
    names, weights = zip(*search.supernet.named_parameters(), strict=True)
    supernet = copy.deepcopy(search.supernet)  # its running statistics may move

    def loss(values, batch):
        table = dict(zip(names, values, strict=True))
        out = torch.func.functional_call(supernet, table, (batch[0], context.mixture()))
        return F.cross_entropy(out, batch[1])

    def loss_ahead():
        gradient = torch.autograd.grad(loss(weights, context.batch), weights)
        ahead = [
            w - rate * (training.momentum * search.weights_optimiser.state[w]["momentum_buffer"] + g
                        + training.weight_decay * w)
            for w, g in zip(weights, gradient, strict=True)
        ]  # fmt: skip
        return loss(ahead, context.architecture_batch).item()

    found = []
    for logits in search.logits.values():
        table = torch.zeros_like(logits)
        for place, value in enumerate(logits.flatten().tolist()):
            sides = []
            for moved in (value + 1e-7, value - 1e-7):
                logits.data.view(-1)[place] = moved
                sides.append(loss_ahead())
            logits.data.view(-1)[place] = value
            table.view(-1)[place] = (sides[0] - sides[1]) / 2e-7
        found.append(table.detach())
    return found


def taken(context):
    """The gradient along which the step moves the logits, once by all of it."""
    logits = context.search.logits
    before = [table.detach().clone() for table in logits.values()]
    plain = torch.optim.SGD(logits.values(), 1.0)
    train_logits_ahead(replace(context, search=replace(context.search, logits_optimiser=plain)))
    return [old - table.detach() for old, table in zip(before, logits.values(), strict=True)]


def test_the_second_order_gradient_is_that_through_the_unrolled_step(context, monkeypatch):
    rate = 0.3  # large enough for the second order to matter
    context.search.weights_optimiser.param_groups[0]["lr"] = rate
    monkeypatch.setattr(darts, "EPSILON", 1e-7)  # the finite difference is as good as its epsilon is small
    expected, first_order = brute_force(context, rate), brute_force(context, 0.0)
    for ours, truth, plain in zip(taken(context), expected, first_order, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-3, atol=1e-5)
        assert (plain - truth).norm() > 0.1 * truth.norm()


def test_the_second_order_leaves_weights_and_running_statistics_bit_by_bit(context):
    before = {name: value.clone() for name, value in context.search.supernet.state_dict().items()}
    train_logits_ahead(context)
    assert all(
        torch.equal(value, before[name]) for name, value in context.search.supernet.state_dict().items()
    )
    assert all(parameter.grad is None for parameter in context.search.supernet.parameters())
    train_logits(context)
    moved = context.search.supernet.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in moved.items())  # statistics alone


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("order", ["first", "second"])
def test_the_search_finds_the_planted_operation(order, seed):
    last = search_toy("darts", space=UNIFORM, seed=seed, order=order)[-1]
    assert {edge.op for cell in last.cells.values() for edge in cell.edges} == {"sep_conv_3x3"}


def test_a_topology_search_is_one_flag():
    epochs = search_toy("darts", toy_derivation("pairs"), epochs=1, warm_up=0)
    assert [epoch.stage for epoch in epochs] == [
        "operation search",
        *["topology warm-up"] * 3,
        *["topology search"] * 3,
    ]
    assert {len(row) for row in epochs[-1].weights["alpha.normal"].values()} == {1}  # Top1
    epochs = search_toy("darts", toy_derivation("pairs", keep=2), epochs=1, warm_up=0)
    assert len(epochs[-1].weights["alpha.normal"]["2<-0"]) == 2  # Top2
