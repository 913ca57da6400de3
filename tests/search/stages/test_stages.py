import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState

from dots_zoo.data.augment import Augmentation
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.stages.init_stage import close_edge, continue_from, decide
from dots_zoo.search.stages.loop import batches, run_of, run_stages
from dots_zoo.search.stages.stage import StepContext, StepIndex
from dots_zoo.search.stages.steps import bilevel, one_level, train_logits, train_weights
from helpers.toy_search import PLANTED_SPACE, search_toy, toy_config, toy_data, toy_training


def dots_stages(seed=0, operation=4, topology=6, **changes):
    """DOTS with a softmax for all operations, half of both searches warm-up."""
    config = toy_config("dots", seed, epochs=operation, warm_up=operation // 2, groups="one", **changes)
    return plan("dots", config, lasting(topology), PLANTED_SPACE)


def lasting(epochs):
    return Derivation(topology="pairs", topology_search=TopologyConfig(epochs=epochs, layers=3))


def search_dots(operation=4, topology=6, **changes):
    changes = {"epochs": operation, "warm_up": operation // 2, "groups": "one", **changes}
    return search_toy("dots", lasting(topology), **changes)


def run_all(stages, data=None, training=None):
    return list(run_stages(stages, run_of(training or toy_training(), data or toy_data()), progress=False))


@pytest.fixture
def context():
    """The context of the first step of a search over PLANTED_SPACE, whose logits prefer something."""
    data, training = toy_data(), toy_training()
    run = run_of(training, data)
    warm_up, searching = dots_stages()[:2]
    search = warm_up.initialise(run, None, StepIndex(0, 0))
    draws = torch.Generator().manual_seed(0)
    for logits in search.logits.values():
        logits.data.copy_(torch.randn(logits.shape, generator=draws))
    first, second = (next(iter(batches(searching, part, run, 0))) for part in ("a", "b"))
    return StepContext(run, search, warm_up.relax(search), StepIndex(0, 0, 0), first, second)


def drawing(step, context):
    """Take a step with the same noise every time."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return step(context)


def values(search):
    tensors = dict(search.supernet.named_parameters()), search.logits
    return [{name: tensor.detach().clone() for name, tensor in table.items()} for table in tensors]


def moved(before, after):
    return [[not torch.equal(x[name], y[name]) for name in x] for x, y in zip(before, after, strict=True)]


def test_a_weights_step_moves_weights_and_leaves_the_logits_without_a_gradient(context):
    before = values(context.search)
    train_weights(context)
    weights, logits = moved(before, values(context.search))
    assert any(weights) and not any(logits)
    assert all(tensor.grad is None for tensor in context.search.logits.values())
    assert not context.search.logits_optimiser.state


def test_a_logits_step_moves_logits_and_computes_no_gradient_of_a_weight(context):
    train_weights(context)
    before, momentum = values(context.search), copy.deepcopy(context.search.weights_optimiser.state_dict())
    figures = train_logits(context)
    weights, logits = moved(before, values(context.search))
    assert not any(weights) and all(logits)
    assert all(parameter.grad is None for parameter in context.search.supernet.parameters())
    after = context.search.weights_optimiser.state_dict()
    assert all(
        torch.equal(momentum["state"][key]["momentum_buffer"], after["state"][key]["momentum_buffer"])
        for key in momentum["state"]
    )
    assert set(figures) == {"architecture_loss", "architecture_accuracy"}


def gradients(context, batch, wanted):
    """Of the cross-entropy of one batch, by autograd on a copy of everything."""
    supernet = copy.deepcopy(context.search.supernet)
    images, labels = batch
    with torch.random.fork_rng():
        torch.manual_seed(7)
        loss = F.cross_entropy(supernet(images, context.mixture()), labels)
    inputs = list(context.search.logits.values()) if wanted == "logits" else list(supernet.parameters())
    return torch.autograd.grad(loss, inputs)


def adam_first_step(value, gradient, config):
    gradient = gradient + config.weight_decay * value  # with both moments corrected: g / (|g| + eps)
    return value - config.learning_rate * gradient / (gradient.abs() + 1e-8)


def test_bilevel_takes_the_logits_gradient_from_the_second_batch_before_the_weights_move(context):
    expected = gradients(context, context.architecture_batch, "logits")
    before = values(context.search)[1]
    drawing(bilevel, context)
    for (name, logits), gradient in zip(context.search.logits.items(), expected, strict=True):
        target = adam_first_step(before[name], gradient, toy_training().logits)
        torch.testing.assert_close(logits.data, target, rtol=1e-4, atol=1e-4)


def test_one_level_takes_both_gradients_from_the_first_batch(context):
    expected = [gradients(context, context.batch, wanted) for wanted in ("weights", "logits")]
    before = values(context.search)
    drawing(one_level, context)
    config = toy_training()
    scale = min(1.0, config.weights.clip / math.sqrt(sum(float(g.square().sum()) for g in expected[0])))
    for (name, weight), gradient in zip(context.search.supernet.named_parameters(), expected[0], strict=True):
        step = config.weights.learning_rate * (
            gradient * scale + config.weights.weight_decay * before[0][name]
        )
        torch.testing.assert_close(weight.data, before[0][name] - step, rtol=1e-4, atol=1e-5)
    for (name, logits), gradient in zip(context.search.logits.items(), expected[1], strict=True):
        target = adam_first_step(before[1][name], gradient, config.logits)
        torch.testing.assert_close(logits.data, target, rtol=1e-4, atol=1e-4)


def test_a_step_of_the_weights_is_no_longer_than_the_clip_allows(context):
    context = replace(context, run=replace(context.run, clip=1e-3))
    for group in context.search.weights_optimiser.param_groups:
        group["weight_decay"] = 0
    before = values(context.search)[0]
    train_weights(context)
    after = values(context.search)[0]
    length = math.sqrt(sum(float((after[name] - before[name]).square().sum()) for name in before))
    assert length == pytest.approx(toy_training().weights.learning_rate * 1e-3, rel=1e-2)


def figures_without_time(epochs):
    return [{name: value for name, value in epoch.figures.items() if name != "seconds"} for epoch in epochs]


def test_the_same_seed_gives_the_same_search_bit_by_bit_whatever_the_callers_random_state():
    torch.manual_seed(1)
    first = search_dots(seed=3, operation=2, topology=2)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = search_dots(seed=3, operation=2, topology=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert [epoch.weights for epoch in first] == [epoch.weights for epoch in second]
    assert figures_without_time(first) == figures_without_time(second)
    assert [epoch.cells for epoch in first] == [epoch.cells for epoch in second]
    other = search_dots(seed=4, operation=2, topology=2)
    assert first[0].figures["loss"] != other[0].figures["loss"]


def test_the_warm_up_of_both_searches_leaves_all_weights_equal_and_the_rest_moves_them():
    epochs = search_dots()
    assert [epoch.stage for epoch in epochs] == [
        *["operation warm-up"] * 2,
        *["operation search"] * 2,
        *["topology warm-up"] * 3,
        *["topology search"] * 3,
    ]
    for epoch in epochs:
        rows = [row for table in epoch.weights.values() for row in table.values()]
        uniform = all(len(set(row.values())) == 1 for row in rows)
        assert uniform == epoch.stage.endswith("warm-up"), epoch
        assert ("architecture_loss" in epoch.figures) == (epoch.stage == "operation search")
    assert epochs[4].figures["loss"] > epochs[3].figures["loss"] + 0.2  # a fresh network


def test_the_learning_rate_follows_one_cosine_over_all_stages():
    seen = []

    def watch(context):
        [rate] = {group["lr"] for group in context.search.weights_optimiser.param_groups}
        seen.append((context.step_index.epoch, rate))
        return {"loss": torch.zeros(())}

    epochs = run_all([replace(stage, step=watch) for stage in dots_stages(operation=3, topology=4)])
    expected = [0.001 + 0.049 * (1 + math.cos(math.pi * epoch / 7)) / 2 for epoch in range(7)]
    assert sorted(dict(seen)) == list(range(7))
    assert [rate for _, rate in sorted(set(seen))] == pytest.approx(expected)
    assert [epoch.figures["learning_rate"] for epoch in epochs] == pytest.approx(expected)


def test_an_epoch_sees_every_image_of_its_part_once_and_the_two_halves_share_none():
    data = toy_data(256)
    images = data.images.clone()
    images[:, 0, 0, 0] = torch.arange(256).to(torch.uint8)  # every image is known by its first pixel
    data = replace(data, images=images)
    seen = {}

    def watch(context):
        for name, batch in (("first", context.batch), ("second", context.architecture_batch)):
            if batch is not None:
                pixels = (batch[0][:, 0, 0, 0] * data.std[0] + data.mean[0]) * 255
                seen.setdefault((context.step_index.epoch, name), []).extend(pixels.round().int().tolist())
                assert torch.equal(batch[1], data.labels[pixels.round().long()])
        return {"loss": torch.zeros(())}

    run_all([replace(stage, step=watch) for stage in dots_stages(operation=4, topology=2)], data)
    half = set(seen[0, "first"])
    assert (
        set(seen[1, "first"]) == set(seen[2, "first"]) == set(seen[4, "first"]) == half and len(half) == 128
    )
    assert set(seen[2, "second"]) == set(seen[3, "second"]) == set(range(256)) - half
    assert sorted(seen[5, "first"]) == list(range(256))  # one-level: all of them
    assert seen[0, "first"] != seen[1, "first"]
    assert set(seen) == {*((epoch, "first") for epoch in range(6)), (2, "second"), (3, "second")}


def test_augmentation_changes_with_the_step_and_the_epoch_and_not_with_the_try():
    training = toy_training(augmentation=Augmentation(crop_padding=2))
    data = toy_data(64)
    data = replace(data, images=data.images[:1].expand(64, 1, 8, 8), labels=data.labels * 0)
    run = run_of(training, data)
    stage = replace(dots_stages()[3], batch_size=32)
    (first, second), (again, _), (later, _) = (
        [images for images, _ in batches(stage, "all", run, epoch)] for epoch in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second) and not torch.equal(first, later)


def test_stages_of_one_epoch_work():
    epochs = search_dots(operation=1, topology=1)
    assert [epoch.stage for epoch in epochs] == ["operation search", "topology search"]
    assert epochs[1].figures["temperature"] == 10


def test_a_loss_that_is_not_finite_stops_the_search_where_it_happened():
    with pytest.raises(
        DotsZooError,
        match="search, stage 'operation warm-up', epoch 0, step [123]: expected a finite loss, got (nan|inf)"
        "; lower the learning rates",
    ):
        search_dots(weights_rate=1e30)


def test_too_few_images_for_a_batch_are_refused():
    with pytest.raises(
        DotsZooError, match="expected at least one batch of 32 images, got 30; lower the batch"
    ):
        run_all(dots_stages(), toy_data(60))


def test_a_stage_that_carries_on_keeps_network_optimisers_and_logits(context):
    assert continue_from(context.run, context.search, context.step_index) is context.search


def test_a_fresh_network_depends_on_the_seed_and_on_its_stage(context):
    before = torch.get_rng_state()
    [first, second] = [
        dots_stages(seed)[0].initialise(replace(context.run, seed=seed), None, context.step_index)
        for seed in (0, 1)
    ]
    topology = dots_stages()[2].initialise(context.run, first, context.step_index)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [search.supernet.stem[0][0].weight for search in (context.search, first, second, topology)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])
    assert not topology.weights_optimiser.state and not any(
        logits.any() for logits in topology.logits.values()
    )


@pytest.mark.parametrize(("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_bf16_runs_the_supernet_under_autocast(precision, dtype):
    seen = set()

    def watch(context):
        context.search.supernet.stem[0].register_forward_hook(
            lambda module, args, output: seen.add(output.dtype)
        )
        return one_level(context)

    watched = [replace(stage, step=watch) for stage in dots_stages(operation=1, topology=1)]
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        run_all(watched, toy_data(64), toy_training(precision=precision))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert seen == {dtype}


def test_a_decision_leaves_one_operation_of_an_edge_and_takes_part_in_the_softmax_no_longer(context):
    stage = dots_stages()[0]
    search = decide(context.search, "alpha.normal", 0, 1)
    assert search.candidate_mask["alpha.normal"][:2].tolist() == [[False, True], [True, True]]
    assert context.search.candidate_mask["alpha.normal"].all(1).tolist() == [
        True,
        True,
        False,
        True,
        True,
    ]  # as it was
    relaxation = stage.relax(search)
    weights = relaxation.compute_weights(search.logits, context.step_index)["alpha.normal"]
    assert weights[0].tolist() == [0.0, 1.0] and 0 < weights[1, 0] < 1
    assert relaxation.build_mixture(
        {f"alpha.{k}": weights for k in search.space.cell_types}, context.step_index
    ).active["normal"][:2] == (frozenset({1}), frozenset({0, 1}))


def test_a_closed_edge_has_no_operation_and_its_node_no_combination_with_it(context):
    topology = dots_stages()[2]
    search = topology.initialise(context.run, context.search, context.step_index)
    single = plan("dots", toy_config(groups="one"), Derivation(topology="edge_weights"), PLANTED_SPACE)
    search = close_edge(single[2].initialise(context.run, context.search, context.step_index), "reduce", 3)
    assert (
        not search.candidate_mask["alpha.reduce"][3].any()
        and search.candidate_mask["alpha.normal"].any(1).all()
    )
    assert search.candidate_mask["beta.reduce"].tolist() == [[True, True, False], [True, False, True]]
    weights = single[2].relax(search).compute_weights(search.logits, context.step_index)
    assert weights["beta.reduce"][1].tolist() == [0.5, 0.0, 0.5]


def test_a_stage_without_epochs_is_a_decision_that_gives_one_line():
    first = dots_stages(operation=2)[0]

    def favour(run, before, step_index):
        before.logits["alpha.normal"].data[:, 1] = 5.0
        return before

    epochs = run_all([first, replace(first, name="decision", epochs=0, initialise=favour)])
    assert [(epoch.stage, epoch.epoch) for epoch in epochs] == [("operation warm-up", 0), ("decision", 1)]
    assert "loss" not in epochs[1].figures and epochs[1].weights["alpha.normal"]["2<-0"]["sep_conv_3x3"] > 0.9


def test_what_is_kept_of_an_epoch_is_handed_to_the_next_one():
    seen = []

    def keep(search, step_index, figures):
        seen.append((step_index.epoch, figures["loss"], search.method_state.get("count")))
        return replace(search, method_state={"count": torch.tensor(step_index.epoch)})

    run_all([replace(stage, after=keep) for stage in dots_stages(operation=2, topology=1)[:2]])
    assert [(epoch, None if count is None else int(count)) for epoch, _, count in seen] == [(0, None), (1, 0)]
    assert all(loss > 0 for _, loss, _ in seen)
