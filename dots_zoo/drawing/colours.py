"""Colour operations in plots as the picture of a cell colours them."""

from collections import Counter
from collections.abc import Iterable

from ..genotype import OPS

STEP = 0.42  # of the way to white, from one tint to the next


def operation_colours(names: Iterable[str]) -> dict[str, str]:
    """Return the colour of every operation; those of one colour, such as sep 3x3 and 5x5, get tints of it."""
    uses: Counter[str] = Counter()
    colours = {}
    for name in names:
        colour = OPS[name].colour
        colours[name] = tint(colour, 1 - (1 - STEP) ** uses[colour])
        uses[colour] += 1
    return colours


def tint(colour: str, share: float) -> str:
    """Return "#RRGGBB" mixed with a share of white in [0, 1]."""
    channels = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(channel + share * (255 - channel)):02x}" for channel in channels)
