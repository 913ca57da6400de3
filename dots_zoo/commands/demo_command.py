"""The command `dots-zoo demo`."""

from collections.abc import Sequence
from pathlib import Path

from ..options.command_line import CommandLine
from ..options.declaration import Option


def command_line() -> CommandLine:
    """Return the options of the command."""
    line = CommandLine(
        "demo",
        "Search, retrain, register, export and measure a cell on handwritten digits, in minutes.",
        "",
        ["demo -o runs/demo"],
    )
    line.add(Option("out", str, "runs/demo", "folder of the run"))
    line.add(Option("seed", int, 0, "every draw derives from it"))
    return line


def command_lines() -> list[CommandLine]:
    """Return the options of every command of this module."""
    return [command_line()]


def main(argv: Sequence[str]) -> int:
    """Run the demo as `argv` says and print its summary."""
    values = command_line().parse(argv)
    from .demo import demo, summary

    out = Path(values["out"])
    print(summary(demo(out, values["seed"]), out))
    return 0
