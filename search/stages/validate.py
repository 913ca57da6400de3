"""The supernet's loss and accuracy on half B, with the batch norm of the batch and nothing changed by it.

Source: DARTS-PT (ICLR 2021), Algorithm 1 (the accuracy that operations are judged by); DARTS- (ICLR 2021),
Algorithm 1 (the best validation supernet). A supernet's running statistics are those of mixtures long gone,
so each batch is normalised by its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from dots_zoo.runtime.seeding import seeded

from ..supernet import Mixture, Supernet, still_statistics
from .stage import Moment, Relaxation, Run, Search


def validate(
    run: Run, search: Search, relaxation: Relaxation, moment: Moment, batch_size: int
) -> dict[str, float]:
    """`validation_loss` and `validation_accuracy` of what the logits say."""
    with torch.no_grad():
        mixture = relaxation.mix(relaxation.weigh(search.logits, moment), moment)
    loss, accuracy = measure(run, search.supernet, mixture, batch_size, moment)
    return {"validation_loss": loss, "validation_accuracy": accuracy}


def measure(
    run: Run, supernet: Supernet, mixture: Mixture, batch_size: int, moment: Moment
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over all of half B, without augmentation, batches as equal as can be.

    What draws (`noise`) draws the same whenever it is measured at one moment. Each of several processes
    measures all of it, as one alone does, since the draws of a batch follow those before it; the mean makes
    the numbers the same in all of them where a device repeats itself up to rounding only.
    """
    device = run.accelerator.device
    chosen, draws = run.parts["b"].to(device), seeded(device, moment.seed, "measure", moment.epoch)
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
    """Inside: dropout off, batch norm by the batch; afterwards the running statistics are as before."""
    training = supernet.training
    supernet.eval()
    try:
        with still_statistics(supernet):
            yield
    finally:
        supernet.train(training)
