import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from dots_zoo.runtime.seeding import generator
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.space.named import darts_space
from dots_zoo.search.stages.split import split
from dots_zoo.search.stages.stage import Run, StepIndex
from dots_zoo.search.stages.validate import measure, validate
from dots_zoo.search.supernet import still_statistics
from helpers.toy_search import PLANTED_SPACE, search_toy, toy_config, toy_data, toy_training

QUIET = darts_space(("skip_connect", "sep_conv_3x3"), 1)  # nothing in it draws


def begin(space):
    data = toy_data(50)
    run = Run(toy_training(), data, split(data.labels, None, generator(0, "halves")), Accelerator())
    [stage] = plan("darts", toy_config("darts", warm_up=0), Derivation(), space)
    search = stage.initialise(run, None, StepIndex(0, 0))
    return run, search, stage.relax(search)


@pytest.fixture
def begun():
    return begin(PLANTED_SPACE)


def test_it_is_the_mean_over_all_of_half_b_by_the_statistics_of_each_batch():
    run, search, relaxation = begin(QUIET)
    figures = validate(run, search, relaxation, StepIndex(0, 0), 10)
    mixture, losses, hits = relaxation.mixture(search.logits, StepIndex(0, 0)), [], 0
    with torch.no_grad(), still_statistics(search.supernet):
        for part in run.parts["b"].tensor_split(2):  # 25 images: two batches of about ten
            logits = search.supernet(run.data.plain_batch(part), mixture)
            losses.append(F.cross_entropy(logits, run.data.labels[part], reduction="sum"))
            hits += (logits.argmax(1) == run.data.labels[part]).sum()
    assert figures["validation_accuracy"] == pytest.approx(float(hits) / 25)
    assert figures["validation_loss"] == pytest.approx(float(sum(losses)) / 25, rel=1e-5)


def test_nothing_is_changed_by_it_and_the_draws_are_the_same_again(begun):
    run, search, relaxation = begun
    before = {name: value.clone() for name, value in search.supernet.state_dict().items()}
    state = torch.get_rng_state()
    mixture = relaxation.mixture(search.logits, StepIndex(0, 0))
    first = measure(run, search.supernet, mixture, 10, StepIndex(0, 3))
    assert first == measure(run, search.supernet, mixture, 10, StepIndex(0, 3))  # noise included
    assert first != measure(run, search.supernet, mixture, 10, StepIndex(0, 4))
    assert torch.equal(torch.get_rng_state(), state) and search.supernet.training
    after = search.supernet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_running_statistics_are_given_back_when_something_fails(begun):
    _, search, _ = begun
    with pytest.raises(ValueError, match="stop"), still_statistics(search.supernet):
        raise ValueError("stop")
    assert all(buffer is not None for buffer in search.supernet.buffers())
    assert "stem.0.1.running_mean" in search.supernet.state_dict()


def test_an_epoch_is_validated_where_its_stage_asks_for_it():
    assert "validation_accuracy" not in search_toy("darts", epochs=1, warm_up=0)[0].figures
