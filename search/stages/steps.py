"""Training steps: of the weights, of the logits and then the weights, or of both at once.

Source: DARTS (ICLR 2019), Algorithm 1, first order (`bilevel`); DOTS (CVPR 2021), Eq. 4 and Eq. 10
(`one_level`). Every step computes only the gradients that it uses, and reads nothing back from the device.
Several processes share a batch; `backward` averages over them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.runtime.to_device import to_device

from ..supernet import Mixture
from .resting import unmoved
from .stage import Batch, Figures, StepContext


def train_weights(context: StepContext) -> Figures:
    """Train the weights alone; no gradient reaches the logits."""
    with torch.no_grad():
        mixture = context.mixture()
    return train_weights_under(context, mixture)


def train_weights_under(context: StepContext, mixture: Mixture) -> Figures:
    """Train the weights alone, under a given mixture."""
    loss, accuracy = backward(context, *classify(context, context.batch, mixture))
    update_weights(context)
    return {"loss": loss, "accuracy": accuracy}


def bilevel(context: StepContext) -> Figures:
    """Train the logits on the second batch, then the weights on the first (Eq. 4, first order)."""
    return train_logits(context) | train_weights(context)


def train_logits(context: StepContext) -> Figures:
    """Train the logits alone, on the second batch; no gradient of a weight is computed."""
    assert context.architecture_batch is not None, "a step that trains logits apart needs architecture_images"
    with constant(context.search.supernet):
        loss, accuracy = backward(context, *classify(context, context.architecture_batch, context.mixture()))
    update_logits(context)
    return {"architecture_loss": loss, "architecture_accuracy": accuracy}


def one_level(context: StepContext) -> Figures:
    """Train weights and logits by one gradient of one batch (Eq. 10)."""
    loss, accuracy = backward(context, *classify(context, context.batch, context.mixture()))
    update_weights(context)
    update_logits(context)
    return {"loss": loss, "accuracy": accuracy}


def classify(context: StepContext, batch: Batch, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Return mean cross-entropy and accuracy of a batch, as scalars."""
    images, labels = batch
    with context.run.accelerator.autocast():
        logits = context.search.supernet(images, mixture)
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(precise, labels)
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return loss, accuracy


def backward(context: StepContext, loss: Tensor, accuracy: Tensor) -> tuple[Tensor, Tensor]:
    """Accumulate the gradients of a loss; return loss and accuracy, detached.

    With several processes, all of them and the running statistics are averaged over the processes; which
    operations take part, and so which tensors have gradients, is drawn alike in all of them.
    """
    if loss.requires_grad:  # False where a sampled cell has only `none`
        context.run.accelerator.backward(loss)
    processes, search = context.run.processes, context.search
    if processes.count == 1:
        return loss.detach(), accuracy
    inputs = [*search.supernet.parameters(), *search.logits.values()]
    moving = [tensor.grad for tensor in inputs if tensor.grad is not None]
    moving += [buffer for buffer in search.supernet.buffers() if buffer.is_floating_point()]
    loss, accuracy, *means = processes.averaged([loss, accuracy, *moving])
    torch._foreach_copy_(moving, means)
    return loss, accuracy


@contextmanager
def constant(network: nn.Module) -> Iterator[None]:
    """Compute no gradients of a network's weights within the block."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_()


def update_weights(context: StepContext) -> None:
    """Take one clipped SGD step."""
    search = context.search
    weights = [w for group in search.weights_optimiser.param_groups for w in group["params"]]
    context.run.accelerator.clip_grad_norm_(weights, context.run.training.weights.clip)
    search.weights_optimiser.step()
    search.weights_optimiser.zero_grad()


def update_logits(context: StepContext) -> None:
    """Take one Adam step of all logits that do not rest."""
    search = context.search
    still = {name: to_device(mask, search.logits[name].device) for name, mask in search.resting.items()}
    with unmoved(search, still):
        search.logits_optimiser.step()
    search.logits_optimiser.zero_grad()
