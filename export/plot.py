"""The plot of a benchmark: an SVG whose text and axes take the colour of the page around it."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from .schema import Row

INK = "#010203"  # stands for the page's text colour
BLUE = "#3987e5"  # reads on white and on black


def latency_svg(rows: Sequence[Row]) -> str:
    """One line a row, top to bottom: a dot at p50 and a bar to p95, milliseconds on a logarithmic axis.

    The dot of an unstable row is hollow. Labels are cut to what every font has; the table has them whole.
    """
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "dots_zoo", "font.size": 10}
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with matplotlib.rc_context(style | dict.fromkeys(inked, INK)):
        figure = Figure(figsize=(4.4, 0.7 + 0.24 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            axes.plot([row.p50_ms, row.p95_ms], [y, y], color=BLUE, linewidth=2, solid_capstyle="butt")
            fill = "none" if row.unstable else "full"
            axes.plot(row.p50_ms, y, "o", color=BLUE, markersize=6, fillstyle=fill)
        axes.set_yticks(range(len(rows)), _labels(rows), parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        axes.set_xlabel("ms a run: p50 (dot) to p95")
        axes.grid(axis="x", linewidth=0.5, alpha=0.4)
        axes.spines[["top", "right", "left"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _labels(rows: Sequence[Row]) -> list[str]:
    """The model, or the file where several files are of one model, and the batch."""
    files = {(row.model, row.sha256) for row in rows}
    alone = {row.model for row in rows if sum(model == row.model for model, _ in files) == 1}
    return [f"{_plain(row.model if row.model in alone else row.file)}, batch {row.batch}" for row in rows]


def _plain(text: str) -> str:
    """At most 24 printable ASCII characters: the beginning and the end."""
    kept = "".join(c if " " <= c <= "~" else "?" for c in text)
    return kept if len(kept) <= 24 else f"{kept[:10]}...{kept[-11:]}"
