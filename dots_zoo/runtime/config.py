"""Convert between dataclasses of options, the tables of YAML files, and flat tables with dotted names."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml  # type: ignore[import-untyped]

T = TypeVar("T")


def presets_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the values of every preset `NAME.yaml` in a folder, by dotted name."""
    files = sorted(folder.glob("*.yaml"))
    return {path.stem: dotted(yaml.safe_load(path.read_text("utf-8"))) for path in files}


def dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables into one, with dots in the names."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        flat |= dotted(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
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


def plain(value: Any) -> Any:
    """Return tuples as lists, as YAML has them, and paths as texts, in tables too."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
