"""Define the data set that search and retraining need, data sets in memory, and the table of all by name.

The images come from `torchvision_sets.py` (digits, CIFAR, SVHN, FashionMNIST) and `image_folder.py` (your
own); `load.py` adds both to the table.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..runtime.errors import DotsZooError
from ..runtime.table import add_record
from ..runtime.to_device import to_device
from .augment import Augmentation, cutout, normalise, random_crop, random_flip


@dataclass(frozen=True)
class DataOptions:
    """Options that choose the images to learn from.

    Args:
        data: name of the data set: digits (ships with scikit-learn), cifar10, cifar100, svhn, fashion_mnist,
            image_folder (your own). If not given image_folder where data_root holds images, else digits.
        data_root: folder that holds the data set, for image_folder the images as CLASS/..., or as
            train/CLASS/... and val/CLASS/... or test/CLASS/...; none for digits.
        download: fetch the data set into data_root if it is not there.
        image_size: side in pixels that all images are resized to; if not given that of the training whose
            folder is named, else the data set's own, and for image_folder that of the network (224 in a
            search).
        train_fraction: share of every class of the training images that is used, chosen once and for all; at
            least one image a class.
        imagenet_statistics: normalise image_folder by ImageNet's mean and standard deviation, as pretrained
            networks expect, and not by its own.
        check_pixels: decode every image of image_folder at the start, so that images cut off in the middle
            are left out too; without it only their headers are read.
        threads: number of threads that decode image_folder; one a core if not given. The images do not depend
            on it.
    """

    data: str | None = None
    data_root: str | None = None
    download: bool = False
    image_size: int | None = None
    train_fraction: float = 1.0
    imagenet_statistics: bool = False
    check_pixels: bool = False
    threads: int | None = None


class Data(Protocol):
    """Training and test images with labels, wherever the images are stored.

    Batches are float32 (N, in_chans, size, size), normalised, channels last, on the device of the labels.
    """

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> Tensor:
        """Return the labels of the training images, int64 (N,)."""

    @property
    def test_labels(self) -> Tensor: ...

    @property
    def classes(self) -> int: ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes in the order of the labels; empty where they have no names."""

    @property
    def in_chans(self) -> int: ...

    @property
    def size(self) -> int:
        """Return the height and width of the images in pixels."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Return the mean of every channel, of images scaled to [0, 1]."""

    @property
    def std(self) -> tuple[float, ...]: ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Return the fields of DataOptions that load this data again."""

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the contents; it does not depend on where they are stored."""

    def to(self, device: torch.device) -> "Data":
        """Return the same data with labels and batches on `device`."""

    def train_batch(self, indices: Tensor, augmentation: Augmentation, draws: torch.Generator) -> Tensor:
        """Return augmented training images, determined by the indices and the state of `draws`."""

    def plain_batch(self, indices: Tensor) -> Tensor:
        """Return training images under the transform of test images."""

    def test_batch(self, indices: Tensor) -> Tensor:
        """Return test images."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """Data in memory: images uint8 (N, C, H, W), labels int64 (N,)."""

    name: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    mean: tuple[float, ...]  # per channel, of training images scaled to [0, 1]
    std: tuple[float, ...]
    flip: bool  # True if a mirrored image keeps its label
    options: Mapping[str, Any]
    class_names: tuple[str, ...] = ()

    @property
    def in_chans(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> int:
        return self.images.shape[-1]

    @property
    def fingerprint(self) -> str:
        """Hash every pixel and label."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels, self.test_images, self.test_labels):
            digest.update(f"{tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> "ImageData":
        """Return the data with all images and labels on `device`."""
        tensors = ("images", "labels", "test_images", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    def train_batch(self, indices: Tensor, augmentation: Augmentation, draws: torch.Generator) -> Tensor:
        """Return training images under random crop, flip and cutout (see Augmentation)."""
        images = self.images[to_device(indices, self.images.device)]
        if augmentation.crop_padding:
            images = random_crop(images, augmentation.crop_padding, draws)
        flip = self.flip if augmentation.flip is None else augmentation.flip
        if flip:
            images = random_flip(images, draws)
        normal = normalise(images, self)
        return cutout(normal, augmentation.cutout, draws) if augmentation.cutout else normal

    def plain_batch(self, indices: Tensor) -> Tensor:
        """Return training images without augmentation."""
        return normalise(self.images[to_device(indices, self.images.device)], self)

    def test_batch(self, indices: Tensor) -> Tensor:
        """Return test images, normalised."""
        return normalise(self.test_images[to_device(indices, self.test_images.device)], self)


@dataclass(frozen=True)
class Dataset:
    """A data set by name.

    Args:
        name: value of --data.
        load: function of DataOptions that returns all images, at `image_size` where one is given, with these
            options as its `options`.
        title: short description for the help.
        reads: fields of DataOptions that `load` reads beside data_root, download and image_size. Where
            `train_fraction` is not among them, the share is taken of the ImageData that `load` returns.

    Raises DotsZooError for a record that cannot be used.
    """

    name: str
    load: Callable[[DataOptions], Data]
    title: str = ""
    reads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not callable(self.load):
            raise DotsZooError(
                f"data set {self.name!r}, load: expected a function of DataOptions, got {self.load!r}"
            )
        if unknown := set(self.reads) - set(OPTIONAL):
            raise DotsZooError(
                f"data set {self.name!r}, reads: expected some of {', '.join(OPTIONAL)}, got {min(unknown)!r}"
            )


OPTIONAL = ("train_fraction", "imagenet_statistics", "check_pixels", "threads")
DATASETS: dict[str, Dataset] = {}


def register_dataset(dataset: Dataset) -> None:
    """Add a data set: `DataOptions(data=NAME)` and `--data NAME` take it.

    Raises DotsZooError where its name is malformed or taken.
    """
    add_record(DATASETS, dataset, "data set")
