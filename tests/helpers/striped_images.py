"""A data set that a network of four channels learns in seconds, and a recipe without anything drawn."""

from dataclasses import replace

import torch
from torch import Tensor

from dots_zoo.data.augment import Augmentation
from dots_zoo.data.datasets import ImageData
from dots_zoo.train.recipe import Recipe

PLAIN = Recipe(
    epochs=2,
    batch_size=16,
    drop_path_rate=0.0,
    aux_weight=0.0,
    learning_rate=0.05,
    augmentation=Augmentation(crop_padding=0),
)


def shades(count: int = 64) -> ImageData:
    """Image n has the shade n everywhere: what a network sees says which images those were."""
    values = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1).expand(count, 3, 8, 8)
    return replace(stripes(count), images=values.contiguous())


def shades_of(batch: Tensor) -> list[int]:
    """The shades of normalised images (N, 3, 8, 8)."""
    return ((batch[:, 0, 0, 0] * 0.3 + 0.4) * 255).round().int().tolist()


def stripes(count: int = 64, classes: int = 2) -> ImageData:
    """Horizontal against vertical stripes with noise, alternating; `classes` beyond two are never seen."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    rows = (torch.arange(8) % 2 * 120).view(1, 1, 8, 1).expand(count, 3, 8, 8)
    images = torch.where(labels.view(-1, 1, 1, 1) == 1, rows, rows.transpose(2, 3))
    noisy = (images + torch.randint(100, images.shape, generator=generator)).to(torch.uint8)
    half = count // 2
    return ImageData(
        "stripes", noisy, labels, noisy[:half], labels[:half], classes, (0.4,) * 3, (0.3,) * 3, True, {}
    )
