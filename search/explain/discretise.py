"""Discretisation accuracy of an edge against alpha: each operation alone, at convergence.

Source: DARTS-PT (ICLR 2021), Sec. 3.1, Fig. 1 and Fig. 7: an edge becomes one operation, the rest of the
supernet is tuned until it converges again, and its accuracy on the validation split is the strength of that
operation.

Every operation starts from the same supernet and sees the same batches. Tuning is that of the selection
(`search/methods/darts_pt.py`): the step of the search, a new SGD, a cosine from a fraction of the learning
rate.
"""

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from scipy.stats import kendalltau
from tqdm import tqdm

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.progress import steps_bar

from ..space.relax import cosine
from ..stages.checkpoint import Progress, RunState
from ..stages.config import WeightsConfig, require_at_least
from ..stages.init_stage import decide, restart_sgd
from ..stages.loop import steps_of, train_epoch
from .completed_run import CompletedRun, StageSnapshot
from .edge_option import EdgeConfig, SelectedEdge, select_edge
from .skip import correlation


@dataclass(frozen=True)
class DiscretiseConfig:
    """Accuracy with each operation of an edge alone, after tuning, against its alpha (DARTS-PT Fig. 1).

    Args:
        edge: the edge, and its operations.
        epochs: of tuning; 0 measures at once.
        learning_rate: at the first epoch of tuning, as a fraction of that of the search.
    """

    edge: EdgeConfig = field(default_factory=EdgeConfig)
    epochs: int = 5  # Sec. 5.1, of the selection
    learning_rate: float = 0.1  # not in the paper; the public code's

    def __post_init__(self) -> None:
        require_at_least("", epochs=(self.epochs, 0), learning_rate=(self.learning_rate, 0))


def explain(completed_run: CompletedRun, config: DiscretiseConfig, progress: bool) -> dict[str, Any]:
    """Tune every operation of the edge alone, from the supernet at the end of its operation search."""
    check_alpha(completed_run)
    snapshot = completed_run.snapshot("operation")
    selected = select_edge(snapshot.search, config.edge)
    tuned = tuning(snapshot, completed_run.config.training.weights, config)
    steps = len(selected.columns) * (
        config.epochs * steps_of(tuned.stage, snapshot.run) if config.epochs else 0
    )
    with steps_bar(steps, show=progress) as bar:
        return discretised(tuned, selected, config, bar)


def check_alpha(completed_run: CompletedRun) -> None:
    """Raise DotsZooError if alpha was never trained, so that nothing can be compared with it."""
    if completed_run.method == "fixed_alpha":
        raise DotsZooError(
            f"{completed_run.folder}: fixed_alpha trains no alpha, all of an edge are equal: expected a "
            "method that does"
        )


def tuning(snapshot: StageSnapshot, searched: WeightsConfig, config: DiscretiseConfig) -> StageSnapshot:
    """Return the search in a stage that tunes it, after its last epoch.

    searched: hyperparameters of the search.
    """
    start = snapshot.step_index.epoch + 1
    rate = partial(
        cosine,
        epochs=max(1, config.epochs),
        start=config.learning_rate * searched.learning_rate,
        end=searched.learning_rate_end,
    )
    stage = replace(
        snapshot.stage,
        name="tuning",
        epochs=config.epochs,
        learning_rate=lambda epoch: rate(epoch - start),
        validate=False,
    )
    return replace(snapshot, stage=stage)


def discretised(
    snapshot: StageSnapshot, selected: SelectedEdge, config: DiscretiseConfig, bar: tqdm
) -> dict[str, Any]:
    """Return alpha, logit, and accuracy and loss before and after tuning, of every operation."""
    name = f"alpha.{selected.cell_type}"
    weights, logits = snapshot.weights()[name][selected.row], snapshot.search.logits[name][selected.row]
    loss, accuracy = snapshot.measure(snapshot.mixture())
    rows = []
    for column, operation in zip(selected.columns, selected.names, strict=True):
        bar.set_description(operation)
        before, after = tuned_alone(snapshot, name, selected.row, column, bar)
        rows.append(
            {
                "operation": operation,
                "alpha": weights[column].item(),
                "logit": logits[column].item(),
                "loss": after[0],
                "accuracy": after[1],
                "at_once": {"loss": before[0], "accuracy": before[1]},
            }
        )
    alphas, accuracies = [row["alpha"] for row in rows], [row["accuracy"] for row in rows]
    return {
        "edge": {"cell_type": selected.cell_type, "edge": selected.title},
        "supernet": {"loss": loss, "accuracy": accuracy},
        "operations": rows,
        "largest_alpha": rows[alphas.index(max(alphas))]["operation"],
        "strongest": max(rows, key=lambda row: (row["accuracy"], -row["loss"]))["operation"],
        "correlation": correlation(alphas, accuracies),
        "tau": rank_correlation(alphas, accuracies),
        "images": len(snapshot.run.parts["b"]),
    }


def tuned_alone(
    snapshot: StageSnapshot, name: str, row: int, column: int, bar: tqdm
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (loss, accuracy) before and after tuning, of a copy in which the row has one alternative."""
    search = restart_sgd(decide(copy.deepcopy(snapshot.search), name, row, column))
    alone = replace(snapshot, search=search)
    before = after = alone.measure(alone.mixture())
    relaxation, first = alone.relaxation, snapshot.step_index.epoch + 1
    for epoch in range(first, first + snapshot.stage.epochs):
        train_epoch(
            snapshot.stage,
            snapshot.run,
            RunState(Progress(epoch=epoch), search),
            relaxation,
            None,
            bar.update,
        )
    if snapshot.stage.epochs:
        after = alone.measure(alone.mixture())
    return before, after


def rank_correlation(one: list[float], other: list[float]) -> float | None:
    """Return Kendall's tau-b, None where one side is constant."""
    if len(one) < 2 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return float(kendalltau(one, other).statistic)


def draw(figures: dict[str, Any]) -> Figure:
    """Plot alpha (blue) and accuracy (orange) of every operation, as in the paper."""
    return paired_bars(
        [row["operation"] for row in figures["operations"]],
        [row["alpha"] for row in figures["operations"]],
        [row["accuracy"] for row in figures["operations"]],
        f"edge {figures['edge']['edge']} of the {figures['edge']['cell_type']} cell",
        "discretisation accuracy",
    )


def paired_bars(
    names: list[str], alphas: list[float], accuracies: list[float], title: str, of_right: str
) -> Figure:
    """Plot two bars an operation, each on its own scale."""
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    left.bar([x - 0.2 for x in range(len(names))], alphas, 0.4, color="tab:blue")
    right.bar([x + 0.2 for x in range(len(names))], accuracies, 0.4, color="tab:orange")
    low, high = min(accuracies), max(accuracies)
    right.set_ylim(max(0.0, low - 0.5 * (high - low) - 0.01), high + 0.1 * (high - low) + 0.01)
    left.set_ylabel("alpha", color="tab:blue")
    right.set_ylabel(of_right, color="tab:orange")
    left.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    left.set_title(title)
    return figure


def line(figures: dict[str, Any]) -> str:
    """Summarise the result in one line."""
    best = {row["operation"]: row["accuracy"] for row in figures["operations"]}
    largest, strongest = figures["largest_alpha"], figures["strongest"]
    tau = figures["tau"]
    return (
        f"edge {figures['edge']['edge']}: largest alpha {largest} ({100 * best[largest]:.2f} % alone), "
        f"strongest {strongest} ({100 * best[strongest]:.2f} %), "
        f"Kendall's tau {'undefined' if tau is None else f'{tau:.2f}'}"
    )
