"""Read the size of an image from a command line."""

import re

from ..runtime.errors import DotsZooError

ImageSize = str | tuple[int, int]  # "224x320" or (224, 320), height first


def height_and_width(size: ImageSize) -> tuple[int, int]:
    """Return a size as (height, width). Raises DotsZooError for what is none."""
    if isinstance(size, str):
        return image_size(size)
    height, width = size
    return image_size(f"{height}x{width}")


def image_size(text: str) -> tuple[int, int]:
    """Return '224x320', the value of --input, as (224, 320), height first.

    Raises DotsZooError for anything else.
    """
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):
        raise DotsZooError(f"input: expected HEIGHTxWIDTH, such as 224x320, got {text!r}")
    height, width = text.split("x")
    return int(height), int(width)
