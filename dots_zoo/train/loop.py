"""Retrain a genotype from scratch: the training loop.

Source: DARTS (ICLR 2019), Sec. 3.2 and DOTS (CVPR 2021), Sec. 5.1: SGD with momentum, cosine to zero,
gradient clipping, drop path that reaches its rate linearly over the epochs, an auxiliary loss. It is
deterministic: order, augmentation and every other draw of a step depend on the seed, the epoch, the step and
the process alone, so a training that resumes from a checkpoint ends with the same bits as one that was never
stopped (same machine, same number of threads and processes).
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import torch.nn.functional as F
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import broadcast  # type: ignore[import-untyped]
from torch import Tensor
from torchvision.transforms import v2

from ..data.augment import shrunk, shuffled
from ..data.datasets import Data
from ..runtime.distributed import ALONE, Processes, processes_of
from ..runtime.progress import ProgressDisplay
from ..runtime.seeding import generator, seeded
from ..runtime.sigterm import STATUS
from ..runtime.to_device import to_device
from .model import drop_path_schedule
from .recipe import Recipe, image_side, learning_rate
from .score import score
from .split import Split, split
from .state import Row, State, best_epoch, epoch_line, fresh_state, load_checkpoint, save_checkpoint

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint folder of a training, and when to write to it.

    Args:
        folder: folder of the checkpoints.
        seconds: time between two of them; 0: after every step.
        identity: what a training must share with a checkpoint to resume from it.
        stop: function that returns True once the process has received SIGTERM; the training then ends after
            its step, once that is saved.
    """

    folder: Path
    seconds: float = 300.0
    identity: Mapping[str, Any] = field(default_factory=dict)
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class _Run:
    """The constants of a training."""

    network: torch.nn.Module
    wrapped: torch.nn.Module  # the network, wrapped by Accelerate for several processes
    data: Data
    recipe: Recipe
    accelerator: Accelerator
    parts: Split
    set_drop_path: Callable[[int], None]
    checkpoint: Checkpoint | None
    display: ProgressDisplay
    processes: Processes = ALONE

    @property
    def steps(self) -> int:
        return len(self.parts.training) // self.recipe.batch_size


def fit(
    network: torch.nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    accelerator: Accelerator | None = None,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[list[Row]], None] = lambda history: None,
    progress: bool = True,
) -> State:
    """Train a network in place; return the final state, whose history has one row an epoch.

    Args:
        checkpoint: resume from it where there is one, and write to it.
        on_epoch: called with the history after every epoch.
        progress: show a bar on a terminal, and a line an epoch.

    Raises DotsZooError where the images do not fill a batch, the checkpoint is another training's, or the
    loss is not finite; SystemExit with 143 after SIGTERM, once the step is saved.
    """
    accelerator = accelerator or Accelerator(mixed_precision=recipe.precision)
    processes = processes_of(accelerator)
    parts = split(data, recipe, processes.count)
    network.to(accelerator.device).to(memory_format=torch.channels_last)
    state = fresh_state(network, recipe)
    if checkpoint is not None:
        load_checkpoint(state, checkpoint.folder, _identity(checkpoint, recipe), processes)
    steps = len(parts.training) // recipe.batch_size
    done = state.epoch * steps + state.step
    with ProgressDisplay(recipe.epochs * steps, done=done, show=progress and processes.first) as display:
        wrapped = accelerator.prepare_model(network) if accelerator.num_processes > 1 else network
        data = data.to(accelerator.device)
        set_drop_path = drop_path_schedule(network, recipe)
        run = _Run(
            network, wrapped, data, recipe, accelerator, parts, set_drop_path, checkpoint, display, processes
        )
        while state.epoch < recipe.epochs:
            _train_epoch(run, state)
            state.history.append(_row(run, state))
            display.line(epoch_line(state.history[-1], recipe.epochs))
            state.epoch, state.step, state.seconds = state.epoch + 1, 0, 0.0
            state.totals.zero_()
            _save(run, state)
            processes.first_does(partial(on_epoch, state.history))
    return state


def _identity(checkpoint: Checkpoint, recipe: Recipe) -> dict[str, Any]:
    return {"recipe": asdict(recipe), **checkpoint.identity}


def _train_epoch(run: _Run, state: State) -> None:
    """Train from the state's step to the end of its epoch, without a device sync."""
    run.display.start_epoch(f"training, epoch {state.epoch + 1} of {run.recipe.epochs}")
    run.network.train()
    run.set_drop_path(state.epoch)
    began = kept = time.perf_counter()
    before = state.seconds
    for images, labels in ahead(_batches(run, state.epoch, state.step)):
        rate = learning_rate(run.recipe, state.epoch * run.steps + state.step, run.steps)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        with seeded(
            run.accelerator.device,
            run.recipe.seed,
            "step",
            state.epoch,
            state.step,
            run.accelerator.process_index,
        ):
            state.totals += run.processes.summed(_step(run, state, images, labels))
        state.step += 1
        run.display.step()
        now = time.perf_counter()
        state.seconds = before + now - began
        if run.checkpoint is not None and state.step < run.steps:
            if run.processes.any(now - kept >= run.checkpoint.seconds or run.checkpoint.stop()):
                _save(run, state)
                kept = now


