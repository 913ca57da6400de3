"""The retraining loop: its schedule by hand, what it minimises, and that it learns."""

import math

import pytest
import torch
from torch import Tensor

from dots_zoo.errors import DotsZooError
from dots_zoo.network import CellNet
from dots_zoo.train import Recipe, _loss, accuracy, fit


def stripes(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Two classes in batches of 16: horizontal against vertical stripes, with noise."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        labels = torch.randint(2, (16,), generator=generator)
        rows = torch.randint(2, (16, 1, 8, 1), generator=generator).expand(16, 3, 8, 8) * 1.0
        rows = rows * (torch.arange(8) % 2).view(1, 1, 8, 1) * 2
        images = torch.where(labels.view(-1, 1, 1, 1) == 1, rows, rows.transpose(2, 3))
        batches.append((images + 0.1 * torch.randn(images.shape, generator=generator), labels))
    return batches


def net(**kwargs: object) -> CellNet:
    torch.manual_seed(0)
    return CellNet("darts_v1", "cifar", 4, 3, num_classes=2, **kwargs)  # type: ignore[arg-type]


def test_it_learns_and_reports_each_epoch() -> None:
    model, seen = net(), []
    history = fit(model, stripes(8, 0), Recipe(epochs=4, drop_path_rate=0.0), seen.append)
    assert seen == history and [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert history[-1]["loss"] < history[0]["loss"]
    labels = torch.cat([labels for _, labels in stripes(4, 1)])
    majority = max(labels.float().mean().item(), 1 - labels.float().mean().item())
    assert accuracy(model, stripes(4, 1)) > majority


def test_the_schedule_is_a_cosine_to_zero() -> None:
    history = fit(net(), stripes(2, 0), Recipe(epochs=4, learning_rate=0.1))
    assert [row["learning_rate"] for row in history] == pytest.approx(
        [0.1, 0.05 * (1 + math.cos(math.pi / 4)), 0.05, 0.05 * (1 - math.cos(math.pi / 4))]
    )


def test_drop_path_reaches_its_rate_in_the_last_epoch() -> None:
    model, rates = net(), []
    fit(
        model,
        stripes(1, 0),
        Recipe(epochs=3, drop_path_rate=0.4),
        lambda row: rates.append(model.drop_path_rate),
    )
    assert rates == pytest.approx([0.0, 0.2, 0.4])


def test_the_auxiliary_loss_is_weighted() -> None:
    model = net(aux_head=True)
    model.train()
    images, labels = stripes(1, 0)[0]
    plain = _loss(model, images, labels, Recipe(aux_weight=0.0))[0]
    half = _loss(model, images, labels, Recipe(aux_weight=0.5))[0]
    whole = _loss(model, images, labels, Recipe(aux_weight=1.0))[0]
    assert half.item() > plain.item()
    torch.testing.assert_close(whole - plain, 2 * (half - plain))


def test_gradients_are_clipped() -> None:
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    fit(model, stripes(1, 0), Recipe(epochs=1, learning_rate=1.0, momentum=0.0, weight_decay=0.0, clip=1e-3))
    moved = sum((p - q).square().sum() for p, q in zip(model.parameters(), before, strict=True)).sqrt()
    assert moved.item() == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_stops() -> None:
    images, labels = stripes(1, 0)[0]
    with pytest.raises(DotsZooError, match="not finite in epoch 0; lower learning_rate"):
        fit(net(), [(images * float("nan"), labels)], Recipe(epochs=1))


def test_accuracy_keeps_the_training_flag_and_counts() -> None:
    model = net().train()
    batches = stripes(3, 2)
    expected = accuracy(model, batches)
    assert model.training
    model.eval()
    with torch.no_grad():
        hits = sum((model(images).argmax(1) == labels).sum().item() for images, labels in batches)
    assert expected == hits / 48
