"""Draw cells: normal and reduction side by side, as SVG or PNG; only `render` needs matplotlib."""

import os
from pathlib import Path

from ..genotype import Genotype, validate
from ..runtime.atomic_write import check_output, write_file
from ..runtime.errors import DotsZooError


def draw(genotype: Genotype, path: str | os.PathLike[str]) -> Path:
    """Draw the cells of a genotype to an .svg or .png file; the same genotype gives the same bytes.

    Raises DotsZooError for another suffix, a path that cannot be written, and where matplotlib is missing.
    """
    path = Path(path)
    if path.suffix.lower() not in (".svg", ".png"):
        raise DotsZooError(f"{path}: expected a file name that ends in .svg or .png, got {path.name!r}")
    check_output(path)
    validate(genotype)
    try:
        from .render import render
    except ImportError as error:
        raise DotsZooError(f'drawing needs matplotlib ({error}): pip install "dots-zoo[search]"') from error
    return write_file(path, render(genotype, path.suffix.lower()[1:]))