def _batches(run: _Run, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's images and labels of every step of an epoch, from step `first` on."""
    recipe, rank, world = run.recipe, run.accelerator.process_index, run.accelerator.num_processes
    order = shuffled(
        run.parts.training, run.steps * recipe.batch_size, generator(recipe.seed, "order", epoch)
    )
    for step, chosen in enumerate(order.view(run.steps, world, -1)):
        if step >= first:
            draws = generator(recipe.seed, "augment", epoch, step, rank)
            images = run.data.train_batch(chosen[rank], recipe.augmentation, draws)
            images = shrunk(images, image_side(recipe, epoch, run.data.size))
            yield images, run.data.labels[to_device(chosen[rank], run.data.labels.device)]


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the same items, the next one prefetched on a thread."""
    left = iter(items)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, left, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, left, None)
            yield item


def _step(run: _Run, state: State, images: Tensor, labels: Tensor) -> Tensor:
    """Take one step of SGD; return (loss, hits, images), sums over the batch, (3,)."""
    recipe, targets = run.recipe, labels
    mixes = [
        mix(alpha=strength, num_classes=run.data.classes)
        for mix, strength in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
        if strength
    ]
    if mixes:
        images, targets = v2.RandomChoice(mixes)(images, labels)
    with run.accelerator.autocast():
        loss, logits = loss_of(run.wrapped, images, targets, recipe)
    state.optimiser.zero_grad()
    loss.backward()
    if recipe.clip:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip)
    state.optimiser.step()
    if state.ema is not None:
        state.ema.update(run.network, state.epoch * run.steps + state.step)
    hits = (logits.argmax(1) == labels).sum()
    return torch.stack([loss.detach() * len(labels), hits, hits.new_full((), len(labels))])


def loss_of(model: torch.nn.Module, images: Tensor, targets: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return (cross-entropy, logits (N, classes)); the loss includes the auxiliary head's where there is one.

    targets: labels (N,) or the shares of the classes (N, classes).
    """
    output = model(images)
    logits, auxiliary = output if isinstance(output, tuple) else (output, None)
    loss = F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)
    if auxiliary is not None:
        loss = loss + recipe.aux_weight * F.cross_entropy(
            auxiliary.float(), targets, label_smoothing=recipe.label_smoothing
        )
    return loss, logits


def _row(run: _Run, state: State) -> Row:
    """Return the metrics of the epoch that ends. Raises DotsZooError where the loss was not finite."""
    recipe, epoch = run.recipe, state.epoch
    loss, hits, count = state.totals.tolist()
    if not math.isfinite(loss):
        _end_as_not_finite(run, state)
    row = {
        "epoch": epoch,
        "loss": loss / count,
        "accuracy": hits / count,
        "learning_rate": learning_rate(recipe, epoch * run.steps + run.steps - 1, run.steps),
        "seconds": round(state.seconds, 3),
    }
    every = recipe.evaluate_every
    if epoch + 1 == recipe.epochs or (every and (epoch + 1) % every == 0):
        for buffer in state.kept.buffers():  # each process has updated its own statistics
            buffer.copy_(broadcast(buffer))
        held_out = run.parts.validation
        figures = score(state.kept, run.data, run.accelerator, held_out=held_out).figures
        row |= {f"{'test' if held_out is None else 'validation'}_{name}": n for name, n in figures.items()}
        if held_out is not None and every and best_epoch([*state.history, row]) == epoch:
            state.keep_best()
    return row


def _save(run: _Run, state: State) -> None:
    """Save the state. Raises SystemExit where a process has received SIGTERM."""
    if run.checkpoint is None:
        return
    if not math.isfinite(state.totals[0]):
        _end_as_not_finite(run, state)
    identity = _identity(run.checkpoint, run.recipe)
    run.processes.first_does(
        partial(save_checkpoint, state, run.checkpoint.folder, identity, run.processes.count)
    )
    if run.processes.any(run.checkpoint.stop()):
        raise SystemExit(STATUS)


def _end_as_not_finite(run: _Run, state: State) -> NoReturn:
    kept = (
        run.checkpoint
        and run.checkpoint.folder.is_dir()
        and f"; the last checkpoint is in {run.checkpoint.folder}"
    )
    run.processes.end(
        f"training: the loss was not finite in epoch {state.epoch}; lower learning_rate or clip{kept or ''}"
    )
