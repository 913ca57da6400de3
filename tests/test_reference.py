"""A network by its name: what every command makes of it, and what does not fit it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import dots_zoo  # noqa: F401
from dots_zoo.commands.cli import main
from dots_zoo.genotype import load_genotype, save_genotype, to_text
from dots_zoo.reference import create, genotype_of, resolve
from dots_zoo.runtime.errors import DotsZooError
from helpers.fitting import fitted


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a training `net`, a search `found`, one that has not ended, a genotype file."""
    monkeypatch.chdir(tmp_path)
    save_genotype(load_genotype("darts_v2"), tmp_path / "cell.json")
    for name in ("net", "found", "begun", "empty"):
        (tmp_path / name).mkdir()
    shutil.copy("cell.json", "found/genotype.json")
    (tmp_path / "found/config.yaml").write_text("epochs: 1\n")
    (tmp_path / "begun/config.yaml").write_text("epochs: 1\n")
    arguments = {"genotype": "darts_v1", "channels": 4, "layers": 3, "num_classes": 5, "in_chans": 1}
    network = fitted(timm.create_model("cell_cifar", **arguments), (1, 12, 16))
    cfg = {"input_size": [1, 12, 16], "mean": [0.25], "std": [0.125], "num_classes": 5}
    cfg |= {"first_conv": "stem.0.0", "classifier": "head.fc"}
    config = {"architecture": "cell_cifar", "model_args": arguments, "pretrained_cfg": cfg}
    (tmp_path / "net/config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), tmp_path / "net/model.safetensors", {"format": "pt"})
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options", "architecture", "size"),
    [
        ("darts_v1", {}, "darts_v1", (3, 32, 32)),
        ("darts_v1", {"macro": "mobile"}, "cell_mobile", (3, 224, 224)),
        ("fair_darts_cifar10_a", {}, "cell_mobile", (3, 224, 224)),
        ("fair_darts_cifar10_a", {"size": 64}, "cell_cifar", (3, 32, 32)),
        ("fair_darts_cifar10_a", {"size": 65}, "cell_mobile", (3, 224, 224)),
        ("cell.json", {"macro": "cifar"}, "cell_cifar", (3, 32, 32)),
        ("found", {"size": 8}, "cell_cifar", (3, 32, 32)),
        ("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|none~2|", {}, "cell_nb201", (3, 32, 32)),
        ("resnet18.a1_in1k", {}, "resnet18.a1_in1k", (3, 224, 224)),
        ("net", {}, "cell_cifar", (1, 12, 16)),
        ("local-dir:net", {}, "cell_cifar", (1, 12, 16)),
    ],
)
def test_a_name_is_a_network(
    name: str, options: dict[str, Any], architecture: str, size: tuple[int, int, int], here: Path
) -> None:
    reference = resolve(name, **options)
    assert (reference.architecture, reference.input_size) == (architecture, size)


def test_a_genotype_file_called_as_a_timm_name_with_a_tag_is_a_genotype(here: Path) -> None:
    shutil.copy("cell.json", "darts_v1.json")
    network = create(resolve("darts_v1.json", macro="cifar", channels=4, layers=3), weights=False)
    assert network.genotype == load_genotype("darts_v2") and len(network.cells) == 3


