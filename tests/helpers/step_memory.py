"""The memory of a step of a search: the estimate, and the peak of a process of its own."""

import resource
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import torch

from dots_zoo.data.datasets import ImageData
from dots_zoo.runtime.malloc import keep_freed_memory
from dots_zoo.search.methods.registry import METHODS, Derivation, plan
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.run.memory import Estimate, estimate, with_costliest_preferred
from dots_zoo.search.space.named import named_space
from dots_zoo.search.stages.config import TrainingConfig
from dots_zoo.search.stages.loop import run_of
from dots_zoo.search.stages.stage import Run, Stage, StepContext, StepIndex

BATCH, SIDE = 32, 32


def stages_and_run(memory: Any, kernels: bool, layers: int = 5) -> tuple[tuple[Stage, ...], Run]:
    """Return DOTS with its topology search, and random images."""
    training = TrainingConfig(batch_size=BATCH, memory=memory, kernels="on" if kernels else "off")
    config = METHODS["dots"].config(epochs=1, warm_up=0, layers=layers, channels=8, training=training)
    derivation = Derivation("pairs", topology_search=TopologyConfig(epochs=1, layers=layers))
    images = torch.zeros(2 * BATCH, 3, SIDE, SIDE, dtype=torch.uint8)
    labels = torch.arange(2 * BATCH) % 10
    data = ImageData("random", images, labels, images, labels, 10, (0.5,) * 3, (0.25,) * 3, False, {})
    return plan("dots", config, derivation, named_space("S0")), run_of(training, data)


def estimated(stage: int, memory: Any, kernels: bool) -> Estimate:
    """Return the estimate of one stage: 0 is the operation search, 1 the topology search."""
    stages, run = stages_and_run(memory, kernels)
    others = [
        replace(other, epochs=other.epochs if index == stage else 0) for index, other in enumerate(stages)
    ]
    found = estimate(others, run)
    assert found is not None
    return found


def measured(stage: int, memory: Any, kernels: bool) -> int:
    """Return the peak of a step over what is held behind one of two images, in a process of its own."""
    with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(_peak, (stage, memory, kernels))


def _peak(stage: int, memory: Any, kernels: bool) -> int:
    torch.set_num_threads(1)
    keep_freed_memory()
    stages, run = stages_and_run(memory, kernels)
    search = None
    for index in range(stage + 1):
        before = None if search is None else with_costliest_preferred(search)
        search = stages[index].initialise(run, before, StepIndex(0, 0))
    relaxation = stages[stage].relax(search)
    for size in (2, BATCH):
        batch = torch.randn(size, 3, SIDE, SIDE), torch.arange(size) % 10
        before_step = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        stages[stage].step(StepContext(run, search, relaxation, StepIndex(0, 0), batch, batch))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_step) * 1024
