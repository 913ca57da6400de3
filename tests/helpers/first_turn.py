"""The first turn of a method's operation search, for tests of one step."""

from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
from accelerate import Accelerator

from dots_zoo.runtime.seeding import generator
from dots_zoo.search.methods.registry import METHODS
from dots_zoo.search.stages.split import split
from dots_zoo.search.stages.stage import Moment, Run, Stage, Turn
from dots_zoo.search.supernet import mixed_op as mixed
from helpers.toy_search import PLANTED_SPACE, toy_config, toy_data


@dataclass(frozen=True)
class First:
    """A stage and a turn of it: a search with logits that prefer something, and two batches of 8 images."""

    stage: Stage
    turn: Turn

    def step(self):
        return self.stage.step(drawn_again(self.turn))


def drawn_again(turn, **changes):
    """The turn, changed, with what is drawn for it with the logits as they are, as the loop does."""
    turn = replace(turn, **changes)
    return replace(turn, drawn=turn.relaxation.drawn(turn.search.logits, turn.moment))


def first_turn(method, space=PLANTED_SPACE, *, stage=-1, epoch=0, **changes):
    """Of the last stage of the method's operation search, or of another."""
    config = toy_config(method, **changes)
    data = toy_data(32)
    parts = split(data.labels, None, generator(0, "halves"))
    run = Run(config.training, data, parts, Accelerator())
    stages = METHODS[method].stages(config, space, 0)
    search = None
    for part in stages:
        search = part.begin(run, search, Moment(0, 0))
    draws = torch.Generator().manual_seed(0)
    for logits in search.logits.values():
        logits.data.copy_(torch.randn(logits.shape, generator=draws))
    batches = [(torch.randn(8, 1, 8, 8, generator=draws), torch.arange(8) % 4) for _ in range(2)]
    chosen = stages[stage]
    return First(chosen, drawn_again(Turn(run, search, chosen.relax(search), Moment(0, epoch), *batches)))


def values(turn):
    """Copies of all weights and logits, by name."""
    named = {**dict(turn.search.supernet.named_parameters()), **turn.search.logits}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def computed(turn, act):
    """The candidates with weights that a forward pass computes while `act` runs: (cell, edge, column)."""
    seen, hooks, separable = [], [], {}
    for number, cell in enumerate(turn.search.supernet.cells):
        for edge, candidates in enumerate(cell.nodes.edges):
            for column, operation in zip(candidates.columns, candidates.operations, strict=True):
                place = (number, edge, column)
                separable[operation] = place
                hooks.append(operation.register_forward_hook(lambda *_, place=place: seen.append(place)))

    def sum_of_separable(candidates, *rest):  # which does not call them
        seen.extend(separable[one] for one in candidates)
        return compute(candidates, *rest)

    compute = mixed.sum_of_separable
    with patch.object(mixed, "sum_of_separable", sum_of_separable):
        act()
    for hook in hooks:
        hook.remove()
    return seen
