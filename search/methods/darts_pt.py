"""DARTS-PT: Rethinking Architecture Selection in Differentiable NAS (Wang et al., ICLR 2021).

Selection after any search. Sec. 4.1: an operation is as strong as the supernet is weak without it: its weight
is set to zero, the others stay as they are, and the accuracy on the validation split is measured. Algorithm
1: the edges are decided in random order, each for the operation whose absence leaves the least accuracy, with
some epochs of tuning before the next. Appendix A.3: then the nodes in random order; of each the edge is
closed whose absence leaves the most accuracy, until two remain. -Mag (Sec. 6.2) is the control: the same
tuning, but the largest weights.

Not specified in the paper: a decision is taken in every cell type before the tuning; alpha keeps training
as its method does, and no tuning follows the last decision. Equal accuracies are ordered by the loss. `none`
is not chosen in the DARTS cell, and is an operation as any other in that of NAS-Bench-201, which keeps all
edges. After a topology search the combinations of a node's edges take the place of Appendix A.3, chosen as
operations are. A decision without alternatives, because the search before left none, is followed by tuning
too, since the number of stages is fixed before any of them runs.

Differs from the official code (ruocwang/darts-pt@c31e376): its tie goes to what it measures first.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..space.relax import cosine
from ..space.space import EdgeRule, SearchSpace
from ..stages.config import TrainingConfig, require_at_least
from ..stages.init_stage import close_edge, continue_from, decide, restart_sgd
from ..stages.stage import Relaxation, Run, Search, Stage, StepIndex
from ..stages.validate import measure

By = Literal["accuracy", "loss", "magnitude"]
Entry = tuple[str, int, int]  # name of the logits, row, column
Decision = Callable[[Run, Search, StepIndex, str], Search]  # of one cell type


@dataclass(frozen=True)
class PerturbationConfig:
    """Perturbation-based selection (DARTS-PT).

    Args:
        tuning: epochs between two decisions.
        by: measure of the supernet without an alternative.
        learning_rate: of the weights at the first epoch of tuning, as a fraction of that of the search; the
            cosine over all epochs of tuning ends where that of the search does.
    """

    tuning: int = 5  # Sec. 5.1
    by: Literal["accuracy", "loss"] = "accuracy"  # Algorithm 1; the public code has both
    learning_rate: float = 0.1  # not in the paper; the public code's

    def __post_init__(self) -> None:
        require_at_least("perturbation.", tuning=(self.tuning, 0), learning_rate=(self.learning_rate, 0))


@dataclass(frozen=True)
class SelectionCriterion:
    """The criterion of a selection: accuracy or loss without each alternative, or the weights.

    Args:
        by: the criterion.
        relax: relaxation of the logits of a search.
        batch_size: images in a batch of a measurement.
    """

    by: By
    relax: Callable[[Search], Relaxation]
    batch_size: int


def perturbation_stages(
    config: PerturbationConfig,
    by: By,
    stages: Sequence[Stage],
    *,
    training: TrainingConfig,
    operations: int,
    combinations: int,
    rule: EdgeRule | None,
    restrict_candidates: Callable[[Search], Search],
) -> tuple[Stage, ...]:
    """Return the decisions after the stages of a search, the last of which is repeated as tuning.

    Args:
        config: options of the selection.
        by: criterion of the selection.
        stages: of the search.
        training: options of the training loop.
        operations: decisions about operations, as counted by `decisions`.
        combinations: decisions about edges, as counted by `decisions`.
        rule: of the topology search before, if there was one.
        restrict_candidates: closes the alternatives that may not be chosen.
    """
    last, start = stages[-1], sum(stage.epochs for stage in stages)
    selection = SelectionCriterion(by, last.relax, last.batch_size)
    operation = partial(decide_row, selection, "alpha", rule)
    topology = partial(decide_row, selection, "beta", rule) if rule else partial(decide_node, selection)
    plan: Sequence[Decision] = [operation] * operations + [topology] * combinations
    tuned = config.tuning * (len(plan) - 1)
    first, end = config.learning_rate * training.weights.learning_rate, training.weights.learning_rate_end
    return tuple(
        replace(
            last,
            name=f"perturbation {position} of {len(plan)}",
            epochs=config.tuning if position < len(plan) else 0,
            initialise=partial(take_decisions, decision)
            if position > 1
            else partial(restart_and_decide, selection, restrict_candidates, decision),
            builds=False,
            learning_rate=lambda epoch: cosine(epoch - start, tuned, first, end),
            rest=None,
        )
        for position, decision in enumerate(plan, 1)
    )


def decisions(space: SearchSpace, rule: EdgeRule | None, one_left: bool) -> tuple[int, int]:
    """Return the largest number of edges, and of nodes, to decide in a cell type.

    one_left: at most one operation besides `none` is left on an edge.
    """
    edges = [sum(len(_built(space, names)) > 1 for names in cell.candidates) for cell in space.cells]
    operations = 0 if one_left else max(edges)
    if rule:
        return operations, sum(len(space.combinations(node, rule)) > 1 for node in space.nodes)
    if space.family == "nasbench201":
        return operations, 0
    return operations, sum(len(space.incoming(node)) > 2 for node in space.nodes)


def _built(space: SearchSpace, names: Iterable[str]) -> list[int]:
    """Return the columns of the operations that an edge can become."""
    return [c for c, name in enumerate(names) if name != "none" or space.family == "nasbench201"]


def take_decisions(decision: Decision, run: Run, before: Search | None, step_index: StepIndex) -> Search:
    """Take one decision in every cell type, one after the other."""
    search = continue_from(run, before, step_index)
    for cell_type in search.space.cell_types:
        search = decision(run, search, step_index, cell_type)
    return search


def restart_and_decide(
    selection: SelectionCriterion,
    restrict_candidates: Callable[[Search], Search],
    decision: Decision,
    run: Run,
    before: Search | None,
    step_index: StepIndex,
) -> Search:
    """Restart SGD, decide the edges with one operation besides `none`, and take the first decision."""
    search = restart_sgd(restrict_candidates(continue_from(run, before, step_index)))
    for name in [f"alpha.{cell_type}" for cell_type in search.space.cell_types]:
        for row in range(len(search.candidate_mask[name])):
            search = with_strength(selection, search, step_index, name, row)
            columns = choosable(search, name, row, None)
            search = decide(search, name, row, columns[0]) if len(columns) == 1 else search
    return take_decisions(decision, run, search, step_index)


def decide_row(
    selection: SelectionCriterion,
    logits: str,
    rule: EdgeRule | None,
    run: Run,
    search: Search,
    step_index: StepIndex,
    cell_type: str,
) -> Search:
    """Decide a random undecided row for the alternative that the supernet misses most (Algorithm 1)."""
    name = f"{logits}.{cell_type}"
    rows = [
        row for row in range(len(search.candidate_mask[name])) if len(choosable(search, name, row, rule)) > 1
    ]
    if not rows:
        return search
    row = rows[_draw(step_index, name, len(rows))]
    column = strongest(selection, run, search, step_index, name, row, choosable(search, name, row, rule))
    search = with_strength(selection, search, step_index, name, row) if logits == "alpha" else search
    return decide(search, name, row, column)


def decide_node(
    selection: SelectionCriterion, run: Run, search: Search, step_index: StepIndex, cell_type: str
) -> Search:
    """Close edges of a random node, those missed least first, until two remain (Appendix A.3)."""
    nodes = [node for node in search.space.nodes if len(built_edges(search, cell_type, node)) > 2]
    if not nodes:
        return search
    node = nodes[_draw(step_index, f"nodes.{cell_type}", len(nodes))]
    for edge in set(search.space.incoming(node)) - set(built_edges(search, cell_type, node)):
        search = close_edge(search, cell_type, edge)
    while len(edges := built_edges(search, cell_type, node)) > 2:
        search = close_edge(
            search, cell_type, weakest_edge(selection, run, search, step_index, cell_type, edges)
        )
    return search


def choosable(search: Search, name: str, row: int, rule: EdgeRule | None) -> list[int]:
    """Return the open alternatives of a row that a cell can be built with."""
    space, (logits, cell_type) = search.space, name.split(".")
    columns = [column for column, is_open in enumerate(search.candidate_mask[name][row].tolist()) if is_open]
    if logits == "alpha":
        return [c for c in _built(space, space.candidates(cell_type)[row]) if c in columns]
    assert rule is not None, "combinations of edges come from a topology search"
    sets, built = space.combinations(space.nodes[row], rule), built_edges(search, cell_type, space.nodes[row])
    return [column for column in columns if set(sets[column]) <= set(built)]


def built_edges(search: Search, cell_type: str, node: int) -> list[int]:
    """Return the edges that enter a node and have an open operation that can be built."""
    incoming = search.space.incoming(node)
    return [edge for edge in incoming if choosable(search, f"alpha.{cell_type}", edge, None)]


def strongest(
    selection: SelectionCriterion,
    run: Run,
    search: Search,
    step_index: StepIndex,
    name: str,
    row: int,
    columns: Sequence[int],
) -> int:
    """Return the alternative without which the supernet is worst, or the heaviest; the first of equals."""
    if selection.by == "magnitude":
        weights = weighed(selection, search, step_index)[name][row].tolist()
        return max(columns, key=lambda column: weights[column])
    return min(columns, key=lambda c: performance(selection, run, search, step_index, [(name, row, c)]))


def weakest_edge(
    selection: SelectionCriterion,
    run: Run,
    search: Search,
    step_index: StepIndex,
    cell_type: str,
    edges: Sequence[int],
) -> int:
    """Return the edge without which the supernet is best, or of the least strength; the last of equals."""
    if selection.by == "magnitude":
        strength = search.method_state[f"strength.{cell_type}"].tolist()
        return min(reversed(edges), key=lambda edge: strength[edge])
    missing = {edge: _entries(search, cell_type, edge) for edge in edges}
    return max(
        reversed(edges), key=lambda edge: performance(selection, run, search, step_index, missing[edge])
    )


def _entries(search: Search, cell_type: str, edge: int) -> list[Entry]:
    """Return the entries of an edge's weights: of its operations, and its own if it has one (PC-DARTS)."""
    entries = [
        (f"alpha.{cell_type}", edge, column)
        for column in range(search.candidate_mask[f"alpha.{cell_type}"].shape[1])
    ]
    if f"beta.{cell_type}" in search.candidate_mask:
        node = search.space.edges[edge][0]
        row, column = search.space.nodes.index(node), search.space.incoming(node).index(edge)
        entries.append((f"beta.{cell_type}", row, column))
    return entries


