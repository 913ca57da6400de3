"""Stage: what a method is made of, and what its parts are given.

A method is a tuple of stages (`dots.py` is the example), and a stage is data: how long, on which images, what
one step trains, what the logits mean, which cell they stand for. The one loop that runs them (`loop.py`)
knows no method.

Source: DARTS (ICLR 2019), Algorithm 1; DOTS (CVPR 2021), Sec. 4.1 and supplementary, Sec. 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from dots_zoo.datasets import ImageData
from dots_zoo.genotype import CellGenotype

from .config import TrainingConfig
from .data import Part
from .randomness import generator, seeded
from .space import Choice, SearchSpace
from .supernet import Mixture, Supernet

Logits = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]  # images (N, C, H, W), labels (N,)
Figures = dict[str, Tensor]  # name -> scalar; stays on the device until the epoch ends


@dataclass(frozen=True)
class Moment:
    """Where a run stands: epoch and step from 0, epochs counted over all stages."""

    seed: int
    epoch: int
    step: int = 0

    def generator(self, purpose: str) -> torch.Generator:
        """The same generator whenever it is asked for at this moment."""
        return generator(self.seed, purpose, self.epoch, self.step)


@dataclass(frozen=True)
class Relaxed:
    """What the logits mean at one moment.

    weights: name of the logits -> weights of the same shape, for the decision and the log; mixture: what the
    supernet multiplies with; schedules: name -> value of all that is annealed, for the log.
    """

    weights: Mapping[str, Tensor]
    mixture: Mixture
    schedules: Mapping[str, float]


Relax = Callable[[Logits, Moment], Relaxed]


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    training: TrainingConfig
    data: ImageData  # on the accelerator's device
    parts: Mapping[Part, Tensor]
    accelerator: Accelerator


@dataclass(frozen=True)
class Search:
    """What the steps of a stage change in place."""

    space: SearchSpace
    choices: Mapping[str, Choice]
    supernet: Supernet
    logits: dict[str, nn.Parameter]
    weights_optimiser: Optimizer
    logits_optimiser: Optimizer


@dataclass(frozen=True)
class Turn:
    """Everything that one step may look at."""

    run: Run
    search: Search
    relax: Callable[[], Relaxed]  # at this moment
    moment: Moment
    batch: Batch
    architecture_batch: Batch | None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A span of epochs in which every step does the same.

    begin: the search this stage works on, from that of the stage before: a `fresh` one, the same one
    (`carry_on`), or one with a decision taken. step: one training step. images: the part of the training
    images that makes an epoch; architecture_images: the part that a step gets a second batch from. relax:
    builds the relaxation for a space. derive: weights -> cells. learning_rate: of the weights, by epoch of
    the run.
    """

    name: str
    epochs: int
    begin: Callable[[Run, Search | None], Search]
    step: Callable[[Turn], Figures]
    batch_size: int
    images: Part
    architecture_images: Part | None = None
    relax: Callable[[SearchSpace, torch.device], Relax]
    derive: Callable[[SearchSpace, Mapping[str, Tensor]], Mapping[str, CellGenotype]]
    learning_rate: Callable[[int], float]


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: scalars by name, weights by logits, row and label, cells by kind."""

    stage: str
    epoch: int
    figures: Mapping[str, float]
    weights: Mapping[str, Mapping[str, Mapping[str, float]]]
    cells: Mapping[str, CellGenotype]


def fresh(
    name: str,
    cells: int,
    space: Callable[[Search | None], SearchSpace],
    choices: Callable[[SearchSpace], Mapping[str, Choice]],
) -> Callable[[Run, Search | None], Search]:
    """Begin with a new supernet, new optimisers, and logits of zero: every alternative weighs the same."""

    def begin(run: Run, before: Search | None) -> Search:
        training, data, device = run.training, run.data, run.accelerator.device
        found = space(before)
        with seeded(torch.device("cpu"), training.seed, "supernet", name):
            supernet = Supernet(
                found,
                channels=training.channels,
                cells=cells,
                classes=data.classes,
                in_chans=data.images.shape[1],
            )
        supernet = supernet.to(device).to(memory_format=torch.channels_last)
        named = choices(found)
        logits = {
            key: nn.Parameter(torch.zeros(choice.shape, device=device)) for key, choice in named.items()
        }
        sgd, adam = training.weights, training.logits
        return Search(
            space=found,
            choices=named,
            supernet=supernet,
            logits=logits,
            weights_optimiser=SGD(
                supernet.parameters(), sgd.learning_rate, sgd.momentum, weight_decay=sgd.weight_decay
            ),
            logits_optimiser=Adam(
                logits.values(), adam.learning_rate, adam.betas, weight_decay=adam.weight_decay
            ),
        )

    return begin


def carry_on(run: Run, before: Search | None) -> Search:
    """Begin where the stage before ended."""
    assert before is not None, "the first stage has nothing to carry on"
    return before
