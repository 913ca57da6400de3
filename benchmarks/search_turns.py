"""Steps of a search, ours and those of the plain formulation (`plain_supernet.py`), and what one needs."""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from accelerate import Accelerator
from plain_supernet import PlainSupernet

from dots_zoo.data.datasets import ImageData
from dots_zoo.search.methods.darts import DartsConfig, unrolled
from dots_zoo.search.methods.dots import group_relaxation
from dots_zoo.search.methods.dropnas import DropnasConfig, train_dropped
from dots_zoo.search.methods.topology import (
    TopologyConfig,
    settled_operations,
    topology_choices,
    topology_relaxation,
)
from dots_zoo.search.space.discretise import survivors
from dots_zoo.search.space.named import groups_by_weights, named_space
from dots_zoo.search.stages.config import TrainingConfig
from dots_zoo.search.stages.init_stage import fresh, restart_sgd
from dots_zoo.search.stages.loop import run_of
from dots_zoo.search.stages.operation_search import operation_choices, softmax_relaxation
from dots_zoo.search.stages.stage import Figures, Search, StepContext, StepIndex
from dots_zoo.search.stages.steps import bilevel, classify, one_level, update_logits, update_weights

EPOCH = StepIndex(0, 30)  # of the second half of a topology search


@dataclass(frozen=True)
class Setting:
    """What is varied."""

    batch: int = 32
    cells: int = 8
    threads: int = 1
    channels: int = 16
    memory: Any = "fast"


def plain_bilevel(context: StepContext) -> Figures:
    """As public code has it: both backward passes compute every gradient."""
    assert context.architecture_batch is not None
    for batch, update in ((context.architecture_batch, update_logits), (context.batch, update_weights)):
        context.search.logits_optimiser.zero_grad()
        context.search.weights_optimiser.zero_grad()
        loss, accuracy = classify(context, batch, context.mixture())
        loss.backward()
        update(context)
    context.search.logits_optimiser.zero_grad()
    return {"loss": loss.detach(), "accuracy": accuracy}


def turns(step: str, setting: Setting) -> tuple[StepContext, StepContext]:
    """The same turn of ours and of the plain search: same weights, logits, images. Logits are drawn: zeros
    would make every edge `none` and a 3x3 convolution.
    """
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(1)
    training = TrainingConfig(batch_size=setting.batch, memory=setting.memory, kernels="on")
    images = torch.randint(256, (8, 3, 32, 32), generator=draws).to(torch.uint8)
    labels = torch.arange(8) % 10
    data = ImageData("random", images, labels, images, labels, 10, (0.5,) * 3, (0.25,) * 3, False, {})
    Accelerator(cpu=True)  # the device of the run, too
    run = run_of(training, data)
    full = named_space("S0")
    alphas = {kind: torch.randn(14, 8, generator=draws) for kind in full.cell_types}
    if step in ("topology", "settled"):
        space = survivors(full, alphas, groups_by_weights(), 1)
        choices: Any = partial(topology_choices, "pairs")
        relax: Any = partial(topology_relaxation, "pairs", TopologyConfig(), 0)
    else:
        space, choices = full, operation_choices
        relax = partial(group_relaxation, groups_by_weights()) if step == "pair" else softmax_relaxation
    config = DartsConfig(channels=setting.channels, training=training)
    begin = fresh("benchmark", config, setting.cells, lambda before: space, choices)
    ours = begin(run, None, StepIndex(0, 0))
    for logits in ours.logits.values():
        logits.data.copy_(torch.randn(logits.shape, generator=draws))
    if step == "settled":
        ours = settled(ours)
    plain = PlainSupernet(space, setting.channels, setting.cells, 10, full)
    for mine, theirs in zip(ours.supernet.parameters(), plain.used(), strict=True):
        theirs.data.copy_(mine.data)
    other: Any = plain
    logits = {name: torch.nn.Parameter(value.detach().clone()) for name, value in ours.logits.items()}
    adam = torch.optim.Adam(logits.values(), 1e-4, weight_decay=1e-3)
    theirs_search = restart_sgd(replace(ours, supernet=other, logits=logits, logits_optimiser=adam))
    batches = [
        (torch.randn(setting.batch, 3, 32, 32, generator=draws), torch.arange(setting.batch) % 10)
        for _ in range(2)
    ]
    last = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in batches]
    return (
        StepContext(run, ours, relax(ours), EPOCH, last[0], last[1]),
        StepContext(run, theirs_search, relax(theirs_search), EPOCH, batches[0], batches[1]),
    )


def settled(search: Search) -> Search:
    """Return the search with one operation of non-zero weight on every edge; the others rest."""
    for name, logits in search.logits.items():
        if name.startswith("alpha"):
            logits.data.copy_(logits.argsort(dim=1).double())  # a whole apart, at a temperature below 1e-3
    resting = settled_operations(TopologyConfig(), 0, search, EPOCH, steps=1000)
    computed = [(search.candidate_mask[name] & ~mask).sum(dim=1) for name, mask in resting.items()]
    assert all((count == 1).all() for count in computed), "every edge has one operation with weight"
    return replace(search, resting=resting)


def step_of(step: str, plain: bool) -> Callable[[StepContext], Figures]:
    if step == "pair":
        return plain_bilevel if plain else bilevel
    return {
        "topology": one_level,
        "settled": one_level,
        "second order": unrolled,
        "dropnas": partial(train_dropped, DropnasConfig()),
    }[step]


def two_images(context: StepContext) -> StepContext:
    assert context.architecture_batch is not None
    batches = [tuple(x[:2] for x in batch) for batch in (context.batch, context.architecture_batch)]
    return replace(context, batch=batches[0], architecture_batch=batches[1])


def assert_same_loss(ours: StepContext, plain: StepContext) -> None:
    losses = []
    for context in (ours, plain):
        with torch.no_grad():
            losses.append(classify(context, context.batch, context.mixture())[0].item())
    assert abs(losses[0] - losses[1]) < 1e-3 * abs(losses[1]), f"the losses differ: {losses}"


def timed(step: Callable[[StepContext], Figures], context: StepContext) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    step(context)
    return time.perf_counter() - wall, time.process_time() - cpu


def weights_step(context: StepContext, alone: bool) -> None:
    """What peak memory is measured of: the gradients of the weights alone, or of the logits, too."""
    with torch.set_grad_enabled(not alone):
        mixture = context.mixture()
    loss, _ = classify(context, context.batch, mixture)
    loss.backward()


def peak_of_this_process(step: str, memory: str, alone: bool) -> int:
    """Bytes of a step over what is held behind one of a single image."""
    torch.set_num_threads(1)
    kept = "fast" if memory == "plain" else memory
    small, context = (turns(step, Setting(batch, memory=kept))[memory == "plain"] for batch in (1, 32))
    weights_step(small, alone)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights_step(context, alone)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def in_processes(function: Callable[..., int], rows: Sequence[tuple[Any, ...]]) -> list[int]:
    """The function of every row, each in a process of its own that holds as little as this one does now."""
    with get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        return pool.starmap(function, rows, chunksize=1)
