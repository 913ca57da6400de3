"""The plots of a benchmark: SVG whose text and axes take the colour of the page around it.

Only rows that may be published are handed to these functions. Labels are cut to what every font has; the
table has them whole, and a pointer over a mark shows its row.
"""

import io
import re
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from .rows import Row

INK = "#010203"  # stands for the page's text colour
# They read on white and on black.
COLOURS = ("#3987e5", "#d9822b", "#2e9e6b", "#9b6dd7", "#d9534f", "#1a9ba1", "#d6619f", "#8a8f2e")
BLUE = COLOURS[0]
WIDTH = 4.4  # inches: a phone's width at the size of its text


class Mark(NamedTuple):
    """A point with its name."""

    x: float
    y: float
    name: str


def names(rows: Sequence[Row]) -> list[str]:
    """Return a name for every row: the model, or the file where models are alike, and what is not plain."""
    files = {(row.model, row.precision, row.sha256) for row in rows}
    labels = []
    for row in rows:
        alone = sum((row.model, row.precision) == file[:2] for file in files) == 1
        precision = [] if row.precision == "fp32" else [row.precision]
        engine = [] if row.engine == "onnxruntime" else [row.engine]
        graph = ["graph"] if row.cuda_graph else []
        labels.append(" ".join([row.model if alone else row.file, *precision, *engine, *graph]))
    return labels


def front(marks: Sequence[Mark]) -> list[Mark]:
    """Return the Pareto front, from left to right: the marks that no other beats in both coordinates."""
    best: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.x, mark.y)):
        if not best or mark.y < best[-1].y:
            best.append(mark)
    return best


def pareto_svg(marks: Sequence[Mark], x_label: str, y_label: str) -> Markup:
    """Plot marks on two logarithmic axes; those of the front filled and joined, the others hollow."""

    def draw(axes: Axes) -> None:
        best = front(marks)
        axes.plot(
            [mark.x for mark in best],
            [mark.y for mark in best],
            color=BLUE,
            linewidth=1,
            drawstyle="steps-post",
        )
        for i, mark in enumerate(marks):
            style = {"fillstyle": "full"} if mark in best else {"fillstyle": "none", "alpha": 0.8}
            axes.plot(mark.x, mark.y, "o", color=BLUE, markersize=6, gid=f"mark{i}", **style)
        _log(axes, "x")
        _log(axes, "y")
        axes.margins(0.12)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(linewidth=0.5, alpha=0.4)
        _label(axes, [*best, *(mark for mark in marks if mark not in best)])

    titles = [f"{m.name}: {m.x:g} {x_label}, {m.y:.3g} ms" for m in marks]
    return _svg(draw, 3.4, titles)


def batch_svg(lines: Sequence[Sequence[Mark]], limits: tuple[float, float]) -> Markup:
    """Plot one line per network: x is the batch, y milliseconds for the whole of it, within `limits`."""

    def draw(axes: Axes) -> None:
        batches = sorted({mark.x for line in lines for mark in line})
        for i, line in enumerate(lines):
            xs, ys = [mark.x for mark in line], [mark.y for mark in line]
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(xs, ys, "o-", color=colour, markersize=4, gid=f"mark{i}")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(batches))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(batches[0] / 1.2, batches[-1] * (batches[-1] / batches[0]) ** 0.6)  # room for names
        axes.set_ylim(*limits)
        _log(axes, "y")
        axes.set_xlabel("batch, images")
        axes.set_ylabel("p50, ms a batch")
        axes.grid(linewidth=0.5, alpha=0.4)
        _label(axes, [line[-1] for line in lines], sides=(True,))

    titles = [f"{line[0].name}: {', '.join(f'{m.y:.3g} ms at {m.x:g}' for m in line)}" for line in lines]
    return _svg(draw, 3.4, titles)


def percentile_svg(rows: Sequence[Row], limits: tuple[float, float]) -> Markup:
    """Plot one line per row: a dot at p50, a bar to p95, a hair to p99, on an axis within `limits`.

    The dot of a noisy row is hollow.
    """
    labels = [f"{_plain(name)}, {row.batch}" for name, row in zip(names(rows), rows, strict=True)]

    def draw(axes: Axes) -> None:
        for y, row in enumerate(rows):
            time = row.resident
            axes.plot([time.p50_ms, time.p99_ms], [y, y], color=BLUE, linewidth=0.8)
            axes.plot([time.p50_ms, time.p95_ms], [y, y], color=BLUE, linewidth=3, solid_capstyle="butt")
            fill = "none" if time.noisy else "full"
            axes.plot(time.p50_ms, y, "o", color=BLUE, markersize=6, fillstyle=fill, gid=f"mark{y}")
        axes.set_yticks(range(len(rows)), labels, parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(*limits)
        _log(axes, "x")
        axes.set_xlabel("ms a batch")
        axes.grid(axis="x", linewidth=0.5, alpha=0.4)

    titles = [
        f"{label}: p50 {time.p50_ms:.3g}, p95 {time.p95_ms:.3g}, p99 {time.p99_ms:.3g} ms"
        for label, time in zip(labels, (row.resident for row in rows), strict=True)
    ]
    return _svg(draw, 0.7 + 0.24 * len(rows), titles)


def _svg(draw: Callable[[Axes], None], height: float, titles: Sequence[str]) -> Markup:
    """Draw on axes of a height in inches; marks named mark0, mark1, ... show their titles under a pointer."""
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "dots_zoo", "font.size": 10}
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with matplotlib.rc_context(style | dict.fromkeys(inked, INK)):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)  # measures texts
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return Markup(
        re.sub(r'<g id="mark(\d+)">', lambda mark: f"<g><title>{escape(titles[int(mark[1])])}</title>", svg)
    )


def _log(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers, at 1, 2 and 5 of a decade below two decades."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, marks: Sequence[Mark], sides: Sequence[bool] = (True, False)) -> None:
    """Write names beside marks, in order, each where it covers neither a name nor a mark, else not at all.

    sides: right (True) and left (False), as far as a name may stand there.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # places the axes
    renderer = figure.canvas.get_renderer()
    centres = axes.transData.transform([(mark.x, mark.y) for mark in marks])
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in centres]
    for mark in marks:
        for above, right in product((True, False), sides):
            text = axes.annotate(
                _plain(mark.name),
                (mark.x, mark.y),
                (6 if right else -6, 2 if above else -2),
                textcoords="offset points",
                ha="left" if right else "right",
                va="bottom" if above else "top",
                fontsize=8,
                parse_math=False,
                in_layout=False,
            )
            box = text.get_window_extent(renderer)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _plain(text: str) -> str:
    """Return at most 24 printable ASCII characters of a text: its beginning and its end."""
    kept = "".join(c if " " <= c <= "~" else "?" for c in text)
    return kept if len(kept) <= 24 else f"{kept[:10]}...{kept[-11:]}"
