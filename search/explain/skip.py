"""Weights of skip connections against the accuracy of the supernet: mean(alpha_skip - alpha_conv).

Source: DARTS-PT (ICLR 2021), Sec. 3.2 and Fig. 3: the gap, of softmaxed alphas, grows with the validation
accuracy of the supernet. Read from metrics.jsonl alone. An edge's gap is the mean weight of its skip
connections less that of its convolutions; the mean is over all edges that have both. The accuracy is
`validation_accuracy` where the search measured it after every epoch (DARTS-), else `architecture_accuracy`,
the mean over the batches of the validation split that the logits were trained on.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from dots_zoo.runtime.errors import DotsZooError

from ..space.space import operation_of
from .completed_run import CompletedRun

ACCURACIES = ("validation_accuracy", "architecture_accuracy")
Line = Mapping[str, Any]  # of metrics.jsonl


@dataclass(frozen=True)
class SkipConfig:
    """mean(alpha_skip - alpha_conv) against the supernet's accuracy, by epoch (DARTS-PT Fig. 3)."""


def explain(completed_run: CompletedRun, config: SkipConfig, progress: bool) -> dict[str, Any]:
    """Compute the gaps over the epochs of the operation search."""
    stages = {
        stage.name
        for stage in completed_run.stages[: completed_run.last_stage("operation") + 1]
        if stage.epochs
    }
    lines = [line for line in completed_run.lines() if line["stage"] in stages]
    return gaps(lines, f"{completed_run.folder}, {completed_run.method}")


def gaps(lines: Sequence[Line], place: str) -> dict[str, Any]:
    """Return gap and accuracy of every epoch that has both, and their Pearson correlation.

    Raises:
        DotsZooError: if no edge has a skip connection and a convolution, or no accuracy was measured on the
            validation split.
    """
    measured = [name for name in ACCURACIES if any(name in line for line in lines)]
    if not measured:
        raise DotsZooError(
            f"{place}: expected {' or '.join(ACCURACIES)} in metrics.jsonl, from a search that trains alpha "
            "on the validation split; this one does not"
        )
    rows = [(line, gap_of(line["weights"])) for line in lines if measured[0] in line]
    lines_with_gap = [(line, gap) for line, gap in rows if gap]
    if not lines_with_gap:
        raise DotsZooError(
            f"{place}: expected edges with skip_connect and a convolution, got a space of none"
        )
    means = [
        statistics.mean(value for edge_gaps in gap.values() for value in edge_gaps.values())
        for _, gap in lines_with_gap
    ]
    accuracies = [line[measured[0]] for line, _ in lines_with_gap]
    return {
        "accuracy_is": measured[0],
        "epoch": [line["epoch"] for line, _ in lines_with_gap],
        "gap": means,
        "accuracy": accuracies,
        "correlation": correlation(means, accuracies),
        "edges": lines_with_gap[-1][1],
    }


def gap_of(weights: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the gaps in one line of weights: cell type -> edge -> gap."""
    by_cell_type: dict[str, dict[str, float]] = {}
    for name, rows in weights.items():
        for edge, row in rows.items() if name.startswith("alpha.") else ():
            skips = [weight for label, weight in row.items() if operation_of(label).skip]
            convolutions = [weight for label, weight in row.items() if operation_of(label).parametric]
            if skips and convolutions:
                gap = statistics.mean(skips) - statistics.mean(convolutions)
                by_cell_type.setdefault(name.removeprefix("alpha."), {})[edge] = gap
    return by_cell_type


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Pearson's correlation, None for fewer than two points or where one side is constant."""
    if len(one) < 2 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    pearson = statistics.correlation(one, other)
    return pearson if math.isfinite(pearson) else None


def draw(figures: dict[str, Any]) -> Figure:
    """Plot a point for every epoch, the later the darker."""
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    panel = figure.subplots()
    panel.plot(figures["accuracy"], figures["gap"], color="0.8", zorder=1)
    points = panel.scatter(
        figures["accuracy"], figures["gap"], c=figures["epoch"], cmap="viridis_r", zorder=2
    )
    figure.colorbar(points, ax=panel, label="epoch")
    panel.axhline(0.0, color="black", linewidth=0.5)
    panel.set_xlabel(figures["accuracy_is"].replace("_", " "))
    panel.set_ylabel("mean(alpha_skip - alpha_conv), softmaxed")
    return figure


def line(figures: dict[str, Any]) -> str:
    """Summarise the result in one line."""
    r = figures["correlation"]
    return (
        f"mean(alpha_skip - alpha_conv) {figures['gap'][0]:+.3g} -> {figures['gap'][-1]:+.3g}, "
        f"{figures['accuracy_is']} {figures['accuracy'][0]:.3f} -> {figures['accuracy'][-1]:.3f} over "
        f"{len(figures['epoch'])} epochs, correlation {'undefined' if r is None else f'{r:.2f}'}"
    )
