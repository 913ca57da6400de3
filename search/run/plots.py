"""The weights of a run over its epochs as pictures, drawn from the lines of `metrics.jsonl` alone."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dots_zoo.genotype import OPS

from ..stages.figures import weights_title
from .figure import WIDEST, Line, edge_words, mark_stages, save_figure, stage_starts

COLUMNS = 4
DASHES = ("-", "--", ":", "-.")  # of the alternatives beyond ten, whose colours come again


def weight_pictures(lines: Sequence[Line]) -> dict[str, tuple[str, list[Line]]]:
    """Return file name -> (name of the logits, lines to draw), in order of appearance.

    Weights that mean something else after a stage (other labels, as after pruning) get a picture of their
    own.
    """
    series: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        for name, rows in line["weights"].items():
            labels = json.dumps([list(row) for row in rows.values()])
            series.setdefault((name, labels), []).append(line)
    names = [name for name, _ in series]
    pictures = {}
    for index, ((name, _), series_lines) in enumerate(series.items()):
        part = "" if names.count(name) == 1 else f".{names[:index].count(name) + 1}"
        pictures[f"{name}{part}.png"] = (name, series_lines)
    return pictures


def weights_caption(name: str, lines: Sequence[Line]) -> str:
    """Return the title of a picture of weights."""
    first, last = lines[0]["epoch"] + 1, lines[-1]["epoch"] + 1
    span = f"epoch {first}" if first == last else f"epochs {first} to {last}"
    return f"weights of the {weights_title(name)}, {span}"


def plot_weights(
    name: str, lines: Sequence[Line], inputs: int, colours: Mapping[str, str], path: Path
) -> Path:
    """Plot the weights of logits by epoch, with a panel for every row.

    Args:
        name: of the logits.
        lines: of the log, all with the same rows and labels.
        inputs: how many nodes of the cell are its inputs.
        colours: of the operations.
        path: PNG file to write.
    """
    rows = lines[0]["weights"][name]
    titles, shared = list(rows), len({tuple(row) for row in rows.values()}) == 1  # one legend for all panels
    columns = min(COLUMNS, len(titles))
    height = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(WIDEST / COLUMNS * columns, 2.4 * height + 1.2))
    figure.suptitle(weights_caption(name, lines), fontsize=11)
    _place(figure, legend=shared)
    panels = figure.subplots(height, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for index, (title, panel) in enumerate(zip(titles, panels, strict=False)):
        panel.tick_params(labelbottom=index + columns >= len(titles), labelsize=8)
        points = [(line["epoch"] + 1, line["weights"][name][title]) for line in lines]
        _draw_row(panel, edge_words(title, inputs), points, inputs, colours)
        starts = [(epoch + 0.5, stage) for epoch, stage in stage_starts(lines)]
        mark_stages(panel, starts, lines[-1]["epoch"] + 1.5, named=False)
        if not shared:
            panel.legend(fontsize=7, framealpha=0.6, loc="best", labelspacing=0.2, handlelength=1.2)
    for panel in panels[len(titles) :]:
        panel.axis("off")
    if shared:
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=9, ncols=5, loc="lower center", frameon=False)
    return save_figure(figure, path)


def _place(figure: Figure, *, legend: bool) -> None:
    """Leave room in inches for ticks, title and legend; a constrained layout takes as long as the drawing."""
    width, height = figure.get_size_inches()
    bottom, top = (0.75 if legend else 0.35) / height, 1 - 0.6 / height
    figure.subplots_adjust(0.5 / width, bottom, 1 - 0.1 / width, top, wspace=0.08, hspace=0.18)


def _draw_row(
    panel: Axes,
    title: str,
    points: Sequence[tuple[int, dict[str, float]]],
    inputs: int,
    colours: Mapping[str, str],
) -> None:
    epochs = [epoch for epoch, _ in points]
    for index, label in enumerate(points[0][1]):
        words = OPS[label].title if label in OPS else edge_words(label, inputs)
        style: dict[str, Any] = {"marker": ".", "markersize": 4}
        style |= {"color": colours.get(label, f"C{index % 10}")}
        style |= {"linestyle": DASHES[index // 10 % len(DASHES)]}
        panel.plot(epochs, [row[label] for _, row in points], label=words, **style)
    panel.set_title(title, fontsize=9, pad=3, loc="left")
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
