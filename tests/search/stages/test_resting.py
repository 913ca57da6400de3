"""Operations whose weight is exactly zero for a whole epoch are not computed, and nothing else changes."""

import dataclasses
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dots_zoo.search.methods.topology import (
    TopologyConfig,
    settled_operations,
    topology_choices,
    topology_search,
)
from dots_zoo.search.space.named import darts_space
from dots_zoo.search.stages.checkpoint import (
    Progress,
    RunState,
    restore_run_state,
    state_facts,
    state_tensors,
)
from dots_zoo.search.stages.init_stage import fresh
from dots_zoo.search.stages.loop import run_of, run_stages
from dots_zoo.search.stages.resting import resting_operations, underflow
from dots_zoo.search.stages.stage import StepIndex
from helpers.toy_search import toy_config, toy_data, toy_training

SPACE = darts_space(("skip_connect", "sep_conv_3x3", "dil_conv_3x3"), 2)
CONFIG = TopologyConfig(epochs=2, layers=3, temperature_start=1.0, temperature_end=1.0)  # T of alpha: 1e-3
APART = torch.tensor(
    [
        [0.5, 0.0, 0.0],  # one-hot: 0.5 / 1e-3 underflows
        [0.0, 0.0, 0.0],
        [-0.1, 0.4, -0.3],  # one-hot
        [0.5, 0.49, 0.0],  # two have weight
        [0.2, 0.0, -0.2],  # one-hot
    ]
)


