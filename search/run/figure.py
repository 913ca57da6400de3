"""Share what every plot of a run has: its size on a page, the borders of its stages, edges in words."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dots_zoo.runtime.atomic_write import write_file

DPI = 120  # pixels an inch; a page shows 96 of its own as an inch
WIDEST = 12.4  # inches: a page is 75 rem wide
NARROWEST_LABEL = 0.04  # of the axis: a shorter stage has a border without its name
GREY = "#777777"
Line = Mapping[str, Any]  # of metrics.jsonl


def stage_starts(lines: Sequence[Line]) -> list[tuple[int, str]]:
    """Return (first epoch, name) of every stage; a decision belongs to the stage that follows it."""
    starts: dict[int, str] = {}
    before = None
    for line in lines:
        if line["stage"] != before:
            starts[line["epoch"]] = before = line["stage"]
    return list(starts.items())


def mark_stages(panel: Axes, starts: Sequence[tuple[float, str]], end: float, *, named: bool = True) -> None:
    """Draw a border where a stage begins, at `starts` on the x axis, the last of which lasts until `end`.

    named: write the names of the stages that are long enough.
    """
    stops = [start for start, _ in starts[1:]] + [end]
    first = starts[0][0]
    for (start, name), stop in zip(starts, stops, strict=True):
        if start != first:
            panel.axvline(start, color=GREY, linestyle="--", linewidth=0.9)
        if named and stop - start >= NARROWEST_LABEL * (end - first):
            style: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "top", "color": GREY}
            label = panel.annotate(
                name, ((start + stop) / 2, 1), (0, -3), xycoords=panel.get_xaxis_transform(),
                textcoords="offset points", fontsize=7, **style,
            )  # fmt: skip
            label.set_in_layout(False)


def edge_words(text: str, inputs: int) -> str:
    """Return edges as the picture of a cell names their ends: "2<-0" as c_{k-2} and an arrow to 2.

    inputs: how many nodes are inputs of the cell. Other text stays as it is.
    """
    if match := re.fullmatch(r"(\d+)<-(\d+)", text):
        return f"{_node(match[2], inputs)} → {match[1]}"
    if re.fullmatch(r"\d+(\+\d+)*", text):
        return " + ".join(_node(part, inputs) for part in text.split("+"))
    return f"into {text}" if re.fullmatch(r"node \d+", text) else text


def _node(index: str, inputs: int) -> str:
    return f"$c_{{k-{inputs - int(index)}}}$" if int(index) < inputs else index


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    return write_file(path, picture.getvalue())
