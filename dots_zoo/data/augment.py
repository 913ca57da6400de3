"""Augment whole batches of images; every draw comes from a generator.

Source: DARTS (ICLR 2019), Sec. 3.1 (random crop, flip); Cutout (DeVries and Taylor, 2017). The transforms of
images in files, before they are a batch, are in transforms.py.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.errors import DotsZooError
from ..runtime.to_device import to_device


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random variation of training images; by default as in DARTS, for folders as in PC-DARTS and DOTS.

    Args:
        crop_padding: pixels of black on every side of an image in memory before a window of its own size is
            drawn; 0 for none. Images of a folder are cropped by min_scale instead.
        flip: mirror half of the images; the data set's own habit if not given.
        cutout: side in pixels of the square that is blanked; 0 for none, 16 to retrain on CIFAR.
        min_scale: smallest share of the area of a folder's image that a crop keeps.
        colour_jitter: factors up to this far from 1 for brightness, contrast and saturation of a folder's
            images, and up to half of it of the colour circle for the hue; 0 for none.

    Raises DotsZooError where a number is out of its range.
    """

    crop_padding: int = 4
    flip: bool | None = None
    cutout: int = 0
    min_scale: float = 0.08
    colour_jitter: float = 0.4

    def __post_init__(self) -> None:
        for name, low, high, expected in (
            ("crop_padding", 0, math.inf, "0 pixels or more"),
            ("cutout", 0, math.inf, "0 pixels or more"),
            ("min_scale", math.ulp(0), 1, "a share above 0 and up to 1"),
            ("colour_jitter", 0, 1, "a number from 0 to 1"),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise DotsZooError(f"{name}: expected {expected}, got {value}")

    def mirrors(self, habit: bool) -> bool:
        """Return True if images are mirrored; `habit` is the data set's own answer."""
        return habit if self.flip is None else self.flip


class Statistics(Protocol):
    """Mean and standard deviation per channel, of pixels scaled to [0, 1]."""

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...


def shuffled(indices: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Draw `length` of the indices (N,), pass after random pass, so that all are used equally often."""
    passes = [
        indices[torch.randperm(len(indices), generator=generator)]
        for _ in range(math.ceil(length / len(indices)))
    ]
    return torch.cat(passes)[:length]


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Cut a random window of its own size out of every image, padded with zeros on every side."""
    count, _, height, width = images.shape
    top, left = to_device(torch.randint(2 * padding + 1, (2, count), generator=generator), images.device)
    windows = (
        F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    )  # (N, C, 2p+1, 2p+1, H, W)
    return windows[torch.arange(count, device=images.device), :, top, left]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images, chosen at random, left to right."""
    mirrored = to_device(torch.rand(len(images), generator=generator) < 0.5, images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def cutout(images: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Set a square of side `length` to zero in every image (Cutout).

    Its centre is any pixel, so that the square may reach beyond the image.
    """
    count, _, height, width = images.shape
    drawn = to_device(torch.rand(2, count, generator=generator), images.device)
    inside = []
    for position, side in zip(drawn, (height, width), strict=True):
        start = (position * side).floor() - length // 2
        distance = torch.arange(side, device=images.device) - start[:, None]  # (N, side)
        inside.append((distance >= 0) & (distance < length))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # (N, 1, H, W)
    return images.masked_fill(hole, 0)


def normalise(images: Tensor, data: Statistics) -> Tensor:
    """Normalise uint8 (N, C, H, W) to zero mean and unit variance per channel: float32, channels last."""
    both = torch.tensor([data.mean, data.std])[:, None, :, None, None]  # (2, 1, C, 1, 1)
    mean, std = to_device(both, images.device).unbind()
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def shrunk(images: Tensor, side: int) -> Tensor:
    """Resize (N, C, H, W) to (N, C, side, side) with antialiasing, channels last."""
    if images.shape[-1] == side:
        return images
    small = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)
