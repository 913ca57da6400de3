"""Read the text forms of a genotype in public code without running anything; write them for other tools.

- flat pairs (DARTS): `Genotype(normal=[('op', input), ...], normal_concat=range(2, 6), reduce=[...], ...)`,
  two edges per node, so that edge k enters node 2 + k // 2;
- nested pairs (pt.darts, DropNAS): the same with one list of pairs per node, of any length;
- triples (FairDARTS): `('op', node, input)`, any number of edges per node;
- architecture strings (NAS-Bench-201): `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

The first three may have `name =` in front, take positional arguments, or be a dict literal of the four
fields. Their text is cut into tokens first, because a parser can be driven into long or deep work; then it is
parsed to a syntax tree, of which literals and `range(a, b)` are read and all else is refused. Nothing is
evaluated.
"""

import ast
import re

from .operations import CELLS
from .schema import SCHEMA, from_data
from .types import (
    MAX_NODES,
    NASBENCH201_EDGES,
    CellGenotype,
    Genotype,
    GenotypeError,
    cell_place,
    refuse,
)

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")  # in the order of positional arguments
MAX_CHARS = 65_536
MAX_DEPTH = 8  # Genotype([[('op', 0)]]) has 4
MAX_FOREIGN = 16  # enough for a message that shows what is wrong, too few to lead the parser deep

ARCHITECTURE = re.compile(
    r"\|([^|]+)~0\|"
    r"\+\|([^|]+)~0\|([^|]+)~1\|"
    r"\+\|([^|]+)~0\|([^|]+)~1\|([^|]+)~2\|"
)
TOKEN = re.compile(r"""\s+|\#[^\n\r]*|'[^'\\\n\r]*'|"[^"\\\n\r]*"|[^\W\d]\w*|\d[\w.]*|.""", re.DOTALL)
FAMILIAR = re.compile(r"""['"].+|[0-9]+|[\[\](){},:=]|Genotype|range|(normal|reduce)(_concat)?""", re.DOTALL)
# No form has a backslash, an open string, 0x10 or 1if; nor a string after a word or a string, nor `)(`.
BROKEN = re.compile(r"""['"\\]|(?![0-9]+(\.[0-9]+)?$)\d.*""", re.DOTALL)
MISPLACED = re.compile(r"""[\w'"]['"]|[\])}][\[({]""")


