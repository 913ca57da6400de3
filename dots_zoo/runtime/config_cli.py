"""Options from dataclasses, YAML files and presets: what the commands that train and search share.

A preset is a YAML file beside the package: the numbers of a paper, or small ones. They are the defaults of
the parser that reads all other options, so the help and `--print_config` show them.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml  # type: ignore[import-untyped]
from jsonargparse import DefaultHelpFormatter

from .errors import DotsZooError

T = TypeVar("T")


class Verbatim(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """jsonargparse's help with the examples' line breaks."""


def preset_names(folder: Path) -> tuple[str, ...]:
    """The presets of a folder."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def preset(folder: Path, name: str) -> dict[str, Any]:
    """What a preset says. Raises DotsZooError where there is none of that name."""
    names = preset_names(folder)
    if name not in names:
        raise DotsZooError(f"preset: expected one of {', '.join(names)}, got {name!r}")
    found: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text("utf-8"))
    return found


def take_preset(argv: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """The name behind --preset, and the words without it."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    known, words = first.parse_known_args(argv)
    return known.preset, words


def dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dots in the names."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        found |= dotted(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass `kind`, and the dataclasses among its fields, from parsed options."""
    types = get_type_hints(kind)
    chosen = {
        field.name: build(types[field.name], values[field.name])
        if is_dataclass(types[field.name])
        else _frozen(values[field.name])
        for field in fields(kind)  # type: ignore[arg-type]
    }
    return kind(**chosen)


def _frozen(value: Any) -> Any:
    """Lists, as YAML has them, as tuples."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value
