"""The command `dots-zoo draw`."""

from collections.abc import Sequence

from ..drawing.draw import draw
from ..genotype import load_genotype
from ..options.command_line import REQUIRED, CommandLine, Option


def command_line() -> CommandLine:
    """Return the options of the command."""
    line = CommandLine(
        "draw",
        "Draw the normal and the reduction cell side by side.",
        "NETWORK -o FILE",
        ["draw dots_imagenet -o cell.svg", "draw runs/cell/genotype.json -o cell.png"],
    )
    line.positional("network", "a bundled cell, a genotype file, or a genotype as text")
    line.add(Option("out", str, REQUIRED, "cell.svg or cell.png"))
    return line


def command_lines() -> list[CommandLine]:
    """Return the options of every command of this module."""
    return [command_line()]


def main(argv: Sequence[str]) -> int:
    """Draw a cell as `argv` says."""
    values = command_line().parse(argv)
    print(f"drawing: {draw(load_genotype(values['network']), values['out'])}")
    return 0
