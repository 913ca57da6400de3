"""One chain: a search finds a cell; trained, as a classifier, a detector and a segmenter, it becomes ONNX
files.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch

from dots_zoo.commands.cli import main
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.genotype import load_genotype, to_text
from dots_zoo.openmm.progress import quiet
from dots_zoo.reference import weights_sha256

with quiet():
    from helpers.tiny_mm import SIDE, make_camvid, make_coco, write_config


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cell of a search of two steps."""
    out = tmp_path_factory.mktemp("chain") / "search"
    words = ["--space", "S2", "--epochs", "1", "--layers", "3", "--channels", "2"]
    assert main(["search", "dropnas", *words, "--training.batch-size", "720", "--out", str(out)]) == 0
    return out / "genotype.json"


def exported(words: list[str], path: Path) -> dict[str, str]:
    assert main(["export", *words, "--exporter", "torchscript", "-o", str(path)]) == 0
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


def test_the_trained_classifier_of_the_cell_is_exported(
    found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, path = tmp_path / "net", tmp_path / "m.onnx"
    words = ["--preset", "small_cpu", "--channels", "4", "--layers", "3", "--batch-size", "256"]
    epochs = ["--epochs", "1", "--warm-up-epochs", "0", "--augmentation.crop-padding", "1"]
    assert main(["train", str(found), *words, *epochs, "--out", str(net)]) == 0
    facts = exported([str(net)], path)
    assert facts["genotype"] == to_text(load_genotype(str(found))) and facts["task"] == "classify"
    assert json.loads(facts["parity"])["fitted_for_check"] is False
    assert "never fitted" not in capsys.readouterr().out
    trained, data = timm.create_model(f"local-dir:{net}", pretrained=True).eval(), load_data(DataOptions())
    assert facts["weights_sha256"] == weights_sha256(trained)
    assert json.loads(facts["input_size"]) == [1, 8, 8]
    assert json.loads(facts["mean"]) == pytest.approx(data.mean)
    images = data.test_batch(torch.arange(355)).contiguous()
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    [logits] = session.run(None, {"image": images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, trained(images).numpy(), rtol=1e-3, atol=1e-4)
    hits = (torch.from_numpy(logits).argmax(1) == data.test_labels).double().mean().item()
    assert hits == json.loads((net / "run.json").read_text())["score"]["accuracy"]


@pytest.mark.parametrize("task", ["det", "seg"])
def test_a_detector_and_a_segmenter_of_the_cell_take_a_step_and_are_exported(
    task: str, found: Path, tmp_path: Path
) -> None:
    make = make_coco if task == "det" else make_camvid
    data = make(tmp_path / "data", {"train": 4, "val": 1, "test": 1})
    config, run = write_config(tmp_path / "tiny.py", task, 1), tmp_path / "run"
    cell = ["--genotype", str(found)]
    words = [str(config), *cell, "--data-root", str(data), "--out", str(run)]
    assert main([task, "train", *words, "--cfg-options", "train_dataloader.batch_size=4"]) == 0
    assert json.loads((run / "run.json").read_text())["steps"] == 1
    name, figure = {"det": ("detect", "matched"), "seg": ("segment", "label_agreement")}[task]
    weights = ["--checkpoint", str(run / "epoch_1.pth"), "--input", f"{SIDE}x{SIDE}"]
    facts = exported([str(config), "--task", name, *cell, *weights], tmp_path / "m.onnx")
    assert facts["genotype"] == to_text(load_genotype(str(found))) and facts["task"] == name
    assert json.loads(facts["parity"])[figure] > 0.99
