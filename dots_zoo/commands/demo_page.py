"""Render the demo's page; it shows only demo.json and the pictures of its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..drawing.html import render_page
from ..genotype import load_genotype
from .demo_cells import verdicts

LATENCY = ("batch", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "images/s", "check")  # columns of `report`


def page(result: Mapping[str, Any], out: Path) -> str:
    """Return the HTML of a completed demo whose files are in `out`.

    A row of latency that `dots-zoo report` refuses is refused here: its reason is shown and not its times.
    """
    from dots_zoo.export.measure.report import COLUMNS, cells
    from dots_zoo.export.measure.schema import read_bench
    from dots_zoo.search.run.report import CELL, captions
    from dots_zoo.search.run.summary import read_log, summarise

    bench = read_bench(result["bench"])
    texts = [dict(zip(COLUMNS, (text for text, _ in cells(row)), strict=True)) for row in bench.rows]
    search = out / "search"
    pictures = captions(read_log(search), load_genotype(search / "genotype.json"))
    curves = {file: text for file, text in pictures.items() if file.startswith(("curves.", "changes."))}
    return render_page(
        "dots_zoo.commands",
        "demo.html.j2",
        data=result["data"],
        summary=summarise(search),
        cells=[(path, pictures[CELL]) for path in out.glob("cell.svg")],  # none where it could not be drawn
        genotype=result["genotype"],
        accuracies=[_accuracy(row) for row in result["accuracies"]],
        verdicts=verdicts(result),
        parity=result["parity"],
        columns=LATENCY,
        latencies=[[row[column] for column in LATENCY] for row in texts],
        refused=[bool(row.failures) for row in bench.rows],
        plots=[
            (search / "plots" / file, text)
            for file, text in curves.items()
            if (search / "plots" / file).is_file()
        ],
        facts=[*bench.machine.items(), *bench.versions.items(), ("seed", result["seed"])],
        seconds=[(f"{name}, seconds", value) for name, value in result["seconds"].items()],
    )


def _accuracy(row: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy = f"{100 * row['accuracy']:.2f} %"
    return row["name"], accuracy, _count(row.get("params")), _count(row.get("macs"))


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
