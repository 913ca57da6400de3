"""The one training loop that every method runs through: stages in, an Epoch after every epoch out.

Source: DARTS (ICLR 2019), Algorithm 1. It is deterministic: order, augmentation and all other draws of a step
depend on the seed, the epoch and the step (`randomness.py`), and the caller's random state is left alone.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor
from tqdm import tqdm

from dots_zoo.augment import cutout, normalise, random_crop, random_flip, shuffled
from dots_zoo.datasets import ImageData
from dots_zoo.errors import DotsZooError

from .config import TrainingConfig
from .data import Part, split_halves
from .randomness import generator, seeded
from .relax import entropy
from .space import Choice
from .stages import Batch, Epoch, Figures, Moment, Relax, Run, Search, Stage, Turn

SHOWN = ("loss", "accuracy", "architecture_loss", "architecture_accuracy")  # beside the progress bar


def run_stages(
    stages: Sequence[Stage], training: TrainingConfig, data: ImageData, *, progress: bool = True
) -> Iterator[Epoch]:
    """Train through all stages, giving an Epoch after each epoch; the last one's cells are what was found.

    Raises DotsZooError at once where a part of the images does not fill one batch, and on the way where a
    loss is not finite.
    """
    accelerator = Accelerator(mixed_precision=training.precision)
    device = accelerator.device
    run = Run(
        training=training,
        data=replace(data, images=data.images.to(device), labels=data.labels.to(device)),
        parts=split_halves(len(data.images), generator(training.seed, "halves")),
        accelerator=accelerator,
    )
    total = sum(stage.epochs * steps_of(stage, run) for stage in stages)
    return _epochs(stages, run, total, progress)


def _epochs(stages: Sequence[Stage], run: Run, total: int, progress: bool) -> Iterator[Epoch]:
    search, epoch = None, 0
    with tqdm(total=total, disable=not progress, unit="step") as bar:
        for stage in stages:
            search = stage.begin(run, search)
            relax = stage.relax(search.space, run.accelerator.device)
            bar.set_description(stage.name)
            for _ in range(stage.epochs):
                result = train_epoch(stage, run, search, relax, epoch, bar)
                shown = {name: f"{value:.3f}" for name, value in result.figures.items() if name in SHOWN}
                bar.set_postfix({"epoch": epoch, **shown})
                yield result
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


def train_epoch(stage: Stage, run: Run, search: Search, relax: Relax, epoch: int, bar: tqdm) -> Epoch:
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
        turn = Turn(run, search, partial(relax, search.logits, moment), moment, batch, architecture_batch)
        with seeded(run.accelerator.device, seed, "step", epoch, step):
            seen.append(stage.step(turn))
        bar.update()
    figures = read_figures(stage, epoch, seen)
    with torch.no_grad():
        relaxed = relax(search.logits, Moment(seed, epoch))
    figures |= {"learning_rate": rate, **relaxed.schedules, "seconds": time.perf_counter() - began}
    figures |= {f"entropy.{name}": entropy(weights).item() for name, weights in relaxed.weights.items()}
    return Epoch(
        stage=stage.name,
        epoch=epoch,
        figures=figures,
        weights={name: labelled(search.choices[name], weights) for name, weights in relaxed.weights.items()},
        cells=stage.derive(search.space, relaxed.weights),
    )


def batches(stage: Stage, part: Part, run: Run, epoch: int) -> Iterator[Batch]:
    """The augmented batches of an epoch; order and draws depend on the seed, the epoch and the part alone."""
    size, steps, seed = stage.batch_size, steps_of(stage, run), run.training.seed
    order = shuffled(run.parts[part], steps * size, Moment(seed, epoch).generator(f"order {part}"))
    for step, chosen in enumerate(order.to(run.accelerator.device).view(steps, size)):
        draws = Moment(seed, epoch, step).generator(f"augment {part}")
        images = augment(run.data.images[chosen], run.data, run.training, draws)
        yield images, run.data.labels[chosen]


def augment(images: Tensor, data: ImageData, training: TrainingConfig, draws: torch.Generator) -> Tensor:
    """uint8 -> normalised float32: random crop, flip where it keeps the label, cutout."""
    if training.crop_padding:
        images = random_crop(images, training.crop_padding, draws)
    if data.flip:
        images = random_flip(images, draws)
    normal = normalise(images, data)
    return cutout(normal, training.cutout, draws) if training.cutout else normal


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
