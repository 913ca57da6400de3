"""Read `image_folder`: images of any size, one folder a class, decoded when a batch needs them.

The layout is torchvision's ImageFolder: data_root/train/CLASS/... and data_root/val/CLASS/..., or test where
there is no val. Where there is neither, or data_root/CLASS/... alone, a fifth of every class are the test
images, always the same. Classes are in the order of their names; every image is read as RGB (a transparent
pixel keeps its colour, an orientation in EXIF is not applied).
"""

import hashlib
import logging
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, has_file_allowed_extension, make_dataset

from ..runtime.errors import DotsZooError
from ..runtime.to_device import to_device
from .augment import Augmentation, cutout, normalise
from .datasets import DataOptions
from .decode import parallel_map, problem, read
from .split import fraction_of_every_class
from .transforms import middle_view, random_view

SIZE = 224  # pixels, where neither image_size nor a network says it
SAMPLE = 1024  # training images, evenly spaced, for mean and std
HELD_OUT = 0.2  # of every class, where there is no folder of test images
NAMED = 3  # files that the warning names

Files = tuple[tuple[str, ...], Tensor]  # paths and their labels (N,)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FolderData:
    """Data in image files; the interface is that of datasets.Data."""

    name: str
    paths: tuple[str, ...]
    labels: Tensor
    test_paths: tuple[str, ...]
    test_labels: Tensor
    class_names: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: Mapping[str, Any]
    threads: int
    flip: bool = True
    in_chans: int = 3

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """Hash the paths below data_root, the sizes in bytes and the labels of all files."""
        digest = hashlib.sha256()
        for paths, labels in ((self.paths, self.labels), (self.test_paths, self.test_labels)):
            for path, label in zip(paths, labels.tolist(), strict=True):
                below = os.path.relpath(path, self.options["data_root"])
                digest.update(f"{below}\0{os.path.getsize(path)}\0{label}\n".encode())
        return digest.hexdigest()

    def to(self, device: torch.device) -> "FolderData":
        """Return the data with labels and batches on `device`; images are decoded on the CPU."""
        return replace(self, labels=self.labels.to(device), test_labels=self.test_labels.to(device))

    def train_batch(self, indices: Tensor, augmentation: Augmentation, draws: torch.Generator) -> Tensor:
        """Return training images under random crop, flip, colour jitter and cutout (see Augmentation).

        Raises DotsZooError where an image cannot be decoded.
        """
        seeds = torch.randint(2**63 - 1, (len(indices),), generator=draws)
        flip = self.flip if augmentation.flip is None else augmentation.flip
        view = partial(random_view, size=self.size, augmentation=augmentation, flip=flip)
        jobs = zip((self.paths[index] for index in indices.tolist()), seeds.tolist(), strict=True)
        images = parallel_map(lambda job: view(read(job[0]), random.Random(job[1])), jobs, self.threads)
        normal = self._normal(images)
        return cutout(normal, augmentation.cutout, draws) if augmentation.cutout else normal

    def plain_batch(self, indices: Tensor) -> Tensor:
        """Return centre crops of training images. Raises DotsZooError where one cannot be decoded."""
        return self._middles(self.paths[index] for index in indices.tolist())

    def test_batch(self, indices: Tensor) -> Tensor:
        """Return centre crops of test images. Raises DotsZooError where one cannot be decoded."""
        return self._middles(self.test_paths[index] for index in indices.tolist())

    def _middles(self, paths: Iterable[str]) -> Tensor:
        return self._normal(
            parallel_map(lambda path: middle_view(read(path), self.size), paths, self.threads)
        )

    def _normal(self, images: Iterable[Tensor]) -> Tensor:
        return normalise(to_device(torch.stack(list(images)), self.labels.device), self)


def open_folder(options: DataOptions) -> FolderData:
    """Open the images below data_root; files that are no image are left out, counted and named in a warning.

    Raises DotsZooError where the layout is another, a class has no image, there is only one class, or
    training and test classes differ.
    """
    if options.data_root is None:
        raise DotsZooError("image_folder: expected --data-root, the folder of the images, got none")
    if options.download:
        raise DotsZooError("image_folder: expected images of your own, got --download: leave it out")
    train, test = _parts(Path(options.data_root))
    names = _class_names(train)
    if len(names) == 1:
        raise DotsZooError(
            f"image_folder: expected two class folders or more in {train}, got one: {names[0]}"
        )
    if other := sorted(set(names) ^ set(_class_names(test))) if test else []:
        raise DotsZooError(
            f"image_folder: expected the same class folders in {train} and {test}; only in one of them: "
            f"{_some(other)}"
        )
    threads, size = options.threads or os.cpu_count() or 1, options.image_size or SIZE
    pixels, fraction = options.check_pixels, options.train_fraction
    if test is None:
        (paths, labels), (test_paths, test_labels) = _held_out(train, fraction, pixels, threads)
    else:
        paths, labels = _files(train, fraction, pixels, threads)
        test_paths, test_labels = _files(test, 1.0, pixels, threads)
    imagenet = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    mean, std = imagenet if options.imagenet_statistics else statistics(paths, size, threads)
    return FolderData(
        name="image_folder",
        paths=paths,
        labels=labels,
        test_paths=test_paths,
        test_labels=test_labels,
        class_names=names,
        size=size,
        mean=mean,
        std=std,
        options=asdict(options),
        threads=threads,
    )


