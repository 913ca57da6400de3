"""Keep tables of records by name: operations, spaces, methods, data sets and macro-architectures.

They are the only state of the package. Each is filled while a module is imported: by ours, and by a user's
module, a plug-in (`dots_zoo/plugins.py`), through the same call.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from .errors import DotsZooError

PLUGIN_HINT = "one of your own comes with --plugin FILE_OR_MODULE"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


class Named(Protocol):
    """A record of a table."""

    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=Named)
T = TypeVar("T")


def add_record(table: dict[str, R], record: R, title: str) -> None:
    """Add a record under its name; `title` names the table in messages.

    Raises DotsZooError where the name is malformed or taken.
    """
    name = record.name
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise DotsZooError(
            f"register {title}: expected a name of 1 to 40 letters, digits, hyphens and underscores that "
            f"begins with a letter or digit, got {name!r}; rename it"
        )
    if name in table:
        raise DotsZooError(
            f"register {title}: expected a new name, got {name!r}, which is taken; choose another"
        )
    table[name] = record


def look_up(table: Mapping[str, T], name: str, title: str, hint: str = "") -> T:
    """Return the record of a name. Raises DotsZooError, with `hint` at its end, where there is none."""
    if name not in table:
        near = nearest(name, table) + (f"; {hint}" if hint else "")
        raise DotsZooError(f"{title}: expected one of {', '.join(table)}, got {name!r}{near}")
    return table[name]


def nearest_option(name: str, options: Iterable[str]) -> str:
    """Return the same for an option or key: that with its last part, else the nearest in whole or in that."""
    options, tails = list(options), dict[str, str]()
    for option in options:
        tails.setdefault(_tail(option), option)
    near = "" if _tail(name) in tails else nearest(name, options)
    if near:
        return near
    close = difflib.get_close_matches(_tail(name), tails, 1, 0.8)
    return f" (did you mean {tails[close[0]]}?)" if close else ""


def _tail(option: str) -> str:
    """Return the last part of --training.batch-size and of training.batch_size alike."""
    return option.lstrip("-").rpartition(".")[2].replace("-", "_")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ' (did you mean X?)' for the spelling nearest to a name, '' where none is near."""
    near = difflib.get_close_matches(name.replace("_", "-"), list(names), 1, 0.7)
    near = near or difflib.get_close_matches(name, list(names), 1, 0.7)
    return f" (did you mean {near[0]}?)" if near else ""
