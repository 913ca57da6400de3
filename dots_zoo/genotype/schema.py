"""Read and write JSON schema 1, the file format of a genotype: read strictly, laid out for comparison.

    {"schema": 1, "name": "...", "space": "darts",
     "normal": {"edges": [[node, input, operation], ...], "concat": [node, ...]}, "reduce": {...},
     "plugins": {operation: plug-in, ...}, "provenance": {...}}

Space `nasbench201` has one `cell` in place of the two. `plugins` names the plug-in of every operation that
one registered, and stands only where there is one; a plug-in is never loaded because a file names it.
`provenance` may be missing too; any other key that is missing, unknown or duplicated is refused, and so are
NaN and infinities.
"""

import json
import math
import shlex
from collections.abc import Mapping
from typing import Any, NoReturn

from ..runtime.table import NAME
from .operations import CELLS, OPS
from .types import (
    MAX_BYTES,
    MAX_NAME,
    CellGenotype,
    Edge,
    Genotype,
    GenotypeError,
    cell_place,
    refuse,
    validate,
)

SCHEMA = 1
MOST_NAMED = 8  # plug-ins and operations that a message names


def read_json(text: str, where: str) -> Genotype:
    """Parse and validate a JSON text; a GenotypeError begins with `where`."""
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise GenotypeError(f"{where}: expected JSON of schema {SCHEMA}, got one nested too deeply") from None
    except ValueError as error:
        raise GenotypeError(f"{where}: expected JSON of schema {SCHEMA}, got: {error}") from None
    return from_data(data, where)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key {key[:40]!r} twice")
        members[key] = value
    return members


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]}, which is no number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def from_data(data: object, where: str) -> Genotype:
    """Build and validate a genotype of schema 1 as plain Python data; a GenotypeError begins with `where`."""
    if not isinstance(data, dict):
        refuse(where, "a JSON object", data)
    if type(data.get("schema")) is not int or data["schema"] != SCHEMA:
        refuse(where, f"'schema': {SCHEMA}", data.get("schema", list(data)))
    space = data.get("space")
    if space not in list(CELLS):
        refuse(where, f"'space': {' or '.join(CELLS)}", space)
    members: dict[str, Any] = {"plugins": {}, "provenance": {}} | data
    _check_keys(members, ("schema", "name", "space", *CELLS[space], "plugins", "provenance"), where)
    cells = {name: _cell_from_data(data[name], cell_place(where, name)) for name in CELLS[space]}
    if not isinstance(members["provenance"], dict):
        refuse(f"{where}, provenance", "a JSON object", members["provenance"])
    _check_plugins(members["plugins"], cells, where)
    genotype = Genotype(data["name"], space, cells, members["provenance"])
    validate(genotype, where)
    return genotype


def _cell_from_data(data: object, place: str) -> CellGenotype:
    if not isinstance(data, dict):
        refuse(place, "an object with 'edges' and 'concat'", data)
    _check_keys(data, ("edges", "concat"), place)
    for key in ("edges", "concat"):
        if not isinstance(data[key], list):
            refuse(f"{place}, {key}", "a list", data[key])
    for index, row in enumerate(data["edges"]):
        if not isinstance(row, list) or len(row) != 3:
            refuse(f"{place}, edge {index}", "[node, input, operation]", row)
    return CellGenotype(tuple(Edge(*row) for row in data["edges"]), tuple(data["concat"]))


def _check_keys(data: dict[str, Any], keys: tuple[str, ...], place: str) -> None:
    if set(data) != set(keys):
        missing = [key for key in keys if key not in data]
        unknown = [key for key in data if key not in keys]
        refuse(place, f"the keys {', '.join(keys)}", f"missing {missing}, unknown {unknown[:4]}")


def _check_plugins(plugins: object, cells: Mapping[str, CellGenotype], where: str) -> None:
    """Raise a GenotypeError for a malformed `plugins`, or one that names a plug-in that is not loaded."""
    place = f"{where}, plugins"
    if not isinstance(plugins, dict):
        refuse(place, "a JSON object of operations and the plug-ins that register them", plugins)
    used = [edge.op for cell in cells.values() for edge in cell.edges]
    for operation, plugin in plugins.items():
        if operation not in used or not NAME.fullmatch(operation):
            refuse(place, "names of operations on its edges", operation)
        if not (isinstance(plugin, str) and plugin.isprintable() and 0 < len(plugin) <= MAX_NAME):
            refuse(f"{place}, {operation}", f"a file's name or a module, 1 to {MAX_NAME} characters", plugin)
    missing = {operation: plugin for operation, plugin in plugins.items() if operation not in OPS}
    if missing:
        operations, names = list(missing)[:MOST_NAMED], list(dict.fromkeys(missing.values()))[:MOST_NAMED]
        raise GenotypeError(
            f"{where}: expected the plug-in {' and '.join(names)}, which registers {', '.join(operations)}, "
            f"got none: add {' '.join(f'--plugin {shlex.quote(name)}' for name in names)}, in Python "
            f"dots_zoo.plugins.load({', '.join(map(repr, names))})"
        )


def plugins_of(genotype: Genotype) -> dict[str, str]:
    """Return the plug-in of every operation of a genotype that comes from one, sorted by operation."""
    used = {edge.op for cell in genotype.cells.values() for edge in cell.edges}
    return {operation: OPS[operation].origin for operation in sorted(used) if OPS[operation].origin}


def write_json(genotype: Genotype) -> str:
    """Return schema 1 as ASCII text, one edge a line. Raises GenotypeError for what cannot be read back."""
    validate(genotype)
    where = f"genotype {genotype.name}"
    plugins = plugins_of(genotype)
    _check_plugins(plugins, genotype.cells, where)
    try:
        provenance = json.dumps(dict(genotype.provenance), indent=2, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise GenotypeError(f"{where}, provenance: expected JSON values, got: {error}") from None
    members = {"schema": str(SCHEMA), "name": json.dumps(genotype.name), "space": f'"{genotype.space}"'}
    members |= {name: _cell_to_json(genotype.cells[name]) for name in CELLS[genotype.space]}
    members |= {"plugins": json.dumps(plugins)} if plugins else {}
    members["provenance"] = provenance
    lines = [f'"{key}": {value}'.replace("\n", "\n  ") for key, value in members.items()]
    text = "{\n  " + ",\n  ".join(lines) + "\n}\n"
    if len(text) > MAX_BYTES:
        refuse(where, f"at most {MAX_BYTES} bytes as JSON, provenance included", len(text))
    return text


def _cell_to_json(cell: CellGenotype) -> str:
    rows = ",\n".join(f'    [{edge.node}, {edge.input}, "{edge.op}"]' for edge in cell.edges)
    return f'{{\n  "edges": [\n{rows}\n  ],\n  "concat": {list(cell.concat)}\n}}'