def searched(rows, dtype=torch.float32, **adam):
    """As much of a Search as `resting_operations` looks at."""
    logits = nn.Parameter(torch.tensor(rows, dtype=dtype))
    settings = {"lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 1e-3, **adam}
    return SimpleNamespace(
        logits={"alpha": logits},
        candidate_mask={"alpha": torch.ones(logits.shape, dtype=torch.bool)},
        logits_optimiser=torch.optim.Adam([logits], **settings),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_from_the_distance_of_underflow_on_a_weight_is_zero(dtype):
    far = underflow(dtype)
    assert torch.tensor([0.0, -far], dtype=dtype).softmax(0)[1] == 0
    assert torch.tensor([0.0, -far + 3], dtype=dtype).softmax(0)[1] > 0
    assert far == pytest.approx({torch.float32: 104.28, torch.float64: 745.44}[dtype], abs=0.01)


def test_all_but_the_best_of_a_row_rest_where_all_of_them_are_weightless():
    search = searched([[0.3, 0.0, 0.1], [0.3, 0.25, 0.0], [0.0, 0.0, 0.0], [0.05, 0.3, 0.1]])
    resting = resting_operations(search, "alpha", 1e-3, 10)
    assert resting.tolist() == [[False, True, True], [False] * 3, [False] * 3, [True, False, True]]
    search.candidate_mask["alpha"][1, 1] = False  # the second that has weight is closed
    assert resting_operations(search, "alpha", 1e-3, 10)[1].tolist() == [False, False, True]
    assert not resting_operations(search, "alpha", 1.0, 10).any()


@pytest.mark.parametrize(("steps", "rests"), [(10, True), (3000, False)])
def test_what_decay_can_bring_back_within_the_epoch_does_not_rest(steps, rests):
    """With gradients of weight decay alone Adam moves a logit by its rate a step: 0.3 has gone after 3000."""
    search = searched([[0.3, 0.0]])
    assert resting_operations(search, "alpha", 1e-3, steps).any().item() == rests


def test_what_adam_remembers_can_bring_it_back():
    search = searched([[0.107, 0.0]], lr=1e-3, weight_decay=0.0)
    assert resting_operations(search, "alpha", 1e-3, 5).any()
    search.logits["alpha"].grad = torch.tensor([[1.0, -1.0]])
    search.logits_optimiser.step()
    search.logits["alpha"].data.copy_(torch.tensor([[0.107, 0.0]]))
    assert not resting_operations(search, "alpha", 1e-3, 5).any()


def stage_and_search(rest):
    """The searching half of a topology search, and a search in double precision whose rows are APART."""
    training = toy_training(batch_size=8)
    config = toy_config(training=training)
    stages = topology_search("pairs", CONFIG, config, 0, lambda before: SPACE)
    stage = replace(stages[-1], **({} if rest else {"rest": None}))
    choices = partial(topology_choices, "pairs")

    def begin(run, before, step_index):
        search = fresh("topology", config, CONFIG.layers, lambda _: SPACE, choices)(run, before, step_index)
        for name, logits in search.logits.items():
            logits.data = logits.data.double()
            if name.startswith("alpha"):
                logits.data.copy_(8 * APART)  # in double precision the softmax underflows later
        search.supernet.double()
        return search

    return replace(stage, initialise=begin), training


class Double:
    """Images in double precision."""

    def __init__(self, data):
        self.data = data

    def __getattr__(self, name):
        return getattr(self.data, name)

    def to(self, device):
        return self

    def train_batch(self, *given, **named):
        return self.data.train_batch(*given, **named).double()


def one_epoch(rest):
    searches, (stage, training) = [], stage_and_search(rest)
    stage = replace(stage, after=lambda search, step_index, figures: searches.append(search) or search)
    [epoch] = run_stages((stage,), run_of(training, Double(toy_data(64))), progress=False)
    return epoch, searches[0]


def test_an_epoch_with_rest_is_the_epoch_that_computes_everything():
    (ours, rested), (theirs, whole) = one_epoch(True), one_epoch(False)
    masks = rested.resting
    assert masks["alpha.normal"].tolist() == [
        [False, True, True], [False] * 3, [True, False, True], [False] * 3, [False, True, True]
    ]  # fmt: skip
    for figure in ("loss", "accuracy"):
        assert ours.figures[figure] == pytest.approx(theirs.figures[figure], abs=1e-12)
    for name, logits in rested.logits.items():
        mask = masks.get(name, torch.zeros_like(logits, dtype=torch.bool))
        torch.testing.assert_close(logits[~mask], whole.logits[name][~mask], rtol=0, atol=1e-12)
        if name.startswith("alpha"):
            assert torch.equal(logits[mask], 8 * APART.double()[mask])  # no decay
            assert not torch.equal(logits[mask], whole.logits[name][mask])
    before = fresh_parameters()
    moved = still = 0
    reference = dict(whole.supernet.named_parameters())
    for name, parameter in rested.supernet.named_parameters():
        if torch.equal(parameter, before[name]):
            still += 1
        else:
            moved += 1
            torch.testing.assert_close(parameter, reference[name], rtol=0, atol=1e-12)
    assert moved > still > 0


def fresh_parameters():
    stage, training = stage_and_search(True)
    data = toy_data(64)
    run = run_of(training, data)
    return dict(stage.initialise(run, None, StepIndex(0, 0)).supernet.named_parameters())


def test_a_temperature_that_rises_wakes_what_rested():
    stage, training = stage_and_search(True)
    data = toy_data(64)
    run = run_of(training, data)
    search = stage.initialise(run, None, StepIndex(0, 0))
    cold = settled_operations(CONFIG, 0, search, StepIndex(0, 0), 8)
    warm = settled_operations(
        dataclasses.replace(CONFIG, temperature_start=1e3), 0, search, StepIndex(0, 0), 8
    )
    assert cold["alpha.normal"].any() and not warm["alpha.normal"].any()

    def computed(search):
        active = stage.relax(search).mixture(search.logits, StepIndex(0, 0)).active["normal"]
        return [len(columns) for columns in active]

    assert computed(replace(search, resting=cold)) == [1, 3, 1, 3, 1]
    assert computed(search) == [3] * 5


def test_a_checkpoint_holds_what_rests(tmp_path):
    stage, training = stage_and_search(True)
    data = toy_data(64)
    run = run_of(training, data)
    search = stage.initialise(run, None, StepIndex(0, 0))
    search.supernet.float()
    search = replace(search, resting=settled_operations(CONFIG, 0, search, StepIndex(0, 0), 8))
    run_state = RunState(Progress(step=3), search)
    saved = SimpleNamespace(facts=state_facts(run_state), tensors=state_tensors(run_state), path=tmp_path)
    restored = restore_run_state(saved, run).search
    assert restored.resting.keys() == search.resting.keys()
    assert all(torch.equal(restored.resting[name], mask) for name, mask in search.resting.items())
