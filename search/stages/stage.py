"""Stage: what a method is made of, and what its parts are given.

A method is a tuple of stages (`search/methods/darts.py` is the shortest example), and a stage is data: how
long, on which images, what one step trains, what the logits mean, which cell they stand for. The one loop
that runs them (`loop.py`) knows no method.

Source: DARTS (ICLR 2019), Algorithm 1; DOTS (CVPR 2021), Sec. 4.1 and supplementary, Sec. 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.optim import Optimizer

from dots_zoo.data.datasets import Data
from dots_zoo.genotype import CellGenotype
from dots_zoo.runtime.distributed import ALONE, Processes
from dots_zoo.runtime.seeding import generator

from ..space.space import Choice, SearchSpace
from ..supernet import Active, Mixture, Supernet
from .config import TrainingConfig
from .split import Part

Logits = Mapping[str, Tensor]
Weights = Mapping[str, Tensor]  # name of the logits -> weights of the same shape
Batch = tuple[Tensor, Tensor]  # images (N, C, H, W), labels (N,)
Figures = dict[str, Tensor]  # name -> scalar; stays on the device until the epoch ends


@dataclass(frozen=True)
class Moment:
    """Where a run stands: epoch and step from 0, epochs counted over all stages; all processes draw alike."""

    seed: int
    epoch: int
    step: int = 0

    def generator(self, purpose: str) -> torch.Generator:
        """The same generator whenever it is asked for at this moment."""
        return generator(self.seed, purpose, self.epoch, self.step)


Drawn = Mapping[Moment, Mapping[str, Active]]  # moment of a forward pass -> kind -> what it computes


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """What logits mean: logits -> weights -> mixture, at a moment.

    weigh: the weights that decisions and the log look at. mix: weights -> what the supernet multiplies with.
    sample: the weights of a training step, where they are not those of `weigh`. draw: what the forward passes
    of a step compute, where the values of its weights say so; it reads them back from the device. schedules:
    name -> value of all that is annealed, for the log.
    """

    weigh: Callable[[Logits, Moment], Weights]
    mix: Callable[[Weights, Moment], Mixture]
    sample: Callable[[Logits, Moment], Weights] | None = None
    draw: Callable[[Logits, Moment], Drawn] | None = None
    schedules: Callable[[Moment], Mapping[str, float]] = lambda moment: {}

    def mixture(self, logits: Logits, moment: Moment) -> Mixture:
        """Of a training step."""
        return self.mix((self.sample or self.weigh)(logits, moment), moment)

    def drawn(self, logits: Logits, moment: Moment) -> Drawn:
        """To be asked for before a training step, which itself waits for nothing."""
        return {} if self.draw is None else self.draw(logits, moment)


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    training: TrainingConfig
    data: Data  # on the accelerator's device
    parts: Mapping[Part, Tensor]
    accelerator: Accelerator
    processes: Processes = ALONE


@dataclass(frozen=True)
class Search:
    """What the steps of a stage change in place, and what is decided.

    open: name of the logits -> bool (rows, longest row) on the CPU: the alternatives that may still be
    chosen. A row with one is decided, an edge without any is closed. memory: what a method keeps from epoch
    to epoch. resting: name of the logits -> bool (rows, longest row) on the CPU: the open alternatives that
    are not computed in this epoch (`resting.py`).
    """

    space: SearchSpace
    choices: Mapping[str, Choice]
    supernet: Supernet
    logits: dict[str, nn.Parameter]
    open: Mapping[str, Tensor]
    weights_optimiser: Optimizer
    logits_optimiser: Optimizer
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    resting: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """Everything that one step may look at. drawn: what `relaxation.drawn` said before it."""

    run: Run
    search: Search
    relaxation: Relaxation
    moment: Moment
    batch: Batch
    architecture_batch: Batch | None
    drawn: Drawn = field(default_factory=dict)

    def mixture(self) -> Mixture:
        """What the logits mean at this moment."""
        found = self.relaxation.mixture(self.search.logits, self.moment)
        return found if self.relaxation.draw is None else replace(found, active=self.drawn[self.moment])


def unchanged(search: Search, moment: Moment, figures: Mapping[str, float]) -> Search:
    """Nothing is done after an epoch."""
    return search


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A span of epochs in which every step does the same; without epochs, a decision.

    begin: the search this stage works on, from that of the stage before: a `fresh` one, the same one
    (`carry_on`), or one with a decision taken. step: one training step. images: the part of the training
    images that makes an epoch; architecture_images: the part that a step gets a second batch from. relax:
    what the logits of a search mean. derive: weights -> cells. learning_rate: of the weights, by epoch of the
    run. rest: what rests in an epoch of so many steps, decided before it; nothing where None. validate:
    measure the accuracy on half B after every epoch. after: what is kept of an epoch, from its
    figures. kept: the name by which the search is kept as this stage leaves it, where others follow.
    """

    name: str
    epochs: int
    begin: Callable[[Run, Search | None, Moment], Search]
    step: Callable[[Turn], Figures]
    batch_size: int
    images: Part
    architecture_images: Part | None = None
    relax: Callable[[Search], Relaxation]
    derive: Callable[[SearchSpace, Weights], Mapping[str, CellGenotype]]
    learning_rate: Callable[[int], float]
    rest: Callable[[Search, Moment, int], Mapping[str, Tensor]] | None = None
    validate: bool = False
    after: Callable[[Search, Moment, Mapping[str, float]], Search] = unchanged
    kept: str = ""


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: scalars by name, weights by logits, row and label, cells by kind."""

    stage: str
    epoch: int
    figures: Mapping[str, float]
    weights: Mapping[str, Mapping[str, Mapping[str, float]]]
    cells: Mapping[str, CellGenotype]
