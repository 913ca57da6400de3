"""Loss and accuracy of the supernet on the validation split, by batch statistics, without side effects.

Source: DARTS-PT (ICLR 2021), Algorithm 1 (the accuracy that ranks operations); DARTS- (ICLR 2021), Algorithm
1 (the best validation supernet). Running statistics are averages over earlier mixtures, so each batch is
normalised by its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from dots_zoo.runtime.seeding import seeded

from ..supernet import Mixture, Supernet, still_statistics
from .stage import Relaxation, Run, Search, StepIndex


def validate(
    run: Run, search: Search, relaxation: Relaxation, step_index: StepIndex, batch_size: int
) -> dict[str, float]:
    """Return `validation_loss` and `validation_accuracy` of the supernet under its logits."""
    with torch.no_grad():
        mixture = relaxation.build_mixture(relaxation.compute_weights(search.logits, step_index), step_index)
    loss, accuracy = measure(run, search.supernet, mixture, batch_size, step_index)
    return {"validation_loss": loss, "validation_accuracy": accuracy}


def measure(
    run: Run, supernet: Supernet, mixture: Mixture, batch_size: int, step_index: StepIndex
) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy over the whole validation split, without augmentation.

    Batches are as equal in size as possible. `noise` draws the same values whenever it is measured at one
    step. Each of several processes measures the whole split, as the draws of a batch depend on those before
    it; the results are averaged, so that they are equal in all processes even on a device that repeats itself
    only up to rounding.
    """
    device = run.accelerator.device
    chosen, draws = run.parts["b"].to(device), seeded(device, step_index.seed, "measure", step_index.epoch)
    totals = []
    with torch.no_grad(), batch_statistics(supernet), draws:
        for part in chosen.tensor_split(max(1, round(len(chosen) / batch_size))):
            images, labels = run.data.plain_batch(part), run.data.labels[part]
            with run.accelerator.autocast():
                logits = supernet(images, mixture).float()
            hits = (logits.argmax(dim=1) == labels).sum()
            totals.append(torch.stack([F.cross_entropy(logits, labels, reduction="sum"), hits]))
    [total] = run.processes.averaged([torch.stack(totals).sum(dim=0)])
    loss, accuracy = (total / len(chosen)).tolist()
    return loss, accuracy


@contextmanager
def batch_statistics(supernet: Supernet) -> Iterator[None]:
    """Disable dropout and normalise by batch statistics within the block; keep the running statistics."""
    training = supernet.training
    supernet.eval()
    try:
        with still_statistics(supernet):
            yield
    finally:
        supernet.train(training)
