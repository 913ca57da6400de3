"""The first step of a method's operation search."""

from dataclasses import dataclass, replace

import torch

from dots_zoo.search.methods.registry import METHODS
from dots_zoo.search.stages.loop import run_of
from dots_zoo.search.stages.stage import Stage, StepContext, StepIndex
from helpers.toy_search import PLANTED_SPACE, toy_config, toy_data


@dataclass(frozen=True)
class First:
    """A stage and the context of a step: a search whose logits prefer something, two batches of 8 images."""

    stage: Stage
    context: StepContext

    def step(self):
        return self.stage.step(resampled(self.context))


def resampled(context, **changes):
    """The context, changed, with its operations sampled from the logits as they are, as the loop does."""
    context = replace(context, **changes)
    return replace(
        context, sampled_ops=context.relaxation.sampled_ops(context.search.logits, context.step_index)
    )


def first_step(method, space=PLANTED_SPACE, *, stage=-1, epoch=0, **changes):
    """Of the last stage of the method's operation search, or of another."""
    config = toy_config(method, **changes)
    run = run_of(config.training, toy_data(32))
    stages = METHODS[method].stages(config, space, 0)
    search = None
    for part in stages:
        search = part.initialise(run, search, StepIndex(0, 0))
    draws = torch.Generator().manual_seed(0)
    for logits in search.logits.values():
        logits.data.copy_(torch.randn(logits.shape, generator=draws))
    batches = [(torch.randn(8, 1, 8, 8, generator=draws), torch.arange(8) % 4) for _ in range(2)]
    chosen = stages[stage]
    return First(
        chosen, resampled(StepContext(run, search, chosen.relax(search), StepIndex(0, epoch), *batches))
    )


def values(context):
    """Copies of all weights and logits, by name."""
    named = {**dict(context.search.supernet.named_parameters()), **context.search.logits}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def computed(context, act):
    """The candidates that a forward pass computes while `act` runs: (cell, edge, column), of a space without
    poolings, which the edges that leave a node share.
    """
    seen, hooks = [], []
    for cell, module in enumerate(context.search.supernet.cells):
        for edge, mixed_op in enumerate(module.nodes.edges):
            for column, operation in mixed_op.operations.items():
                place = cell, edge, int(column)
                hook = operation.register_forward_pre_hook(lambda *given, place=place: seen.append(place))
                hooks.append(hook)
    act()
    for hook in hooks:
        hook.remove()
    return seen
