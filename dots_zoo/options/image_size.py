"""Read the size of an image from a command line."""

import re

from ..runtime.errors import DotsZooError


def image_size(text: str) -> tuple[int, int]:
    """Return '224x320', the value of --input, as (224, 320), height first.

    Raises DotsZooError for anything else.
    """
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):
        raise DotsZooError(f"--input: expected HEIGHTxWIDTH, such as 224x320, got {text!r}")
    height, width = text.split("x")
    return int(height), int(width)
