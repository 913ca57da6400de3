"""Run a command of `dots-zoo`: load plug-ins, import the command's modules, say errors in a sentence.

The table of commands is in `dots_zoo/entry`, which answers --help and --version without importing torch.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from dots_zoo_command import COMMANDS, Command, answer

from .. import plugins
from ..runtime.errors import DotsZooError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0: success, 1: a check failed, 2: an input that cannot be used."""
    words = list(sys.argv[1:] if argv is None else argv)
    answered: int | None = answer(words)
    if answered is not None:
        return answered
    command = COMMANDS[words[0]]
    module, function = command.function.split(":")
    try:
        rest = _load_plugins(words[1:])
        return int(getattr(import_module(module), function)(rest))
    except DotsZooError as error:
        print(f"dots-zoo: error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extras = _extras_for(missing, command)
        if not extras:
            raise
        hint = f"pip install 'dots-zoo[{','.join(extras)}]'"
        print(f"dots-zoo: error: {missing} is not installed: {hint}", file=sys.stderr)
        return DotsZooError.exit_code


def _load_plugins(argv: Sequence[str]) -> list[str]:
    """Load the plug-ins that a command line names by --plugin; return its other words.

    Raises DotsZooError as `plugins.load` does, and for a --plugin without a value.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--plugin", action="append", default=[])
    try:
        options, words = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        raise DotsZooError("--plugin: expected a file FILE.py or the name of a module, got nothing") from None
    plugins.load(*options.plugin)
    return words


def _extras_for(module: str, command: Command) -> Sequence[str]:
    """Return the extras that bring a module: the command's own if they do, () if none does.

    A module that no extra lists by name, such as numba's llvmlite, comes with the command's own extras if
    these are incomplete.
    """
    from .doctor import extras_with, missing

    bringing, own = extras_with(module), tuple[str, ...](command.extras)
    if set(own) & set(bringing) or (not bringing and any(map(missing, own))):
        return own
    return bringing[:1]
