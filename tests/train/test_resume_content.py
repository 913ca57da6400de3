"""A training goes on with the cell, the weights and the images that it began with, wherever they lie."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from dots_zoo.commands.cli import main
from dots_zoo.genotype import load_genotype, save_genotype

SMALL = (
    "--channels 2 --layers 3 --batch-size 4 --epochs 1 --drop-path-rate 0 --aux-weight 0 "
    "--augmentation.crop-padding 1 --augmentation.cutout 0"
).split()


def photos(root: Path) -> Path:
    for part in ("train", "val"):
        for shade, name in ((40, "dark"), (200, "light")):
            (root / part / name).mkdir(parents=True)
            for index in range(2):
                Image.new("RGB", (12 + index, 14), (shade, 90, 10 * index)).save(
                    root / part / name / f"{index}.png"
                )
    return root


def train(*words: object) -> int:
    return main(["train", *map(str, words)])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_changed_genotype_file_does_not_go_on_and_a_moved_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell, out = tmp_path / "g.json", tmp_path / "run"
    save_genotype(load_genotype("darts_v2"), cell)
    words = [*SMALL, "--batch-size", 720, "--data", "digits", "--out", out, "--resume"]
    assert train(cell, *words) == 0
    before = contents(out)
    moved = tmp_path / "moved.json"
    document = json.loads(cell.read_text())
    moved.write_text(json.dumps({**document, "name": "renamed", "provenance": {"note": "by hand"}}))
    save_genotype(load_genotype("darts_v1"), cell)
    capsys.readouterr()
    assert train(cell, *words) == 2
    error = capsys.readouterr().err
    assert (
        "made with network.genotype.normal.edge 0 [2, 0, 'sep_conv_3x3'], expected [2, 1, 'sep_conv_3x3']"
        in error
    )
    assert error.endswith("pass the same options and files, or another folder\n")
    assert contents(out) == before
    assert train(moved, *words) == 0
    assert (out / "model.safetensors").read_bytes() == before[str(out / "model.safetensors")]


def test_config_yaml_holds_the_cell_and_not_its_path(tmp_path: Path) -> None:
    cell, out, again = tmp_path / "g.json", tmp_path / "run", tmp_path / "again"
    save_genotype(load_genotype("darts_v2"), cell)
    assert train(cell, *SMALL, "--batch-size", 720, "--data", "digits", "--out", out) == 0
    assert load_genotype(yaml.safe_load((out / "config.yaml").read_text())["network"]) == load_genotype(
        "darts_v2"
    )
    assert json.loads((out / "run.json").read_text())["model"] == str(cell)
    save_genotype(load_genotype("darts_v1"), cell)
    assert train("--config", out / "config.yaml", "--out", again) == 0
    assert (out / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


def test_other_weights_and_other_images_do_not_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, out, root = tmp_path / "body", tmp_path / "run", photos(tmp_path / "photos")
    own = [*SMALL, "--data", "image_folder", "--image-size", 8]
    assert train("darts_v1", *own, "--data-root", root, "--out", body) == 0
    words = [*own[4:], "--pretrained", "--out", out, "--resume"]
    assert train(f"local-dir:{body}", *words, "--data-root", root) == 0
    before = contents(out)

    shutil.copytree(root, tmp_path / "copy")
    shutil.copytree(body, tmp_path / "copied body")
    assert train(tmp_path / "copied body", *words, "--data-root", tmp_path / "copy") == 0
    Image.effect_noise((30, 30), 50).save(tmp_path / "copy/train/dark/1.png")
    capsys.readouterr()
    assert train(f"local-dir:{body}", *words, "--data-root", tmp_path / "copy") == 2
    assert "made with data.images '" in capsys.readouterr().err

    weights = load_file(body / "model.safetensors")
    weights["head.fc.bias"] += 1
    save_file(weights, body / "model.safetensors", {"format": "pt"})
    assert train(f"local-dir:{body}", *words, "--data-root", root) == 2
    assert "made with network.weights '" in capsys.readouterr().err
    unchanged = out / "model.safetensors"
    assert unchanged.read_bytes() == before[str(unchanged)]
