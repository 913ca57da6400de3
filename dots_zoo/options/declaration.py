"""Read the options that a dataclass or a function declares."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from docstring_parser import parse as parse_docstring

REQUIRED = object()  # the default of what has to be given


@dataclass(frozen=True)
class Option:
    """An option before it is spelled: name with underscores (dots where nested), type, default, help."""

    name: str
    type: Any
    default: Any
    help: str

    @property
    def spelled(self) -> str:
        """The option as it is written on a command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def described(self) -> str:
        """The help, with the default."""
        text = self.help.replace("%", "%%")
        if any(self.default is none for none in (REQUIRED, None, False)) or self.default in ((), ""):
            return text
        return f"{text.removesuffix('.')} (default: %(default)s)"


def options_of(source: Callable[..., Any], prefix: str = "", own: Any = REQUIRED) -> Iterator[Option]:
    """Yield the fields of a dataclass, those of dataclasses among them included, or a function's arguments.

    The help of each is its entry under `Args` in the docstring. own: an instance of the dataclass with
    the defaults.
    """
    texts = {p.arg_name: p.description or "" for p in parse_docstring(source.__doc__ or "").params}
    types = get_type_hints(source)
    if is_dataclass(source):
        declared = [(f.name, _default_of(f, own)) for f in fields(source)]
    else:
        given = inspect.signature(source).parameters.values()
        declared = [(p.name, REQUIRED if p.default is p.empty else p.default) for p in given]
    for name, default in declared:
        if is_dataclass(types[name]) and isinstance(types[name], type):
            yield from options_of(types[name], f"{prefix}{name}.", default)
        else:
            yield Option(f"{prefix}{name}", types[name], default, " ".join(texts.get(name, "").split()))


def _default_of(field: Any, own: Any) -> Any:
    if own is not REQUIRED:
        return getattr(own, field.name)
    if field.default is not MISSING:
        return field.default
    return REQUIRED if field.default_factory is MISSING else field.default_factory()