def read_expression(text: str, where: str, name: str) -> Genotype:
    """Parse and validate flat pairs, nested pairs or triples; `name` is for a text without `name =`.

    Raises a GenotypeError that begins with `where`.
    """
    try:
        body = ast.parse(_one_line(text, where)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise GenotypeError(f"{where}: expected one Genotype(...), got no Python literal: {reason}") from None
    match body:
        case [ast.Expr(value=value)]:
            pass
        case [ast.Assign(targets=[ast.Name(id=name)], value=value)]:
            pass
        case _:
            refuse(where, "one Genotype(...)", text)
    fields = _fields(value, where)
    data: dict[str, object] = {"schema": SCHEMA, "name": name, "space": "darts"}
    for cell in CELLS["darts"]:
        place = cell_place(where, cell)
        concat = _concat(fields[f"{cell}_concat"], f"{place}, concat")
        data[cell] = {"edges": _rows(fields[cell], place), "concat": concat}
    return from_data(data, where)


def _one_line(text: str, where: str) -> str:
    """Return the text without comments and line breaks; refuse tokens that could harm a parser."""
    if len(text) > MAX_CHARS:
        refuse(where, f"a text form of at most {MAX_CHARS} characters", len(text))
    depth, foreign, last = 0, 0, ""
    line = []
    for match in TOKEN.finditer(text):
        token = match[0]
        if token.isspace() or token[0] == "#":
            line.append(" ")
            continue
        depth += (token in ("(", "[", "{")) - (token in (")", "]", "}"))
        foreign += not FAMILIAR.fullmatch(token)
        broken = BROKEN.fullmatch(token) or MISPLACED.fullmatch(last[-1:] + token[0])
        if broken or depth > MAX_DEPTH or foreign > MAX_FOREIGN:
            line_number = text.count("\n", 0, match.start()) + 1
            expected = "one Genotype(...) of strings, integers, lists, tuples and range"
            refuse(f"{where}, line {line_number}", expected, last + text[match.start() : match.start() + 40])
        line.append(token)
        last = token
    return "".join(line).strip()


def _fields(value: ast.expr, where: str) -> dict[str, ast.expr]:
    names: list[object]
    match value:
        case ast.Call(func=ast.Name(id="Genotype")):
            names = [*(*FIELDS, "one too many")[: len(value.args)], *(item.arg for item in value.keywords)]
            values = [*value.args, *(item.value for item in value.keywords)]
        case ast.Dict():
            names = [key.value if isinstance(key, ast.Constant) else None for key in value.keys]
            values = value.values
        case _:
            refuse(where, "Genotype(normal=...) or a dict literal of its fields", ast.unparse(value))
    if len(values) != len(FIELDS) or set(names) != set(FIELDS):
        refuse(where, f"each of {', '.join(FIELDS)} once", names)
    return {str(name): value for name, value in zip(names, values, strict=True)}


def _rows(value: ast.expr, place: str) -> list[list[object]]:
    """Return [node, input, operation] of every edge, from any of the three forms of `value`."""
    items = _items(value, place, "a list of edges")
    if items and isinstance(items[0], ast.List | ast.Tuple) and not _starts_with_literal(items[0]):
        pairs = [
            (node, pair)
            for node, item in enumerate(items, start=2)
            for pair in _items(item, f"{place}, node {node}", "a list of ('operation', input)")
        ]
        return [_row(pair, (node,), f"{place}, edge {index}") for index, (node, pair) in enumerate(pairs)]
    if items and isinstance(items[0], ast.List | ast.Tuple) and len(items[0].elts) == 3:
        return [_row(item, (), f"{place}, edge {index}") for index, item in enumerate(items)]
    rows = [_row(item, (2 + index // 2,), f"{place}, edge {index}") for index, item in enumerate(items)]
    if len(rows) % 2:
        refuse(place, "an even number of ('operation', input), two per node", len(rows))
    return rows


def _starts_with_literal(item: ast.List | ast.Tuple) -> bool:
    return bool(item.elts) and not isinstance(item.elts[0], ast.List | ast.Tuple)


def _row(item: ast.expr, node: tuple[int, ...], place: str) -> list[object]:
    expected = "('operation', input)" if node else "('operation', node, input)"
    values = [_literal(value) for value in _items(item, place, expected)]
    if [type(value) for value in values] != [str] + [int] * (2 - len(node)):
        refuse(place, expected, ast.unparse(item))
    return [*node, *values[1:], values[0]]


def _concat(value: ast.expr, place: str) -> list[object]:
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "range"):
        nodes = [_literal(item) for item in _items(value, place, "a list of nodes or range(a, b)")]
        if any(type(node) is not int for node in nodes):
            refuse(place, "integers", ast.unparse(value))
        return nodes
    literals = [_literal(argument) for argument in value.args]
    bounds = [literal for literal in literals if isinstance(literal, int) and not isinstance(literal, bool)]
    if value.keywords or len(bounds) != len(literals) or len(bounds) not in (1, 2):
        refuse(place, "range(a, b) of two integers", ast.unparse(value))
    start, stop = [0, *bounds][-2:]
    if stop - start > MAX_NODES:
        refuse(place, f"a range of at most {MAX_NODES} nodes", ast.unparse(value))
    return list(range(start, stop))


def _items(value: ast.expr, place: str, expected: str) -> list[ast.expr]:
    if not isinstance(value, ast.List | ast.Tuple):
        refuse(place, expected, ast.unparse(value))
    return value.elts


def _literal(value: ast.expr) -> object:
    return value.value if isinstance(value, ast.Constant) else None


def read_architecture(text: str, where: str, name: str) -> Genotype:
    """Parse and validate a NAS-Bench-201 architecture string; a GenotypeError begins with `where`."""
    match = ARCHITECTURE.fullmatch(text.strip())
    if match is None:
        refuse(where, "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|", text)
    edges = [[*edge, operation] for edge, operation in zip(NASBENCH201_EDGES, match.groups(), strict=True)]
    cell = {"edges": edges, "concat": [3]}
    return from_data({"schema": SCHEMA, "name": name, "space": "nasbench201", "cell": cell}, where)


def write_text(genotype: Genotype) -> str:
    """Return one line that `read_expression` or `read_architecture` reads back into equal cells."""
    if genotype.space == "nasbench201":
        return "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*(edge.op for edge in genotype.cell.edges))
    flat = all(_is_flat(genotype.cells[name]) for name in CELLS["darts"])
    fields = []
    for name in CELLS["darts"]:
        cell = genotype.cells[name]
        edges = [(edge.op, edge.input) if flat else (edge.op, edge.node, edge.input) for edge in cell.edges]
        fields += [f"{name}={edges}", f"{name}_concat={_concat_text(cell.concat)}"]
    return f"Genotype({', '.join(fields)})"


def _is_flat(cell: CellGenotype) -> bool:
    return [edge.node for edge in cell.edges] == [node for node in cell.nodes for _ in range(2)]


def _concat_text(concat: tuple[int, ...]) -> str:
    start, stop = concat[0], concat[-1] + 1
    return f"range({start}, {stop})" if concat == tuple(range(start, stop)) else str(list(concat))
