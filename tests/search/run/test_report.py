"""The pictures of a search say what its files say: pixels are looked at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from dots_zoo.drawing.colours import operation_colours
from dots_zoo.genotype import OPS, CellGenotype, Edge
from dots_zoo.search.run.curves import plot_changes, plot_figures
from dots_zoo.search.run.figure import DPI, edge_words, stage_starts
from dots_zoo.search.run.plots import plot_weights, weight_pictures, weights_caption

FIRST = CellGenotype((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3")), (2,))
NAMES = ("sep_conv_3x3", "skip_connect")
COLOURS = operation_colours(NAMES)
SECOND = CellGenotype((Edge(2, 0, "sep_conv_3x3"), Edge(2, 1, "sep_conv_3x3")), (2,))
LINES: list[dict[str, Any]] = [{"stage": "search", "epoch": epoch} for epoch in range(4)]


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).reshape(-1, 3)


def shares(path: Path, colours: Mapping[str, str] = COLOURS) -> dict[str, float]:
    """Of the picture's pixels: those of each colour."""
    all_pixels = pixels(path)
    return {
        name: float((abs(all_pixels - [int(c[i : i + 2], 16) for i in (1, 3, 5)]).max(1) < 3).mean())
        for name, c in colours.items()
    }


def test_every_edge_of_every_line_has_the_colour_of_its_operation(tmp_path: Path) -> None:
    settled = shares(plot_changes([FIRST] * 4, LINES, COLOURS, tmp_path / "a.png"))
    changed = shares(plot_changes([FIRST, SECOND, SECOND, SECOND], LINES, COLOURS, tmp_path / "b.png"))
    assert settled["skip_connect"] == pytest.approx(settled["sep_conv_3x3"], rel=0.1)
    # of 8 squares 7 are convolutions and one a skip connection; the legend adds a little to both
    assert changed["sep_conv_3x3"] / changed["skip_connect"] == pytest.approx(7, rel=0.25)


def test_the_colours_are_those_of_the_cell_s_picture_and_tell_every_two_operations_apart() -> None:
    colours = operation_colours(name for name in OPS if "darts" in OPS[name].spaces)
    assert colours["sep_conv_3x3"] == OPS["sep_conv_3x3"].colour.lower()
    assert colours["skip_connect"] == OPS["skip_connect"].colour.lower()
    assert len(set(colours.values())) == len(colours)
    red, green, blue = (int(colours["sep_conv_5x5"][i : i + 2], 16) for i in (1, 3, 5))
    assert red < green < blue  # a tint of the blue of sep_conv_3x3


def test_curves_take_lines_that_lack_a_figure(tmp_path: Path) -> None:
    lines = [
        {**LINES[0], "loss": 2.0, "accuracy": 0.1, "entropy.alpha": 1.0, "skips": 1.0, "parametric": 2.0},
        {**LINES[1], "entropy.alpha": 0.5, "skips": 2.0, "parametric": 1.0},
    ]
    for panel in ("loss", "entropy", "operations"):
        assert plot_figures(lines, panel, tmp_path / "c.png").stat().st_size > 5000


def test_every_curve_has_a_border_where_a_stage_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = ["warm-up", "warm-up", "decision", "search", "search"]
    lines = [
        {
            "stage": stage,
            "epoch": epoch,
            "loss": 1.0,
            "weights": {"beta.normal": {"node 3": {"0+1": 0.5, "1+2": 0.5}}},
        }
        for stage, epoch in zip(stages, (0, 1, 2, 2, 3), strict=True)
    ]
    assert stage_starts(lines) == [(0, "warm-up"), (2, "search")]
    borders: list[float] = []
    original = Axes.axvline

    def axvline(self: Axes, x: float, **style: Any) -> Any:
        borders.append(x)
        return original(self, x, **style)

    monkeypatch.setattr(Axes, "axvline", axvline)
    plot_figures(lines, "loss", tmp_path / "a.png")
    plot_changes([FIRST] * 5, lines, COLOURS, tmp_path / "b.png")
    [(name, series)] = weight_pictures(lines).values()
    plot_weights(name, series, 2, COLOURS, tmp_path / "c.png")
    assert borders == [
        2.5,
        1.5,
        2.5,
        2.5,
    ]  # by epochs from 1; in b.png by columns, one of them the decision's


def test_edges_and_weights_are_named_as_in_the_cell_s_picture() -> None:
    assert edge_words("2<-0", 2) == "$c_{k-2}$ → 2" and edge_words("4<-3", 2) == "3 → 4"
    assert edge_words("0+3", 2) == "$c_{k-2}$ + 3" and edge_words("node 4", 2) == "into node 4"
    assert edge_words("sep_conv_3x3", 2) == "sep_conv_3x3"
    assert (
        weights_caption("alpha.reduce", LINES)
        == "weights of the operations of the reduction cell, epochs 1 to 4"
    )


def test_a_picture_is_as_wide_as_what_it_holds(tmp_path: Path) -> None:
    def width(panels: int, epochs: int) -> float:
        rows = {f"{node}<-0": {"sep_conv_3x3": 0.5, "skip_connect": 0.5} for node in range(1, panels + 1)}
        lines = [
            {"stage": "search", "epoch": epoch, "weights": {"alpha.cell": rows}} for epoch in range(epochs)
        ]
        with Image.open(plot_weights("alpha.cell", lines, 1, COLOURS, tmp_path / "w.png")) as picture:
            return picture.width / DPI

    assert width(1, 2) == pytest.approx(3.1, abs=0.05) and width(6, 2) == pytest.approx(12.4, abs=0.05)
    long = [{"stage": "search", "epoch": epoch} for epoch in range(200)]
    with Image.open(plot_changes([FIRST] * 200, long, COLOURS, tmp_path / "c.png")) as picture:
        assert picture.width / DPI == pytest.approx(12.4, abs=0.05)


def test_a_search_without_epochs_has_no_curves(tmp_path: Path) -> None:
    line = {"stage": "random", "epoch": 0, "skips": 1.0, "parametric": 2.0}
    assert plot_figures([line], "operations", tmp_path / "c.png").is_file()
