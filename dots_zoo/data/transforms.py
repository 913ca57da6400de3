"""Transform an image of a folder: a random resized crop for training, a centre crop for testing.

Source: Szegedy et al. (2015), Sec. 6 (random crops); the colour jitter is that of PC-DARTS' and DOTS' public
code for ImageNet. The draws are Python's, so that an image depends on its seed alone, and Pillow's pixels do
not depend on the number of threads.
"""

import math
import random

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from .augment import Augmentation

CROP_PCT = 224 / 256  # of the shorter side of a test image, that its centre crop keeps


def random_view(
    image: Image.Image, draws: random.Random, size: int, augmentation: Augmentation, flip: bool
) -> Tensor:
    """Return a random resized crop as uint8 (3, size, size), flipped at random, under colour jitter."""
    top, left, height, width = random_window(image.height, image.width, augmentation.min_scale, draws)
    view = F.resized_crop(image, top, left, height, width, [size, size])
    if flip and draws.random() < 0.5:
        view = F.horizontal_flip(view)
    if augmentation.colour_jitter:
        view = colour_jitter(view, augmentation.colour_jitter, draws)
    pixels: Tensor = F.pil_to_tensor(view)
    return pixels


def random_window(
    height: int, width: int, min_scale: float, draws: random.Random
) -> tuple[int, int, int, int]:
    """Draw (top, left, height, width) of a crop: min_scale to 1 of the area, an aspect ratio of 3:4 to 4:3.

    After ten crops that do not fit, return the largest one in the middle with such an aspect ratio.
    """
    for _ in range(10):
        area = height * width * draws.uniform(min_scale, 1)
        ratio = math.exp(draws.uniform(math.log(3 / 4), math.log(4 / 3)))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return draws.randint(0, height - h), draws.randint(0, width - w), h, w
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def colour_jitter(image: Image.Image, strength: float, draws: random.Random) -> Image.Image:
    """Vary brightness, contrast, saturation and hue, in random order (see Augmentation)."""
    changes = [
        (change, draws.uniform(1 - strength, 1 + strength))
        for change in (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    ]
    changes.append((F.adjust_hue, draws.uniform(-strength / 2, strength / 2)))
    draws.shuffle(changes)
    for change, amount in changes:
        image = change(image, amount)
    return image


def middle_view(
    image: Image.Image, size: int, crop_pct: float = CROP_PCT, interpolation: str = "bilinear"
) -> Tensor:
    """Return the centre crop as uint8 (C, size, size): `crop_pct` of the shorter side."""
    resized = F.resize(image, [round(size / crop_pct)], InterpolationMode(interpolation))
    pixels: Tensor = F.pil_to_tensor(F.center_crop(resized, [size, size]))
    return pixels
