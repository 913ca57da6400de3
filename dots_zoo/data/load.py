"""A data set by its options: in memory, or from a folder of images."""

from dataclasses import replace

from ..runtime.errors import DotsZooError
from .datasets import Data, DataOptions
from .image_folder import open_folder
from .split import fraction_of_every_class
from .torchvision_sets import load_published


def load_data(options: DataOptions) -> Data:
    """The data set that `options` name. Raises DotsZooError where it is not there or they cannot be used."""
    _check(options)
    if options.data == "image_folder":
        return open_folder(options)
    data = load_published(options)
    if options.train_fraction == 1:
        return data
    kept = fraction_of_every_class(data.labels, options.train_fraction)
    return replace(data, images=data.images[kept], labels=data.labels[kept])


def _check(options: DataOptions) -> None:
    size, fraction = options.image_size, options.train_fraction
    if size is not None and size < 8:
        raise DotsZooError(f"image_size: expected 8 pixels or more, got {size}")
    if not 0 < fraction <= 1:
        raise DotsZooError(f"train_fraction: expected a share above 0 and up to 1, got {fraction}")
    if options.threads is not None and options.threads < 1:
        raise DotsZooError(f"threads: expected 1 or more, got {options.threads}")
    for name in ("imagenet_statistics", "check_pixels", "threads"):
        if options.data != "image_folder" and getattr(options, name):
            raise DotsZooError(f"{name}: expected only with image_folder, got it with {options.data}")
