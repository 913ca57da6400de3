"""DropNAS: Grouped Operation Dropout for Differentiable Architecture Search (Hong et al., IJCAI 2020).

Sec. 2.3: the operations of an edge form two groups, with and without weights of their own. In every step each
operation is dropped with the chance

    p_d = r^(1/|group|),

a group that would lose all of its operations draws again. A dropped operation is not computed: its output is
zero in the softmax over all operations (Eq. 1). Weights and logits descend on one loss of all training images
(one level). After the optimisers' step:

    alpha-adjust (Eq. 3): x = ln(sum_kept exp(alpha_old) / sum_kept exp(alpha_new)) is added to the kept
    logits of an edge, so that the weight of a dropped operation does not move;
    partial decay: weights and logits of dropped operations do not move at all, by decay or by momentum.

Not specified in the paper: one draw holds for all cells of a kind; `none` is an operation without weights.
SGD skips tensors without a gradient, their momentum included; Adam's moments are put back (its count of
steps, which only corrects the bias of the first steps, is one for all). Without partial decay a dropped
operation's gradient is zero, and decay and momentum move it. Without grouping all operations of an edge are
one group.

Differs from the public code (wiljohnhong/DropNAS@90582ee): dropped outputs are zeroed, where the code divides
by the weight of what is kept (`renormalise`); a group's own size, where the code has 4; logits start at zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.to_device import to_device

from ..space.named import groups_by_weights
from ..space.relax import operation_groups
from ..space.space import SearchSpace
from ..stages.config import LogitsConfig, TrainingConfig, WeightsConfig, check_span
from ..stages.operation_search import operation_search
from ..stages.resting import unmoved
from ..stages.stage import Figures, Stage, StepContext
from ..stages.steps import backward, classify, update_logits, update_weights
from ..supernet import MacroName, Mixture, active_where
from .method import Method

Kept = Mapping[str, Tensor]  # name of the logits -> bool (E, O) on the CPU: what a step does not drop
CPU = torch.device("cpu")


def dropnas_training() -> TrainingConfig:
    """Return the hyperparameters of the paper for CIFAR-10 (Sec. 4.2)."""
    return TrainingConfig(
        batch_size=96,
        weights=WeightsConfig(learning_rate=0.0375, learning_rate_end=0.0015, clip=3.0),  # end: public code
        logits=LogitsConfig(learning_rate=3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
    )


@dataclass(frozen=True)
class DropnasConfig:
    """DropNAS: grouped operation dropout, one level (IJCAI 2020).

    Args:
        epochs: of the operation search.
        warm_up: its first epochs, which train weights only.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells.
        channels: width of its first cells.
        r_p: drop path rate of the operations with weights: the chance that all of a group would be dropped.
        r_np: drop path rate of the operations without weights.
        grouping: draw in the two groups; without it, all operations of an edge are one group (Table 6).
        alpha_adjust: keep the weight of dropped operations as it is (Table 6).
        partial_decay: keep weights and logits of dropped operations as they are (Table 6).
        renormalise: divide by the weight of the kept operations, as the public code does.
        training: what the training loop needs.
    """

    epochs: int = 76  # Sec. 4.2
    warm_up: int = 0
    macro: MacroName | None = None
    layers: int = 14  # Sec. 4.2
    channels: int = 16  # as in DARTS
    r_p: float = 3e-5  # Sec. 4.2, Table 5; p_d = 0.074 in a group of 4
    r_np: float = 3e-5  # Sec. 4.2, Table 5
    grouping: bool = True  # Sec. 2.3
    alpha_adjust: bool = True  # Eq. 3
    partial_decay: bool = True  # Sec. 2.3
    renormalise: bool = False  # Sec. 2.3: outputs are zeroed
    training: TrainingConfig = field(default_factory=dropnas_training)

    def __post_init__(self) -> None:
        check_span(self.epochs, self.warm_up, self.layers, self.channels)
        for name, rate in (("r_p", self.r_p), ("r_np", self.r_np)):
            if not 0 <= rate < 1:
                raise DotsZooError(f"{name}: expected 0 or more and less than 1, got {rate}")
        if not self.grouping and self.r_p != self.r_np:
            raise DotsZooError(
                f"r_p, r_np: expected the same rate without grouping, got {self.r_p} and {self.r_np}"
            )


def stages(config: DropnasConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return the operation search, with its warm-up if any; `after` epochs follow on the same cosine.

    Raises:
        DotsZooError: if an operation is in neither group.
    """
    for cell_type in space.cell_types:
        operation_groups(space, cell_type, groups_by_weights(), CPU)
    return operation_search(
        config,
        space,
        after,
        step=partial(train_dropped, config),
        warm_up_step=partial(train_dropped_weights, config),
        one_level=True,
    )


