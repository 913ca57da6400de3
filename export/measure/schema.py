"""The JSON of a benchmark, schema 2: what `latency` writes and `report` and `compare` read.

{"schema": 2, "kind": "bench", "created": ..., "machine": {...}, "versions": {...}, "settings": {...},
 "rows": [...]}
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from dots_zoo.runtime.errors import DotsZooError

from .checks import failures
from .rows import KIND, SCHEMA, Bench, Row
from .timing import Timing, summarise


def dump(document: Mapping[str, Any]) -> bytes:
    """Return the JSON with one row a line; one raw sample a line would make it a thousand times as long."""
    head = {key: value for key, value in document.items() if key != "rows"}
    rows = ",\n".join(json.dumps(row, allow_nan=False) for row in document["rows"])
    return f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n{rows}\n]\n}}\n'.encode()


def read_bench(source: Path | Mapping[str, Any]) -> Bench:
    """Read and check a benchmark, from its file or from the parsed JSON.

    Raises DotsZooError for a file that cannot be read or is cut off, another kind of document, another
    schema, a row that lacks a key or has a value of another type, and for statistics or verdicts that do not
    follow from the raw samples and the other entries of their row.
    """
    where = str(source) if isinstance(source, Path) else "bench"
    document = load(source) if isinstance(source, Path) else source
    if not isinstance(document, Mapping) or document.get("kind") != KIND:
        raise DotsZooError(f'{where}: not a benchmark: expected a JSON object with "kind": "{KIND}"')
    if document.get("schema") != SCHEMA:
        raise DotsZooError(
            f"{where}: expected schema {SCHEMA}, got {document.get('schema')!r}: run the bench again"
        )
    entry_types = {
        "created": str,
        "machine": Mapping,
        "versions": Mapping,
        "settings": Mapping,
        "rows": list | tuple,
    }
    for key, entry_type in entry_types.items():
        if not isinstance(document.get(key), entry_type):
            raise DotsZooError(f"{where}: {key} is missing or of the wrong type: {document.get(key)!r:.60}")
    if not document["rows"]:
        raise DotsZooError(f"{where}: has no rows")
    rows = tuple(_checked(row, f"{where}: row {i}") for i, row in enumerate(document["rows"]))
    about = {key: document[key] for key in ("created", "machine", "versions", "settings")}
    return Bench(**about, rows=rows)


def load(path: Path) -> Any:
    """Return the JSON of a file. Raises DotsZooError where it cannot be read or is cut off."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DotsZooError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8; brackets without an end
        raise DotsZooError(f"{path}: not JSON, or only a part of it: {error}") from error


def _checked(value: Any, where: str) -> Row:
    """Return a row whose statistics and failures follow from the rest of it."""
    row: Row = _build(Row, value, where)
    for name in ("resident", "end_to_end"):
        timing: Timing = getattr(row, name)
        samples = [time for times in timing.samples_ms for time in times]
        if len(samples) < 2 or min(samples) <= 0 or not all(timing.samples_ms):
            raise DotsZooError(
                f"{where}: {name}: expected two samples or more, one a round or more, none of 0"
            )
        for key, expected in asdict(summarise(timing.samples_ms, row.batch)).items():
            got = getattr(timing, key)
            if not (math.isclose(got, expected, rel_tol=1e-9) if isinstance(got, float) else got == expected):
                raise DotsZooError(
                    f"{where}: {name}.{key} is {got!r:.40}, and its samples give {expected!r:.40}: edited?"
                )
    if row.failures != failures(row):
        raise DotsZooError(f"{where}: failures do not follow from the rest of the row: edited?")
    return row


def _build(record: Any, value: Any, where: str) -> Any:
    """Build the dataclass `record` from an object with exactly its keys, each of its type."""
    if not isinstance(value, Mapping):
        raise DotsZooError(f"{where}: expected an object, got {value!r:.60}")
    names = {field.name for field in fields(record)}
    if value.keys() != names:
        missing, more = sorted(names - value.keys()), sorted(value.keys() - names)
        raise DotsZooError(f"{where}: keys missing: {missing}, keys not in schema {SCHEMA}: {more}")
    entries = {}
    for field in fields(record):
        entry: Any = value[field.name]
        if is_dataclass(field.type):
            entry = _build(field.type, entry, f"{where}: {field.name}")
        elif not _fits(entry, field.type):
            name = getattr(field.type, "__name__", field.type)
            limit = " from 0 up" if field.type in (int, float) else ""
            raise DotsZooError(f"{where}: {field.name}: expected {name}{limit}, got {entry!r:.60}")
        entries[field.name] = entry
    return record(**entries)


def _fits(value: Any, field_type: Any) -> bool:
    """Return True where a JSON value has the type of a field; numbers are finite and not negative."""
    if isinstance(field_type, UnionType):
        return any(_fits(value, option) for option in get_args(field_type))
    if get_origin(field_type) is list:
        return isinstance(value, list) and all(_fits(item, get_args(field_type)[0]) for item in value)
    if get_origin(field_type) is dict:
        return isinstance(value, dict) and all(
            _fits(item, get_args(field_type)[1]) for item in value.values()
        )
    if field_type is type(None):
        return value is None
    if field_type in (int, float):
        accepted = (int, float) if field_type is float else int
        return isinstance(value, accepted) and not isinstance(value, bool) and 0 <= value < math.inf
    return isinstance(value, field_type)
