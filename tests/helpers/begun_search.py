"""A search that has begun and not trained, for tests of decisions."""

import torch
from accelerate import Accelerator

from dots_zoo.runtime.seeding import generator
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.stages.split import split
from dots_zoo.search.stages.stage import Run, StepIndex
from helpers.toy_search import toy_config, toy_data


def begun(method, space, derivation=None, **changes):
    """The run, the stages, and the search of the first, with logits that prefer something."""
    config, data = toy_config(method, **changes), toy_data(32)
    run = Run(config.training, data, split(data.labels, None, generator(0, "halves")), Accelerator())
    stages = plan(method, config, derivation or Derivation(), space)
    search = stages[0].initialise(run, None, StepIndex(0, 0))
    draws = torch.Generator().manual_seed(0)
    for logits in search.logits.values():
        logits.data.copy_(torch.randn(logits.shape, generator=draws))
    return run, stages, search
