"""Split the training images: those that are trained on, and those that are held out for validation."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.datasets import Data
from ..runtime.errors import DotsZooError
from .recipe import Recipe


@dataclass(frozen=True)
class Split:
    """Indices of training images: those trained on, those held out; None: the test images are evaluated."""

    training: Tensor
    validation: Tensor | None = None


def split(data: Data, recipe: Recipe, processes: int = 1) -> Split:
    """Split the training images as the recipe's `validation` says.

    Raises DotsZooError where the images that are left do not fill a batch, where the batch cannot be shared
    among the processes, or where a class is missing on either side.
    """
    parts = _split(data, recipe)
    count = len(parts.training)
    if count < recipe.batch_size or recipe.batch_size % processes:
        raise DotsZooError(
            f"training: expected {recipe.batch_size} images (batch_size) or more, and a batch that "
            f"{processes} processes can share, got {count} images; change batch_size"
        )
    if recipe.first_size > data.size:
        raise DotsZooError(
            f"first_size: expected the side of the images or less, {data.size}, got {recipe.first_size}"
        )
    return parts


def with_batch_that_fits(recipe: Recipe, data: Data, processes: int) -> Recipe:
    """Return the recipe with a batch that the training images fill.

    Raises DotsZooError where they do not suffice for two in every process.
    """
    count = len(_split(data, recipe).training)
    if count >= recipe.batch_size:
        return recipe
    if count < 2 * processes:
        raise DotsZooError(f"training: expected {2 * processes} training images or more, got {count}")
    return replace(recipe, batch_size=count // processes * processes)


def _split(data: Data, recipe: Recipe) -> Split:
    labels = data.labels.cpu()
    count = len(labels)
    size = round(recipe.validation * count) if recipe.validation < 1 else int(recipe.validation)
    if not recipe.validation:
        return Split(torch.arange(count))
    if not 0 < size < count:
        raise DotsZooError(
            f"validation: expected some of the {count} training images, but not all, got {recipe.validation}"
        )
    held_out = torch.zeros(count, dtype=torch.bool)
    held_out[_last_of_every_class(labels, size) if _is_sorted(labels) else slice(count - size, None)] = True
    parts = Split(*(torch.arange(count)[chosen] for chosen in (~held_out, held_out)))
    for chosen in (~held_out, held_out):
        if len(labels[chosen].unique()) < data.classes:
            raise DotsZooError(
                f"validation: expected images of all {data.classes} classes among the {size} training images "
                f"that are held out and among the others, got {len(labels[chosen].unique())}; change "
                "validation"
            )
    return parts


def _is_sorted(labels: Tensor) -> bool:
    """Return True where images come class by class, as those of a folder do."""
    return bool((labels.diff() >= 0).all())


def _last_of_every_class(labels: Tensor, size: int) -> Tensor:
    """Return the indices of the last images of every class, `size` in all, in proportion to the classes."""
    counts = labels.bincount()
    shares = counts * size / len(labels)
    taken = shares.floor().long()
    largest = (shares - taken).argsort(descending=True, stable=True)
    taken[largest[: size - int(taken.sum())]] += 1
    parts = zip(counts.cumsum(0), taken, strict=True)
    return torch.cat([torch.arange(end - size, end) for end, size in parts])
