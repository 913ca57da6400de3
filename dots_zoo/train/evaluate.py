"""Score a network on the images of a data set."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor, nn
from tqdm import tqdm

from ..data.datasets import Data


@dataclass(frozen=True)
class Score:
    """The score of a network on `images` images.

    Args:
        images: number of images.
        loss: mean cross-entropy.
        accuracy: share in [0, 1] whose label is the network's first answer.
        top5: share in [0, 1] whose label is among its first five answers.
    """

    images: int
    loss: float
    accuracy: float
    top5: float


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Data,
    accelerator: Accelerator,
    *,
    held_out: Tensor | None = None,
    batch_size: int = 100,
    progress: bool = False,
) -> Score:
    """Score a network on the test images, or on the training images `held_out` under the test transform.

    Each of several processes scores its share. The training flag of the model is left as it was.
    """
    labels = data.test_labels if held_out is None else data.labels[held_out.to(data.labels.device)]
    chosen = torch.arange(len(labels))[accelerator.process_index :: accelerator.num_processes]
    totals = torch.zeros(3, dtype=torch.float64, device=accelerator.device)  # loss, hits, top-five hits
    training = model.training
    model.eval()
    for part in tqdm(chosen.split(batch_size), disable=None if progress else True, unit="batch", leave=False):
        images = data.test_batch(part) if held_out is None else data.plain_batch(held_out[part])
        with accelerator.autocast():
            logits = model(images.to(accelerator.device))
        totals += _totals(logits.float(), labels[part.to(labels.device)].to(logits.device))
    model.train(training)
    loss, first, five = accelerator.reduce(totals).tolist()
    count = len(labels)
    return Score(count, loss / count, first / count, five / count)


def _totals(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum loss, hits and top-five hits, (3,), over a batch of logits (N, classes) and labels (N,)."""
    ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]  # (N, 5)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([loss.double(), ranked[:, 0].sum().double(), ranked.sum().double()])
