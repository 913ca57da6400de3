"""Load the published data sets that fit into memory.

`digits`: scikit-learn's handwritten digits, 1797 grey images of 8x8 pixels with 17 grey levels (the test part
of the UCI "Optical Recognition of Handwritten Digits" set); it ships with scikit-learn. `cifar10`, `cifar100`
(Krizhevsky, 2009), `svhn` (Netzer et al., 2011; without its extra images) and `fashion_mnist` (Xiao et al.,
2017) are read by torchvision, which checks their MD5 sums; those of fashion_mnist only as it is downloaded.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100, SVHN, FashionMNIST

from ..runtime.errors import DotsZooError
from .datasets import DataOptions, ImageData

TEST_EVERY = 5  # every fifth digit of a class, in published order, is a test image
DIGITS = tuple("0123456789")


class Part(NamedTuple):
    """The training or the test images: uint8 (N, C, H, W), labels int64 (N,)."""

    images: Tensor
    labels: Tensor
    class_names: Iterable[str]


@dataclass(frozen=True)
class TorchvisionDataset:
    """A data set that torchvision reads; mean and std are those of its training images, to four digits."""

    holds: str  # what data_root holds
    read: Callable[[str, bool, bool], Part]  # (root, train, download)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True


def load_digits_set(options: DataOptions) -> ImageData:
    """Return the digits in a fixed split: 1442 training and 355 test images, see TEST_EVERY.

    Raises DotsZooError where scikit-learn is missing or the options do not apply.
    """
    if options.data_root is not None or options.download:
        raise DotsZooError(
            "digits: expected neither --data-root nor --download, as scikit-learn ships it: leave them out"
        )
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise _not_installed("digits", "scikit-learn") from error
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
        class_names=DIGITS,
    )


def _cifar10(root: str, train: bool, download: bool) -> Part:
    return _cifar(CIFAR10(root, train=train, download=download))


def _cifar100(root: str, train: bool, download: bool) -> Part:
    return _cifar(CIFAR100(root, train=train, download=download))


def _cifar(dataset: CIFAR10) -> Part:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return Part(images, torch.tensor(dataset.targets), dataset.classes)


def _svhn(root: str, train: bool, download: bool) -> Part:
    try:
        dataset = SVHN(root, split="train" if train else "test", download=download)
    except ModuleNotFoundError as error:
        raise _not_installed("svhn", "scipy") from error
    return Part(torch.from_numpy(dataset.data).contiguous(), torch.from_numpy(dataset.labels), DIGITS)


def _fashion_mnist(root: str, train: bool, download: bool) -> Part:
    try:
        dataset = FashionMNIST(root, train=train, download=download)
    except (AssertionError, KeyError, TypeError, ValueError) as error:  # a file in another format
        raise RuntimeError(f"its files cannot be read: {error!r}") from error
    if len(dataset.data) != len(dataset.targets):
        raise RuntimeError(f"{len(dataset.data)} images have {len(dataset.targets)} labels")
    return Part(dataset.data[:, None], dataset.targets, dataset.classes)


# What torchvision's loaders write into data_root.
FILES = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz"),
    "svhn": ("train_32x32.mat", "test_32x32.mat"),
    "fashion_mnist": ("FashionMNIST",),
}
# The papers' CIFAR means and, for the rest, the numbers in common use. A mirrored digit is no digit.
TORCHVISION = {
    "cifar10": TorchvisionDataset(
        "cifar-10-batches-py", _cifar10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    ),
    "cifar100": TorchvisionDataset(
        "cifar-100-python", _cifar100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    ),
    "svhn": TorchvisionDataset(
        "train_32x32.mat and test_32x32.mat", _svhn, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), False
    ),
    "fashion_mnist": TorchvisionDataset("FashionMNIST/raw", _fashion_mnist, (0.2860,), (0.3530,)),
}


def load_torchvision(options: DataOptions) -> ImageData:
    """Return the published training and test sets, in the published order.

    Raises DotsZooError where their files are missing or cannot be read.
    """
    name = str(options.data)
    source = TORCHVISION[name]
    if options.data_root is None:
        raise DotsZooError(f"{name}: expected --data-root, the folder that holds {source.holds}, got none")
    try:
        train, test = (source.read(options.data_root, train, options.download) for train in (True, False))
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())  # torchvision's message may have line breaks
        raise DotsZooError(
            f"{name}: expected {source.holds} as published in {options.data_root}; "
            f"--download fetches it (torchvision: {reason})"
        ) from error
    class_names = tuple(train.class_names)
    return ImageData(
        name=name,
        images=_resize(train.images, options.image_size),
        labels=train.labels,
        test_images=_resize(test.images, options.image_size),
        test_labels=test.labels,
        classes=len(class_names),
        mean=source.mean,
        std=source.std,
        flip=source.flip,
        options=asdict(options),
        class_names=class_names,
    )


def _not_installed(name: str, package: str) -> DotsZooError:
    hint = "pip install 'dots-zoo[search]' or 'dots-zoo[train]'"
    return DotsZooError(f"{name}: expected {package}, which is not installed: {hint}")


def _resize(images: Tensor, size: int | None) -> Tensor:
    """Resize bilinearly with antialiasing, a thousand images at a time to bound the memory."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    parts = [
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True)
        .round()
        .clamp(0, 255)
        .byte()
        for part in images.split(1000)
    ]
    return torch.cat(parts)
