"""The course of a search as pictures: its figures by epoch, and the operation of every edge.

Drawn from the lines of metrics.jsonl and the cell after each.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dots_zoo.genotype import OPS, CellGenotype

from ..stages.figures import figure_title
from .figure import WIDEST, Line, edge_words, mark_stages, save_figure, stage_starts

# panel -> caption
PANELS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "entropy": "entropy of the weights (nats; 0: decided)",
    "operations": "operations of the cells",
}
LABELS = {"entropy": "entropy, nats", "operations": "number"}  # of the y axis, where it is not the name
SIZE = (5.4, 3.3)  # inches
MARKED = 60  # points, up to which each has a dot


def figure_names(lines: Sequence[Line], panel: str) -> list[str]:
    """Return the figures of metrics.jsonl that a panel shows."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    if panel == "operations":
        return [name for name in names if name in ("skips", "parametric")]
    return [name for name in names if name.startswith(f"{panel}.") or name.endswith(panel)]


def plot_figures(lines: Sequence[Line], panel: str, path: Path) -> Path:
    """Plot the figures of one of PANELS by epoch, with a border where a stage begins."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for name in figure_names(lines, panel):
        points = [(line["epoch"] + 1, line[name]) for line in lines if name in line]
        label = figure_title(name).removeprefix("entropy of the ")
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < MARKED else "", label=label)
    starts = [(epoch + 0.5, stage) for epoch, stage in stage_starts(lines)]
    mark_stages(axes, starts, lines[-1]["epoch"] + 1.5)
    axes.set_ylabel(LABELS.get(panel, panel))
    axes.set_xlabel("epoch")
    axes.set_xlim(lines[0]["epoch"] + 0.5, lines[-1]["epoch"] + 1.5)
    axes.margins(y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return save_figure(figure, path)


def plot_changes(
    cells: Sequence[CellGenotype], lines: Sequence[Line], colours: Mapping[str, str], path: Path
) -> Path:
    """Plot the changes of a cell: a row for every edge ever chosen, a column for every line of the log.

    The colour shows the operation; white where the edge was not chosen.
    """
    edges = sorted({(edge.node, edge.input) for cell in cells for edge in cell.edges})
    image = [[(1.0, 1.0, 1.0)] * len(cells) for _ in edges]
    for column, cell in enumerate(cells):
        for edge in cell.edges:
            image[edges.index((edge.node, edge.input))][column] = to_rgb(colours[edge.op])
    used = [name for name in colours if any(edge.op == name for cell in cells for edge in cell.edges)]
    width = min(WIDEST, max(5.4, 1.6 + 0.3 * len(cells)))
    figure = Figure(figsize=(width, 1.3 + 0.24 * len(edges)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(image, aspect="auto", interpolation="nearest")
    titles = [edge_words(f"{node}<-{source}", cells[0].nodes[0]) for node, source in edges]
    axes.set_yticks(range(len(edges)), titles, fontsize=8)
    every = -(-len(lines) // 24)  # a number at every so many columns
    columns = range(0, len(lines), every)
    axes.set_xticks(columns, [str(lines[column]["epoch"] + 1) for column in columns], fontsize=8)
    axes.set_xlabel("epoch")
    mark_stages(axes, _columns(lines), len(lines) - 0.5, named=False)
    handles = [Patch(color=colours[name], label=OPS[name].title) for name in used]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, fontsize=8, frameon=False)
    return save_figure(figure, path)


def _columns(lines: Sequence[Line]) -> list[tuple[float, str]]:
    """Return (left side, name) of the first column of every stage."""
    stages = [line["stage"] for line in lines]
    return [(i - 0.5, stage) for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
