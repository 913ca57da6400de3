"""Augmentation of whole batches of images; every draw comes from a generator.

Source: DARTS (ICLR 2019), Sec. 3.1 (random crop, flip); Cutout (DeVries and Taylor, 2017).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .datasets import ImageData


def shuffled(indices: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """`length` of the indices: one random pass after another, so that each is used as often as any other."""
    passes = [
        indices[torch.randperm(len(indices), generator=generator)]
        for _ in range(math.ceil(length / len(indices)))
    ]
    return torch.cat(passes)[:length]


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Windows of the same size, one an image, out of images padded with zeros on every side."""
    count, _, height, width = images.shape
    top, left = torch.randint(2 * padding + 1, (2, count), generator=generator).to(images.device)
    windows = (
        F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    )  # (N, C, 2p+1, 2p+1, H, W)
    return windows[torch.arange(count, device=images.device), :, top, left]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images, chosen at random, mirrored left to right."""
    mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def cutout(images: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """A square of side `length` set to zero in every image; its centre is any pixel, so it may leave the
    image.
    """
    count, _, height, width = images.shape
    drawn = torch.rand(2, count, generator=generator).to(images.device)
    inside = []
    for position, side in zip(drawn, (height, width), strict=True):
        start = (position * side).floor() - length // 2
        distance = torch.arange(side, device=images.device) - start[:, None]  # (N, side)
        inside.append((distance >= 0) & (distance < length))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # (N, 1, H, W)
    return images.masked_fill(hole, 0)


def normalise(images: Tensor, data: ImageData) -> Tensor:
    """uint8 (N, C, H, W) to float32 with zero mean and unit variance per channel, channels last."""
    mean, std = (torch.tensor(value).view(1, -1, 1, 1).to(images.device) for value in (data.mean, data.std))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
