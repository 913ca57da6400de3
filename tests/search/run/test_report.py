"""The pictures of a search say what its files say: pixels are looked at."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dots_zoo.genotype import CellGenotype, Edge
from dots_zoo.search.run.report import COLOURS, plot_changes, plot_curves

FIRST = CellGenotype((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3")), (2,))
NAMES = ("sep_conv_3x3", "skip_connect")
SECOND = CellGenotype((Edge(2, 0, "sep_conv_3x3"), Edge(2, 1, "sep_conv_3x3")), (2,))


def shares(path: Path) -> dict[str, float]:
    """Of the picture's pixels: those of the first colours."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colours = dict(zip(NAMES, COLOURS, strict=False))
    return {
        name: float((abs(pixels - np.round(np.array(c) * 255)).max(1) < 3).mean())
        for name, c in colours.items()
    }


def test_every_edge_of_every_line_has_the_colour_of_its_operation(tmp_path: Path) -> None:
    settled = shares(plot_changes([FIRST] * 4, NAMES, tmp_path / "a.png"))
    changed = shares(plot_changes([FIRST, SECOND, SECOND, SECOND], NAMES, tmp_path / "b.png"))
    assert settled["skip_connect"] == pytest.approx(settled["sep_conv_3x3"], rel=0.1)
    # of 8 squares 7 are convolutions and one a skip connection; the legend adds a little to both
    assert changed["sep_conv_3x3"] / changed["skip_connect"] == pytest.approx(7, rel=0.25)


def test_curves_take_lines_that_lack_a_figure(tmp_path: Path) -> None:
    lines = [
        {"epoch": 0, "loss": 2.0, "accuracy": 0.1, "entropy.alpha": 1.0, "skips": 1.0, "parametric": 2.0},
        {"epoch": 1, "entropy.alpha": 0.5, "skips": 2.0, "parametric": 1.0},
    ]
    assert plot_curves(lines, tmp_path / "c.png").stat().st_size > 5000


def test_a_search_without_epochs_has_no_curves(tmp_path: Path) -> None:
    assert plot_curves([{"epoch": 0, "skips": 1.0, "parametric": 2.0}], tmp_path / "c.png").is_file()
