"""Say types of options in words, for help and errors."""

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from ..runtime.table import nearest

WORDS: Mapping[Any, tuple[str, str]] = {  # type: its placeholder and its name in errors
    int: ("N", "a whole number"),
    float: ("X", "a number"),
    bool: ("true|false", "true or false"),
    str: ("TEXT", "a text"),
    Path: ("PATH", "a path"),
    str | Path: ("PATH", "a path"),
    str | tuple[int, int]: ("HxW", "a size, HEIGHTxWIDTH"),
}


def placeholder(value_type: Any) -> str | None:
    """Return what stands for a value in the help: N, X, or a choice."""
    if get_origin(value_type) is Literal:
        return "|".join(map(str, get_args(value_type)))
    inner, value_type = _parts(value_type)
    return WORDS[value_type][0] if value_type in WORDS else placeholder(inner[0]) if inner else "VALUE"


def expectation(value_type: Any) -> str:
    """Return a type in words: a whole number, one of a, b."""
    inner, value_type = _parts(value_type)
    if value_type in WORDS:
        return WORDS[value_type][1]
    if get_origin(value_type) is Literal:
        return " or ".join(map(str, inner)) if len(inner) < 3 else f"one of {', '.join(map(str, inner))}"
    if get_origin(value_type) is tuple and ... not in get_args(value_type):
        return f"{len(inner)} values as [{', '.join(expectation(part) for part in inner)}]"
    return " or ".join(dict.fromkeys(map(expectation, inner))) or "a text"


def in_words(message: str, types: Mapping[str, Any], known: Mapping[str, str], usage: str) -> str:
    """Return a message of argparse or jsonargparse with types in words and options as spelled.

    Args:
        message: on one line.
        types: of the values, by name.
        known: name of the value by the spelling of its option.
        usage: of the command.
    """
    if wrong := re.match(r'Parser key "(.+?)".*(?:Got|Given) value: (.*)$', message):
        name, value = wrong.groups()
        value_type = types.get(name, str)
        near = nearest(value, map(str, _choices(value_type)))
        return f"{name}: expected {expectation(value_type)}, got {value!r}{near}"
    if missing := re.match(r"the following arguments are required: (.*)$", message):
        names = {name: spelled for spelled, name in known.items()}
        listed = " and ".join(names.get(name, name.upper()) for name in missing[1].split(", "))
        return f"expected {listed}, got none: {usage}"
    if more := re.match(r"unrecognized arguments: (.*)$", message):
        return f"got more than it takes: {more[1]}; it is {usage} [options]"
    if bare := re.match(r"argument (?:-\w/)?(\S+): expected .*argument", message):
        return f"{bare[1]}: expected {expectation(types.get(known.get(bare[1], ''), str))}, got nothing"
    return re.sub(r"^argument (?:-\w/)?(\S+):", r"\1:", message)


def _choices(value_type: Any) -> Sequence[Any]:
    """Return the values of a Literal, alone or inside a type."""
    if get_origin(value_type) is Literal:
        return get_args(value_type)
    return [choice for part in get_args(value_type) for choice in _choices(part)]


def _parts(value_type: Any) -> tuple[list[Any], Any]:
    """Return the types that a type is made of, without None and ..., and the type without None."""
    inner = [part for part in get_args(value_type) if part not in (NoneType, ...)]
    if NoneType in get_args(value_type):
        return inner, reduce(or_, inner)
    return inner, value_type


def element(value_type: Any) -> Any:
    """Return the type of the elements of a tuple or sequence of any length, None for other types."""
    parts = get_args(value_type)
    if NoneType in parts and len(parts) == 2:
        return element(next(part for part in parts if part is not NoneType))
    open_end = (get_origin(value_type) is tuple and parts[-1:] == (...,)) or get_origin(
        value_type
    ) is Sequence
    return parts[0] if open_end else None
