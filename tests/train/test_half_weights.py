"""The weights that come with the package: their size, what they answer, and how they were made."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.train.half_weights import export_weights, halved
from dots_zoo.train.score import score
from dots_zoo.zoo import WEIGHTS
from helpers import shared_cifar
from helpers.paths import ROOT

NAME = "dots_cifar10_tiny"
LOG = json.loads((ROOT / f"docs/{NAME}.json").read_text("utf-8"))


def test_they_are_small_and_load_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *address: pytest.fail(f"connects to {address}"))
    assert (WEIGHTS / f"{NAME}.safetensors").stat().st_size < 1_500_000
    model: Any = timm.create_model(NAME, pretrained=True)
    config = model.pretrained_cfg
    assert config["mean"] == (0.4914, 0.4822, 0.4465) and config["std"] == (0.2470, 0.2435, 0.2616)
    assert config["input_size"] == (3, 32, 32) and config["label_names"][3] == "cat"
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    body: Any = timm.create_model(NAME, pretrained=True, features_only=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(body.eval()(x)[-1], model.eval().forward_features(x))
    fresh: Any = timm.create_model(NAME, pretrained=True, num_classes=3)
    assert fresh.head.fc.out_features == 3


def test_the_log_is_that_of_a_training_on_all_images_that_looked_at_the_test_once() -> None:
    final = LOG["final"]
    assert final["settings"]["validation"] == 0 and final["evaluated"] == "test"
    assert [row["epoch"] for row in final["history"] if "test_accuracy" in row] == [final["epochs"] - 1]
    assert final["score"]["accuracy"] >= 0.91 and final["score"]["images"] == 10_000
    assert all(run["settings"]["validation"] == 5000 for run in LOG["candidates"])


@shared_cifar.needed
def test_they_name_as_many_images_as_stated() -> None:
    """On a tenth of the test images; `dots-zoo eval` is for all of them."""
    data = shared_cifar.test_images(1000)
    result = score(timm.create_model(NAME, pretrained=True), data, Accelerator())
    assert result.accuracy == pytest.approx(LOG["first_thousand"], abs=0.002)


def test_kernels_become_halves_and_the_rest_stays() -> None:
    weights = {"conv.weight": torch.full((2, 3, 1, 1), 0.1), "bn.running_var": torch.tensor([1e-6, 3.0])}
    counter = {"bn.num_batches_tracked": torch.tensor(7)}
    small = halved({**weights, **counter})
    assert small["conv.weight"].dtype == torch.float16 and small["bn.running_var"].dtype == torch.float32
    assert torch.equal(small["bn.running_var"], weights["bn.running_var"])
    assert small["bn.num_batches_tracked"].item() == 7
    with pytest.raises(DotsZooError, match="fc.weight: expected weights up to 65504"):
        halved({"fc.weight": torch.full((1, 1), 1e5)})


def test_shipping_reads_a_training_and_writes_one_file(tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "small.safetensors"
    run.mkdir()
    with pytest.raises(DotsZooError, match="expected the weights of a training"):
        export_weights(run, target)
    save_file({"fc.weight": torch.ones(2, 2)}, run / "model.safetensors")
    assert load_file(export_weights(run, target))["fc.weight"].dtype == torch.float16
    (run / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(DotsZooError, match="expected the weights of a training"):
        export_weights(run, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "small.safetensors"]
