"""The commonest mistakes at the terminal: what is printed, in one line, and that nothing is written."""

import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from PIL import Image

from dots_zoo.commands.cli import main

EXPORT = ["--channels", "2", "--layers", "3", "--exporter", "torchscript"]
TAKEN = "expected a new or an empty folder for the run"
CLASS_FOLDERS = "a folder a class with images, or train with such folders, got"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what people have lying about: photos, files, folders of other things."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/red", "photos/blue", "flat", "empty", "cifar/cifar-10-batches-py"):
        Path(name).mkdir(parents=True)
    for name in ("photos/red/0.png", "photos/blue/0.png", "flat/0.png"):
        Image.new("RGB", (16, 16)).save(name)
    texts = {
        "taken/thesis.txt": "mine",
        "note.txt": "hello",
        "wrong.yaml": "epoch: 7\nbatchsize: 3\naugmentation:\n  cutuot: 4\nflip: true\n",
        "list.yaml": "- 1\n",
        "broken.json": '{"schema": 1, "name"',
        "other.json": '{"name": "x"}',
        "broken.jpg": "no pixels",
        "begun/config.yaml": "# dots-zoo train darts_v1\nepochs: 1\n",
        "searching/config.yaml": "# dots-zoo search dots\nepochs: 1\n",
        "mine.py": "",
    }
    for name, text in texts.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def said(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that is refused; return the sentence on stderr, all that it prints and does."""
    before = contents(here)
    assert main(words.split()) == 2, words
    printed = capsys.readouterr()
    assert contents(here) == before and printed.out == ""
    [line] = printed.err.splitlines()
    beginning = "dots-zoo: error: "
    assert line.startswith(beginning) and "Traceback" not in line and "<class" not in line
    return line.removeprefix(beginning)


WORDS = [
    # Commands and subcommands.
    ("trian resnet18", "no such command: trian (did you mean train?); it knows list, draw, search, "),
    ("search dost -o run", "dots-zoo search: expected one of dots, darts, "),
    ("search dost -o run", "got 'dost' (did you mean dots?)"),
    ("explain hesian runs", "got 'hesian' (did you mean hessian?)"),
    ("det chekc retinanet", "dots-zoo det: expected one of train, test, predict, curves, check, got 'chekc'"),
    # Options: misspelt, with underscores, of the part below which it stands, all of them at once.
    (
        "train darts_v1 -o run --epoch 3 --bacth-size 4",
        "dots-zoo train: no such option: --epoch (did you mean --epochs?), --bacth-size (did you mean "
        "--batch-size?); dots-zoo train --help lists them",
    ),
    ("train darts_v1 -o run --batch_size 3", "no such option: --batch_size (did you mean --batch-size?)"),
    ("export darts_v1 -o m.onnx --precison fp16", "--precison (did you mean --precision?)"),
    ("search dots -o run --batch-size 8", "--batch-size (did you mean --training.batch-size?)"),
    (
        "search dots -o run --topology-search.epoch 3",
        "--topology-search.epoch (did you mean --topology-search.epochs?)",
    ),
    # Presets, networks, cells, spaces, data sets.
    ("train darts_v1 -o run --preset small-cpu", "got 'small-cpu' (did you mean small_cpu?)"),
    ("search dots -o run --preset dots_cifar1", "preset: expected one of digits_small, dots_cifar10, "),
    ("train resnet81 -o run", "unknown model 'resnet81' (nearest: resnet18, "),
    ("export dots_imagnet -o m.onnx", "unknown model 'dots_imagnet' (nearest: dots_imagenet, "),
    ("draw darts_v -o c.svg", "unknown model 'darts_v' (nearest: darts_v2, darts_v1, "),
    ("draw resnet18 -o c.svg", "resnet18: expected a network of cells, got another of timm's; dots-zoo list"),
    ("search dots -o run --space S9", "space: expected one of S0, S0_without_none, S1, "),
    ("search dots -o run --data cfar10", "got 'cfar10' (did you mean cifar10?); one of your own comes with"),
    ("list nothing*", "no model matches 'nothing*'; 'dots-zoo list' prints all"),
    # Data roots.
    ("search dots -o run --data-root photo", f"in photo {CLASS_FOLDERS} nothing there (did you mean photos?"),
    ("train darts_v1 -o run --data-root note.txt", f"in note.txt {CLASS_FOLDERS} a file; for another"),
    ("train darts_v1 -o run --data-root empty", f"in empty {CLASS_FOLDERS} an empty folder; for another"),
    ("search dots -o run --data-root flat", f"in flat {CLASS_FOLDERS} 0.png and no class folder; for anothe"),
    ("search dots -o run --data-root cifar", "data: cifar holds files of cifar10; say --data cifar10"),
    ("train darts_v1 -o run --data cifar10", "cifar10: expected --data-root, the folder that holds cifar-10"),
    ("train darts_v1 -o run --data cifar10 --data-root empty", "as published in empty; --download fetches i"),
    ("train darts_v1 -o run --data image_folder", "image_folder: expected --data-root, the folder of the im"),
    # Folders of runs.
    ("train darts_v1 -o taken", f"taken: {TAKEN}, got one that holds thesis.txt; choose another, or pass"),
    ("search dots -o taken", f"taken: {TAKEN}, got one that holds thesis.txt; choose another, or pass"),
    ("train darts_v1 -o note.txt", f"note.txt: {TAKEN}, got a file; choose another"),
    ("train darts_v1", "dots-zoo train: expected --out, got none: dots-zoo train NETWORK -o FOLDER"),
    ("train", "dots-zoo train: expected NETWORK and --out, got none: dots-zoo train NETWORK -o FOLDER"),
    ("train darts_v1 -o taken --resume", "taken: --resume expected an empty folder or a run of dots-zoo tra"),
    ("train darts_v1 -o searching --resume", "got a run of dots-zoo search; choose another folder"),
    ("search dots -o begun --resume", "got a run of dots-zoo train; choose another folder"),
    # Values.
    ("train darts_v1 -o run --epochs two", "epochs: expected a whole number, got 'two'"),
    ("train darts_v1 -o run --epochs 0", "epochs: expected 1 or more, got 0"),
    ("train darts_v1 -o run --epochs", "--epochs: expected a whole number, got nothing"),
    ("train darts_v1 -o run --resume yes", "got more than it takes: yes; it is dots-zoo train NETWORK -o FO"),
    ("search dots -o run --topology pair", "edge_sigmoid, got 'pair' (did you mean pairs?)"),
    ("bench m.onnx -o b.json --engine tensort", "got 'tensort' (did you mean tensorrt?)"),
    ("export darts_v1 -o m.onnx --input 32", "input: expected HEIGHTxWIDTH, such as 224x320, got '32'"),
    ("train darts_v1 -o run --image-size 4", "image_size: expected 8 pixels or more, got 4"),
    # Files of options.
    (
        "train darts_v1 -o run --config wrong.yaml",
        "dots-zoo train: no such key in wrong.yaml: epoch (did you mean epochs?), batchsize (did you mean "
        "batch_size?), augmentation.cutuot (did you mean augmentation.cutout?), flip (did you mean "
        "augmentation.flip?); dots-zoo train --help lists them",
    ),
    ("train darts_v1 -o run --config no.yaml", "no.yaml: expected a YAML file, got No such file or director"),
    ("train darts_v1 -o run --config list.yaml", "list.yaml: expected lines of KEY: VALUE, got a list; --pr"),
    # Weights.
    ("train darts_v1 -o run --pretrained", "darts_v1 has no pretrained weights: train it and give the train"),
    ("eval darts_v1", "darts_v1 has no pretrained weights: train it and give the training's folder"),
    ("predict note.txt flat", "note.txt: expected Genotype(normal=...) or a dict "),
    ("predict begun flat", "begun: expected the folder of a training with its config.json, got a training t"),
    ("export begun -o m.onnx", "got a training that has not ended: dots-zoo train ... --resume ends it"),
    ("explain hessian no", "no: expected the folder of a completed search, got nothing there"),
    ("explain hessian empty", "empty: expected the folder of a completed search, got one without genotype.j"),
    # Devices.
    ("predict dots_cifar10_tiny flat --device gpu", "device: expected cpu, cuda or cuda:N, got 'gpu'"),
    ("bench m.onnx -o b.json --engine tensorrt", "engine tensorrt: expected it on a GPU, with device cuda,"),
    # Images, plug-ins, files.
    ("predict dots_cifar10_tiny broken.jpg", "predict: cannot read broken.jpg (no image); leave it out, or"),
    ("predict dots_cifar10_tiny no.jpg", "predict: expected image files, folders or globs, got 'no.jpg': no"),
    ("predict dots_cifar10_tiny empty", "got 'empty': a folder without any"),
    ("list --plugin nine.py", "plug-in nine.py: expected a Python file, got nothing there (nearest: mine.py"),
    ("list --plugin no_such_module", "plug-in no_such_module: expected a module that can be imported, got n"),
    ("list --plugin", "--plugin: expected a file FILE.py or the name of a module, got nothing"),
    ("draw broken.json -o c.svg", "broken.json: expected JSON of schema 1, got: "),
    ("train other.json -o run", "other.json: expected 'schema': 1, got ['name']"),
    ("draw darts_v1 -o c.gif", "c.gif: expected a file name that ends in .svg or .png"),
    ("draw darts_v1 -o no/such/c.svg", "no/such/c.svg: cannot be written: give a file in an existing, writa"),
    ("inspect note.txt", "note.txt: not an ONNX file, or only a part of one"),
    ("report note.txt -o r.html", "note.txt: not JSON, or only a part of it"),
    ("det check no_such_config", "config no_such_config: no such file; shipped are "),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), WORDS, ids=lambda value: value[:48])
def test_a_mistake_is_one_sentence(
    words: str, sentence: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in said(words, here, capsys)


def test_weights_that_cannot_be_fetched(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(here / "empty"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(here / "empty"))
    expected = "test_resnet: its pretrained weights are not on this machine and cannot be fetched: connect"
    assert said("predict test_resnet flat", here, capsys).startswith(expected)
    assert said("train test_resnet -o run --pretrained", here, capsys).startswith(expected)


def test_a_gpu_that_is_not_there(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    predicted = said("predict dots_cifar10_tiny flat --device cuda", here, capsys)
    assert predicted == "device: cuda is not there: torch finds 0 GPUs; leave it out, or say cpu"


def test_a_gpu_that_is_not_there_is_not_measured(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    words = ["export", "darts_v1", "-o", "m.onnx", "--input", "32x32", *EXPORT]
    assert main(words) == 0
    capsys.readouterr()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    measured = said("bench m.onnx -o b.json --device cuda", here, capsys)
    assert "CUDA" in measured or "cuda" in measured


def test_an_extra_that_is_missing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("dots_zoo.export")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ["onnx", *(name for name in sys.modules if name.startswith("onnx."))]:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    assert said("inspect m.onnx", here, capsys) == "onnx is not installed: pip install 'dots-zoo[export]'"
