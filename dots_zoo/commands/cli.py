"""Run a command of `dots-zoo`: load plug-ins, import the command's modules, say errors in a sentence.

The table of commands is in `dots_zoo/entry`, which answers --help and --version without importing torch.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from dots_zoo_command import COMMANDS, Command, answer

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
        return int(getattr(import_module(module), function)(words[1:]))
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
