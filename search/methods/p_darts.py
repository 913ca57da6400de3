"""P-DARTS: Progressive Differentiable Architecture Search (Chen et al., ICCV 2019).

Sec. 3.2: three searches as in DARTS, first order, each in a new and deeper supernet and over fewer
operations: the best of every edge remain in the next. Sec. 3.3 has two priors against skip connections, each
of which can be turned off: dropout after every skip connection, falling within each search, and a limit on
the number of skip connections in the normal cell at the end. If there are more, the weight of the weakest is
set to zero and the cell is derived again, until the limit holds.

P-DARTS- (DARTS-, ICLR 2021, Sec. 4.3) is `skip_dropout` of zeros, `skip_limit` none, and an auxiliary skip
connection, which fades within each search, since each starts anew.

Not specified in the paper: it lets the dropout decay gradually; the rule is that of the public code
(chenxin061/pdarts@05addf3), linear over the epochs that train weights only, and from the first rate again by
exp(-0.2) an epoch after them. Its learning rate starts anew with every supernet, too. A topology search or a
selection after this search chooses from no more than the allowed number of skip connections; an edge that has
nothing else keeps its own.

Differs from the official code: dropout also after the skip connections of stride 2, as in the paper.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from dots_zoo.genotype import OPS, CellGenotype
from dots_zoo.runtime.errors import DotsZooError

from ..space.discretise import cells_of
from ..space.space import SearchSpace
from ..stages.auxiliary_skip import AuxiliaryConfig, with_auxiliary
from ..stages.config import LogitsConfig, TrainingConfig, WeightsConfig, check_span, require_at_least
from ..stages.init_stage import fresh
from ..stages.operation_search import (
    Formulation,
    Numbers,
    alphas,
    best_operations,
    open_logits,
    operation_choices,
    operation_search,
    softmax_relaxation,
)
from ..stages.stage import Relaxation, Search, Stage, StepIndex, Weights
from ..stages.steps import bilevel
from ..supernet import NO_PARTIAL_CHANNELS, MacroName, Mixture
from .method import Method


def p_darts_training() -> TrainingConfig:
    """Return the hyperparameters of the paper for CIFAR-10 (Sec. 4.2)."""
    return TrainingConfig(
        batch_size=96,
        weights=WeightsConfig(learning_rate=0.025, learning_rate_end=0.0),
        logits=LogitsConfig(learning_rate=6e-4, betas=(0.5, 0.999), weight_decay=1e-3),
    )


@dataclass(frozen=True)
class PDartsConfig:
    """P-DARTS: ever deeper supernets over ever fewer operations (ICCV 2019).

    Args:
        epochs: of each of the three searches.
        warm_up: the first epochs of each, which train weights only.
        macro: macro-architecture of the supernets; if not given that of a network for images of the size.
        depths: numbers of cells of the three supernets.
        channels: width of their first cells.
        operations: number that stays on an edge for the second and for the third search.
        skip_dropout: chance that an element after a skip connection is dropped at first, for each search;
            zeros turn this prior off.
        skip_limit: most skip connections in the normal cell; null turns this prior off.
        auxiliary: a branch beside every edge (P-DARTS-).
        training: what the training loop needs.
    """

    epochs: int = 25  # Sec. 4.2
    warm_up: int = 10  # Sec. 4.2
    macro: MacroName | None = None
    depths: tuple[int, int, int] = (5, 11, 17)  # Sec. 4.2
    channels: int = 16  # as in DARTS
    operations: tuple[int, int] = (5, 3)  # Sec. 4.2, of 8
    skip_dropout: tuple[float, float, float] = (0.0, 0.4, 0.7)  # Sec. 4.2, CIFAR-10
    skip_limit: int | None = 2  # Sec. 4.2
    auxiliary: AuxiliaryConfig = field(default_factory=lambda: AuxiliaryConfig(branch="none"))
    training: TrainingConfig = field(default_factory=p_darts_training)

    def __post_init__(self) -> None:
        check_span(self.epochs, self.warm_up, min(self.depths), self.channels)
        require_at_least("", operations=(min(self.operations), 1))
        if not all(0 <= rate <= 1 for rate in self.skip_dropout):
            raise DotsZooError(f"skip_dropout: expected rates from 0 to 1, got {self.skip_dropout}")
        require_at_least("", skip_limit=(0 if self.skip_limit is None else self.skip_limit, 0))


def stages(config: PDartsConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return three operation searches; `after` changes nothing, since each has a cosine of its own."""
    return tuple(stage for index in range(3) for stage in one_search(config, space, index))


def one_search(config: PDartsConfig, space: SearchSpace, index: int) -> tuple[Stage, ...]:
    """Return one of the three searches, from 0, in a new supernet of the operations that are left."""
    name, layers, start = f"search {index + 1}", config.depths[index], index * config.epochs
    relax = with_skip_dropout(softmax_relaxation, partial(skip_dropout, config, index))
    first, *rest = operation_search(
        Numbers(config.epochs, config.macro, layers, config.channels, config.training, config.warm_up),
        space,
        0,
        bilevel,
        Formulation(
            relax=with_auxiliary(relax, config.auxiliary, config.epochs, start),
            derive=partial(derive_limited, config.skip_limit),
            auxiliary=config.auxiliary.branch,
        ),
        name=name,
    )

    def left(before: Search | None) -> SearchSpace:
        return best_operations(config.operations[index - 1], before) if before and index else space

    initialise = fresh(
        name, config, layers, left, operation_choices, NO_PARTIAL_CHANNELS, config.auxiliary.branch
    )
    rate = first.learning_rate
    return tuple(
        replace(stage, learning_rate=lambda epoch: rate(epoch - start))
        for stage in (replace(first, initialise=initialise), *rest)
    )