def holds_images(root: Path) -> bool:
    """Return True for a folder that holds class folders with images, or train with such."""
    return _has_classes(root / "train") or _has_classes(root)


def _has_classes(folder: Path) -> bool:
    classes = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    files = (name for path in classes for _, _, names in os.walk(path) for name in names)
    return any(has_file_allowed_extension(name, IMG_EXTENSIONS) for name in files)


def _parts(root: Path) -> tuple[Path, Path | None]:
    """Return the folders of the training and test images: train or `root`, and val, else test or None."""
    train, tests = root / "train", [root / name for name in ("val", "test") if (root / name).is_dir()]
    if train.is_dir():
        return train, tests[0] if tests else None
    if tests or not _has_classes(root):
        entries = sorted(path.name for path in root.iterdir()) if root.is_dir() else ["no folder"]
        raise DotsZooError(
            f"image_folder: expected a folder a class in {root}, or train and val (or test) with a folder a "
            f"class each, got {_some(entries) or 'an empty folder'}"
        )
    return root, None


def _held_out(folder: Path, fraction: float, pixels: bool, threads: int) -> tuple[Files, Files]:
    """Return the training images, or a fraction of them, and the test images, HELD_OUT of every class."""
    paths, labels = _files(folder, 1.0, pixels, threads)
    if alone := (labels.bincount() < 2).nonzero().flatten().tolist():
        raise DotsZooError(
            f"image_folder: expected two images or more in every class folder of {folder}, one of them to "
            f"test on, got one in {_some([_class_names(folder)[label] for label in alone])}"
        )
    test = fraction_of_every_class(labels, HELD_OUT)
    is_training = torch.ones(len(labels), dtype=torch.bool).index_fill(0, test, False)
    train = is_training.nonzero().flatten()
    train = train[fraction_of_every_class(labels[train], fraction)]
    _log.warning(
        "image_folder: %s has no test images beside it: %d of its %d images, a fifth of every class, are "
        "kept apart as such", folder, len(test), len(labels),
    )  # fmt: skip
    return (_chosen(paths, train), labels[train]), (_chosen(paths, test), labels[test])


def _chosen(paths: Sequence[str], indices: Tensor) -> tuple[str, ...]:
    return tuple(paths[index] for index in indices.tolist())


def _class_names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(find_classes(folder)[0])
    except FileNotFoundError:
        raise DotsZooError(f"image_folder: expected a folder a class in {folder}, got none") from None


def _files(folder: Path, fraction: float, pixels: bool, threads: int) -> Files:
    """Return the readable images of a folder and their labels (N,); warn about the others."""
    names, indices = find_classes(folder)
    samples = make_dataset(folder, indices, IMG_EXTENSIONS, allow_empty=True)
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    _refuse_empty(folder, names, labels)
    kept = fraction_of_every_class(labels, fraction).tolist()
    problems = list(
        parallel_map(partial(problem, pixels=pixels), (samples[index][0] for index in kept), threads)
    )
    bad = [f"{samples[i][0]} ({why})" for i, why in zip(kept, problems, strict=True) if why]
    if bad:
        _log.warning(
            "image_folder: %d of %d images in %s are left out, they cannot be read: %s",
            len(bad), len(kept), folder, _some(bad),
        )  # fmt: skip
    good = [index for index, why in zip(kept, problems, strict=True) if not why]
    _refuse_empty(folder, names, labels[good])
    return tuple(samples[index][0] for index in good), labels[good]


def _refuse_empty(folder: Path, names: Sequence[str], labels: Tensor) -> None:
    counts = labels.bincount(minlength=len(names)).tolist()
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        raise DotsZooError(
            f"image_folder: expected images that can be read in every class folder of {folder}, got none in "
            f"{_some(empty)}; fill or remove it"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def statistics(paths: Sequence[str], size: int, threads: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation of each channel, scaled to [0, 1], of SAMPLE centre crops.

    The standard deviation is at least one grey level: a channel may be constant.
    """
    count = min(SAMPLE, len(paths))
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    totals = torch.zeros(2, 3, dtype=torch.int64)
    for image in parallel_map(lambda path: middle_view(read(path), size), chosen, threads):
        values = image.flatten(1).long()  # (3, H * W); sums of integers do not depend on their order
        totals += torch.stack([values.sum(1), values.square().sum(1)])
    mean, square = totals.double() / (count * size * size)
    std = (square - mean.square()).sqrt().clamp(min=1)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
