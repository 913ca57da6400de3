"""Retraining a genotype from scratch by the recipe of the DARTS family.

Source: DARTS (ICLR 2019), Sec. 3.2 and DOTS (CVPR 2021), Sec. 5.1: SGD with momentum, cosine to zero,
gradient clipping, drop path that reaches its rate linearly over the epochs, an auxiliary loss. Defaults are
the CIFAR numbers.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import DotsZooError
from .network import CellNet


class Batches(Protocol):
    """Images (N, C, H, W) and labels (N,), once through the data for each iteration."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained from scratch."""

    epochs: int = 600
    learning_rate: float = 0.025  # cosine to zero, one step a batch
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip: float = 5.0  # norm of all gradients
    drop_path_rate: float = 0.2  # reached linearly in the last epoch
    aux_weight: float = 0.4  # of the auxiliary loss, where the model has the head
    label_smoothing: float = 0.0  # 0.1 on ImageNet


def fit(
    model: CellNet,
    batches: Batches,
    recipe: Recipe,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> list[dict[str, float]]:
    """Train `model` in place on its device; return a row (epoch, loss, accuracy, learning_rate) an epoch.

    on_epoch is called with each row as it is known. Raises DotsZooError where the loss is not finite.
    """
    device = next(model.parameters()).device
    optimiser = torch.optim.SGD(
        model.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: (1 + math.cos(math.pi * step / steps)) / 2
    )
    history = []
    for epoch in range(recipe.epochs):
        model.train()
        model.set_drop_path(recipe.drop_path_rate * epoch / max(1, recipe.epochs - 1))
        totals, rate = torch.zeros(3, device=device), schedule.get_last_lr()[0]  # loss, hits, images
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            loss, logits = _loss(model, images, labels, recipe)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimiser.step()
            schedule.step()
            hits = (logits.argmax(1) == labels).sum()
            totals += torch.stack([loss.detach() * len(labels), hits, hits.new_tensor(len(labels))])
        loss_sum, hit_count, image_count = totals.tolist()
        if not math.isfinite(loss_sum):
            raise DotsZooError(
                f"training: the loss was not finite in epoch {epoch}; lower learning_rate or clip"
            )
        row = {
            "epoch": epoch,
            "loss": loss_sum / image_count,
            "accuracy": hit_count / image_count,
            "learning_rate": rate,
        }
        history.append(row)
        on_epoch(row)
    return history


def _loss(model: CellNet, images: Tensor, labels: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """(cross-entropy, with the auxiliary head's where there is one; logits (N, classes))."""
    output = model(images)
    logits, auxiliary = output if isinstance(output, tuple) else (output, None)
    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    if auxiliary is not None:
        loss = loss + recipe.aux_weight * F.cross_entropy(
            auxiliary, labels, label_smoothing=recipe.label_smoothing
        )
    return loss, logits


@torch.no_grad()
def accuracy(model: torch.nn.Module, batches: Batches) -> float:
    """The share of images, in [0, 1], whose largest logit is their label's. Keeps the training flag."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    hits, total = 0, 0
    for images, labels in batches:
        hits += int((model(images.to(device)).argmax(1).cpu() == labels.cpu()).sum())
        total += len(labels)
    model.train(training)
    return hits / total
