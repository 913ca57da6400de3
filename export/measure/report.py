"""Render benchmarks as one self-contained HTML page or as Markdown; every figure comes from the JSON.

A row that failed its parity, provider or stability check is there with the reason and without its times.
"""

import html
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dots_zoo.drawing.html import render_page
from dots_zoo.runtime.atomic_write import check_output, write_file
from dots_zoo.runtime.best_effort import attempt
from dots_zoo.runtime.errors import DotsZooError

from .plot import Mark, batch_svg, names, pareto_svg, percentile_svg
from .rows import Bench, Row
from .schema import read_bench

Cell = tuple[str, float | str]  # text, and what it sorts by

NOTES = (
    "Times are of one run of the whole batch: device-resident with input and output bound on the device, "
    "end-to-end with the copies from and to the host. Percentiles are interpolated linearly. MACs and FLOPs "
    "are of one image: multiply-adds of convolutions and matrix products, and twice that. Rows took turns "
    "in rounds. A row is noisy where the standard deviation is above 5 % of the mean (cv). A row is refused, "
    "and its times are withheld, where the graph is not proven against PyTorch, where nodes ran on another "
    "provider than the one asked for, or where the medians of its rounds lie too far apart."
)

# heading -> cell of a row; TIMES are withheld where a row is refused
FACTS: dict[str, Callable[[Row], Cell]] = {
    "model": lambda row: _text(row.model),
    "batch": lambda row: _formatted(row.batch, "d"),
    "precision": lambda row: _text(row.precision),
    "engine": lambda row: _text(row.engine + (" + CUDA graph" if row.cuda_graph else "")),
    "provider": lambda row: _text(row.provider_asked),
    "threads": lambda row: _formatted(row.threads, "d"),
    "check": lambda row: _text(_verdict(row)),
}
TIMES: dict[str, Callable[[Row], Cell]] = {
    "p50 ms": lambda row: _formatted(row.resident.p50_ms, ".3f"),
    "p90 ms": lambda row: _formatted(row.resident.p90_ms, ".3f"),
    "p95 ms": lambda row: _formatted(row.resident.p95_ms, ".3f"),
    "p99 ms": lambda row: _formatted(row.resident.p99_ms, ".3f"),
    "mean ms": lambda row: _formatted(row.resident.mean_ms, ".3f"),
    "std ms": lambda row: _formatted(row.resident.std_ms, ".3f"),
    "cv": lambda row: _formatted(row.resident.cv, ".1%"),
    "images/s": lambda row: _formatted(row.resident.throughput_per_s, ".1f"),
    "end-to-end p50 ms": lambda row: _formatted(row.end_to_end.p50_ms, ".3f"),
    "end-to-end p95 ms": lambda row: _formatted(row.end_to_end.p95_ms, ".3f"),
    "runs": lambda row: (
        f"{row.resident.iterations} in {row.resident.seconds:.2f} s",
        row.resident.iterations,
    ),
    "build s": lambda row: _formatted(row.build_seconds, ".2f"),
    "peak MB": lambda row: _megabytes(row.peak_memory_bytes),
    "GPU MB": lambda row: _megabytes(row.gpu_memory_bytes),
}
REST: dict[str, Callable[[Row], Cell]] = {
    "MACs": lambda row: _formatted(row.macs, ",d"),
    "FLOPs": lambda row: _formatted(row.flops, ",d"),
    "parameters": lambda row: _formatted(row.params, ",d"),
    "input": lambda row: _text("x".join(map(str, row.input_shape))),
    "nodes by provider": lambda row: _text(_pairs(row.nodes_by_provider)),
    "provider used": lambda row: _text(row.provider_used),
    "provider options": lambda row: _text(_pairs(row.options)),
    "engine cached": lambda row: _text({None: "-", True: "yes", False: "no"}[row.engine_cached]),
    "graph optimisation": lambda row: _text(row.graph_optimisation),
    "waived": lambda row: _text(", ".join(row.allowed) or "-"),
    "parity": lambda row: _text("-" if row.parity_error is None else f"{row.parity_error:.1e}"),
    "warm-up runs": lambda row: _formatted(row.warmup_iterations, "d"),
    "file": lambda row: _text(row.file),
    "sha256": lambda row: _text(row.sha256[:12]),
}
LINES, BARS = 8, 24  # as many as one plot can show
COLUMNS = (*FACTS, *TIMES, *REST)


def write_report(benches: Sequence[Path | Mapping[str, Any]], out: Path) -> tuple[Path, int, int]:
    """Write the benchmarks, files or parsed JSON, to `out`: .html with plots, or .md.

    Returns where, how many rows there are and how many of them are refused. Raises DotsZooError for another
    suffix, and as schema.read_bench does; nothing is written then.
    """
    render = {".html": to_html, ".md": to_markdown}.get(out.suffix)
    if render is None:
        raise DotsZooError(f"{out}: expected a name that ends in .html or .md")
    check_output(out)
    read = [read_bench(bench) for bench in benches]
    rows = [row for bench in read for row in bench.rows]
    return write_file(out, render(read).encode()), len(rows), sum(bool(row.failures) for row in rows)


def to_html(benches: Sequence[Bench]) -> str:
    """Return one page that loads nothing from outside; its only script sorts tables."""
    return render_page(
        "dots_zoo.export.measure",
        "report.html.j2",
        notes=NOTES,
        columns=COLUMNS,
        wide=COLUMNS.index("check"),
        benches=[_section(bench) for bench in benches],
    )


