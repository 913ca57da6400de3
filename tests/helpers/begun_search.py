"""A search that has begun and not trained, for tests of decisions."""

import torch

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
