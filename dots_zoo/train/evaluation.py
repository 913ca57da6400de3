"""Evaluate a network on test images: accuracy, per class, and which class is taken for which as a picture."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from torch import Tensor

from ..data.datasets import Data
from ..reference import Reference, create
from ..runtime.distributed import processes_of
from ..runtime.errors import DotsZooError
from .model import as_trained
from .score import Score, score_by_class

LISTED = 20  # classes that are all printed; of more, the worst WORST
WORST = 10
WRITTEN = 20  # classes whose counts are written into the picture
LABELLED = 50  # classes whose names are
PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Evaluation:
    """The score of a network on the test images of a data set.

    Args:
        network: its reference.
        data: name of the data set.
        size: side of the images in pixels.
        score: loss, accuracy and top five over all images.
        class_names: names of the classes; their indices where they have none.
        confusion: number of images by label (rows) and answer (columns).
        path: the JSON file; None where none was asked for.
        picture: the confusion matrix as a picture; None where none was asked for.
    """

    network: str
    data: str
    size: int
    score: Score
    class_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    path: Path | None = None
    picture: Path | None = None

    @property
    def accuracy(self) -> float:
        """Return the share of the images that are named right, in [0, 1]."""
        return self.score.accuracy

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return a row a class: images, hits, accuracy (None without any), what it is most taken for."""
        return [self._row(index, counts) for index, counts in enumerate(self.confusion)]

    def _row(self, index: int, counts: Sequence[int]) -> dict[str, Any]:
        images, hits = sum(counts), counts[index]
        others = [0 if answer == index else count for answer, count in enumerate(counts)]
        worst = max(others)
        return {
            "class": self.class_names[index],
            "images": images,
            "hits": hits,
            "accuracy": hits / images if images else None,
            "taken_for": self.class_names[others.index(worst)] if worst else None,
            "taken_for_images": worst,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of the JSON file."""
        return {
            "schema": 1,
            "kind": "evaluation",
            "network": self.network,
            "data": self.data,
            "size": self.size,
            "score": self.score.figures,
            "classes": self.rows,
            "confusion": [list(row) for row in self.confusion],
        }

    @property
    def lines(self) -> list[str]:
        """Return what is printed: a line of all images, and one a class, of many the worst."""
        head = (
            f"{self.network}: {100 * self.accuracy:.2f} % of {self.score.images} test images of {self.data} "
            f"at {self.size}x{self.size} ({self.score.text})"
        )
        rows = [row for row in self.rows if row["images"]]
        title = []
        if len(rows) > LISTED:
            rows = sorted(rows, key=lambda row: row["accuracy"])[:WORST]
            title = [f"the {WORST} classes with the lowest accuracy of {len(self.class_names)}:"]
        width = max(len(row["class"]) for row in rows)
        return [head, *title, *(_class_line(row, width) for row in rows)]


def _class_line(row: Mapping[str, Any], width: int) -> str:
    mistake = f", {row['taken_for_images']} taken for {row['taken_for']}" if row["taken_for"] else ""
    return f"  {row['class']:<{width}} {100 * row['accuracy']:6.2f} % of {row['images']}{mistake}"


def evaluate_network(
    reference: Reference, data: Data, *, batch_size: int = 100, progress: bool = True
) -> Evaluation:
    """Evaluate a network with its weights on the test images, normalised as in its training.

    Raises DotsZooError where it has no weights, or other classes or channels than the data.
    """
    if batch_size < 1:
        raise DotsZooError(f"batch_size: expected 1 or more, got {batch_size}")
    network = create(reference, weights=True)
    expected = data.classes, data.in_chans
    actual = network.num_classes, network.pretrained_cfg["input_size"][0]
    if expected != actual:
        raise DotsZooError(
            f"eval {reference.name}: expected a network of {expected[0]} classes and {expected[1]} channels "
            f"for {data.name}, got {actual[0]} and {actual[1]}"
        )
    accelerator = Accelerator()
    processes = processes_of(accelerator)
    network.to(accelerator.device)
    normalised = as_trained(data, network).to(accelerator.device)
    result, confusion = score_by_class(
        network, normalised, accelerator, batch_size=batch_size, progress=progress and processes.first
    )
    names = data.class_names or tuple(str(index) for index in range(data.classes))
    return Evaluation(
        reference.name, data.name, data.size, result, names, tuple(tuple(row) for row in confusion.tolist())
    )


def check_picture(path: Path) -> None:
    """Raise DotsZooError for a picture that cannot be drawn, by its suffix."""
    if path.suffix.lower() not in PICTURES:
        raise DotsZooError(f"{path}: expected a picture, {' or '.join(PICTURES)}, got {path.suffix!r}")


def confusion_picture(evaluation: Evaluation, suffix: str) -> bytes:
    """Draw the confusion matrix: the colour is the share of a label's images, the number their count."""
    counts = Tensor(evaluation.confusion)
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    classes = len(counts)
    side = min(20.0, 3.2 + 0.42 * classes) if classes <= LABELLED else 8.0
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if classes <= LABELLED:
        axes.set_xticks(range(classes), evaluation.class_names, rotation=90)
        axes.set_yticks(range(classes), evaluation.class_names)
    if classes <= WRITTEN:
        for label, row in enumerate(evaluation.confusion):
            for answer, count in enumerate(row):
                ink = "white" if shares[label, answer] > 0.5 else "black"
                axes.text(answer, label, str(count) if count else "", ha="center", va="center", color=ink)
    axes.set_xlabel("answer")
    axes.set_ylabel("label")
    axes.set_title(f"{100 * evaluation.accuracy:.2f} % of {evaluation.score.images} test images", fontsize=10)
    content = io.BytesIO()
    figure.savefig(content, format=suffix.lower().removeprefix("."), dpi=120)
    return content.getvalue()
