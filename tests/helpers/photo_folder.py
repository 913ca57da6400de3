"""A folder of PNG photos in classes that a small network tells apart: an object of one colour on noise."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (30, 60, 220), "green": (20, 200, 40), "red": (220, 40, 30)}


def photo(colour: str, seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """Return an image (width, height) of noise with a bright rectangle somewhere."""
    noise = np.random.default_rng([len(colour), seed])
    width, height = size
    pixels = noise.integers(60, 140, (height, width, 3))
    top, left = noise.integers(0, height // 3), noise.integers(0, width // 3)
    pixels[top : top + 2 * height // 3, left : left + 2 * width // 3] = COLOURS[colour]
    return Image.fromarray(pixels.astype(np.uint8))


def photo_folder(root: Path, train: int = 8, val: int = 3) -> Path:
    """Write train/COLOUR/N.png and val/COLOUR/N.png, images of several sizes."""
    for part, count, first in (("train", train, 0), ("val", val, 1000)):
        for colour in COLOURS:
            (root / part / colour).mkdir(parents=True)
            for index in range(count):
                size = (40 + 5 * (index % 3), 36 + 7 * (index % 2))
                photo(colour, first + index, size).save(root / part / colour / f"{index}.png")
    return root
