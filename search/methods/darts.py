"""DARTS: Differentiable Architecture Search (Liu, Simonyan and Yang, ICLR 2019).

Algorithm 1: the logits train on the validation split, the weights on the training split (bilevel). First
order takes the weights as they are; second order takes them one step ahead (Eq. 5): with w' = w - xi *
dL_train(w, alpha)/dw, SGD's momentum and weight decay included, the gradient of L_val(w', alpha) over alpha
is (Eq. 6-7)

    dL_val(w', alpha)/dalpha - xi * [dL_train(w+, alpha)/dalpha - dL_train(w-, alpha)/dalpha] / (2 eps),
    w+- = w +- eps * dL_val(w', alpha)/dw',   eps = 0.01 / ||dL_val(w', alpha)/dw'||.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..space.space import SearchSpace
from ..stages.config import LogitsConfig, TrainingConfig, check_span
from ..stages.operation_search import operation_search
from ..stages.stage import Batch, Figures, Stage, StepContext
from ..stages.steps import bilevel, classify, constant, train_weights, update_logits
from ..supernet import MacroName, still_statistics
from .method import Method

EPSILON = 0.01  # how far the weights are moved for the finite difference (Sec. 2.3, footnote 2)


def darts_training() -> TrainingConfig:
    """Return the hyperparameters of the paper for CIFAR-10 (Sec. 3.1, Appendix A.1.1)."""
    return TrainingConfig(logits=LogitsConfig(learning_rate=3e-4, betas=(0.5, 0.999), weight_decay=1e-3))


@dataclass(frozen=True)
class DartsConfig:
    """DARTS: one softmax over the operations of an edge, bilevel (ICLR 2019).

    Args:
        epochs: of the operation search.
        warm_up: its first epochs, which train weights only.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells.
        channels: width of its first cells.
        order: second takes the gradient of the logits one step of the weights ahead.
        training: what the training loop needs.
    """

    epochs: int = 50  # Appendix A.1.1
    warm_up: int = 0
    macro: MacroName | None = None
    layers: int = 8  # Appendix A.1.1
    channels: int = 16  # as in DARTS
    order: Literal["first", "second"] = "first"
    training: TrainingConfig = field(default_factory=darts_training)

    def __post_init__(self) -> None:
        check_span(self.epochs, self.warm_up, self.layers, self.channels)


def stages(config: DartsConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return the operation search, with its warm-up if any; `after` epochs follow on the same cosine."""
    return operation_search(
        config,
        space,
        after,
        step=bilevel if config.order == "first" else unrolled,
    )


def unrolled(context: StepContext) -> Figures:
    """Train the logits by the second-order gradient, then the weights (Algorithm 1)."""
    return train_logits_ahead(context) | train_weights(context)


def train_logits_ahead(context: StepContext) -> Figures:
    """Take one Adam step along Eq. 6-7; weights and running statistics end as they were."""
    assert context.architecture_batch is not None, "the second order needs architecture_images"
    weights, logits = list(context.search.supernet.parameters()), list(context.search.logits.values())
    optimiser = context.search.weights_optimiser
    rate = optimiser.param_groups[0]["lr"]
    with still_statistics(context.search.supernet):
        _, gradient = gradients(context, context.batch, weights)
        with moved(weights, ahead(optimiser, weights, gradient), -rate):
            accuracy, gradients_ahead = gradients(context, context.architecture_batch, [*weights, *logits])
        direction, direct = gradients_ahead[: len(weights)], gradients_ahead[len(weights) :]
        size = EPSILON / torch.stack([part.norm() for part in direction]).norm().clamp_min(1e-12)
        with moved(weights, direction, size), constant(context.search.supernet):
            _, plus = gradients(context, context.batch, logits)
        with moved(weights, direction, -size), constant(context.search.supernet):
            _, minus = gradients(context, context.batch, logits)
    for tensor, first_order, p, m in zip(logits, direct, plus, minus, strict=True):
        tensor.grad = first_order - rate * (p - m) / (2 * size)
    update_logits(context)
    return accuracy


def gradients(context: StepContext, batch: Batch, inputs: Sequence[Tensor]) -> tuple[Figures, list[Tensor]]:
    """Return loss and accuracy of a batch, and the gradient of its loss; zero where an input takes no part.

    With several processes all are averaged, so that the weights move alike in all of them.
    """
    loss, accuracy = classify(context, batch, context.mixture())
    partials = torch.autograd.grad(loss, list(inputs), allow_unused=True)
    gradient = [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, partials, strict=True)]
    loss, accuracy, *gradient = context.run.processes.averaged([loss.detach(), accuracy, *gradient])
    return {"architecture_loss": loss, "architecture_accuracy": accuracy}, gradient


def ahead(optimiser: Optimizer, weights: Sequence[Tensor], gradient: Sequence[Tensor]) -> list[Tensor]:
    """Return the SGD update at a learning rate of one: momentum * buffer + gradient + weight decay."""
    [group] = optimiser.param_groups
    steps = []
    for weight, grad in zip(weights, gradient, strict=True):
        step = grad + group["weight_decay"] * weight.detach()
        buffer = optimiser.state[weight].get("momentum_buffer") if weight in optimiser.state else None
        steps.append(step if buffer is None else step + group["momentum"] * buffer)
    return steps


@contextmanager
def moved(weights: Sequence[Tensor], direction: Sequence[Tensor], size: float | Tensor) -> Iterator[None]:
    """Move the weights by size * direction within the block; restore them bit by bit afterwards."""
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, part in zip(weights, direction, strict=True):
            weight.add_(part * size)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)


METHOD = Method("darts", DartsConfig, stages)
