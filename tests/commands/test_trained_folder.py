"""A training's folder and a registered name know their weights, input size, mean and standard deviation."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
import yaml
from accelerate import Accelerator
from PIL import Image

from dots_zoo.commands.cli import main
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.train.score import score

RECIPE = "--batch-size 4 --epochs 1 --drop-path-rate 0 --aux-weight 0 --augmentation.cutout 0".split()
SMALL = ["--channels", "2", "--layers", "3", *RECIPE]


def photos(root: Path, brightness: int) -> Path:
    """Two classes of two training and two test images, darker or brighter."""
    for part in ("train", "val"):
        for label, name in enumerate(("left", "right")):
            (root / part / name).mkdir(parents=True)
            for index in range(2):
                pixels = np.random.default_rng(4 * label + index).integers(0, 100, (30, 36, 3)) + brightness
                pixels[:, 18 * label : 18 * (label + 1)] += 50
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def dark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("dark") / "photos", 0)


@pytest.fixture(scope="module")
def net(dark: Path) -> Path:
    """A training at 12x12 pixels on the dark photos."""
    own = ["--data", "image_folder", "--data-root", str(dark), "--image-size", "12"]
    assert main(["train", "darts_v1", *SMALL, *own, "--out", str(dark.parent / "net")]) == 0
    return dark.parent / "net"


def settings(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return loaded


def test_eval_of_a_folder_takes_its_weights_size_and_normalisation(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bright = photos(tmp_path / "bright", 100)
    model, config = timm.create_model(f"local-dir:{net}", pretrained=True), settings(net)
    assert config["image_size"] == 12
    data = load_data(DataOptions(data="image_folder", data_root=str(bright), image_size=12))
    own = model.pretrained_cfg
    trained = replace(data, mean=tuple(own["mean"]), std=tuple(own["std"]))
    expected = score(model, trained, Accelerator())
    assert abs(expected.loss - score(model, data, Accelerator()).loss) > 0.001  # bright ones' mean and std
    name = f"local-dir:{net}"
    assert main(["eval", name, "--data", "image_folder", "--data-root", str(bright)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"{name}: {100 * expected.accuracy:.2f} % of 4 test images of image_folder at 12x12 "
        f"(loss {expected.loss:.4f})"
    )
    assert [line.split()[0] for line in lines[1:]] == ["left", "right"]


def test_the_size_of_a_training_beats_that_of_the_data_set_and_an_option_beats_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = tmp_path / "net"
    digits = ["--data", "digits", "--batch-size", "512"]
    assert main(["train", "darts_v1", *SMALL, *digits, "--image-size", "12", "--out", str(net)]) == 0
    score = json.loads((net / "run.json").read_text())["score"]
    capsys.readouterr()
    assert main(["eval", str(net)]) == 0
    out = capsys.readouterr().out
    assert f"{100 * score['accuracy']:.2f} % of 355 test images of digits at 12x12 (" in out
    assert f"loss {score['loss']:.4f})" in out
    assert main(["eval", str(net), "--image-size", "8"]) == 0
    assert "digits at 8x8 (" in capsys.readouterr().out


def test_training_has_the_size_of_the_network(net: Path, dark: Path, tmp_path: Path) -> None:
    own = [*RECIPE, "--data", "image_folder", "--data-root", str(dark)]
    again, registered = tmp_path / "again", tmp_path / "registered"
    assert main(["train", str(net), "--pretrained", *own, "--out", str(again)]) == 0
    assert main(["train", "darts_v1", *SMALL, *own, "--out", str(registered)]) == 0
    for folder, size in ((again, 12), (registered, 32)):
        assert settings(folder)["image_size"] == size
        config = json.loads((folder / "config.json").read_text())
        assert config["pretrained_cfg"]["input_size"] == [3, size, size]


@pytest.mark.parametrize("words", [[], ["--pretrained"], ["--task", "features"]])
def test_export_of_a_folder_gives_what_the_trained_network_gives(
    words: list[str], net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    name = f"local-dir:{net}" if words == ["--pretrained"] else str(net)
    assert main(["export", name, *words, "--exporter", "torchscript", "-o", str(path)]) == 0
    assert "never fitted" not in capsys.readouterr().out
    trained = timm.create_model(f"local-dir:{net}", pretrained=True).eval()
    image = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    outputs = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"image": image.numpy()}
    )
    with torch.no_grad():
        expected = (
            trained.forward_intermediates(image, intermediates_only=True)
            if "features" in words
            else [trained(image)]
        )
    assert len(outputs) == len(expected)
    for output, truth in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, truth.numpy(), rtol=1e-4, atol=1e-5)
    facts = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    config = json.loads((net / "config.json").read_text())["pretrained_cfg"]
    assert json.loads(facts["input_size"]) == [3, 12, 12]
    assert [json.loads(facts[key]) for key in ("mean", "std")] == [config["mean"], config["std"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-classes", "3"], "it was trained to name 2 classes, and --num-classes asks for 3"),
        (["--genotype", "darts_v2"], "it has its cell, and --genotype gives another"),
        (["--checkpoint", "w.pth"], "--checkpoint and the folder both give weights"),
        (["--layers", "4"], "--layers 4 is not the network whose weights the folder holds"),
        (["--macro", "cifar"], "--macro is for a genotype, and this is a training"),
    ],
)
def test_what_does_not_fit_a_training_is_one_sentence(
    words: list[str], message: str, net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(net), *words, "-o", str(tmp_path / "m.onnx")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dots-zoo: error: {net}: {message}") and len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "size"),
    [(["--macro", "cifar"], 32), (["--input", "48x40"], (48, 40)), (["--macro", "mobile"], 224)],
)
def test_a_genotype_is_exported_with_its_width_and_depth(
    words: list[str], size: int | tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    shape = ["--channels", "2", "--layers", "3", "--num-classes", "4"]
    torchscript = ["--exporter", "torchscript", "-o", str(path)]
    assert main(["export", "darts_pt_cifar10_s0_1", *words, *shape, *torchscript]) == 0
    height, width = (size, size) if isinstance(size, int) else size
    assert f"darts_pt_cifar10_s0_1: image (batch, 3, {height}, {width}) -> logits" in capsys.readouterr().out
    facts = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    macro = "mobile" if size == 224 else "cifar"
    arguments = {"genotype": "darts_pt_cifar10_s0_1", "channels": 2, "layers": 3, "num_classes": 4}
    network = timm.create_model(f"cell_{macro}", **arguments)
    assert int(facts["params"]) == sum(p.numel() for p in network.parameters())
    assert facts["model"] == f"cell_{macro}"
