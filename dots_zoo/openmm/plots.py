"""`dots-zoo det|seg curves`: plot the course of a training, from its metrics.jsonl alone."""

import io
import json
from pathlib import Path

from matplotlib.figure import Figure

from ..runtime.atomic_write import check_output, write_file
from ..runtime.errors import DotsZooError

SHOWN = ("bbox_mAP", "bbox_mAP_50", "mIoU", "mAcc")


def plot_curves(folder: Path, path: Path) -> Path:
    """Plot training loss, validation metrics and learning rate over the steps of a run in `folder`."""
    check_output(path)
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        raise DotsZooError(f"{metrics}: no such file; expected the --out of a training")
    rows = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    names = [name for name in rows[-1] if name.startswith("val/") and name.endswith(SHOWN)]
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    panels = (("loss", ["loss"]), ("validation", names), ("learning rate", ["learning_rate"]))
    for panel, (title, columns) in zip(figure.subplots(1, 3), panels, strict=True):
        for column in columns:
            points = [(row["step"], row[column]) for row in rows if column in row]
            panel.plot(*zip(*points, strict=True), marker=".", label=column.removeprefix("val/"))
        panel.set(title=title, xlabel="step")
        if columns:
            panel.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return write_file(path, picture.getvalue())