def train_dropped(config: DropnasConfig, context: StepContext) -> Figures:
    """Train weights and logits by one gradient of one batch, without the dropped operations."""
    kept = sample_dropout(config, context)
    figures = descend(config, context, dropped(config, context, kept))
    update_kept_logits(config, context, kept)
    return figures


def train_dropped_weights(config: DropnasConfig, context: StepContext) -> Figures:
    """Train the weights alone, without the dropped operations."""
    with torch.no_grad():
        mixture = dropped(config, context, sample_dropout(config, context))
    return descend(config, context, mixture)


def sample_dropout(config: DropnasConfig, context: StepContext) -> Kept:
    """Draw the open operations that this step keeps, for every cell type."""
    search, kept = context.search, {}
    rates = torch.tensor([config.r_np, config.r_p] if config.grouping else [config.r_p])
    for cell_type in search.space.cell_types:
        name = f"alpha.{cell_type}"
        members = search.candidate_mask[name][None]  # (1, E, O)
        if config.grouping:
            groups = operation_groups(search.space, cell_type, groups_by_weights(), CPU)  # (2, E, O)
            members = members & groups
        kept[name] = sample_kept(members, rates, context.step_index.generator(f"drop {name}"))
    return kept


def sample_kept(members: Tensor, rates: Tensor, draws: torch.Generator) -> Tensor:
    """Draw the members that are kept, bool (E, O): each is dropped with the chance r^(1/|group|) of its edge.

    A group that keeps none draws again.

    Args:
        members: of the groups, (G, E, O).
        rates: r of every group, (G,).
        draws: source of the draws.
    """
    size = members.sum(dim=-1, keepdim=True)  # (G, E, 1)
    chance = rates[:, None, None] ** (1 / size.clamp_min(1))
    kept = torch.zeros_like(members)
    while (lacking := (size > 0) & ~kept.any(dim=-1, keepdim=True)).any():
        kept |= members & lacking & (torch.rand(members.shape, generator=draws) >= chance)
    return kept.any(dim=0)


def dropped(config: DropnasConfig, context: StepContext, kept: Kept) -> Mixture:
    """Return the mixture of the softmax over all operations, of which only the kept ones are computed."""
    weights = dict(context.relaxation.compute_weights(context.search.logits, context.step_index))
    for name, on in kept.items() if config.renormalise else ():
        rest = weights[name] * to_device(on, weights[name].device)
        weights[name] = rest / rest.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(rest.dtype).tiny)
    active = {
        cell_type: active_where(kept[f"alpha.{cell_type}"]) for cell_type in context.search.space.cell_types
    }
    return replace(context.relaxation.build_mixture(weights, context.step_index), active=active)


def descend(config: DropnasConfig, context: StepContext, mixture: Mixture) -> Figures:
    """Compute the gradients of one batch and take one step of the weights."""
    loss, accuracy = backward(context, *classify(context, context.batch, mixture))
    for weight in context.search.supernet.parameters() if not config.partial_decay else ():
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
    update_weights(context)
    return {"loss": loss, "accuracy": accuracy}


def update_kept_logits(config: DropnasConfig, context: StepContext, kept: Kept) -> None:
    """Take one Adam step along the gradients of the kept operations; apply partial decay and alpha-adjust."""
    search = context.search
    masks = {name: to_device(on, search.logits[name].device) for name, on in kept.items()}
    before = {name: search.logits[name].detach().clone() for name in masks}
    for name, on in masks.items():
        gradient = search.logits[name].grad
        if gradient is not None:  # None where nothing but `none` was kept in a cell type
            gradient *= on
    with unmoved(search, {name: ~on for name, on in masks.items()} if config.partial_decay else {}):
        update_logits(context)
    for name, on in masks.items() if config.alpha_adjust else ():
        logits = search.logits[name].detach()
        logits.copy_(adjusted(before[name], logits, on))


def adjusted(old: Tensor, new: Tensor, kept: Tensor) -> Tensor:
    """Return the new logits with those of kept operations shifted by a constant a row (Eq. 3), (E, O).

    The sum of their exponentials in a row is then the old one.
    """
    sums = [logits.masked_fill(~kept, float("-inf")).logsumexp(dim=-1) for logits in (old, new)]
    return torch.where(kept, new + (sums[0] - sums[1])[:, None], new)


METHOD = Method("dropnas", DropnasConfig, stages)
