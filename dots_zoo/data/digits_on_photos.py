"""Digits that are turned and shifted over pieces of a photograph: small images that are hard to tell apart.

The recipe is that of mnist-rot-back-image (Larochelle et al., ICML 2007), on scikit-learn's digits with the
two photographs that it ships; nothing is downloaded. Nearest neighbours fail on
them, so that networks differ.
"""

import math
from dataclasses import asdict, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.seeding import generator
from .datasets import DataOptions, ImageData
from .torchvision_sets import load_digits_set

TEST_COPIES = 4  # renderings of every test digit, one set after the other
TURN = 30.0  # degrees to either side
SHIFT = 1.0  # pixels in every direction
SHRINK = 4  # of the photographs, so that a piece as small as a digit holds something


def load_digits_on_photos(options: DataOptions) -> ImageData:
    """Return 1442 training and 4 x 355 test images, always the same ones.

    Raises DotsZooError where scikit-learn is missing or the options do not apply.
    """
    digits = load_digits_set(options)
    photos, draws = _photos(), generator(0, "digits on photos")
    images = render(digits.images, photos, draws)
    scaled = images.float() / 255
    return replace(
        digits,
        name="digits_on_photos",
        images=images,
        test_images=render(digits.test_images.repeat(TEST_COPIES, 1, 1, 1), photos, draws),
        test_labels=digits.test_labels.repeat(TEST_COPIES),
        mean=(scaled.mean().item(),),
        std=(scaled.std().item(),),
        options=asdict(options),
    )


def render(digits: Tensor, photos: list[Tensor], draws: torch.Generator) -> Tensor:
    """Return grey digits, uint8 (N, 1, H, H), turned and shifted in front of pieces of the photographs."""
    count, size = len(digits), digits.shape[-1]
    angles = (2 * torch.rand(count, generator=draws) - 1) * math.radians(TURN)
    shifts = (2 * torch.rand(count, 2, generator=draws) - 1) * SHIFT * 2 / 8
    rows = torch.stack(
        [angles.cos(), -angles.sin(), shifts[:, 0], angles.sin(), angles.cos(), shifts[:, 1]], 1
    )
    grid = F.affine_grid(rows.view(count, 2, 3), list(digits.shape), align_corners=False)
    ink = F.grid_sample(digits.float() / 255, grid, align_corners=False)  # (N, 1, H, H) in [0, 1]
    pieces = torch.stack([_piece(photos, size, draws) for _ in range(count)])[:, None]
    return ((ink + (1 - ink) * pieces) * 255).round().to(torch.uint8)


def _piece(photos: list[Tensor], size: int, draws: torch.Generator) -> Tensor:
    photo = photos[int(torch.randint(len(photos), (), generator=draws))]
    top, left = (int(torch.randint(side - size + 1, (), generator=draws)) for side in photo.shape)
    return photo[top : top + size, left : left + size]


def _photos() -> list[Tensor]:
    """Return scikit-learn's temple and flower in grey, (H, W) in [0, 1]."""
    from sklearn.datasets import load_sample_images

    photos = [torch.tensor(photo).float().mean(-1) / 255 for photo in load_sample_images().images]
    return [F.avg_pool2d(photo[None, None], SHRINK)[0, 0] for photo in photos]
