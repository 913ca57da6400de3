"""Data types of a search: the stages that make up a method, and what their functions receive.

A method is a tuple of stages (`search/methods/darts.py` is the shortest example). A stage is data: its
length, its images, its training step, the relaxation of its logits, the derivation of its cell. The one loop
that runs them (`loop.py`) knows no method.

Source: DARTS (ICLR 2019), Algorithm 1; DOTS (CVPR 2021), Sec. 4.1 and supplementary, Sec. 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dots_zoo.data.datasets import Data
from dots_zoo.genotype import CellGenotype
from dots_zoo.runtime.distributed import ALONE, Processes
from dots_zoo.runtime.seeding import generator

from ..space.space import Choice, SearchSpace
from ..supernet import Active, Mixture, Supernet
from .split import Part

if TYPE_CHECKING:  # a plug-in with a method is loaded for an export too, where the extra may be missing
    from accelerate import Accelerator  # type: ignore[import-untyped]

Logits = Mapping[str, Tensor]
Weights = Mapping[str, Tensor]  # name of the logits -> weights of the same shape
Batch = tuple[Tensor, Tensor]  # images (N, C, H, W), labels (N,)
Figures = dict[str, Tensor]  # name -> scalar; stays on the device until the epoch ends


@dataclass(frozen=True)
class StepIndex:
    """The index of a step: epoch (over all stages) and step from 0; all processes draw alike by it."""

    seed: int
    epoch: int
    step: int = 0

    def generator(self, purpose: str) -> torch.Generator:
        """Return the generator of a purpose at this step, a new and equal one at every call."""
        return generator(self.seed, purpose, self.epoch, self.step)


# index of a forward pass -> cell type -> computed candidates
SampledOps = Mapping[StepIndex, Mapping[str, Active]]


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """The relaxation of the logits of a search: logits -> weights -> mixture, at a step.

    Args:
        compute_weights: logits -> the weights that decisions and the log use.
        build_mixture: weights -> the mixture of the supernet.
        sample_weights: logits -> the weights of a training step, where they differ from those of
            `compute_weights`.
        sample_ops: logits -> the candidates that the forward passes of a step compute, where these depend on
            values of the weights; it reads them back from the device.
        schedules: name -> value of everything that is annealed, for the log.
    """

    compute_weights: Callable[[Logits, StepIndex], Weights]
    build_mixture: Callable[[Weights, StepIndex], Mixture]
    sample_weights: Callable[[Logits, StepIndex], Weights] | None = None
    sample_ops: Callable[[Logits, StepIndex], SampledOps] | None = None
    schedules: Callable[[StepIndex], Mapping[str, float]] = lambda step_index: {}

    def mixture(self, logits: Logits, step_index: StepIndex) -> Mixture:
        """Return the mixture of a training step."""
        weights = (self.sample_weights or self.compute_weights)(logits, step_index)
        return self.build_mixture(weights, step_index)

    def sampled_ops(self, logits: Logits, step_index: StepIndex) -> SampledOps:
        """Return the candidates that a training step will compute; the step itself reads nothing back."""
        return {} if self.sample_ops is None else self.sample_ops(logits, step_index)


@dataclass(frozen=True)
class Run:
    """The constants of a run, from the first step to the last.

    Args:
        seed: every draw of the run derives from it.
        data: on the accelerator's device.
        train_batch: (indices (N,), draws=generator) -> augmented training images (N, C, H, W).
        parts: indices of the training images, by part.
        clip: largest norm of a gradient step of the weights.
        kernels: supernets compute by kernels.
        accelerator: device and precision.
        processes: that share every batch.
    """

    seed: int
    data: Data
    train_batch: Callable[..., Tensor]
    parts: Mapping[Part, Tensor]
    clip: float
    kernels: bool
    accelerator: "Accelerator"
    processes: Processes = ALONE


@dataclass(frozen=True)
class Search:
    """The state of a search: what training steps change in place, and the decisions taken so far.

    Args:
        space: candidate operations of every edge.
        choices: name of the logits -> what they decide.
        supernet: of all candidates.
        logits: by name, (rows, longest row).
        candidate_mask: name of the logits -> bool (rows, longest row) on the CPU, the alternatives that may
            still be chosen. A row with one is decided, an edge without any is closed.
        weights_optimiser: SGD of the supernet's weights.
        logits_optimiser: Adam of the logits.
        method_state: tensors that a method keeps from epoch to epoch.
        resting: name of the logits -> bool (rows, longest row) on the CPU, the open alternatives that are not
            computed in this epoch (`resting.py`).
    """

    space: SearchSpace
    choices: Mapping[str, Choice]
    supernet: Supernet
    logits: dict[str, nn.Parameter]
    candidate_mask: Mapping[str, Tensor]
    weights_optimiser: Optimizer
    logits_optimiser: Optimizer
    method_state: Mapping[str, Tensor] = field(default_factory=dict)
    resting: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class StepContext:
    """The context of one training step.

    Args:
        run: the constants of the run.
        search: the state that the step changes.
        relaxation: of the logits.
        step_index: index of the step.
        batch: images and labels for the weights.
        architecture_batch: images and labels for the logits, where the stage has a part for them.
        sampled_ops: result of `relaxation.sampled_ops` before the step.
    """

    run: Run
    search: Search
    relaxation: Relaxation
    step_index: StepIndex
    batch: Batch
    architecture_batch: Batch | None
    sampled_ops: SampledOps = field(default_factory=dict)

    def mixture(self) -> Mixture:
        """Return the mixture of the supernet at this step."""
        mixture = self.relaxation.mixture(self.search.logits, self.step_index)
        if self.relaxation.sample_ops is None:
            return mixture
        return replace(mixture, active=self.sampled_ops[self.step_index])


def unchanged(search: Search, step_index: StepIndex, figures: Mapping[str, float]) -> Search:
    """Return the search as it is."""
    return search


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A span of epochs in which every step does the same; without epochs, a decision.

    Args:
        name: in the log.
        epochs: length; 0 for a decision.
        initialise: search of the stage before -> the one of this stage: a `fresh` one, the same one
            (`continue_from`), or one with a decision taken.
        step: one training step.
        batch_size: images in a step, over all processes.
        images: part of the training images that makes an epoch.
        architecture_images: part that a step gets a second batch from.
        relax: relaxation of the logits of a search.
        derive: weights -> cells.
        learning_rate: of the weights, by epoch of the run.
        rest: alternatives that rest in an epoch of so many steps, chosen before it; None for no resting.
        validate: measure the accuracy on the validation split after every epoch.
        after: update of the search after an epoch, from its figures.
        builds: a new supernet is built at its beginning.
        saved_as: name under which the search is saved at the end of this stage, where others follow.
    """

    name: str
    epochs: int
    initialise: Callable[[Run, Search | None, StepIndex], Search]
    step: Callable[[StepContext], Figures]
    batch_size: int
    images: Part
    architecture_images: Part | None = None
    relax: Callable[[Search], Relaxation]
    derive: Callable[[SearchSpace, Weights], Mapping[str, CellGenotype]]
    learning_rate: Callable[[int], float]
    rest: Callable[[Search, StepIndex, int], Mapping[str, Tensor]] | None = None
    validate: bool = False
    after: Callable[[Search, StepIndex, Mapping[str, float]], Search] = unchanged
    builds: bool = False
    saved_as: str = ""


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch.

    Args:
        stage: name of its stage.
        epoch: index over all stages.
        figures: name -> scalar.
        weights: name of the logits -> row -> label -> weight.
        cells: cell type -> cell.
    """

    stage: str
    epoch: int
    figures: Mapping[str, float]
    weights: Mapping[str, Mapping[str, Mapping[str, float]]]
    cells: Mapping[str, CellGenotype]
