"""transformers: a training's folder and a saved network as a model and as a pipeline, and DETR."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf as timm_save_for_hf

import dots_zoo
from dots_zoo.cell import DropPath
from dots_zoo.genotype import load_genotype
from dots_zoo.train.model import ModelOptions
from dots_zoo.train.run import run_training
from helpers.fitting import fitted, images
from helpers.paths import ROOT
from helpers.striped_images import PLAIN, stripes

transformers = pytest.importorskip("transformers")
SMALL = {"channels": 4, "layers": 3}
SIZE = (3, 32, 32)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of horizontal against vertical stripes, which it learns."""
    folder = tmp_path_factory.mktemp("training") / "net"
    data = replace(stripes(256), class_names=("columns", "rows"))
    options = ModelOptions(macro="cifar", channels=4, layers=3)
    run_training("darts_pt_cifar10_s0_1", options, data, replace(PLAIN, epochs=6), folder, progress=False)
    return folder


def photo(of_class: int) -> Image.Image:
    data = stripes(8)
    array = data.images[data.labels == of_class][0].permute(1, 2, 0).numpy()  # (8, 8, 3)
    return Image.fromarray(array).resize((24, 24), Image.Resampling.NEAREST)


def logits(folder: Path, x: torch.Tensor) -> torch.Tensor:
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        answer: torch.Tensor = model(x).logits
    return answer


def test_a_training_names_its_classes_in_a_pipeline(training: Path) -> None:
    model = timm.create_model(f"local-dir:{training}", pretrained=True).eval()
    x = images((3, 8, 8))
    with torch.no_grad():
        assert torch.equal(logits(training, x), model(x))
    pipeline = transformers.pipeline("image-classification", str(training))
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))
    for label, name in enumerate(("columns", "rows")):
        answers = pipeline(photo(label))
        with torch.no_grad():
            probabilities = model(transform(photo(label))[None]).softmax(1)[0]
        assert [answer["label"] for answer in answers][0] == name
        assert answers[0]["score"] == pytest.approx(float(probabilities[label]), abs=1e-5)


@pytest.mark.processes
def test_without_the_import_the_error_names_it(training: Path) -> None:
    code = (
        "import sys, transformers; transformers.AutoModelForImageClassification.from_pretrained(sys.argv[1])"
    )
    words = [sys.executable, "-c", code, str(training)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT / "docs")
    assert done.returncode and "architecture 'cell_cifar.import_dots_zoo' is not supported" in done.stderr


@pytest.mark.processes
@pytest.mark.parametrize("name", ["cell_cifar", "of_mine"])
def test_a_cell_of_ones_own_loads_in_another_process(name: str, tmp_path: Path) -> None:
    cell = load_genotype("darts_v1")
    dots_zoo.register("of_mine", cell, "cifar", **SMALL, cfg={"num_classes": 3}, overwrite=True)
    options: dict[str, Any] = {} if name == "of_mine" else {"genotype": cell, **SMALL, "num_classes": 3}
    model = fitted(timm.create_model(name, **options), SIZE)
    dots_zoo.save_for_hf(model, tmp_path / "net", label_names=["cat", "dog", "fox"])
    x = images(SIZE)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch, dots_zoo, transformers\n"
        "model = transformers.AutoModelForImageClassification.from_pretrained(sys.argv[1]).eval()\n"
        "assert model.config.id2label[1] == 'dog'\n"
        "torch.save(model(torch.load(sys.argv[2])).logits, sys.argv[3])"
    )
    words = [sys.executable, "-c", code, *(str(tmp_path / part) for part in ("net", "x.pt", "y.pt"))]
    subprocess.run(words, check=True, cwd=ROOT / "docs")
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "y.pt"), model(x))


def test_what_transformers_saves_loads_again(tmp_path: Path) -> None:
    dots_zoo.save_for_hf(timm.create_model("dots_cifar10_tiny", pretrained=True), tmp_path / "ours")
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "ours").eval()
    model.save_pretrained(tmp_path / "theirs")
    x = images(SIZE)
    assert torch.equal(logits(tmp_path / "theirs", x), logits(tmp_path / "ours", x))
    assert model.config.id2label[3] == "cat"


def test_the_drop_path_rate_is_right_after_loading(tmp_path: Path) -> None:
    dots_zoo.save_for_hf(timm.create_model("dots_cifar10", **SMALL), tmp_path)
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert {float(module.keep_prob) for module in model.modules() if isinstance(module, DropPath)} == {1.0}
    model.timm_model.set_drop_path(0.25)
    assert {float(module.keep_prob) for module in model.modules() if isinstance(module, DropPath)} == {0.75}


@pytest.mark.parametrize("name", ["resnet18", "dots_cifar10"])
def test_timms_own_saving_is_refused_of_every_model(name: str, tmp_path: Path) -> None:
    """Once it is not, save_for_hf of dots_zoo is timm's with class names; until then both differ as here."""
    model = timm.create_model(name, num_classes=3)
    timm_save_for_hf(model, str(tmp_path), safe_serialization=True)
    with pytest.raises(TypeError, match="multiple values for keyword argument 'num_classes'"):
        logits(tmp_path, images(SIZE))
    dots_zoo.save_for_hf(timm.create_model(f"local-dir:{tmp_path}", pretrained=True), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(logits(tmp_path, images(SIZE)), model.eval()(images(SIZE)))
    assert json.loads((tmp_path / "config.json").read_text())["num_classes"] == 3


def test_a_network_is_the_body_of_detr() -> None:
    dots_zoo.register("for_detr", "dots_imagenet", channels=4, layers=4, overwrite=True)
    body = transformers.TimmBackboneConfig(
        backbone="for_detr", use_pretrained_backbone=False, out_indices=[4]
    )
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5, "num_labels": 3}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.DetrConfig(backbone_config=body, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes)
    model = transformers.DetrForObjectDetection(config)
    label = {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}
    output = model(images((3, 64, 64), 1), labels=[label])
    output.loss.backward()
    assert output.logits.shape == (1, 5, 4)
    stem = next(p for name, p in model.named_parameters() if "stem.0.0" in name)
    assert stem.grad is not None and stem.grad.abs().max() > 0
