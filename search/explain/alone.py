"""Correlation of alpha with the accuracy of stand-alone networks, over the operations of an edge.

Source: DropNAS (IJCAI 2020), Sec. 5.5, Fig. 5: the cell that was found, with each operation on one of its
edges in turn; the networks are trained from scratch, and their accuracy is correlated with alpha.
"""

from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from .discretise import check_alpha, rank_correlation
from .edge_option import EdgeConfig, place_of
from .finished_search import Finished
from .skip import correlation
from .stand_alone import StandAloneConfig, accuracies, described, means, with_operation


@dataclass(frozen=True)
class AloneConfig:
    """alpha of an edge's operations against the accuracy of stand-alone networks (DropNAS Fig. 5).

    Args:
        edge: the edge, one of the cell that was found, and its operations.
        training: of the networks.
    """

    edge: EdgeConfig = field(default_factory=EdgeConfig)
    training: StandAloneConfig = field(default_factory=StandAloneConfig)


def explain(finished: Finished, config: AloneConfig, progress: bool) -> dict[str, Any]:
    """Train a network for every operation of the edge and return its alpha and accuracy."""
    check_alpha(finished)
    look = finished.look("operation")
    place = place_of(look.search, config.edge)
    edge = config.edge.node, config.edge.input
    names = look.search.space.candidates(place.kind)[place.row]
    cells = {
        title: with_operation(finished.found, place.kind, edge, names[column])
        for title, column in zip(place.names, place.columns, strict=True)
    }
    shape, training = look.search.supernet.shape, finished.config.training
    tested = accuracies(cells, config.training, shape, training, finished.data, progress)
    weights = look.weights()[f"alpha.{place.kind}"][place.row]
    alphas = [weights[column].item() for column in place.columns]
    rows = [
        {"operation": name, "alpha": alpha, "accuracy": mean, "accuracies": seed_accuracies}
        for name, alpha, mean, seed_accuracies in zip(place.names, alphas, means(tested), tested, strict=True)
    ]
    return {
        "edge": {"kind": place.kind, "edge": place.title},
        "operations": rows,
        "correlation": correlation(alphas, means(tested)),
        "tau": rank_correlation(alphas, means(tested)),
        "networks": described(config.training, shape, finished.data),
    }


def draw(figures: dict[str, Any]) -> Figure:
    """Plot a point for every operation, as in the paper."""
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    panel = figure.subplots()
    for row in figures["operations"]:
        point = row["accuracy"], row["alpha"]
        panel.scatter(*point, color="tab:blue")
        panel.annotate(row["operation"], point, textcoords="offset points", xytext=(4, 4), fontsize=8)
    panel.margins(0.2)
    panel.margins(x=0.15)  # room for the names
    panel.set_xlabel("stand-alone accuracy")
    panel.set_ylabel("alpha")
    r = figures["correlation"]
    panel.set_title(
        f"edge {figures['edge']['edge']} of the {figures['edge']['kind']} cell: correlation "
        f"{'undefined' if r is None else f'{r:.3f}'}"
    )
    return figure


def line(figures: dict[str, Any]) -> str:
    """Summarise the result in one line."""
    r, best = figures["correlation"], max(figures["operations"], key=lambda row: row["accuracy"])
    return (
        f"edge {figures['edge']['edge']}: correlation of alpha and stand-alone accuracy "
        f"{'undefined, as one side is constant' if r is None else f'{r:.2f}'}; best {best['operation']} "
        f"({100 * best['accuracy']:.2f} %)"
    )
