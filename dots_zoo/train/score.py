"""Score a network on the images of a data set: loss, accuracy, top five, confusion."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor, nn
from tqdm import tqdm

from ..data.datasets import Data

TOP = 5


@dataclass(frozen=True)
class Score:
    """The score of a network on `images` images.

    Args:
        images: number of images.
        loss: mean cross-entropy.
        accuracy: share in [0, 1] whose label is the network's first answer.
        top5: share in [0, 1] whose label is among its first five answers; None for five classes or fewer.
    """

    images: int
    loss: float
    accuracy: float
    top5: float | None

    @property
    def figures(self) -> dict[str, float]:
        """Return the figures by name, without those that say nothing."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def text(self) -> str:
        """Format what stands beside the accuracy."""
        five = "" if self.top5 is None else f"top five: {100 * self.top5:.2f} %, "
        return f"{five}loss {self.loss:.4f}"


def score(
    model: nn.Module,
    data: Data,
    accelerator: Accelerator,
    *,
    held_out: Tensor | None = None,
    batch_size: int = 100,
) -> Score:
    """Score a network on the test images, or on the training images `held_out` under the test transform.

    Each of several processes scores its share. The training flag of the model is left as it was.
    """
    totals = torch.zeros(3, dtype=torch.float64, device=accelerator.device)  # loss, hits, top-five hits
    for logits, labels in answers(model, data, accelerator, held_out, batch_size, False):
        totals += _totals(logits, labels)
    count = len(data.test_labels if held_out is None else held_out)
    return _score(accelerator.reduce(totals), count, data.classes)


def score_by_class(
    model: nn.Module, data: Data, accelerator: Accelerator, *, batch_size: int = 100, progress: bool = False
) -> tuple[Score, Tensor]:
    """Score a network on the test images; return also the confusion matrix, int64 (classes, classes).

    Its rows are the labels, its columns the answers.
    """
    totals = torch.zeros(3, dtype=torch.float64, device=accelerator.device)
    confusion = torch.zeros(data.classes**2, dtype=torch.int64, device=accelerator.device)
    for logits, labels in answers(model, data, accelerator, None, batch_size, progress):
        totals += _totals(logits, labels)
        pairs = labels * data.classes + logits.argmax(1)
        confusion += pairs.bincount(minlength=data.classes**2)
    matrix = accelerator.reduce(confusion).view(data.classes, data.classes).cpu()
    return _score(accelerator.reduce(totals), len(data.test_labels), data.classes), matrix


@torch.no_grad()
def answers(
    model: nn.Module,
    data: Data,
    accelerator: Accelerator,
    held_out: Tensor | None,
    batch_size: int,
    progress: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (logits (N, classes) in float32, labels (N,)) of the batches of this process."""
    labels = data.test_labels if held_out is None else data.labels[held_out.to(data.labels.device)]
    chosen = torch.arange(len(labels))[accelerator.process_index :: accelerator.num_processes]
    training = model.training
    model.eval()
    for part in tqdm(chosen.split(batch_size), disable=None if progress else True, unit="batch", leave=False):
        images = data.test_batch(part) if held_out is None else data.plain_batch(held_out[part])
        with accelerator.autocast():
            logits = model(images.to(accelerator.device))
        yield logits.float(), labels[part.to(labels.device)].to(logits.device)
    model.train(training)


def _score(totals: Tensor, count: int, classes: int) -> Score:
    loss, first, five = totals.tolist()
    return Score(count, loss / count, first / count, five / count if classes > TOP else None)


def _totals(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum loss, hits and top-five hits, (3,), over a batch of logits (N, classes) and labels (N,)."""
    ranked = logits.topk(min(TOP, logits.shape[1])).indices == labels[:, None]  # (N, 5)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([loss.double(), ranked[:, 0].sum().double(), ranked.sum().double()])
