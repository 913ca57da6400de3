"""The command `dots-zoo completion`: a script by which a shell completes commands and options (shtab)."""

import argparse
from collections.abc import Sequence
from importlib import import_module

import shtab
from dots_zoo_command import COMMANDS

from ..options.command_line import CommandLine


def command_line() -> CommandLine:
    """Return the options of the command."""
    line = CommandLine(
        "completion",
        "Print a script by which a shell completes commands and options of what is installed.",
        "SHELL",
        ["completion bash > ~/.local/share/bash-completion/completions/dots-zoo", "completion zsh"],
    )
    line.positional("shell", "bash, zsh or tcsh", choices=tuple(shtab.SUPPORTED_SHELLS))
    return line


def command_lines() -> list[CommandLine]:
    """Return the options of every command of this module."""
    return [command_line()]


def main(argv: Sequence[str]) -> int:
    """Print the script for the shell that `argv` names."""
    shell = command_line().parse(argv)["shell"]
    print(shtab.complete(_parser(all_command_lines()), shell))
    return 0


def all_command_lines() -> list[CommandLine]:
    """Return the options of every command whose extras are installed."""
    lines = []
    for module in dict.fromkeys(command.function.partition(":")[0] for command in COMMANDS.values()):
        try:
            lines += import_module(module).command_lines()
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("dots_zoo"):
                raise
    return lines


def _parser(lines: Sequence[CommandLine]) -> argparse.ArgumentParser:
    """Return one parser of all commands, with those of two words below their first."""
    root = argparse.ArgumentParser("dots-zoo")
    commands = root.add_subparsers()
    below = {}
    for line in lines:
        first, *second = line.name.split()[1:]
        title = COMMANDS[first].text  # shtab leaves out what has no help
        if not second:
            commands.add_parser(first, parents=[line.parser], add_help=False, help=title)
            continue
        if first not in below:
            below[first] = commands.add_parser(first, help=title).add_subparsers()
        text = line.parser.description
        below[first].add_parser(second[0], parents=[line.parser], add_help=False, help=text)
    return root
