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

from ..space.relax import cosine
from ..stages.checkpoint import Place as At
from ..stages.checkpoint import Standing
from ..stages.config import WeightsConfig, least
from ..stages.init_stage import decide, restart_sgd
from ..stages.loop import steps_of, train_epoch
from .edge_option import EdgeConfig, Place, place_of
from .finished_search import Finished, Look
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
        least("", epochs=(self.epochs, 0), learning_rate=(self.learning_rate, 0))


def explain(finished: Finished, config: DiscretiseConfig, progress: bool) -> dict[str, Any]:
    """Tune every operation of the edge alone, from the supernet at the end of its operation search."""
    check_alpha(finished)
    look = finished.look("operation")
    place = place_of(look.search, config.edge)
    tuned = tuning(look, finished.config.training.weights, config)
    steps = len(place.columns) * (config.epochs * steps_of(tuned.stage, look.run) if config.epochs else 0)
    with tqdm(total=steps, disable=not progress, unit="step") as bar:
        return discretised(tuned, place, config, bar)


def check_alpha(finished: Finished) -> None:
    """Raise DotsZooError if alpha was never trained, so that nothing can be compared with it."""
    if finished.method == "fixed_alpha":
        raise DotsZooError(
            f"{finished.folder}: fixed_alpha trains no alpha, all of an edge are equal: expected a method "
            "that does"
        )


def tuning(look: Look, searched: WeightsConfig, config: DiscretiseConfig) -> Look:
    """Return the search in a stage that tunes it, after its last epoch.

    searched: hyperparameters of the search.
    """
    start = look.moment.epoch + 1
    rate = partial(
        cosine,
        epochs=max(1, config.epochs),
        start=config.learning_rate * searched.learning_rate,
        end=searched.learning_rate_end,
    )
    stage = replace(
        look.stage,
        name="tuning",
        epochs=config.epochs,
        learning_rate=lambda epoch: rate(epoch - start),
        validate=False,
    )
    return replace(look, stage=stage)


def discretised(look: Look, place: Place, config: DiscretiseConfig, bar: tqdm) -> dict[str, Any]:
    """Return alpha, logit, and accuracy and loss before and after tuning, of every operation."""
    name = f"alpha.{place.kind}"
    weights, logits = look.weights()[name][place.row], look.search.logits[name][place.row]
    loss, accuracy = look.measure(look.mixture())
    rows = []
    for column, operation in zip(place.columns, place.names, strict=True):
        bar.set_description(operation)
        before, after = tuned_alone(look, name, place.row, column, bar)
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
        "edge": {"kind": place.kind, "edge": place.title},
        "supernet": {"loss": loss, "accuracy": accuracy},
        "operations": rows,
        "largest_alpha": rows[alphas.index(max(alphas))]["operation"],
        "strongest": max(rows, key=lambda row: (row["accuracy"], -row["loss"]))["operation"],
        "correlation": correlation(alphas, accuracies),
        "tau": rank_correlation(alphas, accuracies),
        "images": len(look.run.parts["b"]),
    }


def tuned_alone(
    look: Look, name: str, row: int, column: int, bar: tqdm
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (loss, accuracy) before and after tuning, of a copy in which the row has one alternative."""
    search = restart_sgd(decide(copy.deepcopy(look.search), name, row, column))
    alone = replace(look, search=search)
    before = after = alone.measure(alone.mixture())
    relaxation, first = alone.relaxation, look.moment.epoch + 1
    for epoch in range(first, first + look.stage.epochs):
        train_epoch(look.stage, look.run, Standing(At(epoch=epoch), search), relaxation, None, bar)
    if look.stage.epochs:
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
        f"edge {figures['edge']['edge']} of the {figures['edge']['kind']} cell",
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
