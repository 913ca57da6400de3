"""Decode image files with Pillow, on threads."""

import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from ..runtime.errors import DotsZooError

WAITING = 4096  # files handed to the threads at a time

# Pillow's errors for a file that is no image or is cut off.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Apply `work` to every item on a pool of threads; yield the results in the order of the items.

    Threads, not the worker processes of a DataLoader: those start anew for every batch, and Pillow decodes
    without the interpreter's lock.
    """
    left = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        while waiting := list(islice(left, WAITING)):
            yield from pool.map(work, waiting)


def problem(path: str, pixels: bool) -> str | None:
    """Return the reason why an image cannot be used, by its header or by its pixels too; None if it can."""
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                return f"mode {image.mode}, expected 8 bits a channel"
            if pixels:
                rgb(image)
    except UnidentifiedImageError:
        return "no image"
    except UNREADABLE as error:
        return str(error) or repr(error)
    return None


def rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns where such a palette becomes RGB at once
    return image.convert("RGB")


def read(path: str) -> Image.Image:
    """Read an image file as RGB. Raises DotsZooError where it cannot be decoded."""
    try:
        with Image.open(path) as image:
            return rgb(image)
    except UNREADABLE as error:
        raise DotsZooError(
            f"{path}: expected an image, but it cannot be decoded ({error}); remove it, or let "
            "check_pixels=true leave out all such images"
        ) from error
