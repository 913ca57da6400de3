"""The grammar of every command: options from the fields of dataclasses or the arguments of a function.

What is declared once, a field or an argument, is an option with hyphens on the command line, a key with
underscores in a YAML file and a keyword argument in Python. jsonargparse parses and checks the values; this
module adds hyphens, presets, and errors that name every wrong option with the nearest right one.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse import ActionYesNo, ArgumentParser

from ..runtime.config import dotted, plain
from ..runtime.errors import DotsZooError
from ..runtime.table import look_up, nearest, nearest_option
from .declaration import REQUIRED, Option, options_of
from .type_words import element, in_words, placeholder

LIKE_THIS = "--print-config writes such a file"
PLUGIN = (
    "Python file or module that registers operations, spaces, methods, data sets or cells; may be repeated"
)


class CommandLine:
    """The options of one command.

    Args:
        name: the command, such as `dots-zoo train`.
        text: what it does, one or two sentences.
        usage: positional arguments and what has to be given, as the help shows them.
        examples: command lines without their beginning `dots-zoo`; the first opens the help, all end it.
        main: options that most need; the help lists them before the others.
        presets: values by dotted name of every preset, for a command that has --preset.
        config: whether it has --config and --print-config.
    """

    def __init__(
        self,
        name: str,
        text: str,
        usage: str,
        examples: Sequence[str],
        main: Sequence[str] = (),
        presets: Mapping[str, Mapping[str, Any]] | None = None,
        config: bool = False,
    ) -> None:
        self.name, self.usage, self.presets = f"dots-zoo {name}", usage, presets or {}
        self.positionals: list[str] = []
        self.types: dict[str, Any] = {}
        self.known: dict[str, str] = {}  # name of the value by its spelling on the command line
        listed = "".join(f"\n  dots-zoo {example}" for example in examples)
        self._open = ArgumentParser(
            prog=self.name,
            usage=f"{self.name} {usage} [options]\n\nexample:\n  dots-zoo {examples[0]}".replace("%", "%%"),
            description=text,
            epilog=f"examples:{listed}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            print_config="--print-config",
            exit_on_error=False,
            allow_abbrev=False,
            add_help=False,
        )
        self.further = self._open.add_argument_group("further options")
        self.main, self.config = (*main, "out", "preset"), config
        if presets is not None:
            self.add(
                Option("preset", str | None, None, f"other defaults of the options: {', '.join(presets)}")
            )

    def positional(self, name: str, text: str, **how: Any) -> None:
        """Add a positional argument; `how` is what argparse takes."""
        self._open.add_argument(name, help=text, **{"type": str, "metavar": name.upper(), **how})
        self.positionals.append(name)

    def add_from(
        self,
        source: Callable[..., Any],
        skip: Sequence[str] = (),
        defaults: Mapping[str, Any] = MappingProxyType({}),
        **helps: str,
    ) -> None:
        """Add the options of a dataclass or a function, save `skip`; some with other `defaults` and helps."""
        for option in options_of(source):
            name = option.name
            if name not in (*skip, *self.positionals):
                default, text = defaults.get(name, option.default), helps.get(name, option.help)
                self.add(replace(option, default=default, help=text))

    def add(self, option: Option) -> None:
        """Add an option; a bool is a flag with its opposite, --name and --no-name."""
        names = [*(["-o"] if option.name == "out" else []), option.spelled]
        how: dict[str, Any] = {"help": option.described, "metavar": placeholder(option.type)}
        how |= {"required": True} if option.default is REQUIRED else {"default": plain(option.default)}
        group = self._open if option.name in self.main else self.further
        if option.type is bool:
            del how["metavar"]
            group.add_argument(*names, action=ActionYesNo(no_prefix="no-"), **how)
            self.known[f"--no-{option.spelled[2:]}"] = option.name
        elif (one := element(option.type)) is not None:
            group.add_argument(*names, type=one, nargs="+", **how)
        else:
            group.add_argument(*names, type=option.type, **how)
        self.known |= dict.fromkeys(names, option.name)
        self.types[option.name] = option.type

    @property
    def parser(self) -> ArgumentParser:
        """The parser, with the options of every command after the main ones: nothing is added afterwards."""
        if "--help" in self.known:
            return self._open
        if self.config:
            text = "YAML file of options, names as --print-config writes them"
            self._open.add_argument("--config", action="config", metavar="FILE", help=text)
            self.known |= {"--config": "", "--print-config": ""}
        # Taken off the command line before the command is imported (commands/cli.py).
        self._open.add_argument("--plugin", metavar="FILE|MODULE", help=PLUGIN, default=argparse.SUPPRESS)
        self._open.add_argument("-h", "--help", action="help", help="print this text and exit")
        self.known |= {"-h": "", "--help": "", "--plugin": ""}
        return self._open

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        """Return the values of a command line, nested; print the help or the configuration where asked.

        Raises DotsZooError that names every unknown option, and every unknown key of the file.
        """
        parser, words = self.parser, [*argv]
        options = [word.partition("=") for word in words if re.match(r"--?[a-zA-Z]", word)]
        self._refuse([name for name, _, _ in options if name not in self.known], "option", self.known)
        early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        early.add_argument("--preset")
        early.add_argument("--config", action="append", default=[])
        try:
            given, words = early.parse_known_args(words)
        except argparse.ArgumentError as error:
            raise DotsZooError(f"{self.name}: {error}") from None
        preset = given.preset
        for file in given.config:
            preset = self._checked(Path(file)).get("preset") if given.preset is None else preset
        # What is on the command line overrides a file, whichever comes first.
        first = [f"--config={file}" for file in given.config] + [f"--preset={preset}"] * (preset is not None)
        return self._parsed(preset, lambda: parser.parse_args([*first, *words]))

    def parse_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same for keyword arguments, nested tables or dotted names, as for the options.

        Raises DotsZooError that names every unknown one.
        """
        flat = {name: plain(value) for name, value in dotted(values).items()}
        self._refuse([name for name in flat if name not in self.names], "argument", self.names)
        return self._parsed(flat.get("preset"), lambda: self.parser.parse_object(flat))

    @property
    def names(self) -> list[str]:
        """The names of all values, dotted where nested."""
        return [*self.positionals, *dict.fromkeys(filter(None, self.known.values()))]

    def _parsed(self, preset: str | None, parse: Callable[[], Any]) -> dict[str, Any]:
        if preset is not None:
            self.parser.set_defaults(dict(look_up(self.presets, preset, "preset")))
        try:
            values: dict[str, Any] = plain(parse().as_dict())
        except (argparse.ArgumentError, TypeError, ValueError) as error:
            message = " ".join(str(error).split())
            usage = f"{self.name} {self.usage}"
            raise DotsZooError(f"{self.name}: {in_words(message, self.types, self.known, usage)}") from None
        if self.config:
            values.pop("config", None)
        return values

    def _checked(self, path: Path) -> dict[str, Any]:
        """Return a YAML file. Raises DotsZooError where it is none or has keys that are no options."""
        try:
            table = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise DotsZooError(f"{path}: expected a YAML file, got {reason}; {LIKE_THIS}") from None
        if not isinstance(table, dict):
            got = {str: "a text", list: "a list", type(None): "an empty file"}.get(type(table), "one value")
            raise DotsZooError(f"{path}: expected lines of KEY: VALUE, got {got}; {LIKE_THIS}")
        self._refuse([name for name in dotted(table) if name not in self.names], f"key in {path}", self.names)
        return table

    def _refuse(self, wrong: Sequence[str], table: str, right: Iterable[str]) -> None:
        if wrong:
            named = ", ".join(f"{name}{nearest_option(name, right)}" for name in dict.fromkeys(wrong))
            raise DotsZooError(f"{self.name}: no such {table}: {named}; {self.name} --help lists them")


def choose_subcommand(
    name: str, text: str, commands: Mapping[str, str], argv: Sequence[str], footer: str
) -> tuple[str, list[str]]:
    """Return the first word, a key of `commands` (name -> title), and the words after it.

    --help prints the commands and exits. Raises DotsZooError for another word, and where there is none.
    """
    if argv and argv[0] in ("-h", "--help"):
        titles = "\n".join(f"  {command:<14} {title}" for command, title in commands.items())
        usage = f"usage: dots-zoo {name} WHAT [options]; dots-zoo {name} WHAT --help"
        print(f"{usage}\n\n{text}\n\n{titles}\n\n{footer}")
        raise SystemExit(0)
    if not argv or argv[0] not in commands:
        given = f"{argv[0]!r}{nearest(argv[0], commands)}" if argv else "nothing"
        raise DotsZooError(f"dots-zoo {name}: expected one of {', '.join(commands)}, got {given}")
    return argv[0], [*argv[1:]]
