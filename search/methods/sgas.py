"""SGAS: Sequential Greedy Architecture Search (Li et al., CVPR 2020).

DARTS, first order, with decisions during training: after a warm-up, every few epochs one edge of every kind
of cell becomes one operation, the edge with the largest score. From the softmax weights of an edge, `none`
among them:

    edge importance       S_EI = sum of the weights that are not none's
    selection certainty   S_SC = 1 - H(p) / log(number of operations),    p = weights without none / S_EI
    selection stability   S_SS = mean over the last epochs of sum(min(p before, p now))

Criterion 1 is S_EI * S_SC, criterion 2 also * S_SS, each scaled to [0, 1] over the edges of the cell. The two
edges of a node that are decided first close its others; a decided edge keeps its last weights in the scores.
Every decision frees memory, so the batch grows.

Not specified in the paper: the warm-up trains the logits too, as in the public code (lightaime/sgas@46b0039),
since there would be nothing to score; the search ends with its last decision, after which the public code
trains five epochs that cannot change the cell. In NAS-Bench-201 all edges are decided, and `none` is an
operation.

DARTS-PT (ICLR 2021), Sec. 5.1, lets the supernet choose the operation of the edge: `by`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..space.space import SearchSpace
from ..stages.config import TrainingConfig, check_span, require_at_least
from ..stages.init_stage import close_edge, continue_from, decide
from ..stages.operation_search import Numbers, operation_search, softmax_relaxation
from ..stages.stage import Run, Search, Stage, StepIndex
from ..stages.steps import bilevel
from ..supernet import MacroName
from .darts import darts_training
from .darts_pt import By, SelectionCriterion, built_edges, choosable, strongest
from .method import Method


@dataclass(frozen=True)
class SgasConfig:
    """SGAS: one edge after the other is decided for good, the surest first (CVPR 2020).

    Args:
        warm_up: epochs before the first decision.
        interval: epochs between two decisions.
        criterion: 1 scores importance and certainty, 2 stability as well.
        history: past epochs that stability compares with.
        batch_increase: images by which the batch grows with every decision.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells.
        channels: width of its first cells.
        training: what the training loop needs.
    """

    warm_up: int = 10  # Sec. 4.1
    interval: int = 5  # Sec. 4.1
    criterion: Literal[1, 2] = 1  # Sec. 3.2, both are reported
    history: int = 4  # Sec. 4.1
    batch_increase: int = 8  # Sec. 4.1
    macro: MacroName | None = None
    layers: int = 8  # Sec. 4.1: as DARTS
    channels: int = 16  # as in DARTS
    training: TrainingConfig = field(default_factory=darts_training)

    def __post_init__(self) -> None:
        require_at_least("", interval=(self.interval, 1), history=(self.history, 1))
        require_at_least("", batch_increase=(self.batch_increase, 0))
        check_span(self.warm_up, 0, self.layers, self.channels)


def stages(config: SgasConfig, space: SearchSpace, after: int, by: By = "magnitude") -> tuple[Stage, ...]:
    """Return the warm-up and a stage for every decision: in the paper at epochs 10, 15, ...

    Args:
        config: options of the method.
        space: candidates of every edge.
        after: ignored, as the cosine ends `interval` epochs after the last decision.
        by: criterion that chooses the operation of an edge.
    """
    count = decisions(space)
    [warm_up] = operation_search(
        Numbers(config.warm_up, config.macro, config.layers, config.channels, config.training),
        space,
        config.interval * count,
        bilevel,
        name="warm-up",
    )
    planned = [replace(warm_up, after=partial(remember, config.history))]
    for position in range(1, count + 1):
        selection = SelectionCriterion(by, softmax_relaxation, planned[-1].batch_size)
        decided = replace(
            planned[0],
            name=f"decision {position} of {count}",
            epochs=config.interval if position < count else 0,
            initialise=partial(decide_edges, config.criterion, selection),
            builds=False,
            batch_size=warm_up.batch_size + config.batch_increase * position,
        )
        planned.append(decided)
    return tuple(planned)


def decisions(space: SearchSpace) -> int:
    """Return the number of edges to decide in a cell type: two a node, all six in NAS-Bench-201."""
    if space.family == "nasbench201":
        return len(space.edges)
    return max(sum(_kept(space, cell_type, node) for node in space.nodes) for cell_type in space.cell_types)


def _kept(space: SearchSpace, cell_type: str, node: int) -> int:
    built = sum(set(space.candidates(cell_type)[edge]) != {"none"} for edge in space.incoming(node))
    return min(2, built)


def remember(history: int, search: Search, step_index: StepIndex, figures: Mapping[str, float]) -> Search:
    """Append the weights of an epoch to those of the `history` before it; a decided edge keeps its last."""
    memory = dict(search.method_state)
    for cell_type, decided in decided_edges(search).items():
        logits = search.logits[f"alpha.{cell_type}"].detach()
        beyond = ~_members(search.space, cell_type, "").to(logits.device)
        weights = logits.masked_fill(beyond, float("-inf")).softmax(dim=-1).cpu()[None]  # (1, E, O)
        before = memory.get(f"weights.{cell_type}", weights[:0])
        weights = torch.where(decided[None, :, None], before[-1:], weights) if len(before) else weights
        memory[f"weights.{cell_type}"] = torch.cat([before, weights])[-history - 1 :]
    return replace(search, method_state=memory)


def decided_edges(search: Search) -> dict[str, Tensor]:
    """Return the mask of the edges that have been decided, (E,) by cell type."""
    none = torch.zeros(len(search.space.edges), dtype=torch.bool)
    return {
        cell_type: search.method_state.get(f"decided.{cell_type}", none)
        for cell_type in search.space.cell_types
    }


def _members(space: SearchSpace, cell_type: str, without: str) -> Tensor:
    """Return the mask of the candidates of every edge but the one named, (E, O)."""
    candidates = space.candidates(cell_type)
    width = max(len(names) for names in candidates)
    return torch.tensor(
        [[*(name != without for name in names), *[False] * (width - len(names))] for names in candidates]
    )


def decide_edges(
    criterion: int, selection: SelectionCriterion, run: Run, before: Search | None, step_index: StepIndex
) -> Search:
    """Decide the edge with the largest score in every cell type."""
    search = continue_from(run, before, step_index)
    for cell_type in search.space.cell_types:
        open_edges = undecided(search, cell_type)
        if open_edges:
            members = _members(search.space, cell_type, "none")
            edge_scores = scores(search.method_state[f"weights.{cell_type}"], members, criterion).tolist()
            edge = max(open_edges, key=lambda candidate: edge_scores[candidate])
            search = decide_edge(selection, run, search, step_index, cell_type, edge)
    return search


def undecided(search: Search, cell_type: str) -> list[int]:
    """Return the edges that can still be decided."""
    built = [edge for node in search.space.nodes for edge in built_edges(search, cell_type, node)]
    decided = decided_edges(search)[cell_type].tolist()
    return [edge for edge in built if not decided[edge]]


def scores(weights: Tensor, members: Tensor, criterion: int) -> Tensor:
    """Return the scores of the edges, (E,).

    Args:
        weights: of the last epochs, the present one last, (H, E, O).
        members: mask of the operations that are not none, (E, O).
        criterion: 1 or 2.
    """
    importance = (weights * members).sum(dim=-1)  # (H, E), S_EI
    shares = weights * members / importance.clamp_min(1e-12)[..., None]  # (H, E, O), p
    most = members.sum(dim=-1).clamp_min(2).log()  # an edge of one operation is certain
    certainty = 1 - torch.special.entr(shares[-1]).sum(dim=-1) / most  # S_SC
    score = scaled(importance[-1]) * scaled(certainty)
    if criterion == 1:
        return score
    common = torch.minimum(shares[:-1], shares[-1]).sum(dim=-1)  # (H - 1, E)
    stability = common.mean(dim=0) if len(common) else torch.zeros_like(score)  # S_SS
    return score * scaled(stability)


def scaled(values: Tensor) -> Tensor:
    """Scale values to [0, 1], from the least to the largest; 0 where all are equal."""
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else torch.zeros_like(values)


def decide_edge(
    selection: SelectionCriterion, run: Run, search: Search, step_index: StepIndex, cell_type: str, edge: int
) -> Search:
    """Decide an edge for one operation; the second decided edge of a DARTS node closes the others."""
    name, space = f"alpha.{cell_type}", search.space
    column = strongest(selection, run, search, step_index, name, edge, choosable(search, name, edge, None))
    decided = decided_edges(search)[cell_type].clone()
    decided[edge] = True
    search = replace(search, method_state={**search.method_state, f"decided.{cell_type}": decided})
    search = decide(search, name, edge, column)
    incoming = space.incoming(space.edges[edge][0])
    if space.family == "darts" and decided[list(incoming)].sum() == 2:
        for other in incoming:
            search = search if decided[other] else close_edge(search, cell_type, other)
    return search


METHOD = Method("sgas", SgasConfig, stages, decides_edges=True)
