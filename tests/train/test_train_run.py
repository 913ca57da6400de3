"""A training as a folder: killed and continued, loaded by timm, evaluated, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from accelerate import Accelerator
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file

from dots_zoo.commands.cli import main
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.genotype import load_genotype, save_genotype
from dots_zoo.train.score import score

TINY = (
    "--channels 2 --layers 3 --batch-size 256 --augmentation.crop-padding 1 --augmentation.cutout 2".split()
)
SMALL = [*TINY, "--data", "digits", "--epochs", "2", "--drop-path-rate", "0.1", "--aux-weight", "0"]
COMMAND = ["darts_v1", *SMALL, "--ema-decay", "0.9", "--mixup", "0.2", "--checkpoint-seconds", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training") / "run"
    assert main(["train", *COMMAND, "--out", str(out)]) == 0
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(left: Path, right: Path) -> bool:
    return (left / "model.safetensors").read_bytes() == (right / "model.safetensors").read_bytes()


@pytest.mark.processes
def test_a_killed_training_goes_on_and_ends_with_the_same_bits(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    words = [sys.executable, "-m", "dots_zoo", "train", *COMMAND, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    began = time.monotonic()
    while not any((out / "checkpoint").glob("*.safetensors")):  # after the first of ten steps
        assert process.poll() is None and time.monotonic() - began < 120
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "model.safetensors").exists()
    assert main(["train", *COMMAND, "--out", str(out), "--resume"]) == 0
    assert same(folder, out)
    times = {"seconds": 0}
    logs = [(run / "metrics.jsonl").read_text().splitlines() for run in (folder, out)]
    left, right = ([{**json.loads(line), **times} for line in log] for log in logs)
    assert left == right and [row["epoch"] for row in left] == [0, 1]


def test_a_training_that_has_ended_stays_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert main(["train", *COMMAND, "--out", str(folder), "--resume"]) == 0
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before
    lines = capsys.readouterr().out.splitlines()
    assert "% of 355 test images of digits" in lines[0] and f"next: dots-zoo predict {folder} " in lines[2]


def test_another_training_does_not_go_on_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert main(["train", *COMMAND, "--learning-rate", "0.1", "--out", str(folder), "--resume"]) == 2
    assert "made with recipe.learning_rate 0.025, expected 0.1" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_timm_loads_the_folder_and_it_scores_what_run_json_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = json.loads((folder / "run.json").read_text()), load_data(DataOptions())
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert score(model, data, Accelerator()).accuracy == run["score"]["accuracy"]
    assert model.pretrained_cfg["input_size"] == (1, 8, 8)
    assert model.pretrained_cfg["mean"] == pytest.approx(data.mean)
    for name in (f"local-dir:{folder}", str(folder)):
        assert main(["eval", name, "--data", "digits"]) == 0
        expected = (
            f"{name}: {100 * run['score']['accuracy']:.2f} % of 355 test images of digits at 8x8 (top five"
        )
        assert capsys.readouterr().out.startswith(expected)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] == run["score"]["accuracy"]
    assert run["parameters"] == sum(p.numel() for p in model.parameters())


def test_the_card_the_curves_and_the_configuration(folder: Path, tmp_path: Path) -> None:
    run, card = json.loads((folder / "run.json").read_text()), (folder / "README.md").read_text()
    for part in (
        f"{100 * run['score']['accuracy']:.2f} % of 355 test",
        f"{run['macs']:,}",
        "`darts_v1`",
        "digits",
    ):
        assert part in card
    assert "](curves.png)" in card
    with Image.open(folder / "curves.png") as picture:
        assert picture.size[0] > 500
    assert list((folder / "tensorboard").iterdir())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["ema_decay"] == 0.9 and config["augmentation"]["cutout"] == 2
    again = ["train", "--config", str(folder / "config.yaml"), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    assert same(folder, tmp_path / "again")


def test_a_training_without_a_picture_has_its_weights_and_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_picture(*args: Any, **options: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(Figure, "savefig", no_picture)
    out = tmp_path / "run"
    assert main(["train", "darts_v1", *SMALL, "--epochs", "1", "--out", str(out)]) == 0
    assert caplog.messages == [f"{out / 'curves.png'}: left out (RuntimeError: no font)"]
    card = (out / "README.md").read_text()
    assert not (out / "curves.png").exists() and "curves.png" not in card and "| accuracy |" in card
    assert json.loads((out / "run.json").read_text())["epochs"] == 1 and weights(out)


def photos(root: Path) -> Path:
    """Three classes of images of several sizes and modes, three to learn from and one to test."""
    for part, count in (("train", 3), ("val", 1)):
        for label, colour in enumerate(("red", "green", "blue")):
            (root / part / colour).mkdir(parents=True)
            for number in range(count):
                mode = ("RGB", "RGBA", "L")[number]
                image = Image.new("RGB", (40 + 7 * number, 30 + label), colour).convert(mode)
                image.save(root / part / colour / f"{number}.png")
    return root


def test_own_images_from_a_pretrained_body(folder: Path, tmp_path: Path) -> None:
    out, root = tmp_path / "photos", photos(tmp_path / "images")
    own = f"--data image_folder --data-root {root} --image-size 24 --batch-size 4 --epochs 1".split()
    recipe = [
        "--learning-rate",
        "1e-9",
        "--weight-decay",
        "0",
        "--drop-path-rate",
        "0",
        "--aux-weight",
        "0.4",
    ]
    words = ["train", f"local-dir:{folder}", "--pretrained", *own, *recipe, "--out", str(out)]
    assert main(words) == 0
    body, mine = weights(folder), weights(out)
    assert mine["head.fc.weight"].shape[0] == 3 and body["head.fc.weight"].shape[0] == 10
    name = "cells.2.preprocess1.1.weight"  # a learning rate of nothing: the body is that of the digits
    torch.testing.assert_close(mine[name], body[name])
    # One channel has become three, as timm does it.
    torch.testing.assert_close(mine["stem.0.0.weight"].sum(1), body["stem.0.0.weight"].sum(1))
    assert not [key for key in mine if key.startswith("aux_head")]
    run = json.loads((out / "run.json").read_text())
    assert run["score"]["images"] == 3
    model = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert model.num_classes == 3 and model.pretrained_cfg["label_names"] == ["blue", "green", "red"]
    assert run["parameters"] == sum(p.numel() for p in model.parameters())


def test_a_genotype_file_is_trained_and_kept_in_the_folder(tmp_path: Path) -> None:
    cell = save_genotype(load_genotype("pc_darts_cifar10"), tmp_path / "cell.json")
    out = tmp_path / "run"
    words = [str(cell), *SMALL, "--epochs", "1", "--validation", "300", "--out", str(out)]
    assert main(["train", *words]) == 0
    cell.unlink()
    model: Any = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert model.genotype == load_genotype("pc_darts_cifar10") and len(model.cells) == 3
    run = json.loads((out / "run.json").read_text())
    assert run["validation"]["images"] == 300 and run["score"]["images"] == 355
    assert run["architecture"] == "cell_cifar"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "darts_v1", *SMALL, "--out", "taken"], "taken: expected a new or an empty folder"),
        (
            ["train", "darts_v7", *SMALL, "--out", "run"],
            "unknown model 'darts_v7' (nearest: darts_v2",
        ),
        (
            ["train", "resnet18", *SMALL, "--out", "run"],
            "resnet18: --channels is for networks of cells, got another of timm's",
        ),
        (
            ["train", "vgg11", "--data", "digits", "--out", "run"],
            "vgg11: VGG cannot run an input of 1x1x8x8 (NxCxHxW): ",
        ),
        (["train", "darts_v1", *SMALL, "--pretrained", "--out", "run"], "darts_v1 has no pretrained weights"),
        (
            ["train", "local-dir:nowhere", *SMALL, "--out", "run"],
            "nowhere: expected the folder of a training",
        ),
        (["train", "darts_v1", *SMALL, "--preset", "cifar", "--out", "run"], "preset: expected one of"),
        (["train", "darts_v1", *SMALL, "--epochs", "0", "--out", "run"], "epochs: expected 1 or more, got 0"),
        (
            ["train", "darts_v1", *SMALL, "--learning_rate", "1", "--out", "run"],
            "no such option: --learning_rate (did you mean --learning-rate?)",
        ),
        (
            ["eval", "dots_cifar10_tiny"],
            "expected a network of 10 classes and 1 channels for digits, got 10 and 3",
        ),
        (["eval", "darts_v1"], "darts_v1 has no pretrained weights"),
        (["eval", "dots_imagenet", "--macro", "cifar"], "dots_imagenet: a genotype has no weights: train it"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.txt").write_text("mine")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("dots-zoo: error: ") and message in error and len(error.splitlines()) == 1
    assert (tmp_path / "taken/thesis.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.processes
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [
        "-m",
        "dots_zoo",
        "train",
        "darts_v1",
        *SMALL,
        "--epochs",
        "1",
        "--ema-decay",
        "0.9",
        "--validation",
        "0.1",
        "--out",
        str(out),
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*launch, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1 of 1") == 1 and done.stdout.count("written to") == 1
    run, data = json.loads((out / "run.json").read_text()), load_data(DataOptions())
    assert run["score"]["images"] == 355
    model = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert score(model, data, Accelerator()).accuracy == run["score"]["accuracy"]