def to_markdown(benches: Sequence[Bench]) -> str:
    """Return the same tables as Markdown, without plots."""
    lines = ["# Latency report", "", NOTES]
    for bench in benches:
        lines += ["", f"## {_md(bench.created)}", ""]
        lines += [f"- {_md(key)}: {_md(value)}" for key, value in _facts(bench)]
        lines += ["", _md_row(COLUMNS), _md_row(["---", *["---:"] * (len(COLUMNS) - 1)])]
        lines += [_md_row(text for text, _ in cells(row)) for row in bench.rows]
    return "\n".join(lines) + "\n"


def cells(row: Row) -> list[Cell]:
    """Return the row's cells, in the order of COLUMNS."""
    times: list[Cell] = (
        [("-", float("inf"))] * len(TIMES) if row.failures else [cell(row) for cell in TIMES.values()]
    )
    return [*(cell(row) for cell in FACTS.values()), *times, *(cell(row) for cell in REST.values())]


def _verdict(row: Row) -> str:
    if row.failures:
        return "refused: " + "; ".join(f"{check}: {why}" for check, why in row.failures.items())
    return "noisy" if row.resident.noisy or row.end_to_end.noisy else "ok"


def _section(bench: Bench) -> dict[str, Any]:
    """Return what the page shows of one benchmark; refused rows have no part in the plots."""
    marked = [bool(row.failures) for row in bench.rows]
    return {
        "created": bench.created,
        "facts": _facts(bench),
        "refused": sum(marked),
        "marked": marked,
        "plots": list(_plots([row for row in bench.rows if not row.failures])),
        "rows": [cells(row) for row in bench.rows],
    }


def _plots(rows: Sequence[Row]) -> Iterator[tuple[str, list[tuple[str, Markup]]]]:
    """Yield a title and plots for every device and number of threads: by cost, by batch, and percentiles."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        device = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}  # those of PyTorch
        groups.setdefault((device.get(row.provider_asked, row.provider_asked), row.threads), []).append(row)
    for (provider, threads), members in groups.items():
        title = f"{provider}, {threads} thread{'' if threads == 1 else 's'}"
        plots = (_costs(members), _batches(members), _percentiles(members))
        what = f"latency report, plots of {title}"
        drawings = [attempt(what, partial(list[tuple[str, Markup]], plot)) or [] for plot in plots]
        yield title, [figure for drawing in drawings for figure in drawing]


def _costs(rows: Sequence[Row]) -> Iterator[tuple[str, Markup]]:
    """Yield latency against MACs and against parameters, at the smallest batch."""
    batch = min(row.batch for row in rows)
    compared = [row for row in rows if row.batch == batch]
    if len(compared) < 2:
        return
    legend = f"batch {batch}; filled: no other is both cheaper and faster"
    for quantity, unit, cost in (
        ("MACs", "million MACs an image", _mega_macs),
        ("parameters", "million parameters", _mega_params),
    ):
        named = zip(compared, names(compared), strict=True)
        marks = [Mark(cost(row), row.resident.p50_ms, name) for row, name in named if cost(row) > 0]
        if len(marks) > 1:
            yield f"Latency against {quantity}, {legend}", pareto_svg(marks, unit, "p50, ms")


def _mega_macs(row: Row) -> float:
    return row.macs / 1e6


def _mega_params(row: Row) -> float:
    return row.params / 1e6


def _batches(rows: Sequence[Row]) -> Iterator[tuple[str, Markup]]:
    """Yield latency against the batch, LINES networks a plot."""
    lines: dict[str, list[Mark]] = {}
    for row, name in zip(rows, names(rows), strict=True):
        lines.setdefault(name, []).append(Mark(row.batch, row.resident.p50_ms, name))
    several = [sorted(line) for line in lines.values() if len({mark.x for mark in line}) > 1]
    several.sort(key=lambda line: line[-1].y)
    plots = -(-len(several) // LINES)  # rounded up
    limits = _limits(mark.y for line in several for mark in line) if several else (1.0, 1.0)
    for i in range(plots):  # every plot has lines from all of the range: they lie further apart
        yield f"Latency against the batch{_part(i, plots)}", batch_svg(several[i::plots], limits)


def _percentiles(rows: Sequence[Row]) -> Iterator[tuple[str, Markup]]:
    """Yield the percentiles of every row, BARS rows a plot."""
    plots = -(-len(rows) // BARS)
    limits = _limits(time for row in rows for time in (row.resident.p50_ms, row.resident.p99_ms))
    for i in range(plots):
        caption = f"Percentiles: p50 (dot), p95 (bar), p99 (hair){_part(i, plots)}"
        yield caption, percentile_svg(rows[i * BARS : (i + 1) * BARS], limits)


def _limits(values: Iterable[float]) -> tuple[float, float]:
    """Return the limits of a logarithmic axis that several plots share."""
    positions = list(values)
    return min(positions) / 1.3, max(positions) * 1.3


def _part(i: int, plots: int) -> str:
    return f", {i + 1} of {plots}" if plots > 1 else ""


def _facts(bench: Bench) -> list[tuple[str, Any]]:
    """Return machine, versions and settings as (name, value), without those that are None."""
    facts = {
        **bench.machine,
        **bench.versions,
        "settings": {k: _plainly(v) for k, v in bench.settings.items()},
    }
    return [(key.replace("_", " "), _plainly(value)) for key, value in facts.items() if value is not None]


def _plainly(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _pairs(value)
    return ", ".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else value


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "-"


def _text(text: str) -> Cell:
    return text, text


def _formatted(value: float, form: str) -> Cell:
    return format(value, form), value


def _megabytes(value: int | None) -> Cell:
    return ("-", float("inf")) if value is None else _formatted(value / 1e6, ".1f")


def _md(value: Any) -> str:
    return " ".join(html.escape(str(value)).split()).replace("|", "\\|")


def _md_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_md(cell) for cell in cells)} |"
