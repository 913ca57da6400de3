"""The supernet's loss and accuracy on half B, with the batch norm of the batch and nothing changed by it.

Source: DARTS-PT (ICLR 2021), Algorithm 1 (the accuracy that operations are judged by); DARTS- (ICLR 2021),
Algorithm 1 (the best validation supernet). A supernet's running statistics are those of mixtures long gone,
so each batch is normalised by its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from dots_zoo.randomness import seeded

from .mixed import Mixture
from .stages import Moment, Relaxation, Run, Search
from .statistics import still_statistics
from .supernet import Supernet


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

    What draws (`noise`) draws the same whenever it is measured at one moment. Several processes take turns
    with the batches of one, and get the same numbers.
    """
    device, processes = run.accelerator.device, run.processes
    chosen = run.parts["b"].to(device)
    parts = list(enumerate(chosen.tensor_split(max(1, round(len(chosen) / batch_size)))))
    totals = torch.zeros(2, device=device)
    with torch.no_grad(), batch_statistics(supernet):
        for number, part in parts[processes.rank :: processes.count]:
            with seeded(device, moment.seed, "measure", moment.epoch, number):
                totals += _sums(run, supernet, mixture, part)
    loss, accuracy = (processes.summed(totals) / len(chosen)).tolist()
    return loss, accuracy


def _sums(run: Run, supernet: Supernet, mixture: Mixture, part: Tensor) -> Tensor:
    """Cross-entropy and hits, summed over these images, (2,)."""
    images, labels = run.data.plain_batch(part), run.data.labels[part]
    with run.accelerator.autocast():
        logits = supernet(images, mixture).float()
    hits = (logits.argmax(dim=1) == labels).sum()
    return torch.stack([F.cross_entropy(logits, labels, reduction="sum"), hits])


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
