"""Benchmarks as one HTML page with everything in it, or as Markdown; every number comes from the JSON."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dots_zoo import webpage
from dots_zoo.errors import DotsZooError
from dots_zoo.files import write_file

from .plot import latency_svg
from .schema import Bench, Row, read_bench

# heading -> text of a row
COLUMNS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: row.model,
    "batch": lambda row: str(row.batch),
    "p50 ms": lambda row: f"{row.p50_ms:.3f}",
    "p90 ms": lambda row: f"{row.p90_ms:.3f}",
    "p95 ms": lambda row: f"{row.p95_ms:.3f}",
    "p99 ms": lambda row: f"{row.p99_ms:.3f}",
    "mean ms": lambda row: f"{row.mean_ms:.3f}",
    "std ms": lambda row: f"{row.std_ms:.3f}",
    "cv": lambda row: f"{row.cv:.1%}" + (" unstable" if row.unstable else ""),
    "images/s": lambda row: f"{row.throughput_per_s:.1f}",
    "MACs": lambda row: f"{row.macs:,}",
    "FLOPs": lambda row: f"{row.flops:,}",
    "input": lambda row: "x".join(map(str, row.input_shape)),
    "threads": lambda row: str(row.threads),
    "provider asked": lambda row: row.provider_asked,
    "provider used": lambda row: row.provider_used,
    "runs": lambda row: f"{row.iterations} in {row.seconds:.2f} s",
    "warm-up runs": lambda row: str(row.warmup_iterations),
    "file": lambda row: row.file,
    "sha256": lambda row: row.sha256[:12],
}

NOTES = (
    "Times are of one run of the whole batch, input and output on the device. Percentiles are interpolated "
    "linearly. MACs and FLOPs are of one image: multiply-adds of convolutions and matrix products, and twice "
    "that. A row is unstable where the standard deviation is above 5 % of the mean (cv): measure it again on "
    "a quiet machine."
)


def write_report(benches: Sequence[Path | Mapping[str, Any]], out: Path) -> Path:
    """Write the benchmarks, files or parsed JSON, to `out`: .html with a plot for each, or .md.

    Raises DotsZooError for another suffix, and as schema.read_bench does; nothing is written then.
    """
    render = {".html": to_html, ".md": to_markdown}.get(out.suffix)
    if render is None:
        raise DotsZooError(f"{out}: expected a name that ends in .html or .md")
    return write_file(out, render([read_bench(bench) for bench in benches]).encode())


def to_html(benches: Sequence[Bench]) -> str:
    """One page without scripts or anything from outside."""
    return webpage.document("Latency report", "\n".join([f"<p>{NOTES}</p>", *map(_section, benches)]))


def to_markdown(benches: Sequence[Bench]) -> str:
    """The same tables, without plots."""
    lines = ["# Latency report", "", NOTES]
    for bench in benches:
        lines += ["", f"## {_md(bench.created)}", ""]
        lines += [f"- {_md(key)}: {_md(value)}" for key, value in _facts(bench)]
        lines += ["", _md_row(COLUMNS), _md_row(["---", *["---:"] * (len(COLUMNS) - 1)])]
        lines += [_md_row(text(row) for text in COLUMNS.values()) for row in bench.rows]
    return "\n".join(lines) + "\n"


def _section(bench: Bench) -> str:
    cells = [[text(row) for text in COLUMNS.values()] for row in bench.rows]
    return (
        f"<h2>{html.escape(bench.created)}</h2>{webpage.facts(_facts(bench))}\n"
        f"<figure>{latency_svg(bench.rows)}</figure>\n"
        + webpage.table(COLUMNS, cells, marked=[row.unstable for row in bench.rows])
    )


def _facts(bench: Bench) -> list[tuple[str, Any]]:
    """Machine and versions, without what is None."""
    facts = {**bench.machine, **bench.versions}
    return [(key.replace("_", " "), value) for key, value in facts.items() if value is not None]


def _md(value: Any) -> str:
    return " ".join(html.escape(str(value)).split()).replace("|", "\\|")


def _md_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_md(cell) for cell in cells)} |"
