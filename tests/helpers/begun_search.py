"""A search that has begun and not trained, and a validation of it by hand, for tests of decisions."""

import torch

from dots_zoo.search.methods import darts_pt
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.stages.loop import run_of
from dots_zoo.search.stages.stage import StepIndex
from helpers.toy_search import toy_config, toy_data


def begun(method, space, derivation=None, **changes):
    """The run, the stages, and the search of the first, with logits that prefer something."""
    config = toy_config(method, **changes)
    run = run_of(config.training, toy_data(32))
    stages = plan(method, config, derivation or Derivation(), space)
    search = stages[0].initialise(run, None, StepIndex(0, 0))
    draws = torch.Generator().manual_seed(0)
    for logits in search.logits.values():
        logits.data.copy_(torch.randn(logits.shape, generator=draws))
    return run, stages, search


def judged(monkeypatch, worth, kind="normal", accuracy=None):
    """Let a perturbation be judged by the sum of worth * weight in a kind of cell, or by another function of
    the mixture, as minus the loss and as the accuracy where that is not given; returns the mixtures.
    """
    seen = []

    def measure(run, supernet, mixture, batch_size, step_index):
        seen.append(mixture)
        value = worth(mixture) if callable(worth) else (mixture.operations[kind] * worth).sum().item()
        return -value, value if accuracy is None else accuracy

    monkeypatch.setattr(darts_pt, "measure", measure)
    return seen
