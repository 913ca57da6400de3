"""The command `dots-zoo draw`."""

from collections.abc import Sequence

from ..drawing.draw import draw
from ..options.command_line import CommandLine
from ..options.declaration import REQUIRED, Option
from ..reference import genotype_of


def command_line() -> CommandLine:
    """Return the options of the command."""
    line = CommandLine(
        "draw",
        "Draw the normal and the reduction cell side by side.",
        "NETWORK -o FILE",
        ["draw dots_imagenet -o cell.svg", "draw runs/cell/genotype.json -o cell.png"],
    )
    line.positional(
        "network",
        "timm name of ours, genotype (bundled name, file or text), folder of a training or a search",
    )
    line.add(Option("out", str, REQUIRED, "cell.svg or cell.png"))
    return line


def command_lines() -> list[CommandLine]:
    """Return the options of every command of this module."""
    return [command_line()]


def main(argv: Sequence[str]) -> int:
    """Draw a cell as `argv` says."""
    values = command_line().parse(argv)
    print(f"drawing: {draw(genotype_of(values['network']), values['out'])}")
    return 0