def performance(
    selection: SelectionCriterion, run: Run, search: Search, step_index: StepIndex, removed: Iterable[Entry]
) -> tuple[float, float]:
    """Score the supernet with some weights set to zero, the others unchanged; larger is better."""
    weights = {name: table.clone() for name, table in weighed(selection, search, step_index).items()}
    for name, row, column in removed:
        weights[name][row, column] = 0.0
    mixture = selection.relax(search).build_mixture(weights, step_index)
    loss, accuracy = measure(run, search.supernet, mixture, selection.batch_size, step_index)
    return (accuracy, -loss) if selection.by == "accuracy" else (-loss, accuracy)


def weighed(selection: SelectionCriterion, search: Search, step_index: StepIndex) -> dict[str, Tensor]:
    """Return the weights of the logits under the relaxation."""
    with torch.no_grad():
        return dict(selection.relax(search).compute_weights(search.logits, step_index))


def with_strength(
    selection: SelectionCriterion, search: Search, step_index: StepIndex, name: str, row: int
) -> Search:
    """Remember the largest weight on an edge before a decision sets it to one."""
    columns, key = choosable(search, name, row, None), f"strength.{name.split('.')[1]}"
    strength = search.method_state.get(key, torch.zeros(len(search.candidate_mask[name]))).clone()
    weights = weighed(selection, search, step_index)[name][row].tolist()
    strength[row] = max((weights[column] for column in columns), default=0.0)
    return replace(search, method_state={**search.method_state, key: strength})


def _draw(step_index: StepIndex, purpose: str, count: int) -> int:
    return int(torch.randint(count, (), generator=step_index.generator(f"perturbation {purpose}")))
