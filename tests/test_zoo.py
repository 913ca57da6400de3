"""Full-size costs of every registered model, and registering one's own."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import dots_zoo
from dots_zoo.macs import count
from dots_zoo.zoo import default_cfgs
from helpers.paths import GOLDEN

COSTS = json.loads((GOLDEN / "costs.json").read_text())


def test_golden_numbers_of_the_paper_s_cells() -> None:
    # Parameters without auxiliary head; MACs of convolutions and linear layers, derived independently of this
    # code.
    assert COSTS["dots_imagenet"] == {"params": 5_348_032, "macs": 587_347_392}
    assert COSTS["dots_cifar10"] == {"params": 3_526_030, "macs": 546_662_016}
    assert COSTS["dots_cifar100"] == {"params": 4_061_368, "macs": 614_396_160}


@pytest.mark.parametrize("name", [name for name in default_cfgs if not name.startswith("cell_")])
def test_full_size_costs(name: str) -> None:
    model = timm.create_model(name, device="meta")
    costs = count(model, timm.get_pretrained_cfg(name).input_size)
    assert {"params": costs.params, "macs": costs.macs} == COSTS[name]


def test_register(tmp_path: Path) -> None:
    genotype = dots_zoo.load_genotype("darts_v1")
    dots_zoo.register("my_cell", genotype, macro="cifar", channels=4, layers=5, cfg={"num_classes": 3})
    model = timm.create_model("my_cell")
    assert model.genotype == genotype and model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(dots_zoo.DotsZooError, match="already has a model 'my_cell'.*overwrite=True"):
        dots_zoo.register("my_cell", genotype)
    cfg = {"num_classes": 3, "file": str(tmp_path / "weights.safetensors")}
    dots_zoo.register("my_cell", genotype, macro="cifar", channels=4, layers=5, cfg=cfg, overwrite=True)
    loaded = timm.create_model("my_cell", pretrained=True)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("name", "macro", "message"),
    [
        ("resnet18", "mobile", "timm already has a model 'resnet18'"),
        ("Bad.Name", "mobile", "lower-case letters, digits and underscores, got 'Bad.Name'"),
        ("fine", "imagenet", "register 'fine', macro: expected one of mobile, cifar, nb201, got 'imagenet'"),
    ],
)
def test_register_refuses(name: str, macro: str, message: str) -> None:
    with pytest.raises(dots_zoo.DotsZooError, match=message):
        dots_zoo.register(name, "darts_v1", macro=macro)


def test_any_cell_needs_a_genotype() -> None:
    with pytest.raises(dots_zoo.DotsZooError, match="cell_cifar builds any cell: pass genotype="):
        timm.create_model("cell_cifar")


def test_a_genotype_file_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text((Path(dots_zoo.__file__).parent / "genotype/published/darts_v2.json").read_text())
    model = timm.create_model("cell_mobile", genotype=str(path), channels=4, layers=3, num_classes=2)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
