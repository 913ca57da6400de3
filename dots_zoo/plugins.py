"""Load plug-ins: Python files and modules that register operations, spaces, methods, data sets and cells.

A plug-in calls `dots_zoo.register_operation` and its siblings as it is imported. It is named on the command
line (`--plugin my_search.py`, `--plugin my_package.cells`), or installed: a distribution whose entry-point
group `dots_zoo.plugins` names a module is loaded by every command. A plug-in runs with all rights of the
user, so none is loaded because a genotype or a folder names it.
"""

import difflib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

from .genotype.operations import OPS
from .runtime.errors import DotsZooError

GROUP = "dots_zoo.plugins"
PREFIX = "dots_zoo_plugin_"  # of the module that a file is loaded as: `json.py` is no one else's json
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
OURS = str(Path(__file__).parent)


def load(*names: str | os.PathLike[str]) -> None:
    """Load the installed plug-ins, then those of the names in order, each once.

    Args:
        names: FILE.py, or a module that can be imported.

    Raises DotsZooError where there is no such file or module, and for any error inside a plug-in, with its
    file and line.
    """
    for entry in entry_points(group=GROUP):
        distribution = entry.dist.name if entry.dist else "an unknown distribution"
        title = f"plug-in {entry.module} (installed by {distribution})"
        _run(partial(importlib.import_module, entry.module), entry.module, title)
    for name in names:
        text = os.fspath(name)
        if text.endswith(".py"):
            _load_file(Path(text))
        elif MODULE.fullmatch(text):
            _load_module(text)
        else:
            raise DotsZooError(f"--plugin: expected a file FILE.py or the name of a module, got {text!r}")


def _load_file(path: Path) -> None:
    key = f"{PREFIX}{path.stem}"
    if key in sys.modules:
        loaded = Path(sys.modules[key].__file__ or "")
        if path.is_file() and loaded.samefile(path):
            return
        raise DotsZooError(
            f"plug-in {path}: expected a new file name, got that of {loaded}, which is loaded: rename it"
        )
    if not path.is_file():
        raise DotsZooError(
            f"plug-in {path}: expected a Python file, got {'a folder' if path.is_dir() else 'nothing there'}"
            f"{_nearest(path)}"
        )
    _run(partial(_execute, path.absolute(), key), path.name, f"plug-in {path}")


def _nearest(path: Path) -> str:
    """Return the Python files of the folder whose names are nearest to that of a file."""
    beside = [str(other) for other in path.parent.glob("*.py") if other.is_file()]
    near = difflib.get_close_matches(str(path), beside)
    return f" (nearest: {', '.join(near)})" if near else ""


def _execute(path: Path, key: str) -> None:
    """Import a file as the module `key`; it is no module where it fails."""
    spec = importlib.util.spec_from_file_location(key, path)
    assert spec is not None and spec.loader is not None, "importlib has a loader for every .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[key]
        raise


def _load_module(name: str) -> None:
    def execute() -> None:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # something that the plug-in imports
            beside = Path(*name.split(".")).with_suffix(".py")
            hint = f"give the file, --plugin {beside}" if beside.is_file() else "install it, or give its file"
            raise DotsZooError(f"expected a module that can be imported, got none: {hint}") from None

    _run(execute, name, f"plug-in {name}")


def _run(execute: Callable[[], object], name: str, title: str) -> None:
    """Execute a plug-in, and name it in the operations that it registers; `title` begins its errors."""
    before = set(OPS)
    with _errors_of(name, title):
        execute()
        for operation in [operation for operation in OPS.values() if operation.name not in before]:
            OPS[operation.name] = replace(operation, plugin=operation.plugin or name)


@contextmanager
def _errors_of(name: str, title: str) -> Iterator[None]:
    """Raise any error, and the end of the program, as one sentence with the line of the plug-in."""
    try:
        yield
    except (Exception, SystemExit) as error:
        text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        reason = text if isinstance(error, DotsZooError) else f"{type(error).__name__}: {text}"
        file, line = _place(error)
        where = file and f"{'' if Path(file).name == name else f', {file}'}, line {line}"
        raise DotsZooError(f"{title}{where}: {reason}") from error


def _place(error: BaseException) -> tuple[str, int | None]:
    """Return file and line of an error: the innermost line in the file or folder of the plug-in."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((OURS, "<frozen importlib", importlib.__file__))
    ]
    first = Path(frames[0].filename) if frames else Path()
    root = first.parent if first.name == "__init__.py" else first
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(root)]
    return (own[-1].filename, own[-1].lineno) if own else ("", None)
