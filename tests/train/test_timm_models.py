"""Other networks of timm's, trained with the same recipes, scored, predicted with and exported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import DropPath

from dots_zoo.commands.cli import main
from dots_zoo.train import Training, evaluate, train
from dots_zoo.train.loop import fit
from dots_zoo.train.model import ModelOptions, build, drop_path_schedule
from dots_zoo.train.recipe import Recipe
from helpers.striped_images import PLAIN, stripes

DIGITS = {"data": "digits", "batch_size": 256, "epochs": 1}


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Training:
    out = tmp_path_factory.mktemp("timm") / "net"
    return train("resnet10t", out=out, quiet=True, drop_path_rate=0.1, validation=0.2, **DIGITS)


def test_a_folder_of_it_is_what_timm_loads_and_every_command_takes(
    resnet: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resnet.run["architecture"] == "resnet10t" and "genotype" not in resnet.run
    assert "`resnet10t`, trained on digits." in (resnet.path / "README.md").read_text()
    assert evaluate(resnet.path).accuracy == resnet.score["accuracy"]
    model: Any = timm.create_model(f"local-dir:{resnet.path}", pretrained=True).eval()
    assert model.num_classes == 10 and model.pretrained_cfg["input_size"] == (1, 8, 8)
    assert resnet.run["parameters"] == sum(p.numel() for p in resnet.model().parameters())
    path = tmp_path / "net.onnx"
    assert main(["export", str(resnet.path), "--exporter", "torchscript", "-o", str(path)]) == 0
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(images)
    np.testing.assert_allclose(
        session.run(None, {"image": images.numpy()})[0], expected, rtol=1e-3, atol=1e-4
    )
    assert resnet.best is not None and evaluate(resnet.best).score.figures == pytest.approx(
        resnet.run["best"]["score"], rel=1e-5
    )


def test_what_it_has_no_place_for_is_said_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    augmentation = {"cutout": 8, "crop_padding": 1}
    recipe = {"drop_path_rate": 0.1, "warm_up_epochs": 2, "augmentation": augmentation, "learning_rate": 1e-3}
    training = train("mobilenetv3_small_050", out=tmp_path / "net", quiet=True, **recipe, **DIGITS)
    assert caplog.messages[0] == "mobilenetv3_small_050: no auxiliary head, so aux_weight 0.4 is left out"
    assert "augmentation.cutout 8 blanks most of an image of 8x8" in caplog.messages[1]
    assert "warm_up_epochs is 0.2, not 2: at most a fifth of all epochs" in caplog.messages[-1]
    assert training.run["settings"]["aux_weight"] == 0.4
    built = build("vgg11", ModelOptions(), stripes(), Recipe(drop_path_rate=0.1))
    assert not [module for module in built.network.modules() if isinstance(module, DropPath)]


def test_its_body_begins_with_the_weights_of_a_training(resnet: Training, tmp_path: Path) -> None:
    still = {"learning_rate": 1e-9, "weight_decay": 0.0, "momentum": 0.0, "aux_weight": 0.0}
    out = tmp_path / "again"
    again = train(resnet.path, out=out, quiet=True, pretrained=True, drop_path_rate=0.0, **still, **DIGITS)
    body, mine = (load_file(run.path / "model.safetensors") for run in (resnet, again))
    torch.testing.assert_close(mine["layer4.0.conv1.weight"], body["layer4.0.conv1.weight"])
    assert again.run["settings"]["network"] == str(resnet.path)


def test_a_network_of_a_fixed_size_is_built_for_the_images(tmp_path: Path) -> None:
    options = {"image_size": 32, "aux_weight": 0.0, "drop_path_rate": 0.0, "train_fraction": 0.2}
    training = train("vit_tiny_patch16_224", out=tmp_path / "vit", quiet=True, **options, **DIGITS)
    assert json.loads((training.path / "config.json").read_text())["model_args"]["img_size"] == [32, 32]
    assert evaluate(training.path).size == 32


def test_drop_path_rises_by_epoch_in_every_block() -> None:
    recipe = Recipe(epochs=3, drop_path_rate=0.2)
    network = build("resnet10t", ModelOptions(), stripes(), recipe).network
    paths = [module for module in network.modules() if isinstance(module, DropPath)]
    final = [path.drop_prob for path in paths]
    assert len(paths) >= 3 and max(final) == pytest.approx(0.2) and sorted(final) == final
    set_epoch = drop_path_schedule(network, recipe)
    for epoch, share in ((0, 0.0), (1, 0.5), (2, 1.0)):
        set_epoch(epoch)
        assert [path.drop_prob for path in paths] == pytest.approx([share * rate for rate in final])
    other = build("resnet10t", ModelOptions(), stripes(), recipe).network
    state = fit(other, stripes(), PLAIN, progress=False)
    assert state.history[-1]["test_images"] == 32
