"""The one training loop that every method runs through: stages in, an Epoch after every epoch out.

Source: DARTS (ICLR 2019), Algorithm 1. It is deterministic: order, augmentation and all other draws of a step
depend on the seed, the epoch and the step (`dots_zoo.randomness`), and the caller's random state is left
alone.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor
from tqdm import tqdm

from dots_zoo.augment import shuffled
from dots_zoo.datasets import Data
from dots_zoo.errors import DotsZooError
from dots_zoo.randomness import generator, seeded

from .config import TrainingConfig
from .data import Part, split
from .relax import entropy
from .space import Choice
from .stages import Batch, Epoch, Figures, Moment, Relaxation, Run, Search, Stage, Turn
from .validation import validate

# Beside the progress bar.
SHOWN = ("loss", "accuracy", "architecture_loss", "architecture_accuracy", "validation_accuracy")


def run_stages(
    stages: Sequence[Stage], training: TrainingConfig, data: Data, *, progress: bool = True
) -> Iterator[Epoch]:
    """Train through all stages, giving an Epoch after each epoch; the last one's cells are what was found.

    Raises DotsZooError at once where a part of the images does not fill one batch, and on the way where a
    loss is not finite.
    """
    accelerator = Accelerator(mixed_precision=training.precision)
    device = accelerator.device
    run = Run(
        training=training,
        data=data.to(device),
        parts=split(data.labels, training.class_fractions, generator(training.seed, "halves")),
        accelerator=accelerator,
    )
    total = sum(stage.epochs * steps_of(stage, run) for stage in stages)
    return _epochs(stages, run, total, progress)


def _epochs(stages: Sequence[Stage], run: Run, total: int, progress: bool) -> Iterator[Epoch]:
    search, epoch = None, 0
    with tqdm(total=total, disable=not progress, unit="step") as bar:
        for stage in stages:
            bar.set_description(stage.name)
            search = stage.begin(run, search, Moment(run.training.seed, epoch))
            relaxation = stage.relax(search)
            if not stage.epochs:
                yield describe(stage, run, search, relaxation, epoch, {})
            for _ in range(stage.epochs):
                figures = train_epoch(stage, run, search, relaxation, epoch, bar)
                shown = {name: f"{value:.3f}" for name, value in figures.items() if name in SHOWN}
                bar.set_postfix({"epoch": epoch, **shown})
                yield describe(stage, run, search, relaxation, epoch, figures)
                search = stage.after(search, Moment(run.training.seed, epoch), figures)
                epoch += 1


def steps_of(stage: Stage, run: Run) -> int:
    """Steps of an epoch; an incomplete last batch is left out."""
    count = len(run.parts[stage.images])
    if count < stage.batch_size:
        raise DotsZooError(
            f"search, stage {stage.name!r}: expected at least one batch of {stage.batch_size} images, "
            f"got {count}; lower the batch size"
        )
    return count // stage.batch_size


def train_epoch(
    stage: Stage, run: Run, search: Search, relaxation: Relaxation, epoch: int, bar: tqdm
) -> dict[str, float]:
    """One pass over the stage's images. Reads nothing back from the device before the last step."""
    began, seed = time.perf_counter(), run.training.seed
    rate = stage.learning_rate(epoch)
    for group in search.weights_optimiser.param_groups:
        group["lr"] = rate
    first, part = batches(stage, stage.images, run, epoch), stage.architecture_images
    second = batches(stage, part, run, epoch) if part else repeat(None)
    seen: list[Figures] = []
    for step, (batch, architecture_batch) in enumerate(zip(first, second, strict=False)):
        moment = Moment(seed, epoch, step)
        turn = Turn(run, search, relaxation, moment, batch, architecture_batch)
        with seeded(run.accelerator.device, seed, "step", epoch, step):
            seen.append(stage.step(turn))
        bar.update()
    figures = read_figures(stage, epoch, seen)
    if stage.validate:
        figures |= validate(run, search, relaxation, Moment(seed, epoch), stage.batch_size)
    return figures | {"learning_rate": rate, "seconds": time.perf_counter() - began}


def describe(
    stage: Stage, run: Run, search: Search, relaxation: Relaxation, epoch: int, figures: Mapping[str, float]
) -> Epoch:
    """What the logits say after an epoch, or after a decision."""
    moment = Moment(run.training.seed, epoch)
    with torch.no_grad():
        weights = relaxation.weigh(search.logits, moment)
    told = {f"entropy.{name}": entropy(found).item() for name, found in weights.items()}
    return Epoch(
        stage=stage.name,
        epoch=epoch,
        figures={**figures, **relaxation.schedules(moment), **told},
        weights={name: labelled(search.choices[name], found) for name, found in weights.items()},
        cells=stage.derive(search.space, weights),
    )


def batches(stage: Stage, part: Part, run: Run, epoch: int) -> Iterator[Batch]:
    """The augmented batches of an epoch; order and draws depend on the seed, the epoch and the part alone."""
    size, steps, seed = stage.batch_size, steps_of(stage, run), run.training.seed
    order = shuffled(run.parts[part], steps * size, Moment(seed, epoch).generator(f"order {part}"))
    for step, chosen in enumerate(order.to(run.accelerator.device).view(steps, size)):
        draws = Moment(seed, epoch, step).generator(f"augment {part}")
        yield run.data.train_batch(chosen, run.training.augmentation, draws), run.data.labels[chosen]


def read_figures(stage: Stage, epoch: int, seen: Sequence[Figures]) -> dict[str, float]:
    """Means over an epoch's steps, read from the device at once. Raises DotsZooError where not finite."""
    names = list(seen[0])
    table = torch.stack([torch.stack([row[name] for name in names]) for row in seen])  # (steps, names)
    rows: list[list[float]] = table.tolist()
    for step, row in enumerate(rows):
        for name, value in zip(names, row, strict=True):
            if not math.isfinite(value):
                raise DotsZooError(
                    f"search, stage {stage.name!r}, epoch {epoch}, step {step}: expected a finite {name}, "
                    f"got {value}; lower the learning rates of training.weights or training.logits"
                )
    return {name: sum(row[number] for row in rows) / len(rows) for number, name in enumerate(names)}


def labelled(choice: Choice, weights: Tensor) -> dict[str, dict[str, float]]:
    """(R, C) weights as row -> label -> weight; what lies beyond a row's end is left out."""
    rows = zip(choice.rows, choice.labels, weights.tolist(), strict=True)
    return {title: dict(zip(labels, row[: len(labels)], strict=True)) for title, labels, row in rows}
