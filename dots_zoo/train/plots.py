"""Plot the curves of a training from `metrics.jsonl` alone."""

import io
import json
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..runtime.atomic_write import write_file

PANELS = (  # title, (column of metrics.jsonl, label) of every curve
    ("loss", (("loss", "training"), ("validation_loss", "validation"), ("test_loss", "test"))),
    (
        "accuracy",
        (("accuracy", "training"), ("validation_accuracy", "validation"), ("test_accuracy", "test")),
    ),
    ("learning rate", (("learning_rate", "at the end of an epoch"),)),
)


def plot_curves(metrics: Path, path: Path) -> Path:
    """Plot loss (the training loss with its auxiliary part), accuracy and learning rate by epoch."""
    rows = [json.loads(text) for text in metrics.read_text("utf-8").splitlines()]
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for panel, (title, curves) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for column, label in curves:
            points = [(row["epoch"] + 1, row[column]) for row in rows if column in row]
            if points:
                panel.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else "", label=label)
        panel.set_title(title)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return write_file(path, picture.getvalue())
