"""The weights of a run over its epochs as pictures, drawn from `metrics.jsonl` alone."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dots_zoo.runtime.atomic_write import write_file

COLUMNS = 4
Line = dict[str, Any]  # of metrics.jsonl


def plot_weights(metrics: Path, folder: Path) -> list[Path]:
    """Draw a picture for every tensor of weights, with a panel for every row; return the files.

    The files are in order of appearance. Weights that mean something else after a stage (other labels, as
    after pruning) get a picture of their own.
    """
    lines: list[Line] = [json.loads(text) for text in metrics.read_text("utf-8").splitlines()]
    series: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        for name, rows in line["weights"].items():
            labels = json.dumps([list(row) for row in rows.values()])
            series.setdefault((name, labels), []).append(line)
    names = [name for name, _ in series]
    written = []
    for index, ((name, _), series_lines) in enumerate(series.items()):
        path = folder / (
            f"{name}.png" if names.count(name) == 1 else f"{name}.{names[:index].count(name) + 1}.png"
        )
        _draw(name, series_lines, path)
        written.append(path)
    return written


def _draw(name: str, lines: Sequence[Line], path: Path) -> None:
    rows = lines[0]["weights"][name]
    titles, shared = list(rows), len({tuple(row) for row in rows.values()}) == 1  # one legend for all panels
    widest = max(len(row) for row in rows.values())
    height = math.ceil(len(titles) / COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.4 * height + 1.1))
    figure.suptitle(f"{name}, epochs {lines[0]['epoch']} to {lines[-1]['epoch']}")
    inch = 1 / figure.get_figheight()
    figure.subplots_adjust(
        0.03, 0.4 * inch, 0.99, 1 - (1.0 if shared else 0.7) * inch, wspace=0.08, hspace=0.2
    )
    panels = figure.subplots(height, COLUMNS, squeeze=False, sharex=True, sharey=True).flatten()
    for index, (title, panel) in enumerate(zip(titles, panels, strict=False)):
        panel.tick_params(labelbottom=index + COLUMNS >= len(titles))
        _draw_row(panel, title, [(line["epoch"], line["weights"][name][title]) for line in lines])
        if not shared:  # two labels fit above the panel
            above = {"loc": "lower right", "bbox_to_anchor": (1, 0.97), "frameon": False}
            panel.legend(fontsize=7, ncols=2, **(above if widest <= 2 else {"loc": "upper left"}))
    for panel in panels[len(titles) :]:
        panel.axis("off")
    if shared:
        below = (0.5, 1 - 0.4 * inch)  # the title
        names = list(rows[titles[0]])
        figure.legend(panels[0].lines, names, fontsize=9, ncols=10, loc="upper center", bbox_to_anchor=below)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80)
    write_file(path, picture.getvalue())


def _draw_row(panel: Axes, title: str, points: Sequence[tuple[int, dict[str, float]]]) -> None:
    epochs = [epoch for epoch, _ in points]
    for label in points[0][1]:
        panel.plot(epochs, [row[label] for _, row in points], marker=".", label=label)
    panel.set_title(title, fontsize=9, pad=3, loc="left")
    panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
