"""Data sets in memory as one tensor of uint8 images, from a name and a folder.

`digits`: scikit-learn's handwritten digits, 1797 grey images of 8x8 pixels with 17 grey levels (the test part
of the UCI "Optical Recognition of Handwritten Digits" set); it ships with scikit-learn. `cifar10`:
torchvision's CIFAR10, read from `data_root`, downloaded only if asked.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.datasets import CIFAR10

from .errors import DotsZooError

TEST_EVERY = 5  # of the digits: every fifth image of a class, in published order, is a test image
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images


@dataclass(frozen=True)
class DataOptions:
    """Which images to search on.

    Args:
        data: name of the data set; digits ships with scikit-learn.
        data_root: folder that holds the data set; none for digits.
        download: fetch the data set into data_root if it is not there.
        image_size: side in pixels that all images are resized to (bilinear); the data set's own if not given.
    """

    data: Literal["digits", "cifar10"] = "digits"
    data_root: str | None = None
    download: bool = False
    image_size: int | None = None


@dataclass(frozen=True, eq=False)
class ImageData:
    """Training and test images: uint8 (N, C, H, W), labels int64 (N,); `options` load them again."""

    name: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    mean: tuple[float, ...]  # per channel, of training images scaled to [0, 1]
    std: tuple[float, ...]
    flip: bool  # whether a mirrored image keeps its label
    options: Mapping[str, Any]


def load_data(options: DataOptions) -> ImageData:
    """The data set that `options` name. Raises DotsZooError where it is not there."""
    size = options.image_size
    if size is not None and size < 8:
        raise DotsZooError(f"image_size: expected 8 pixels or more, got {size}")
    return {"digits": _digits, "cifar10": _cifar10}[options.data](options)


def _digits(options: DataOptions) -> ImageData:
    """Stratified and fixed: 1442 training and 355 test images, see TEST_EVERY."""
    if options.data_root is not None or options.download:
        raise DotsZooError("digits: expected neither data_root nor download; it ships with scikit-learn")
    pixels, target = load_digits(return_X_y=True)  # (1797, 64) in 0..16
    images = torch.from_numpy(pixels * (255 / 16)).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(target).long()
    rank = F.one_hot(labels).cumsum(0).gather(1, labels[:, None])[:, 0]  # 1, 2, ... inside the image's class
    test = rank % TEST_EVERY == 0
    images = _resize(images, options.image_size)
    train = images[~test].float() / 255
    return ImageData(
        name="digits",
        images=images[~test],
        labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        classes=10,
        mean=(train.mean().item(),),
        std=(train.std().item(),),
        flip=False,
        options=asdict(options),
    )


def _cifar10(options: DataOptions) -> ImageData:
    """The published training and test sets, in the published order."""
    if options.data_root is None:
        raise DotsZooError("cifar10: expected data_root, the folder that holds cifar-10-batches-py; got none")
    try:
        sets = [CIFAR10(options.data_root, train=train, download=options.download) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise DotsZooError(
            f"cifar10: expected cifar-10-batches-py with the published checksums in {options.data_root}; "
            f"download=true fetches it (torchvision: {error})"
        ) from error
    images, test_images = (
        _resize(torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous(), options.image_size)
        for found in sets
    )
    return ImageData(
        name="cifar10",
        images=images,
        labels=torch.tensor(sets[0].targets),
        test_images=test_images,
        test_labels=torch.tensor(sets[1].targets),
        classes=10,
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
        flip=True,
        options=asdict(options),
    )


def _resize(images: Tensor, size: int | None) -> Tensor:
    if size is None or images.shape[-2:] == (size, size):
        return images
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
