"""Load a cell from a bundled name, a file or a text, and save it; importing this reads no cell."""

import difflib
import importlib.resources
import os
import re
from importlib.resources.abc import Traversable
from pathlib import Path

from ..runtime.atomic_write import write_file
from .types import MAX_BYTES, MAX_NAME, Genotype, GenotypeError, refuse, validate


def load_genotype(source: "str | os.PathLike[str] | Genotype") -> Genotype:
    """Load and validate the genotype that `source` names or holds.

    A Genotype is returned unchanged; a path object is read as a file. A string is, tried in this order, the
    name of a bundled cell, the path of an existing file, or a text. A text, also that of a file, is JSON of
    schema 1, a text form (`text_forms`) or an architecture string of NAS-Bench-201; its first characters
    decide which. Raises GenotypeError.
    """
    if isinstance(source, Genotype):
        validate(source)
        return source
    if isinstance(source, os.PathLike):
        return _load_file(Path(source))
    if not isinstance(source, str):
        refuse("genotype", "a Genotype, a name, a path or a text", source)
    if source in bundled_names():
        text = _bundled_folder().joinpath(f"{source}.json").read_text("utf-8")
        return _load_text(text, f"bundled cell {source}", source)
    if len(source) <= 4096 and os.path.isfile(source):
        return _load_file(Path(source))
    if is_genotype(source):
        return _load_text(source, "text", "unnamed")
    close = difflib.get_close_matches(source[:MAX_NAME], bundled_names())
    hint = f" (close: {', '.join(close)})" if close else ""
    refuse("genotype", f"the name of a bundled cell{hint}, the path of an existing file, or a text", source)


def is_genotype(source: str) -> bool:
    """Return True if `load_genotype` would read it: a bundled name, an existing file, or a text."""
    text = source.lstrip()[:1] in ("{", "|", "#") or re.search(r"\bGenotype\s*\(|normal_concat", source)
    return bool(text) or source in bundled_names() or (len(source) <= 4096 and os.path.isfile(source))


def _load_file(path: Path) -> Genotype:
    try:
        if not path.is_file():
            refuse(str(path), "an existing file", "a folder" if path.is_dir() else "nothing")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data[:MAX_BYTES].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise GenotypeError(f"{path}: expected a text in UTF-8, got other bytes") from None
    except OSError as error:
        raise GenotypeError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        refuse(str(path), f"a file of at most {MAX_BYTES} bytes", "more")
    return _load_text(text, str(path), path.stem)


def _load_text(text: str, where: str, name: str) -> Genotype:
    # Inside the function, since both modules need the classes above.
    from .schema import read_json
    from .text_forms import read_architecture, read_expression

    if len(text) > MAX_BYTES:
        refuse(where, f"at most {MAX_BYTES} characters", len(text))
    start = text.lstrip()
    if start.startswith("|"):
        return read_architecture(text, where, name)
    if start.startswith("{") and ('"schema"' in text or "normal_concat" not in text):
        return read_json(text, where)
    return read_expression(text, where, name)


def bundled_names() -> tuple[str, ...]:
    """Return the names of the published cells that ship with the package, sorted."""
    files = [entry.name for entry in _bundled_folder().iterdir()]
    return tuple(sorted(name.removesuffix(".json") for name in files if name.endswith(".json")))


def _bundled_folder() -> Traversable:
    return importlib.resources.files("dots_zoo") / "genotype" / "published"


def save_genotype(genotype: Genotype, path: str | os.PathLike[str]) -> Path:
    """Write schema 1 to `path`, one edge a line, atomically; equal genotypes give equal bytes.

    Raises GenotypeError for a genotype that could not be loaded again, DotsZooError for a path that cannot be
    written.
    """
    from .schema import write_json

    return write_file(path, write_json(genotype).encode("ascii"))


def to_text(genotype: Genotype) -> str:
    """Return the text form that other tools read: `Genotype(normal=[...], ...)`, or the architecture string.

    The edges are flat pairs where every node of both cells has two, node by node, else FairDARTS's triples.
    """
    from .text_forms import write_text

    validate(genotype)
    return write_text(genotype)
