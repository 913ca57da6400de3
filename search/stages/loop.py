"""The one training loop, for every method: it runs stages and yields an Epoch after every epoch.

Source: DARTS (ICLR 2019), Algorithm 1. It is deterministic: order, augmentation and all other draws of a step
depend on the seed, the epoch and the step (`dots_zoo.runtime.seeding`), and the caller's random state is left
alone.

Several processes share every batch. Draws that concern the architecture (the order of the images, Gumbel
noise, dropped operations, perturbed weights, decisions) are the same in all of them; draws that concern
images (augmentation, dropout after skip connections, `noise`) differ.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor

from dots_zoo.data.augment import shuffled
from dots_zoo.data.datasets import Data
from dots_zoo.genotype import OPS
from dots_zoo.runtime.checkpoint_files import Saved
from dots_zoo.runtime.distributed import processes_of
from dots_zoo.runtime.progress import ProgressDisplay
from dots_zoo.runtime.seeding import generator, seeded

from ..space.relax import entropy
from ..space.space import Choice
from .checkpoint import CheckpointManager, Progress, RunState, restore_run_state
from .config import TrainingConfig
from .figures import epoch_line
from .split import Part, split
from .stage import Batch, Epoch, Figures, Relaxation, Run, Search, Stage, StepContext, StepIndex
from .validate import validate


def run_stages(
    stages: Sequence[Stage],
    run: Run,
    *,
    checkpoints: CheckpointManager | None = None,
    saved: Saved | None = None,
    progress: bool = True,
) -> Iterator[Epoch]:
    """Train through all stages and yield an Epoch after each epoch; the last one holds the final cells.

    Args:
        stages: of the search, in order.
        run: its constants.
        checkpoints: writer of checkpoints.
        saved: checkpoint to resume from; Epochs given before it are not given again.
        progress: show a bar on a terminal, and a line an epoch.

    Raises:
        DotsZooError: at once if a part of the images does not fill one batch, the processes cannot share it,
            or the checkpoint cannot be used; during training if a loss is not finite.
    """
    total = sum(stage.epochs * steps_of(stage, run) for stage in stages)
    run_state = None if saved is None else restore_run_state(saved, run)
    done = 0 if run_state is None else _steps_before(stages, run, run_state.progress)
    display = ProgressDisplay(total, done=done, show=progress and run.processes.first)
    return _epochs(stages, run, run_state, checkpoints, display)


def run_of(training: TrainingConfig, data: Data) -> Run:
    """Return the constants of a run, on the device of this process."""
    accelerator = Accelerator(mixed_precision=training.precision)
    data = data.to(accelerator.device)
    return Run(
        seed=training.seed,
        data=data,
        train_batch=partial(data.train_batch, augmentation=training.augmentation),
        parts=split(data.labels, training.class_fractions, generator(training.seed, "halves")),
        clip=training.weights.clip,
        kernels=training.kernels == "on",
        accelerator=accelerator,
        processes=processes_of(accelerator),
    )


def _epochs(
    stages: Sequence[Stage],
    run: Run,
    run_state: RunState | None,
    checkpoints: CheckpointManager | None,
    display: ProgressDisplay,
) -> Iterator[Epoch]:
    progress = Progress() if run_state is None else run_state.progress
    search, seed = None if run_state is None else run_state.search, run.seed
    epochs = sum(stage.epochs for stage in stages)
    with display:
        for index, stage in enumerate(stages[progress.stage :], progress.stage):
            began = time.perf_counter()
            if search is None or index > progress.stage:
                search = stage.initialise(run, search, StepIndex(seed, progress.epoch))
                progress = Progress(stage=index, epoch=progress.epoch, logged_epochs=progress.logged_epochs)
            for done in range(progress.done, max(1, stage.epochs)):
                if not progress.step:  # resting operations are chosen once for an epoch
                    steps = steps_of(stage, run) if stage.epochs else 0
                    masks = stage.rest(search, StepIndex(seed, progress.epoch), steps) if stage.rest else {}
                    search = replace(search, resting=masks)
                relaxation = stage.relax(search)
                if not stage.epochs:  # a decision
                    figures = {"seconds": time.perf_counter() - began}
                else:
                    display.start_epoch(f"{stage.name}, epoch {progress.epoch + 1} of {epochs}")
                    epoch_state = RunState(
                        progress, search, run_state.seen if run_state and progress.step else ()
                    )
                    figures = train_epoch(stage, run, epoch_state, relaxation, checkpoints, display.step)
                report = describe(stage, run, search, relaxation, progress.epoch, figures)
                display.line(epoch_line(report, epochs))
                yield report
                if stage.epochs:
                    search = stage.after(search, StepIndex(seed, progress.epoch), figures)
                epoch = progress.epoch + bool(stage.epochs)
                progress = Progress(
                    stage=index, done=done + 1, epoch=epoch, logged_epochs=progress.logged_epochs + 1
                )
                if checkpoints is not None:
                    checkpoints.save(RunState(progress, search), run.processes)
            if stage.saved_as and checkpoints is not None:
                checkpoints.save_stage(stage.saved_as, RunState(progress, search), run.processes)


def _steps_before(stages: Sequence[Stage], run: Run, progress: Progress) -> int:
    """Return the number of steps that precede `place`."""
    before = sum(stage.epochs * steps_of(stage, run) for stage in stages[: progress.stage])
    now = stages[progress.stage]
    return before + (progress.done * steps_of(now, run) + progress.step if now.epochs else 0)


def steps_of(stage: Stage, run: Run) -> int:
    """Return the number of steps of an epoch, without an incomplete last batch.

    Raises:
        DotsZooError: if the images do not fill one batch, or the processes cannot share a batch.
    """
    count, size, processes = len(run.parts[stage.images]), stage.batch_size, run.processes
    if count < size:
        processes.end(
            f"search, stage {stage.name!r}: expected at least one batch of {size} images, got {count}; lower "
            "the batch size"
        )
    if size % processes.count:
        processes.end(
            f"search, stage {stage.name!r}: expected a batch that {processes.count} processes can share, got "
            f"{size} images; change the batch size, which is that of all processes together"
        )
    return count // size


def train_epoch(
    stage: Stage,
    run: Run,
    run_state: RunState,
    relaxation: Relaxation,
    checkpoints: CheckpointManager | None,
    on_step: Callable[[], object],
) -> dict[str, float]:
    """Train from a step to the end of its epoch and return the figures of the epoch.

    on_step: called after every step.
    The device is read only after the last step, for a checkpoint that is due, and before a step whose
    relaxation has to know what it draws.
    """
    progress, search, seen = run_state.progress, run_state.search, list(run_state.seen)
    began, seed, epoch = time.perf_counter() - progress.seconds, run.seed, progress.epoch
    rate = stage.learning_rate(epoch)
    for group in search.weights_optimiser.param_groups:
        group["lr"] = rate
    first, part = batches(stage, stage.images, run, epoch, progress.step), stage.architecture_images
    second = batches(stage, part, run, epoch, progress.step) if part else repeat(None)
    last = steps_of(stage, run) - 1
    for step, (batch, architecture_batch) in enumerate(zip(first, second, strict=False), progress.step):
        step_index = StepIndex(seed, epoch, step)
        sampled_ops = relaxation.sampled_ops(search.logits, step_index)
        context = StepContext(run, search, relaxation, step_index, batch, architecture_batch, sampled_ops)
        with seeded(run.accelerator.device, seed, run.processes.per_rank("step"), epoch, step):
            seen.append(stage.step(context))
        on_step()
        if checkpoints is not None and step < last and checkpoints.is_due(run.processes):
            # raises before a state that is not finite is saved
            read_figures(stage, run, epoch, seen, checkpoints)
            seconds = time.perf_counter() - began
            here = replace(progress, step=step + 1, seconds=seconds)
            checkpoints.save(RunState(here, search, seen), run.processes)
    figures = read_figures(stage, run, epoch, seen, checkpoints)
    if stage.validate:
        figures |= validate(run, search, relaxation, StepIndex(seed, epoch), stage.batch_size)
    return figures | {"learning_rate": rate, "seconds": time.perf_counter() - began}


def describe(
    stage: Stage, run: Run, search: Search, relaxation: Relaxation, epoch: int, figures: Mapping[str, float]
) -> Epoch:
    """Return the Epoch that the logits stand for, after an epoch or a decision."""
    step_index = StepIndex(run.seed, epoch)
    with torch.no_grad():
        weights = relaxation.compute_weights(search.logits, step_index)
    cell_figures = {f"entropy.{name}": entropy(table).item() for name, table in weights.items()}
    cells = stage.derive(search.space, weights)
    operations = [OPS[edge.op] for cell in cells.values() for edge in cell.edges]
    cell_figures["skips"] = float(sum(operation.skip for operation in operations))
    cell_figures["parametric"] = float(sum(operation.parametric for operation in operations))
    return Epoch(
        stage=stage.name,
        epoch=epoch,
        figures={**figures, **relaxation.schedules(step_index), **cell_figures},
        weights={name: labelled(search.choices[name], table) for name, table in weights.items()},
        cells=cells,
    )


def batches(stage: Stage, part: Part, run: Run, epoch: int, start: int = 0) -> Iterator[Batch]:
    """Yield the augmented batches of an epoch from step `start` on, this process's share of each.

    Order and draws depend on the seed, the epoch and the part alone.
    """
    steps, seed, processes = steps_of(stage, run), run.seed, run.processes
    order = shuffled(
        run.parts[part], steps * stage.batch_size, StepIndex(seed, epoch).generator(f"order {part}")
    )
    shares = order.to(run.accelerator.device).view(steps, processes.count, -1)[:, processes.rank]
    for step, chosen in enumerate(shares[start:], start):
        draws = StepIndex(seed, epoch, step).generator(processes.per_rank(f"augment {part}"))
        yield run.train_batch(chosen, draws=draws), run.data.labels[chosen]


def read_figures(
    stage: Stage, run: Run, epoch: int, seen: Sequence[Figures], checkpoints: CheckpointManager | None
) -> dict[str, float]:
    """Return the mean of every figure over the steps of an epoch that gave it; read the device once.

    Raises:
        DotsZooError: if a value is not finite.
    """
    places = [(step, name) for step, figures in enumerate(seen) for name in figures]
    scalars = [seen[step][name] for step, name in places]
    values: list[float] = torch.stack(scalars).tolist() if scalars else []
    by_name: dict[str, list[float]] = {}
    for (step, name), value in zip(places, values, strict=True):
        if not math.isfinite(value):
            kept = f"; the last checkpoint is {checkpoints.last}" if checkpoints and checkpoints.last else ""
            run.processes.end(
                f"search, stage {stage.name!r}, epoch {epoch}, step {step}: expected a finite {name}, "
                f"got {value}; lower the learning rates of training.weights or training.logits{kept}"
            )
        by_name.setdefault(name, []).append(value)
    return {name: sum(series) / len(series) for name, series in by_name.items()}


def labelled(choice: Choice, weights: Tensor) -> dict[str, dict[str, float]]:
    """Return weights (R, C) as row -> label -> weight, without the padding of shorter rows."""
    rows = zip(choice.rows, choice.labels, weights.tolist(), strict=True)
    return {title: dict(zip(labels, row[: len(labels)], strict=True)) for title, labels, row in rows}
