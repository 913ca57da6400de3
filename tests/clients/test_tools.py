"""Networks under lightning, torchao and captum."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dots_zoo.ops import FactorizedReduce
from helpers.fitting import fitted, images, movement

SIZE = (3, 32, 32)


def tiny() -> nn.Module:
    return timm.create_model("dots_cifar10_tiny", pretrained=True).eval()


def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = timm.create_model("dots_cifar10", channels=4, layers=3, num_classes=2)
            self.losses: list[float] = []

        def on_train_epoch_start(self) -> None:
            self.network.set_drop_path(0.1 * self.current_epoch)

        def training_step(self, batch: list[Tensor]) -> Tensor:
            loss = F.cross_entropy(self.network(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)

    x, labels = images(SIZE, 16), torch.arange(16) % 2
    x[labels == 1] += 2
    model = Classifier()
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", default_root_dir=tmp_path, **options)
    trainer.fit(model, DataLoader(TensorDataset(x, labels), batch_size=8))
    assert len(model.losses) == 6 and model.losses[-1] < model.losses[0]
    assert model.network.drop_path_rate == pytest.approx(0.2)
    path = next(tmp_path.rglob("*.ckpt"))
    again = Classifier.load_from_checkpoint(path).network.eval()
    with torch.no_grad():
        assert torch.equal(again(x), model.network.eval()(x))


def test_torchao() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model = tiny()
    with torch.no_grad():
        expected, scale = model(images(SIZE, 4)), movement(model, SIZE)
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
        assert type(model.get_classifier().weight) is not nn.Parameter
        error = (model(images(SIZE, 4)) - expected).abs().max().item()
    assert 0 < error < 0.05 * scale


def test_captum_explains_the_whole_difference() -> None:
    attr = pytest.importorskip("captum.attr")
    model, x = tiny().double(), images(SIZE, 1).double()
    with torch.no_grad():
        moved = (model(x) - model(torch.zeros_like(x)))[:, 3]
    gradients = attr.IntegratedGradients(model).attribute(x, target=3, n_steps=50)
    torch.testing.assert_close(gradients.flatten(1).sum(1), moved, rtol=0.05, atol=0.05)


def test_captums_deep_lift_takes_a_network_and_is_exact_where_a_resolution_halves() -> None:
    """Exact as a sum, where its rules are: not for ReLUs of one tensor, nor for windows that overlap."""
    attr = pytest.importorskip("captum.attr")
    attributions = attr.DeepLift(tiny()).attribute(images(SIZE), target=3)
    assert attributions.shape == (2, *SIZE) and attributions.abs().max() > 0
    halving = nn.Sequential(fitted(FactorizedReduce(3, 4), (3, 9, 9)), nn.Flatten()).double()
    x = images((3, 9, 9)).double()
    _, delta = attr.DeepLift(halving).attribute(x, target=3, return_convergence_delta=True)
    assert delta.abs().max() < 1e-10