def test_a_folder_gives_its_weights_and_a_genotype_its_width_and_depth(here: Path) -> None:
    network = create(resolve("net"), weights=True)
    trained = timm.create_model("local-dir:net", pretrained=True)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in trained.state_dict().items())
    assert list(network.pretrained_cfg["mean"]) == [0.25] and network.num_classes == 5
    wider = create(resolve(to_text(load_genotype("darts_v1")), channels=6, layers=4, size=32), weights=False)
    assert wider.stem[0][0].out_channels == 18 and len(wider.cells) == 4


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("dots_cifar10_tiny", "dots_cifar10"),
        ("darts_v1_mobile", "darts_v1"),
        ("fair_darts_cifar10_a", "fair_darts_cifar10_a"),
        ("cell.json", "darts_v2"),
        ("found", "darts_v2"),
        ("net", "darts_v1"),
        ("local-dir:net", "darts_v1"),
        ("dots_zoo", "dots_cifar10"),
    ],
)
def test_every_network_of_cells_has_its_cell(name: str, cell: str, here: Path) -> None:
    (here / "dots_zoo").mkdir()
    (here / "dots_zoo/config.json").write_text('{"architecture": "dots_cifar10"}')
    assert genotype_of(name).cells == load_genotype(cell).cells
    assert genotype_of(Path(name)).cells == load_genotype(cell).cells
    assert main(["draw", name, "-o", "drawn.svg"]) == main(["draw", cell, "-o", "cell.svg"]) == 0
    assert Path("drawn.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "resnet18: expected a network of cells, got another of timm's"),
        ("darts_v7", r"unknown model 'darts_v7' \(nearest: darts_v2"),
        ("begun", "begun: .* got a training that has not ended"),
    ],
)
def test_what_has_no_cell_is_one_sentence(name: str, message: str, here: Path) -> None:
    with pytest.raises(DotsZooError, match=message):
        genotype_of(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dots_imagent", {}, r"unknown model 'dots_imagent' \(nearest: dots_imagenet"),
        (
            "cel.json",
            {},
            r"unknown model 'cel.json' \(nearest: cell.json\): expected a timm name, a genotype",
        ),
        ("found/genotipe.json", {}, r"\(nearest: found/genotype.json\)"),
        ("nte", {}, r"unknown model 'nte' \(nearest: .*net\)"),
        ("local-dir:nte", {}, r"nte: expected the folder of a training .* nothing there \(nearest: .*net\)"),
        ("local-dir:cell.json", {}, "cell.json: expected the folder of a training .* got a file"),
        ("begun", {}, "begun: .* got a training that has not ended: dots-zoo train ... --resume ends it"),
        ("empty", {}, "empty: expected the folder of a training with its config.json, got an empty folder"),
        ("resnet18.none", {}, "resnet18.none: .*Leave out what is after the dot"),
        ("net", {"macro": "cifar"}, "net: --macro is for a genotype, and this is a training"),
        ("dots_cifar10_tiny", {"macro": "cifar"}, "dots_cifar10_tiny: --macro is for a genotype, and this"),
        ("resnet18", {"layers": 3}, "resnet18: --layers is for networks of cells"),
        ("x" * 5000, {}, "unknown model 'x{200}...'"),
    ],
)
def test_what_is_no_network_is_one_sentence(
    name: str, options: dict[str, Any], message: str, here: Path
) -> None:
    with pytest.raises(DotsZooError, match=message) as caught:
        resolve(name, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected what a training writes"),
        ("[]", "expected what a training writes"),
        ('{"model_args": {}}', r"expected what a training writes, got KeyError \('architecture'\)"),
        ('{"architecture": "darts_v3"}', r"got 'darts_v3' \(nearest: darts_v2"),
        (
            '{"architecture": "darts_v1", "pretrained_cfg": {"input_size": [3, 32]}}',
            "expected what a training",
        ),
        ('{"architecture": "darts_v1", "pretrained_cfg": {"input_size": "big"}}', "expected what a training"),
    ],
)
def test_a_broken_configuration_is_one_sentence(content: str, message: str, here: Path) -> None:
    (here / "net/config.json").write_text(content)
    with pytest.raises(DotsZooError, match=f"^net/config.json: .*{message}"):
        resolve("net")


def test_weights_that_are_not_there_or_do_not_fit_are_one_sentence(here: Path) -> None:
    with pytest.raises(DotsZooError, match="^net: --channels 8 is not the network whose weights the folder"):
        create(resolve("net", channels=8), weights=True)
    assert create(resolve("net", channels=4, layers=3), weights=True).num_classes == 5  # what it has
    assert create(resolve("net", channels=8), weights=False).stem[0][0].out_channels == 24
    with pytest.raises(DotsZooError, match="^cell.json: a genotype has no weights: train it"):
        create(resolve("cell.json"), weights=True)
    (here / "net/model.safetensors").write_bytes(b"cut short")
    with pytest.raises(DotsZooError, match="^net: timm cannot build this model: "):
        create(resolve("net"), weights=True)
    (here / "net/model.safetensors").unlink()
    with pytest.raises(DotsZooError, match=r"^net: expected the weights of a training, model.safetensors"):
        create(resolve("net"), weights=True)


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **options: Any) -> None:
        raise OSError("An error happened while\ntrying to locate the file on the Hub")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    message = (
        "^resnet18: its pretrained weights are not on this machine and cannot be fetched: connect it, or"
    )
    with pytest.raises(DotsZooError, match=message):
        create(resolve("resnet18"), weights=True)


@pytest.mark.processes
def test_it_needs_no_extra() -> None:
    code = "import dots_zoo.reference, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.split()}
    others = {"accelerate", "onnx", "jsonargparse", "sklearn", "dots_zoo.search", "dots_zoo.export"}
    assert "dots_zoo.reference" in loaded and not loaded & others
