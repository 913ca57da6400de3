"""Build command lines from dataclasses, YAML files and presets, for training and search alike.

A preset is a YAML file beside the package that holds a paper's hyperparameters, or small ones. They become
the defaults of the parser of all other options, so that the help and `--print_config` show them.
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
    """jsonargparse's help formatter, with the line breaks of the examples kept."""


def preset_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the presets in a folder."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def preset(folder: Path, name: str) -> dict[str, Any]:
    """Return the values of a preset. Raises DotsZooError where there is none of that name."""
    names = preset_names(folder)
    if name not in names:
        raise DotsZooError(f"preset: expected one of {', '.join(names)}, got {name!r}")
    values: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text("utf-8"))
    return values


def take_preset(argv: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """Return the value of --preset, and the arguments without it."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    options, words = first.parse_known_args(argv)
    return options.preset, words


def dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables into one, with dots in the names."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        flat |= dotted(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def build(config_class: type[T], values: Mapping[str, Any]) -> T:
    """Build the dataclass `config_class`, and the dataclasses among its fields, from parsed options."""
    types = get_type_hints(config_class)
    chosen = {
        field.name: build(types[field.name], values[field.name])
        if is_dataclass(types[field.name])
        else _frozen(values[field.name])
        for field in fields(config_class)  # type: ignore[arg-type]
    }
    return config_class(**chosen)


def _frozen(value: Any) -> Any:
    """Convert lists, as YAML has them, to tuples."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value
