"""The commands of docs/training.md for own images, taken from the page, on a small folder of PNG photos."""

import json
import re
import shlex
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from dots_zoo.commands.cli import main
from helpers.paths import ROOT
from helpers.photo_folder import photo_folder

PAGE = (ROOT / "docs/training.md").read_text("utf-8")
[BLOCK] = re.findall(r"^## Own images\n\n```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_s_commands_run_as_they_stand(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    photo_folder(tmp_path / "photos", train=12, val=4)
    printed = []
    for line in BLOCK.splitlines():
        assert main(shlex.split(line)[1:]) == 0, f"{line}\n{capsys.readouterr()}"
        printed.append(capsys.readouterr().out)
    assert [line.split()[1] for line in BLOCK.splitlines()] == [
        "train",
        "eval",
        "predict",
        "export",
        "predict",
    ]
    assert "dots_cifar10_tiny: batch_size is 29, not 64: all training images" in caplog.messages
    run = json.loads(Path("runs/photos/run.json").read_text())
    assert run["validation"]["images"] == 7 and run["score"]["images"] == 12
    assert run["best"]["score"]["accuracy"] >= 0.6 and "top5" not in run["score"]  # three classes
    assert "dots-zoo predict runs/photos photo.png" in printed[0]
    model = timm.create_model("local-dir:runs/photos/best", pretrained=True)
    assert model.pretrained_cfg["label_names"] == ["blue", "green", "red"]
    first = json.loads(Path("predictions.json").read_text())["rows"]
    second = json.loads(printed[4])["rows"]
    assert [row["image"] for row in first] == [row["image"] for row in second] and len(first) == 12
    for mine, theirs in zip(first, second, strict=True):
        assert mine["answers"][0]["class"] == theirs["answers"][0]["class"]
    right = sum(row["answers"][0]["class"] == Path(row["image"]).parent.name for row in first)
    assert right == round(12 * run["best"]["score"]["accuracy"])
    for picture in ("confusion.png", "sheet.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 300
    # The body begins with the weights of the name: its mean and standard deviation are theirs too.
    body = timm.create_model("dots_cifar10_tiny", pretrained=True)
    assert tuple(model.pretrained_cfg["mean"]) == body.pretrained_cfg["mean"]
    weights, own = load_file("runs/photos/model.safetensors"), body.state_dict()
    name = "stem.0.0.weight"
    similar = torch.cosine_similarity(weights[name].flatten(), own[name].flatten(), dim=0)
    assert 0.9 < similar < 1
