"""The way of a configuration: the functions that `dots-zoo search` hands it through, up to the first step.

`PYTHONPATH=tests python tests/helpers/configuration_trip.py [METHOD]` runs a search on digits up to its first
step and prints them. A function counts once, where an argument of it is, as it is called, the words of the
command line, the parsed options, the method's configuration or a dataclass among its fields, a Derivation,
DataOptions, or a dataclass that holds one of these. Functions inside functions, lambdas and what dataclasses
generate do not count; nor does the grammar, which reads the options of every command (GRAMMAR), as little as
the functions of jsonargparse below it.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from dots_zoo.commands.cli import main
from dots_zoo.data.datasets import DataOptions
from dots_zoo.search.methods.registry import METHODS, Derivation
from dots_zoo.search.stages import loop

ROOT = Path(__file__).parents[2]
ROOMS = tuple(str(ROOT / folder) for folder in ("dots_zoo", "search", "export"))
GRAMMAR = tuple(str(ROOT / "dots_zoo" / part) for part in ("options", "entry", "runtime/config.py"))
SMALL = ["--data", "digits", "--epochs", "1", "--warm-up", "0", "--layers", "3", "--channels", "2"]


class FirstStep(Exception):
    """The first step of a search begins."""


def configuration_trip(method: str = "darts") -> list[tuple[str, str]]:
    """Return (file, function) of all that a configuration passes, in order of the first call."""
    seen: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(ROOMS) or "<" in code.co_qualname:
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if code.co_name.startswith("__") and code.co_name != "__call__":
            return
        if code.co_filename.startswith(GRAMMAR):
            return
        if any(carries(frame.f_locals.get(name)) for name in names):
            seen.setdefault((str(Path(code.co_filename).relative_to(ROOT)), code.co_name))

    with tempfile.TemporaryDirectory() as folder, first_step_stops():
        words = ["search", method, *SMALL, "--out", f"{folder}/run"]
        sys.setprofile(note)
        try:
            main(words)
        except FirstStep:
            pass
        finally:
            sys.setprofile(None)
    return list(seen)


@contextmanager
def first_step_stops() -> Iterator[None]:
    """Inside: the loop raises where it would take its first step."""

    class Stopping:
        def __init__(self, context: Any, *rest: Any) -> None:
            raise FirstStep

    kept = loop.StepContext
    loop.StepContext = Stopping  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        loop.StepContext = kept  # type: ignore[misc]


def configurations() -> tuple[type[Any], ...]:
    """Return the dataclasses of all options, nested ones included."""
    waiting: list[type[Any]] = [Derivation, DataOptions, *(method.config for method in METHODS.values())]
    found: list[type[Any]] = []
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.append(kind)
            waiting += [type(v) for f in fields(kind) if is_dataclass(v := getattr(kind(), f.name))]
    return tuple(found)


CONFIGURATIONS = configurations()


def carries(value: Any) -> bool:
    """Return whether a value is a part of a configuration, or holds one."""
    if isinstance(value, CONFIGURATIONS) or type(value).__name__ == "Namespace":
        return True
    if isinstance(value, list):
        return "--epochs" in value
    if isinstance(value, dict):
        return "training" in value
    if is_dataclass(value) and not isinstance(value, type):
        held = [getattr(value, f.name, None) for f in fields(value)]
        return any(isinstance(part, CONFIGURATIONS) for part in held)
    return False


if __name__ == "__main__":
    trip = configuration_trip(*sys.argv[1:])
    print("\n".join(f"{file}: {function}" for file, function in trip))
    print(f"{len({file for file, _ in trip})} files, {len(trip)} functions")
