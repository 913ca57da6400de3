"""Saved networks: read by timm and by a process that saw nothing; by transformers in tests/clients."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf as timm_save_for_hf
from torch import nn

import dots_zoo
from dots_zoo.genotype import Genotype, load_genotype
from helpers.fitting import fitted, images
from helpers.paths import ROOT

SMALL = {"channels": 4, "layers": 3}
SIZE = (3, 32, 32)
# Loads folders and writes their answers; the names of this process are not there.
READER = """
import sys, timm, torch
{imports}
x, *folders = sys.argv[1:]
for folder in folders:
    model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
    torch.save(model(torch.load(x)), folder + "/y.pt")
"""


def saved_config(model: nn.Module, folder: Path, *, by_timm: bool = False) -> dict[str, Any]:
    if by_timm:
        timm_save_for_hf(model, str(folder), safe_serialization=True)
    else:
        dots_zoo.save_for_hf(model, folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def own_cell() -> Genotype:
    cell = load_genotype("darts_v2")
    return Genotype("of_mine", cell.space, cell.cells, {"method": "by hand"})


def built(kind: str) -> Any:
    dots_zoo.register("mine_to_save", own_cell(), "cifar", **SMALL, cfg={"num_classes": 5}, overwrite=True)
    options: dict[str, Any] = {
        "mine_to_save": {},
        "cell_cifar": {"genotype": own_cell(), **SMALL, "num_classes": 5},
        "dots_cifar10": {"genotype": own_cell(), **SMALL, "num_classes": 5},
    }
    return fitted(timm.create_model(kind, **options[kind]), SIZE)


@pytest.mark.processes
def test_cells_of_ones_own_load_in_another_process(tmp_path: Path) -> None:
    x, answers = images(SIZE), {}
    torch.save(x, tmp_path / "x.pt")
    for kind in ("mine_to_save", "cell_cifar", "dots_cifar10"):
        for by_timm in (False, True):
            model, folder = built(kind), tmp_path / f"{kind}_{by_timm}"
            config = saved_config(model, folder, by_timm=by_timm)
            architecture = "dots_cifar10" if kind == "dots_cifar10" else "cell_cifar"
            assert config["architecture"] == f"{architecture}.import_dots_zoo"
            assert load_genotype(config["model_args"]["genotype"]).name == "of_mine"
            with torch.no_grad():
                answers[folder] = model(x)
    words = [sys.executable, "-c", READER.format(imports="import dots_zoo"), str(tmp_path / "x.pt")]
    subprocess.run([*words, *map(str, answers)], check=True, cwd=ROOT / "docs")
    for folder, answer in answers.items():
        assert torch.equal(torch.load(folder / "y.pt"), answer), folder.name


@pytest.mark.processes
def test_without_the_import_timms_error_names_it(tmp_path: Path) -> None:
    dots_zoo.save_for_hf(built("mine_to_save"), tmp_path / "net")
    words = [sys.executable, "-c", READER.format(imports=""), "x.pt", str(tmp_path / "net")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT / "docs")
    assert done.returncode and "Unknown model (cell_cifar.import_dots_zoo)" in done.stderr


def test_the_number_of_classes_stands_once(tmp_path: Path) -> None:
    config = saved_config(built("cell_cifar"), tmp_path)
    assert config["num_classes"] == 5
    assert "num_classes" not in config["model_args"] and "num_classes" not in config["pretrained_cfg"]
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True).num_classes == 5


def test_another_number_of_channels_and_a_network_of_timm_are_saved(tmp_path: Path) -> None:
    grey = timm.create_model("dots_cifar10", in_chans=1, num_classes=4, **SMALL)
    config = saved_config(grey, tmp_path / "grey")
    assert config["pretrained_cfg"]["input_size"] == [1, 32, 32] and config["model_args"]["in_chans"] == 1
    assert timm.create_model(f"local-dir:{tmp_path / 'grey'}", pretrained=True)(
        torch.zeros(1, 1, 8, 8)
    ).shape == (1, 4)
    other = timm.create_model("resnet18", num_classes=3)
    config = saved_config(other, tmp_path / "other")
    assert config["architecture"] == "resnet18" and "num_classes" not in config["model_args"]


@pytest.mark.parametrize("by_timm", [False, True])
def test_a_papers_accuracy_does_not_follow_a_network(by_timm: bool, tmp_path: Path) -> None:
    assert timm.get_pretrained_cfg("dots_cifar10").notes == ("paper: 97.63 CIFAR-10 (DOTS, best of 4)",)
    model = timm.create_model("dots_cifar10", **SMALL)
    assert "97.63" not in json.dumps(saved_config(model, tmp_path / "net", by_timm=by_timm))
    dots_zoo.register("noted", "darts_v2", "cifar", **SMALL, cfg={"notes": ("of mine",)}, overwrite=True)
    config = saved_config(timm.create_model("noted"), tmp_path / "noted", by_timm=by_timm)
    assert config["pretrained_cfg"]["notes"] == ["of mine"]


def test_an_auxiliary_head_that_was_taken_off_is_not_asked_for(tmp_path: Path) -> None:
    model = timm.create_model("dots_cifar10", aux_head=True, **SMALL)
    assert saved_config(model, tmp_path / "with")["model_args"]["aux_head"] is True
    model.aux_head = None
    assert "aux_head" not in saved_config(model, tmp_path / "without")["model_args"]
    timm.create_model(f"local-dir:{tmp_path / 'without'}", pretrained=True)


def test_class_names_are_the_networks_own_others_or_none(tmp_path: Path) -> None:
    tiny = timm.create_model("dots_cifar10_tiny", pretrained=True)
    assert saved_config(tiny, tmp_path / "own")["label_names"][3] == "cat"
    again = timm.create_model(f"local-dir:{tmp_path / 'own'}", pretrained=True)
    assert again.pretrained_cfg["label_names"][3] == "cat"
    dots_zoo.save_for_hf(tiny, tmp_path / "others", label_names=[f"class {i}" for i in range(10)])
    assert json.loads((tmp_path / "others/config.json").read_text())["label_names"][3] == "class 3"
    dots_zoo.save_for_hf(tiny, tmp_path / "none", label_names=())
    assert "label_names" not in (tmp_path / "none/config.json").read_text()
    with pytest.raises(
        dots_zoo.DotsZooError, match="label_names: expected a name for each of 10 classes, got 2"
    ):
        dots_zoo.save_for_hf(tiny, tmp_path / "wrong", label_names=["a", "b"])
    assert not (tmp_path / "wrong").exists()


def test_what_timm_cannot_describe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(dots_zoo.DotsZooError, match="Linear: expected a network of timm.create_model"):
        dots_zoo.save_for_hf(nn.Linear(1, 1), tmp_path)
    features = timm.create_model("dots_cifar10", features_only=True, **SMALL)
    with pytest.raises(dots_zoo.DotsZooError, match="FeatureGetterNet: timm cannot describe it"):
        dots_zoo.save_for_hf(features, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_tag_builds_the_model_too() -> None:
    """transformers passes the architecture of a config to timm.create_model as it stands."""
    model = timm.create_model("dots_cifar10.import_dots_zoo", **SMALL)
    assert model.num_classes == 10 and model.pretrained_cfg["architecture"] == "dots_cifar10.import_dots_zoo"
