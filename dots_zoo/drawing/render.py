"""Render a genotype as a matplotlib figure, and the figure as the bytes of a file."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Outline

from ..genotype import CELLS, OPS, CellGenotype, Genotype
from .colours import tint
from .layout import GAP, LABEL_HEIGHT, Box, Layout, lay_out

TITLES = {
    "normal": "normal cell",
    "reduce": "reduction cell (stride 2 from its inputs)",
    "cell": "cell of NAS-Bench-201",
}
SETTINGS: dict[Any, Any] = {
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # comes with matplotlib; in a browser without it, as wide
    "svg.fonttype": "none",
    "svg.hashsalt": "dots_zoo",
}
INK, GREY, PALE = "#222222", "#777777", "#EEF1F4"
PALER = 6 / 7  # share of white in the fill of a label

MARGIN = 0.25
HEADER = 0.95  # above the cells
BETWEEN = 0.55  # the two cells
DPI, MAX_PIXELS = 200, 8000
FITTING = 9  # characters of an operation's label that fit at its usual size


def render(genotype: Genotype, file_format: str) -> bytes:
    """Return the bytes of an "svg", whose text stays text, or of a "png" of at most 8000 pixels a side."""
    file = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a reader's own settings would move things
        matplotlib.rcParams.update(SETTINGS)
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # of a name; drawn as a box
        figure = draw_figure(genotype)
        dpi = min(DPI, MAX_PIXELS / max(figure.get_size_inches()))
        undated = {"Date": None, "Creator": None} if file_format == "svg" else {"Software": None}
        figure.savefig(file, format=file_format, dpi=dpi, metadata=undated)
    return file.getvalue()


def draw_figure(genotype: Genotype) -> Figure:
    """Draw the title, the origin, and the cells from left to right."""
    layouts = {name: lay_out(genotype.cells[name]) for name in CELLS[genotype.space]}
    outputs = [layout.output for layout in layouts.values()]
    width = 2 * MARGIN + sum(output.right for output in outputs) + BETWEEN * (len(outputs) - 1)
    figure = Figure((width, HEADER + max(output.bottom for output in outputs) + MARGIN), facecolor="white")
    page = _add_axes(figure, 0, 0, *figure.get_size_inches())
    _write_header(page, 0.3, genotype.name, 13, weight="bold")
    _write_header(page, 0.53, _origin(genotype), 8.5, color=GREY)
    left = MARGIN
    for name, layout in layouts.items():
        _write(page, left, HEADER - 0.15, TITLES[name], 9.5, ha="left")
        axes = _add_axes(figure, left, HEADER, layout.output.right, layout.output.bottom)
        _draw_cell(axes, genotype.cells[name], layout)
        left += layout.output.right + BETWEEN
    return figure


def _add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes whose data coordinates are inches from their upper left corner."""
    all_width, all_height = figure.get_size_inches()
    bounds = (left / all_width, 1 - (top + height) / all_height, width / all_width, height / all_height)
    axes = figure.add_axes(bounds)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def _write_header(page: Axes, y: float, text: str, size: float, **style: Any) -> None:
    """Write one line of text, smaller where it might not fit: a bold W, the widest letter, is 1.1 em wide."""
    fitting = 72 * (page.get_xlim()[1] - 2 * MARGIN) / (1.15 * max(1, len(text)))
    _write(page, MARGIN, y, text, min(size, fitting), ha="left", parse_math=False, **style)


def _origin(genotype: Genotype) -> str:
    facts = [genotype.provenance.get(key) for key in ("paper", "dataset")]
    return " · ".join(fact for fact in facts if isinstance(fact, str) and fact.isprintable())[:100]


def _draw_cell(axes: Axes, cell: CellGenotype, layout: Layout) -> None:
    """Draw edges with their labels, then inputs, nodes and the output."""
    inputs = cell.nodes[0]
    for node in cell.concat:
        box = layout.boxes[node]
        _arrow(axes, box.right, layout.output.left, box.middle[1], GREY)
    for edge, label, start in zip(cell.edges, layout.labels, layout.starts, strict=True):
        title, colour = OPS[edge.op].title, OPS[edge.op].colour
        (_wire_from_input if edge.input < inputs else _wire_from_node)(axes, start, label, colour)
        _arrow(axes, label.right, layout.boxes[edge.node].left, label.middle[1], colour)
        _draw_box(axes, label, colour, tint(colour, PALER), rounding=LABEL_HEIGHT / 2)
        _write(axes, *label.middle, title, min(8.5, 8.5 * FITTING / len(title)), parse_math=False)
    for node, box in layout.boxes.items():
        if node < inputs:
            _draw_box(axes, box, INK, PALE)
            _write(axes, *box.middle, f"$c_{{k{{-}}{inputs - node}}}$", 10)
        else:
            _draw_box(axes, box, INK, "white", linestyle="-" if cell.edges_into(node) else "--")
            _write(axes, *box.middle, str(node), 10)
    _draw_box(axes, layout.output, INK, PALE)
    _write(axes, *layout.output.middle, "$c_k$", 10)


def _wire_from_input(axes: Axes, start: tuple[float, float], label: Box, colour: str) -> None:
    (x, y), row = start, label.middle[1]
    bend = (x + label.left) / 2
    curve = [(x, y), (bend, y), (bend, row), (label.left, row)]
    _draw_line(axes, curve, [Outline.MOVETO] + [Outline.CURVE4] * 3, colour)


def _wire_from_node(axes: Axes, start: tuple[float, float], label: Box, colour: str) -> None:
    """Draw a line straight down, around a quarter turn, and on to the right."""
    (x, y), row, turn = start, label.middle[1], GAP * 0.6
    points = [(x, y), (x, row - turn), (x, row), (x + turn, row), (label.left, row)]
    codes = [Outline.MOVETO, Outline.LINETO, Outline.CURVE3, Outline.CURVE3, Outline.LINETO]
    _draw_line(axes, points, codes, colour)


def _arrow(axes: Axes, left: float, right: float, y: float, colour: str) -> None:
    _draw_line(axes, [(left, y), (right - 0.05, y)], [Outline.MOVETO, Outline.LINETO], colour)
    tip = [(right, y), (right - 0.09, y - 0.045), (right - 0.09, y + 0.045)]
    axes.add_patch(Polygon(tip, color=colour, linewidth=0))


def _draw_line(axes: Axes, points: list[tuple[float, float]], codes: Sequence[Any], colour: str) -> None:
    """Draw a line over a wider white one, so that a crossing reads as a bridge."""
    outline = Outline(points, codes)
    axes.add_patch(PathPatch(outline, fill=False, edgecolor="white", linewidth=4))
    axes.add_patch(PathPatch(outline, fill=False, edgecolor=colour, linewidth=1.4))


def _draw_box(
    axes: Axes, box: Box, edge: str, face: str, rounding: float = 0.05, linestyle: str = "-"
) -> None:
    corner, width, height = (box.left, box.top), box.right - box.left, box.bottom - box.top
    style = f"round,pad=0,rounding_size={rounding}"
    patch = FancyBboxPatch(corner, width, height, style, edgecolor=edge, facecolor=face, linestyle=linestyle)
    patch.set(linewidth=1.1, clip_on=False)
    axes.add_patch(patch)


def _write(axes: Axes, x: float, y: float, text: str, size: float, **style: Any) -> None:
    axes.text(x, y, text, **{"ha": "center", "va": "center_baseline", "color": INK, "size": size, **style})
