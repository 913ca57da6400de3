"""Render the demo's page; it shows only demo.json and the pictures of its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..drawing.html import render_page

PERCENTILES = ("p50_ms", "p90_ms", "p95_ms", "p99_ms")


def page(result: Mapping[str, Any], out: Path) -> str:
    """Return the HTML of a completed demo whose files are in `out`."""
    bench = result["bench"]
    timings = [{"batch": row["batch"], **row["resident"]} for row in bench["rows"]]
    return render_page(
        "dots_zoo.commands",
        "demo.html.j2",
        data=result["data"],
        cells=sorted(out.glob("cell.svg")),  # none where it could not be drawn
        genotype=result["genotype"],
        accuracies=[_accuracy(row) for row in result["accuracies"]],
        parity=result["parity"],
        latencies=[
            (timing["batch"], *(f"{timing[key]:.3f}" for key in PERCENTILES), _rate(timing))
            for timing in timings
        ],
        noisy=[timing["noisy"] for timing in timings],
        plots=sorted((out / "search/plots").glob("*.png")),
        facts=[*bench["machine"].items(), *bench["versions"].items(), ("seed", result["seed"])],
        seconds=[(f"{name}, seconds", value) for name, value in result["seconds"].items()],
    )


def _accuracy(row: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy = f"{100 * row['accuracy']:.2f} %"
    return row["name"], accuracy, _count(row.get("params")), _count(row.get("macs"))


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _rate(timing: Mapping[str, Any]) -> str:
    return f"{timing['throughput_per_s']:.0f}" + (" (noisy)" if timing["noisy"] else "")
