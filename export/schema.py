"""The JSON of a benchmark, schema 1: what `latency` writes and `report` reads.

{"schema": 1, "kind": "bench", "created": ..., "machine": {...}, "versions": {...}, "rows": [{...}, ...]}
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from dots_zoo.errors import DotsZooError

SCHEMA = 1
KIND = "bench"


@dataclass(frozen=True)
class Row:
    """One file at one batch size. Times are of one run of the whole batch.

    model: the name in the file's metadata, the file's own where there is none. sha256: of the file.
    provider_used: what the session reported. input_shape: (batch, C, H, W). threads: within one operator.
    seconds: sum of the timed runs. percentiles: numpy's linear interpolation. std_ms: of the sample (n - 1).
    cv: std / mean. unstable: cv above 0.05. throughput_per_s: images. macs: of one image; flops: 2 * macs.
    samples_ms: every timed run, None where they were not kept.
    """

    model: str
    file: str
    sha256: str
    provider_asked: str
    provider_used: str
    threads: int
    batch: int
    input_shape: list[int]
    warmup_iterations: int
    iterations: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    std_ms: float
    cv: float
    unstable: bool
    throughput_per_s: float
    macs: int
    flops: int
    samples_ms: list[float] | None


@dataclass(frozen=True)
class Bench:
    """All rows of one run on one machine."""

    created: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    rows: tuple[Row, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {"schema": SCHEMA, "kind": KIND, **asdict(self)}


def read_bench(source: Path | Mapping[str, Any]) -> Bench:
    """Read and check a benchmark, from its file or from the parsed JSON.

    Raises DotsZooError for a file that cannot be read or is cut off, another kind of document, another
    schema, and for a row that lacks a key or has a value of another type.
    """
    where = str(source) if isinstance(source, Path) else "bench"
    document = _load(source) if isinstance(source, Path) else source
    if not isinstance(document, Mapping) or document.get("kind") != KIND:
        raise DotsZooError(f'{where}: not a benchmark: expected a JSON object with "kind": "{KIND}"')
    if document.get("schema") != SCHEMA:
        raise DotsZooError(
            f"{where}: expected schema {SCHEMA}, got {document.get('schema')!r}: run the bench again"
        )
    for key, kind in (("created", str), ("machine", Mapping), ("versions", Mapping), ("rows", (list, tuple))):
        if not isinstance(document.get(key), kind):
            raise DotsZooError(f"{where}: {key} is missing or of the wrong type: {document.get(key)!r}")
    if not document["rows"]:
        raise DotsZooError(f"{where}: has no rows")
    rows = tuple(_row(row, f"{where}: row {i}") for i, row in enumerate(document["rows"]))
    return Bench(document["created"], document["machine"], document["versions"], rows)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DotsZooError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # of JSON or of UTF-8
        raise DotsZooError(f"{path}: not JSON, or only a part of it: {error}") from error


def _row(row: Any, where: str) -> Row:
    if not isinstance(row, Mapping):
        raise DotsZooError(f"{where}: expected an object, got {row!r:.60}")
    names = {field.name for field in fields(Row)}
    if row.keys() != names:
        missing, more = sorted(names - row.keys()), sorted(row.keys() - names)
        raise DotsZooError(f"{where}: keys missing: {missing}, keys not in schema {SCHEMA}: {more}")
    for field in fields(Row):
        if not _fits(row[field.name], field.type):
            kind = getattr(field.type, "__name__", field.type)
            number = " from 0 up" if field.type in (int, float) else ""
            raise DotsZooError(f"{where}: {field.name}: expected {kind}{number}, got {row[field.name]!r:.60}")
    return Row(**row)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value has the type of a field; numbers are finite and not negative."""
    if isinstance(kind, UnionType):
        return any(_fits(value, option) for option in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    if kind in (int, float):
        accepted = (int, float) if kind is float else int
        return isinstance(value, accepted) and not isinstance(value, bool) and 0 <= value < math.inf
    return isinstance(value, kind)