def skip_dropout(config: PDartsConfig, index: int, epoch: int) -> float:
    """Return the dropout rate at an epoch of the run, in one of the three searches."""
    rate, epoch = config.skip_dropout[index], epoch - index * config.epochs
    if epoch < config.warm_up:
        return rate * (config.epochs - epoch - 1) / config.epochs
    return rate * math.exp(-0.2 * (epoch - config.warm_up))


def with_skip_dropout(
    relax: Callable[[Search], Relaxation], rate: Callable[[int], float]
) -> Callable[[Search], Relaxation]:
    """Add dropout after the skip connections to a relaxation, at a rate by epoch."""

    def relax_with(search: Search) -> Relaxation:
        plain = relax(search)

        def build_mixture(weights: Weights, step_index: StepIndex) -> Mixture:
            return replace(plain.build_mixture(weights, step_index), skip_dropout=rate(step_index.epoch))

        def schedules(step_index: StepIndex) -> dict[str, float]:
            return {**plain.schedules(step_index), "skip_dropout": rate(step_index.epoch)}

        return replace(plain, build_mixture=build_mixture, schedules=schedules)

    return relax_with


def derive_limited(limit: int | None, space: SearchSpace, weights: Weights) -> dict[str, CellGenotype]:
    """Derive the cells with at most `limit` skip connections in the normal cell; None sets no limit."""
    weights_by_cell_type = alphas(space, weights)
    return cells_of(
        space, weights_by_cell_type if limit is None else limited(limit, space, weights_by_cell_type)
    )


def limited(limit: int, space: SearchSpace, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights, (E, O) by cell type, the weakest excess skip connections set to zero (Sec. 3.3)."""
    lowered = {cell_type: table.clone() for cell_type, table in weights.items()}
    for cell_type in limited_cell_types(space):
        while len(chosen := chosen_skips(space, cell_type, lowered)) > limit:
            spare = [
                place for place in chosen if _has_another(space, cell_type, place[0], lowered[cell_type])
            ]
            if not spare:
                break
            edge, column = min(spare, key=lambda place: lowered[cell_type][place].item())
            lowered[cell_type][edge, column] = 0.0
    return lowered


def limited_cell_types(space: SearchSpace) -> list[str]:
    """Return the cell types that keep the resolution."""
    return [cell_type for cell_type in space.cell_types if cell_type != "reduce"]


def chosen_skips(space: SearchSpace, cell_type: str, weights: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Return edge and column of every skip connection in the cell derived from the weights."""
    skips = []
    for chosen in cells_of(space, weights)[cell_type].edges:
        if OPS[chosen.op].skip:
            edge = space.edges.index((chosen.node, chosen.input))
            columns = _skips(space, cell_type, edge)
            skips.append((edge, max(columns, key=lambda c: weights[cell_type][edge, c].item())))
    return skips


def _skips(space: SearchSpace, cell_type: str, edge: int) -> list[int]:
    """Return the columns of skip connections on an edge; 3-skip has three."""
    return [c for c, name in enumerate(space.candidates(cell_type)[edge]) if OPS[name].skip]


def _has_another(space: SearchSpace, cell_type: str, edge: int, weights: Tensor) -> bool:
    """Return True if an edge can become an operation that is neither a skip connection nor `none`."""
    names = space.candidates(cell_type)[edge]
    row = zip(names, weights[edge].tolist(), strict=False)
    return any(weight > 0 and name != "none" and not OPS[name].skip for name, weight in row)


def restrict_candidates(config: PDartsConfig, search: Search) -> Search:
    """Close skip connections in the normal cell until only the allowed number can be chosen.

    Those of the cell that the logits stand for stay open, then the strongest.
    """
    if config.skip_limit is None:
        return search
    space, limit = search.space, config.skip_limit
    weights = {cell_type: logits.softmax(dim=-1) for cell_type, logits in open_logits(search).items()}
    opened = dict(search.candidate_mask)
    for cell_type in limited_cell_types(space):
        chosen = {edge for edge, _ in chosen_skips(space, cell_type, limited(limit, space, weights))}
        strength = {
            edge: max(weights[cell_type][edge, skips].tolist())
            for edge in range(len(space.edges))
            if (skips := _skips(space, cell_type, edge))
            and _has_another(space, cell_type, edge, weights[cell_type])
        }
        table = opened[f"alpha.{cell_type}"].clone()
        for edge in sorted(strength, key=lambda edge: (edge not in chosen, -strength[edge]))[limit:]:
            table[edge, _skips(space, cell_type, edge)] = False
        opened[f"alpha.{cell_type}"] = table
    return replace(search, candidate_mask=opened)


METHOD = Method(
    "p_darts",
    PDartsConfig,
    stages,
    restrict_candidates=restrict_candidates,
    depths=lambda config: config.depths,
)
