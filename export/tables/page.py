"""Render the tables as Markdown and HTML; they hold nothing that is not in the JSON."""

from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Any

from dots_zoo.drawing.html import render_page

Row = Mapping[str, Any]
Cell = tuple[str, float | str]  # text, and what it sorts by

TITLE = "Costs: the paper's, ours, and latency"
NOTE = (
    "Figures whose heading says paper are the paper's own and were not measured here. Ours count "
    "multiply-adds of convolutions and linear layers; tools differ, and the paper counts batch norm as well. "
    "Latency is ONNX Runtime's, device-resident, in one interleaved run; a row whose parity, provider or "
    "stability check failed shows the reason instead. Networks above the mobile setting's limit are marked "
    "> 600 M."
)
ABSENT: Cell = ("", float("inf"))


def columns(table: Mapping[str, Any]) -> dict[str, Callable[[Row], Cell]]:
    """Return heading -> cell of a row; a table without the paper's costs does without their columns."""
    name = {"architecture": _architecture, f"paper: {table['score']}": _score}
    rest = {"p50 ms": _p50, "p95 ms": _p95, "remarks": _remarks, "network": _network}
    if all(row["paper"]["macs"] is None for row in table["rows"]):
        return {**name, "our params, M": _our_params, "our MACs, M": _our_macs, **rest}
    return {
        **name,
        "paper: params, M": lambda row: _millions(row["paper"]["params"], 1),
        "our params, M": _our_params,
        "params, ours to paper's": lambda row: _percent(row["difference"], "params"),
        "paper: MACs, M": lambda row: _millions(row["paper"]["macs"], 0),
        "our MACs, M": _our_macs,
        "MACs, ours to paper's": lambda row: _percent(row["difference"], "macs"),
        **rest,
    }


def to_html(document: Mapping[str, Any]) -> str:
    """Return one page that loads nothing from outside; its only script sorts tables."""
    return render_page(
        "dots_zoo.export.tables",
        "tables.html.j2",
        title=TITLE,
        note=NOTE,
        facts=list(_facts(document)),
        tables=[_sortable(table) for table in document["tables"]],
    )


def _sortable(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's headings and cells, and the index of the column whose text may take several lines."""
    cells = columns(table)
    rows = [[cell(row) for cell in cells.values()] for row in table["rows"]]
    headings = list(cells)
    return {"title": table["title"], "note": table["note"], "columns": headings, "rows": rows,
            "wide": headings.index("remarks")}  # fmt: skip


def to_markdown(document: Mapping[str, Any]) -> str:
    """Return the same tables as Markdown."""
    lines = [f"# {TITLE}", "", NOTE, ""]
    lines += [f"- {key}: {value}" for key, value in _facts(document)]
    for table in document["tables"]:
        shown = columns(table)
        lines += ["", f"## {table['title']}", "", table["note"], "", _md_row(shown)]
        lines.append(_md_row(["---", *["---:"] * (len(shown) - 1)]))
        lines += [_md_row(cell(row)[0] for cell in shown.values()) for row in table["rows"]]
    return "\n".join(lines) + "\n"


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    latency = ", ".join(f"{key} {value}" for key, value in document["latency"].items())
    facts = {"created": document["created"], **document["machine"], **document["versions"]}
    facts |= {"counter": document["counter"], "latency": latency or "not measured"}
    return ((key.replace("_", " "), value) for key, value in facts.items() if value is not None)


def _architecture(row: Row) -> Cell:
    return _text(row["architecture"])


def _score(row: Row) -> Cell:
    return _text(row["paper"]["score"] or "")


def _our_params(row: Row) -> Cell:
    return _millions(row["ours"] and row["ours"]["params"], 2)


def _our_macs(row: Row) -> Cell:
    return _millions(row["ours"] and row["ours"]["macs"], 1)


def _p50(row: Row) -> Cell:
    return _time(row["latency"], "p50_ms")


def _p95(row: Row) -> Cell:
    return _time(row["latency"], "p95_ms")


def _network(row: Row) -> Cell:
    return _text(row["network"]["label"] if row["network"] else "")


def _remarks(row: Row) -> Cell:
    latency = row["latency"] or {}
    remarks = [
        "> 600 M" if row["over_mobile_limit"] else "",
        f"refused: {latency['refused']}" if "refused" in latency else "",
        "noisy" if latency.get("noisy") else "",
        row["note"],
    ]
    return _text("; ".join(text for text in remarks if text))


def _text(text: str) -> Cell:
    return text, text


def _millions(value: float | None, digits: int) -> Cell:
    return ABSENT if value is None else (f"{value / 1e6:,.{digits}f}", value)


def _percent(difference: Mapping[str, float] | None, key: str) -> Cell:
    return ABSENT if difference is None else (f"{difference[key]:+.1%}", difference[key])


def _time(latency: Mapping[str, Any] | None, key: str) -> Cell:
    if latency is None:
        return ABSENT
    return ("refused", float("inf")) if "refused" in latency else (f"{latency[key]:.2f}", latency[key])


def _md_row(cells: Any) -> str:
    return f"| {' | '.join(escape(cell, quote=False).replace('|', chr(92) + '|') for cell in cells)} |"
