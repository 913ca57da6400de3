"""Fill the table of data sets, load one by its options."""

from dataclasses import replace
from pathlib import Path

from ..options.command_line import CommandLine
from ..options.declaration import Option
from ..runtime.errors import DotsZooError
from ..runtime.table import PLUGIN_HINT, look_up, nearest
from .datasets import DATASETS, OPTIONAL, Data, DataOptions, Dataset, ImageData, register_dataset
from .digits_on_photos import load_digits_on_photos
from .image_folder import holds_images, open_folder
from .split import fraction_of_every_class
from .torchvision_sets import FILES, TORCHVISION, load_digits_set, load_torchvision

register_dataset(Dataset("digits", load_digits_set, "ships with scikit-learn"))
register_dataset(Dataset("digits_on_photos", load_digits_on_photos, "hard digits, ships with scikit-learn"))
for _name in TORCHVISION:
    register_dataset(Dataset(_name, load_torchvision))
register_dataset(Dataset("image_folder", open_folder, "your own", reads=OPTIONAL))


def load_data(options: DataOptions) -> Data:
    """Return the data set that `options` name.

    Raises DotsZooError where the data set is not there or the options cannot be used.
    """
    options = recognised(options)
    dataset = look_up(DATASETS, str(options.data), "data", PLUGIN_HINT)
    fraction = options.train_fraction
    if options.image_size is not None and options.image_size < 8:
        raise DotsZooError(f"image_size: expected 8 pixels or more, got {options.image_size}")
    if not 0 < fraction <= 1:
        raise DotsZooError(f"train_fraction: expected a share above 0 and up to 1, got {fraction}")
    if options.threads is not None and options.threads < 1:
        raise DotsZooError(f"threads: expected 1 or more, got {options.threads}")
    for name in OPTIONAL:
        if name not in ("train_fraction", *dataset.reads) and getattr(options, name):
            readers = " or ".join(other.name for other in DATASETS.values() if name in other.reads)
            raise DotsZooError(f"{name}: expected only with {readers}, got it with {options.data}")
    data = dataset.load(options)
    if fraction == 1 or "train_fraction" in dataset.reads:
        return data
    if not isinstance(data, ImageData):
        raise DotsZooError(
            f"train_fraction: expected 1, as {options.data} takes no share of its images, got {fraction}"
        )
    kept = fraction_of_every_class(data.labels, fraction)
    return replace(data, images=data.images[kept], labels=data.labels[kept])


def recognised(options: DataOptions) -> DataOptions:
    """Return the options with the name of the data set; where none is given, by what data_root holds.

    Raises DotsZooError where data_root holds no images in class folders.
    """
    if options.data is not None:
        return options
    if options.data_root is None:
        return replace(options, data="digits")
    root = Path(options.data_root)
    if holds_images(root):
        return replace(options, data="image_folder")
    names = [name for name, files in FILES.items() if any((root / file).exists() for file in files)]
    if names:
        raise DotsZooError(f"data: {root} holds files of {names[0]}; say --data {names[0]}")
    raise DotsZooError(
        f"data_root: expected in {root} a folder a class with images, or train with such folders, got "
        f"{_contents(root)}; for another data set name it with --data"
    )


def _contents(root: Path) -> str:
    """Say what is at a path that is no folder of images in class folders."""
    if not root.exists():
        beside = [str(path) for path in root.parent.iterdir()] if root.parent.is_dir() else []
        return f"nothing there{nearest(str(root), beside)}"
    if not root.is_dir():
        return "a file"
    names = sorted(path.name for path in root.iterdir())
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} and no class folder" if names else "an empty folder"


def add_data_options(line: CommandLine) -> None:
    """Add the fields of DataOptions to the options of a command, with the names of all data sets."""
    titles = (f"{data.name} ({data.title})" if data.title else data.name for data in DATASETS.values())
    line.add(Option("data", str, DataOptions.data, f"data set: {', '.join(titles)}"))
    line.add_from(DataOptions, skip=("data",))
