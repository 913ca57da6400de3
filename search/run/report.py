"""The report of a search: curves, the changes of its cell, and a page with all pictures of the run.

Drawn from the files of a run alone: metrics.jsonl, genotypes/, plots/ and run.json.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dots_zoo.drawing.draw import draw
from dots_zoo.drawing.html import render_page
from dots_zoo.genotype import CellGenotype, Genotype, load_genotype, to_text
from dots_zoo.runtime.atomic_write import write_file
from dots_zoo.runtime.best_effort import attempt

PANELS = ("loss", "accuracy", "entropy", "operations of the cells")
TWENTY = colormaps["tab20"].colors  # type: ignore[attr-defined]
COLOURS = TWENTY[::2] + TWENTY[1::2]  # the strong ones first: beside each other two tints look alike
Line = Mapping[str, Any]  # of metrics.jsonl


def plot_curves(lines: Sequence[Line], path: Path) -> Path:
    """Plot losses, accuracies, entropies of the weights in nats, and the make-up of the cells, by epoch."""
    figure = Figure(figsize=(16, 3.4), layout="constrained")
    for panel, title in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for name in _names(lines, title):
            points = [(line["epoch"], line[name]) for line in lines if name in line]
            panel.plot(*zip(*points, strict=True), marker=".", label=name.removeprefix("entropy."))
        panel.set_title(title)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if panel.lines:  # a search without epochs has no loss
            panel.legend(fontsize=8)
    return _write(figure, path)


def _names(lines: Sequence[Line], title: str) -> list[str]:
    names = list(dict.fromkeys(name for line in lines for name in line))
    if title.startswith("operations"):
        return [name for name in names if name in ("skips", "parametric")]
    return [name for name in names if name.startswith(f"{title}.") or name.endswith(title)]


def plot_changes(cells: Sequence[CellGenotype], operations: Sequence[str], path: Path) -> Path:
    """Plot the changes of a cell: a row for every edge ever chosen, a column for every line of the log.

    The colour shows the operation, by its place in `operations`; white where the edge was not chosen.
    """
    edges = sorted({(edge.node, edge.input) for cell in cells for edge in cell.edges})
    image = [[(1.0, 1.0, 1.0)] * len(cells) for _ in edges]
    for column, cell in enumerate(cells):
        for edge in cell.edges:
            image[edges.index((edge.node, edge.input))][column] = COLOURS[operations.index(edge.op)]
    figure = Figure(
        figsize=(max(6.0, 2.5 + 0.22 * len(cells)), 1.2 + 0.24 * len(edges)), layout="constrained"
    )
    panel = figure.subplots()
    panel.imshow(image, aspect="auto", interpolation="nearest")
    panel.set_yticks(range(len(edges)), [f"{node} <- {source}" for node, source in edges], fontsize=8)
    panel.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    panel.set_xlabel("line of the log")
    handles = [Patch(color=COLOURS[index], label=name) for index, name in enumerate(operations)]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8)
    return _write(figure, path)


def write_search_report(out: Path) -> Path:
    """Draw the pictures that a run lacks and write report.html, with those pictures that can be drawn.

    out: folder of a search that has ended.
    """
    lines = [json.loads(text) for text in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    genotypes = [load_genotype(out / "genotypes" / f"{index:03d}.json") for index in range(len(lines))]
    final = genotypes[-1]
    every = {edge.op for genotype in genotypes for cell in genotype.cells.values() for edge in cell.edges}
    plots: dict[str, Callable[[Path], Path]] = {
        "cell.png": partial(draw, final),
        "curves.png": partial(plot_curves, lines),
    }
    for cell_type in final.cells:  # an operation has the same colour in all
        cells = [genotype.cells[cell_type] for genotype in genotypes]
        plots[f"changes.{cell_type}.png"] = partial(plot_changes, cells, sorted(every))
    paths = {out / "plots" / name: plot for name, plot in plots.items()}
    drawn = [path for path, plot in paths.items() if attempt(str(path), partial(plot, path))]
    return write_file(out / "report.html", _page(out, final, lines, drawn).encode())


def _page(out: Path, found: Genotype, lines: Sequence[Line], pictures: Sequence[Path]) -> str:
    run = json.loads((out / "run.json").read_text("utf-8"))
    return render_page(
        "dots_zoo.search.run",
        "report.html.j2",
        name=found.name,
        cells=[path for path in pictures if path.stem == "cell"],
        genotype=to_text(found),
        curves=[(path, _caption(path)) for path in pictures if path.stem != "cell"],
        weights=sorted((out / "plots").glob("[ab]*a.*.png")),  # alpha and beta
        last=[(name, f"{value:.4g}") for name, value in lines[-1].items() if isinstance(value, float)],
        facts=[item for item in run.items() if not isinstance(item[1], dict)] + list(run["versions"].items()),
    )


def _caption(path: Path) -> str:
    if path.stem == "curves":
        return "losses, accuracies, entropies (nats), operations"
    return f"the {path.stem.partition('.')[2]} cell after every line of the log: the operation of every edge"


def _write(figure: Figure, path: Path) -> Path:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80)
    return write_file(path, picture.getvalue())
