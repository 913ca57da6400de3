"""The report of a search: its summary, the cell, and a page with all pictures of the run.

Drawn from the files of a run alone: metrics.jsonl, genotypes/, genotype.json, config.yaml and run.json.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dots_zoo.drawing.colours import operation_colours
from dots_zoo.drawing.draw import draw
from dots_zoo.drawing.html import render_page
from dots_zoo.genotype import Genotype, load_genotype, primitives, to_text
from dots_zoo.runtime.atomic_write import write_file
from dots_zoo.runtime.best_effort import attempt

from ..stages.figures import TABLE, cell_title, figure_title
from .curves import PANELS, figure_names, plot_changes, plot_figures
from .figure import Line
from .plots import plot_weights, weight_pictures, weights_caption
from .summary import read_log, summarise

CELL = "cell.png"
FACTS = {
    "origin": "searched with",
    "config_sha256": "SHA-256 of the configuration",
    "git_commit": "commit",
    "wall_seconds": "seconds of search",
    "cpus": "cores",
    "gpu": "GPU",
}


def captions(lines: Sequence[Line], genotype: Genotype) -> dict[str, str]:
    """Return file -> caption of the pictures in plots/: the cell, the course of the search, the weights."""
    curves = {f"curves.{panel}.png": title for panel, title in PANELS.items() if figure_names(lines, panel)}
    changes = {f"changes.{name}.png": f"{cell_title(name)}, epoch by epoch" for name in genotype.cells}
    weights = {file: weights_caption(*picture) for file, picture in weight_pictures(lines).items()}
    return {CELL: "the cell that was found", **curves, **changes, **weights}


def draw_pictures(out: Path, lines: Sequence[Line], genotype: Genotype) -> list[Path]:
    """Draw the pictures of a run into plots/; return those that could be drawn, as `captions` orders them."""
    genotypes = [load_genotype(out / "genotypes" / f"{index:03d}.json") for index in range(len(lines))]
    inputs = next(iter(genotype.cells.values())).nodes[0]
    colours = operation_colours(primitives(genotype.space))  # an operation has the same colour in all
    plots: dict[str, Callable[[Path], Path]] = {CELL: partial(draw, genotype)}
    for panel in PANELS:
        plots[f"curves.{panel}.png"] = partial(plot_figures, lines, panel)
    for name in genotype.cells:
        cells = [each_genotype.cells[name] for each_genotype in genotypes]
        plots[f"changes.{name}.png"] = partial(plot_changes, cells, lines, colours)
    for file, (name, series) in weight_pictures(lines).items():
        plots[file] = partial(plot_weights, name, series, inputs, colours)
    paths = [out / "plots" / file for file in captions(lines, genotype)]
    return [path for path in paths if attempt(str(path), partial(plots[path.name], path))]


def write_search_report(out: Path) -> Path:
    """Draw the pictures of a completed search into plots/ and write report.html, which holds them.

    out: folder of the search.
    """
    lines, genotype = read_log(out), load_genotype(out / "genotype.json")
    drawn = draw_pictures(out, lines, genotype)
    return write_file(out / "report.html", _page(out, genotype, lines, drawn).encode())


def _page(out: Path, genotype: Genotype, lines: Sequence[Line], drawn: Sequence[Path]) -> str:
    run = json.loads((out / "run.json").read_text("utf-8"))
    texts = captions(lines, genotype)
    pictures = [(path, texts[path.name]) for path in drawn]
    return render_page(
        "dots_zoo.search.run",
        "report.html.j2",
        name=genotype.name,
        summary=summarise(out),
        cell=[picture for picture in pictures if picture[0].name == CELL],
        genotype=to_text(genotype),
        curves=[picture for picture in pictures if picture[0].name.startswith("curves.")],
        changes=[picture for picture in pictures if picture[0].name.startswith("changes.")],
        weights=[picture for picture in pictures if picture[0].name in weight_pictures(lines)],
        last=[
            (figure_title(name), f"{value:.4g}")
            for name, value in lines[-1].items()
            if isinstance(value, float) and not name.startswith(TABLE)
        ],
        facts=[*_named(run), *run["versions"].items(), *_named(run["machine"])],
    )


def _named(facts: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the plain values of run.json, or of a part of it, by their names in words."""
    plain = [(name, value) for name, value in facts.items() if not isinstance(value, dict)]
    return [(FACTS.get(name, name), value) for name, value in plain if value is not None]
