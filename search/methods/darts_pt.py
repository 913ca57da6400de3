"""DARTS-PT: Rethinking Architecture Selection in Differentiable NAS (Wang et al., ICLR 2021).

Selection behind any search. Sec. 4.1: an operation is as strong as the supernet is weak without it: its
weight is set to zero, the others stay as they are, and the accuracy on half B is measured. Algorithm 1: the
edges in random order, on each the operation whose absence leaves the least accuracy, and some epochs of
tuning before the next. Appendix A.3: then the nodes in random order; of each the edge goes whose absence
leaves the most, until two remain. -Mag (Sec. 6.2) is the control: the same tuning, but the largest weights.

Between the lines: a decision is taken in every kind of cell before the tuning; alpha keeps training as its
method does, and nothing is tuned behind the last decision. Equal accuracies are told apart by the loss.
`none` is not chosen in the DARTS cell, and is an operation as any other in that of NAS-Bench-201, which keeps
all edges. Behind a topology search the combinations of a node's edges take the place of Appendix A.3, an
alternative as an operation is. A decision that chooses nothing, as the search before left no alternative, is
tuned behind all the same: how many there will be is not known when the stages are laid out.

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
from ..stages.config import TrainingConfig, least
from ..stages.init_stage import carry_on, close_edge, decide, sgd
from ..stages.stage import Moment, Relaxation, Run, Search, Stage
from ..stages.validate import measure

By = Literal["accuracy", "loss", "magnitude"]
Entry = tuple[str, int, int]  # name of the logits, row, column
Decision = Callable[[Run, Search, Moment, str], Search]  # of one kind of cell


@dataclass(frozen=True)
class PerturbationConfig:
    """Perturbation-based selection (DARTS-PT).

    Args:
        tuning: epochs between two decisions.
        by: what the supernet loses without an alternative.
        learning_rate: of the weights at the first epoch of tuning, as a fraction of that of the search; the
            cosine over all epochs of tuning ends where that of the search does.
    """

    tuning: int = 5  # Sec. 5.1
    by: Literal["accuracy", "loss"] = "accuracy"  # Algorithm 1; the public code has both
    learning_rate: float = 0.1  # not in the paper; the public code's

    def __post_init__(self) -> None:
        least("perturbation.", tuning=(self.tuning, 0), learning_rate=(self.learning_rate, 0))


@dataclass(frozen=True)
class SelectionCriterion:
    """What a selection goes by: the accuracy or the loss without each alternative, or their weights."""

    by: By
    relax: Callable[[Search], Relaxation]
    batch_size: int


def perturbation_stages(
    config: PerturbationConfig,
    by: By,
    *,
    last: Stage,
    training: TrainingConfig,
    start: int,
    operations: int,
    combinations: int,
    rule: EdgeRule | None,
    restrict_candidates: Callable[[Search], Search],
) -> tuple[Stage, ...]:
    """Return the decisions after the `last` stage of a search of `start` epochs; `decisions` counts them.

    rule: of the topology search before, if there was one. restrict_candidates: closes what may not be chosen.
    """
    selection = SelectionCriterion(by, last.relax, last.batch_size)
    operation = partial(decide_row, selection, "alpha", rule)
    topology = partial(decide_row, selection, "beta", rule) if rule else partial(decide_node, selection)
    plan: Sequence[Decision] = [operation] * operations + [topology] * combinations
    tuned = config.tuning * (len(plan) - 1)
    first, end = config.learning_rate * training.weights.learning_rate, training.weights.learning_rate_end
    return tuple(
        replace(
            last,
            name=f"perturbation {number} of {len(plan)}",
            epochs=config.tuning if number < len(plan) else 0,
            begin=partial(begin, decision)
            if number > 1
            else partial(begin_anew, selection, restrict_candidates, decision),
            learning_rate=lambda epoch: cosine(epoch - start, tuned, first, end),
            rest=None,
        )
        for number, decision in enumerate(plan, 1)
    )


def decisions(space: SearchSpace, rule: EdgeRule | None, one_left: bool) -> tuple[int, int]:
    """Return how many edges and how many nodes a kind of cell can have to decide about.

    one_left: one operation at most has stayed on an edge, `none` aside.
    """
    rows = [[len(_built(space, names)) > 1 for names in space.candidates(kind)] for kind in space.kinds]
    operations = 0 if one_left else max(map(sum, rows))
    if rule:
        return operations, sum(len(space.combinations(node, rule)) > 1 for node in space.nodes)
    if space.family == "nasbench201":
        return operations, 0
    return operations, sum(len(space.incoming(node)) > 2 for node in space.nodes)


def _built(space: SearchSpace, names: Iterable[str]) -> list[int]:
    """Return the columns of the operations that an edge can become."""
    return [c for c, name in enumerate(names) if name != "none" or space.family == "nasbench201"]


def begin(decision: Decision, run: Run, before: Search | None, moment: Moment) -> Search:
    """Take one decision in every kind of cell, one after the other."""
    search = carry_on(run, before, moment)
    for kind in search.space.kinds:
        search = decision(run, search, moment, kind)
    return search


def begin_anew(
    selection: SelectionCriterion,
    restrict_candidates: Callable[[Search], Search],
    decision: Decision,
    run: Run,
    before: Search | None,
    moment: Moment,
) -> Search:
    """Start SGD anew, take `none` from edges of one operation, and take the first decision."""
    search = restrict_candidates(carry_on(run, before, moment))
    search = replace(search, weights_optimiser=sgd(search.supernet, run.training))
    for name in [f"alpha.{kind}" for kind in search.space.kinds]:
        for row in range(len(search.open[name])):
            search = with_strength(selection, search, moment, name, row)
            columns = choosable(search, name, row, None)
            search = decide(search, name, row, columns[0]) if len(columns) == 1 else search
    return begin(decision, run, search, moment)


def decide_row(
    selection: SelectionCriterion,
    logits: str,
    rule: EdgeRule | None,
    run: Run,
    search: Search,
    moment: Moment,
    kind: str,
) -> Search:
    """Decide a random row with alternatives for the one that the supernet misses most (Algorithm 1)."""
    name = f"{logits}.{kind}"
    rows = [row for row in range(len(search.open[name])) if len(choosable(search, name, row, rule)) > 1]
    if not rows:
        return search
    row = rows[_draw(moment, name, len(rows))]
    column = strongest(selection, run, search, moment, name, row, choosable(search, name, row, rule))
    search = with_strength(selection, search, moment, name, row) if logits == "alpha" else search
    return decide(search, name, row, column)


def decide_node(selection: SelectionCriterion, run: Run, search: Search, moment: Moment, kind: str) -> Search:
    """Close edges of a random node, those missed least, one at a time, until two remain (A.3)."""
    nodes = [node for node in search.space.nodes if len(built_edges(search, kind, node)) > 2]
    if not nodes:
        return search
    node = nodes[_draw(moment, f"nodes.{kind}", len(nodes))]
    for edge in set(search.space.incoming(node)) - set(built_edges(search, kind, node)):
        search = close_edge(search, kind, edge)
    while len(edges := built_edges(search, kind, node)) > 2:
        search = close_edge(search, kind, weakest_edge(selection, run, search, moment, kind, edges))
    return search


def choosable(search: Search, name: str, row: int, rule: EdgeRule | None) -> list[int]:
    """Return the open alternatives of a row that a cell can be built with."""
    space, (logits, kind) = search.space, name.split(".")
    columns = [column for column, is_open in enumerate(search.open[name][row].tolist()) if is_open]
    if logits == "alpha":
        return [c for c in _built(space, space.candidates(kind)[row]) if c in columns]
    assert rule is not None, "combinations of edges come from a topology search"
    sets, built = space.combinations(space.nodes[row], rule), built_edges(search, kind, space.nodes[row])
    return [column for column in columns if set(sets[column]) <= set(built)]


def built_edges(search: Search, kind: str, node: int) -> list[int]:
    """Return the edges that enter a node and have an open operation that can be built."""
    incoming = search.space.incoming(node)
    return [edge for edge in incoming if choosable(search, f"alpha.{kind}", edge, None)]


def strongest(
    selection: SelectionCriterion,
    run: Run,
    search: Search,
    moment: Moment,
    name: str,
    row: int,
    columns: Sequence[int],
) -> int:
    """Return the alternative without which the supernet is worst, or the heaviest; the first of equals."""
    if selection.by == "magnitude":
        weights = weighed(selection, search, moment)[name][row].tolist()
        return max(columns, key=lambda column: weights[column])
    return min(columns, key=lambda c: performance(selection, run, search, moment, [(name, row, c)]))


def weakest_edge(
    selection: SelectionCriterion, run: Run, search: Search, moment: Moment, kind: str, edges: Sequence[int]
) -> int:
    """Return the edge without which the supernet is best, or that was weakest as it was decided."""
    if selection.by == "magnitude":
        strength = search.memory[f"strength.{kind}"].tolist()
        return min(reversed(edges), key=lambda edge: strength[edge])
    missing = {edge: _entries(search, kind, edge) for edge in edges}
    return max(reversed(edges), key=lambda edge: performance(selection, run, search, moment, missing[edge]))


def _entries(search: Search, kind: str, edge: int) -> list[Entry]:
    """Return all weights of an edge: of its operations, and its own where edges have one (PC-DARTS)."""
    found = [(f"alpha.{kind}", edge, column) for column in range(search.open[f"alpha.{kind}"].shape[1])]
    if f"beta.{kind}" in search.open:
        node = search.space.edges[edge][0]
        row, column = search.space.nodes.index(node), search.space.incoming(node).index(edge)
        found.append((f"beta.{kind}", row, column))
    return found


def performance(
    selection: SelectionCriterion, run: Run, search: Search, moment: Moment, removed: Iterable[Entry]
) -> tuple[float, float]:
    """Score the supernet with some weights set to zero, the others as they are; larger is better."""
    weights = {name: found.clone() for name, found in weighed(selection, search, moment).items()}
    for name, row, column in removed:
        weights[name][row, column] = 0.0
    mixture = selection.relax(search).mix(weights, moment)
    loss, accuracy = measure(run, search.supernet, mixture, selection.batch_size, moment)
    return (accuracy, -loss) if selection.by == "accuracy" else (-loss, accuracy)


def weighed(selection: SelectionCriterion, search: Search, moment: Moment) -> dict[str, Tensor]:
    """Return the weights that the logits stand for."""
    with torch.no_grad():
        return dict(selection.relax(search).weigh(search.logits, moment))


def with_strength(
    selection: SelectionCriterion, search: Search, moment: Moment, name: str, row: int
) -> Search:
    """Remember the largest weight on an edge as it is now: a decision makes it one."""
    columns, key = choosable(search, name, row, None), f"strength.{name.split('.')[1]}"
    strength = search.memory.get(key, torch.zeros(len(search.open[name]))).clone()
    weights = weighed(selection, search, moment)[name][row].tolist()
    strength[row] = max((weights[column] for column in columns), default=0.0)
    return replace(search, memory={**search.memory, key: strength})


def _draw(moment: Moment, purpose: str, count: int) -> int:
    return int(torch.randint(count, (), generator=moment.generator(f"perturbation {purpose}")))
