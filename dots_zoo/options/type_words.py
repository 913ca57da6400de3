"""Say types of options in words, for help and errors."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

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
