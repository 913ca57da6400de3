"""Real images to calibrate an int8 graph on and to judge it by: any folder of images, however laid out."""

from pathlib import Path

import torch
import torchvision.transforms.v2.functional as F
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from dots_zoo.runtime.errors import DotsZooError

MIN_IMAGES, MAX_IMAGES = 8, 128  # more change the ranges by little and take their time
HELD_OUT = 4  # every fourth image is not calibrated on, but compared


def read_images(
    folder: Path, size: tuple[int, int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Return (images to calibrate on, images to compare), each (n, C, H, W), normalised.

    Take the middle of every image, at most MAX_IMAGES spread evenly over the sorted paths. Raises
    DotsZooError for a folder that is not there or holds fewer than MIN_IMAGES, and for an image that cannot
    be decoded.
    """
    if not folder.is_dir():
        raise DotsZooError(
            f"{folder}: no such calibration folder; give one with images of the kind to expect"
        )
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if len(paths) < MIN_IMAGES:
        raise DotsZooError(
            f"{folder}: expected at least {MIN_IMAGES} images to calibrate on ({', '.join(IMG_EXTENSIONS)}), "
            f"in it or below it, got {len(paths)}"
        )
    count = min(len(paths), MAX_IMAGES)
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    images = torch.stack([_read(path, size) for path in chosen])
    shape = (1, -1, 1, 1)
    images = (images - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)
    held_out = torch.arange(count) % HELD_OUT == HELD_OUT - 1
    return images[~held_out], images[held_out]


def _read(path: Path, size: tuple[int, int, int]) -> Tensor:
    """Return (C, H, W) in [0, 1]: the largest middle part with the network's proportions, resized."""
    channels, height, width = size
    try:
        with Image.open(path) as image:
            pixels = F.pil_to_tensor(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DotsZooError(f"{path}: expected an image, but it cannot be decoded ({error})") from error
    scale = min(pixels.shape[1] / height, pixels.shape[2] / width)
    part = F.center_crop(pixels, [max(1, round(height * scale)), max(1, round(width * scale))])
    resized: Tensor = F.resize(part, [height, width], antialias=True)
    return resized.float() / 255
