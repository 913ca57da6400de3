from dataclasses import replace

import pytest
import torch

from dots_zoo.search.methods import darts_minus
from dots_zoo.search.methods.darts_minus import DartsMinusConfig, keep_best
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.stages.auxiliary_skip import AuxiliaryConfig
from dots_zoo.search.stages.loop import run_of, run_stages
from dots_zoo.search.stages.stage import StepIndex
from dots_zoo.search.stages.steps import bilevel
from helpers.begun_search import begun
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, TINY_SPACE, search_toy, toy_config, toy_data, toy_derivation


def test_the_paper_searches_as_darts_does_validates_every_epoch_and_decides_at_the_end():
    searching, best = plan("darts_minus", DartsMinusConfig(), Derivation(), darts_space())
    assert (searching.epochs, best.epochs) == (50, 0)
    assert searching.step is bilevel and searching.validate and not best.validate
    assert (searching.images, searching.architecture_images) == ("a", "b")
    logits = DartsMinusConfig().training.logits
    assert (logits.learning_rate, logits.betas) == (3e-4, (0.5, 0.999))


def test_the_branch_is_beside_every_edge_and_fades():
    epochs = search_toy("darts_minus", space=TINY_SPACE, epochs=3, warm_up=0)
    assert [epoch.figures["auxiliary_weight"] for epoch in epochs] == [1.0, 0.5, 0.0, 0.0]
    for branch, beta in (("skip", 1.0), ("none", 0.0)):
        _, stages, search = begun("darts_minus", TINY_SPACE, auxiliary=AuxiliaryConfig(branch))
        edges = [edge for cell in search.supernet.cells for edge in cell.nodes.edges]
        assert all((edge.auxiliary is not None) == (branch == "skip") for edge in edges)
        assert stages[0].relax(search).mixture(search.logits, StepIndex(0, 0)).auxiliary == beta


def test_the_logits_of_the_best_epoch_are_kept_and_of_equal_epochs_the_last():
    _, _, search = begun("darts_minus", TINY_SPACE)
    for epoch, accuracy in enumerate([0.5, 0.7, 0.7, 0.6]):
        for logits in search.logits.values():
            logits.data.fill_(epoch)
        search = keep_best(search, StepIndex(0, epoch), {"validation_accuracy": accuracy})
    assert search.method_state["best.accuracy"] == 0.7
    assert all((search.method_state[f"best.{name}"] == 2).all() for name in search.logits)
    found = darts_minus.return_to_best(None, search, StepIndex(0, 4))
    assert all((logits == 2).all() for logits in found.logits.values())


def test_the_cell_and_all_that_follows_start_from_the_best_epoch():
    """The second of four epochs is made the best one."""
    config = toy_config("darts_minus", warm_up=0)
    stages = plan("darts_minus", config, toy_derivation("pairs"), TINY_SPACE)
    assert [stage.name for stage in stages][:2] == ["operation search", "best epoch"]

    def after(search, step_index, figures):
        accuracy = [0.1, 0.9, 0.2, 0.3][step_index.epoch]
        return stages[0].after(search, step_index, {**figures, "validation_accuracy": accuracy})

    judged = replace(stages[0], after=after), stages[1]
    epochs = list(run_stages(judged, run_of(config.training, toy_data()), progress=False))
    assert epochs[-1].weights == epochs[1].weights != epochs[3].weights
    assert epochs[-1].epoch == 4 and "loss" not in epochs[-1].figures


@pytest.mark.parametrize("seed", SEEDS)
def test_it_finds_the_planted_operation(seed):
    cells = search_toy("darts_minus", space=darts_space(PLANTED, 2), seed=seed, epochs=6)[-1].cells
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"sep_conv_3x3"}


def test_nas_bench_201_can_be_searched():
    epochs = search_toy("darts_minus", space=named_space("S6"), data=toy_data(64), epochs=2, warm_up=1)
    assert len(epochs[-1].cells["cell"].edges) == 6


def test_a_decision_needs_no_gradient():
    _, _, search = begun("darts_minus", TINY_SPACE)
    search = keep_best(search, StepIndex(0, 0), {"validation_accuracy": 0.5})
    assert not any(kept.requires_grad for kept in search.method_state.values())
    assert all(isinstance(kept, torch.Tensor) for kept in search.method_state.values())
