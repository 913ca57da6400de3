"""Accuracy of the supernet with two edges of every cell exchanged.

Source: DARTS-PT (ICLR 2021), Sec. 3.2 and Table 1: a trained supernet is hardly hurt, so its edges estimate
the same feature map, as the layers of a ResNet do. The paper measures on the test images; here it is the
validation split, with batch statistics.

An edge is its candidates with their weights, and its alpha. Two edges can change places where they have the
same candidates and the same stride; the pair is drawn anew in every cell.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import nn

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.progress import steps_bar
from dots_zoo.runtime.seeding import generator

from ..stages.config import require_at_least
from ..supernet import Nodes, Supernet, without_kernels
from .completed_run import CompletedRun, StageSnapshot

Pair = tuple[int, int]  # edges


@dataclass(frozen=True)
class ShuffleConfig:
    """Accuracy of the supernet with two edges of every cell exchanged (DARTS-PT Table 1).

    Args:
        draws: exchanges that are measured, each from the supernet as it was.
        seed: of the exchanges.
    """

    draws: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least("", draws=(self.draws, 1))


def explain(completed_run: CompletedRun, config: ShuffleConfig, progress: bool) -> dict[str, Any]:
    """Exchange edges of the supernet at the end of its operation search."""
    with steps_bar(config.draws, show=progress) as bar:
        return shuffled(completed_run.snapshot("operation"), config, bar.update)


def shuffled(
    snapshot: StageSnapshot, config: ShuffleConfig, done: Callable[[], Any] = lambda: None
) -> dict[str, Any]:
    """Return loss and accuracy before any exchange, and after every one.

    Raises:
        DotsZooError: if no edges can be exchanged.
    """
    supernet, mixture = without_kernels(snapshot.search.supernet), snapshot.mixture()
    snapshot = replace(snapshot, search=replace(snapshot.search, supernet=supernet))
    cells, space = searched_cells(supernet), snapshot.search.space
    pairs = {cell_type: exchangeable(snapshot, cell_type) for cell_type in space.cell_types}
    titles = [f"{node}<-{source}" for node, source in space.edges]
    loss, accuracy = snapshot.measure(mixture)
    rows: list[dict[str, Any]] = []
    for draw_index in range(config.draws):
        chosen = []
        for place, (cell_type, _) in enumerate(cells):
            draws = generator(config.seed, "shuffle", draw_index, place)
            chosen.append(pairs[cell_type][int(torch.randint(len(pairs[cell_type]), (), generator=draws))])
        with exchanged([cell for _, cell in cells], chosen):
            after = snapshot.measure(mixture)
        rows.append(
            {"loss": after[0], "accuracy": after[1], "pairs": [[titles[e] for e in p] for p in chosen]}
        )
        done()
    accuracies = [row["accuracy"] for row in rows]
    return {
        "before": {"loss": loss, "accuracy": accuracy},
        "after": {
            "loss": statistics.mean(row["loss"] for row in rows),
            "accuracy": statistics.mean(accuracies),
            "accuracy_std": statistics.stdev(accuracies) if len(rows) > 1 else None,
        },
        "draws": rows,
        "cells": [cell_type for cell_type, _ in cells],
        "images": len(snapshot.run.parts["b"]),
    }


def searched_cells(supernet: Supernet) -> list[tuple[str, nn.Module]]:
    """Return type and module of every cell that is searched, from the input on."""
    return [
        (cell_type, cell)
        for cell_type, cell in zip(supernet.cell_types, supernet.cells, strict=True)
        if cell_type
    ]


def exchangeable(snapshot: StageSnapshot, cell_type: str) -> list[Pair]:
    """Return the pairs of edges with the same candidates and the same stride.

    Raises:
        DotsZooError: if there are none.
    """
    space = snapshot.search.space
    [nodes, *_] = [
        cast(Nodes, cell.nodes)
        for other, cell in searched_cells(snapshot.search.supernet)
        if other == cell_type
    ]
    sorts = [
        (names, nodes.stride(source))
        for (_, source), names in zip(space.edges, space.candidates(cell_type), strict=True)
    ]
    pairs = [(one, other) for one, other in combinations(range(len(sorts)), 2) if sorts[one] == sorts[other]]
    if not pairs:
        raise DotsZooError(
            f"{cell_type} cell: expected two edges with the same operations and the same stride to exchange, "
            "got none in this space"
        )
    return pairs


@contextmanager
def exchanged(cells: Sequence[nn.Module], pairs: Sequence[Pair]) -> Iterator[None]:
    """Exchange two edges and their weights in every cell, without kernels, within the block."""
    hooks = []
    try:
        for cell, pair in zip(cells, pairs, strict=True):
            _exchange(cell, pair)
            hooks.append(cell.register_forward_pre_hook(_with_rows_exchanged(pair)))
        yield
    finally:
        for cell, pair in list(zip(cells, pairs, strict=True))[: len(hooks)]:
            _exchange(cell, pair)
        for hook in hooks:
            hook.remove()


def _exchange(cell: nn.Module, pair: Pair) -> None:
    edges, (one, other) = cast(Nodes, cell.nodes).edges, pair
    edges[one], edges[other] = edges[other], edges[one]


def _with_rows_exchanged(pair: Pair) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """Return a hook that exchanges the rows of two edges in the mixture of a cell's arguments."""

    def hook(cell: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        before, last, mixture = arguments
        order = list(range(len(mixture.active)))
        order[pair[0]], order[pair[1]] = pair[1], pair[0]
        active = tuple(mixture.active[edge] for edge in order)
        edges = None if mixture.edges is None else mixture.edges[order]
        exchanged = replace(mixture, operations=mixture.operations[order], active=active, edges=edges)
        return before, last, exchanged

    return hook


def draw(figures: dict[str, Any]) -> Figure:
    """Plot the accuracy after every exchange, and that before."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    accuracies = [row["accuracy"] for row in figures["draws"]]
    panel.bar(range(1, len(accuracies) + 1), accuracies, color="tab:orange", label="two edges exchanged")
    panel.axhline(figures["before"]["accuracy"], color="tab:blue", label="as it was")
    panel.set_xlabel("draw")
    panel.set_ylabel("accuracy on the validation split")
    panel.legend(loc="lower right")
    return figure


def line(figures: dict[str, Any]) -> str:
    """Summarise the result in one line."""
    spread = figures["after"]["accuracy_std"]
    return (
        f"accuracy {100 * figures['before']['accuracy']:.2f} % before, "
        f"{100 * figures['after']['accuracy']:.2f} %"
        f"{'' if spread is None else f' +- {100 * spread:.2f}'} with two edges of every cell exchanged"
    )
