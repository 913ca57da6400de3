"""Train, evaluate and predict from Python: what the commands do, with their options as keyword arguments."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..data.datasets import DataOptions
from ..data.load import add_data_options, load_data
from ..options.command_line import CommandLine
from ..options.declaration import REQUIRED, Option
from ..reference import create, resolve
from ..runtime.atomic_write import check_output, write_file
from ..runtime.config import build, presets_in
from .evaluation import Evaluation, check_picture, confusion_picture, evaluate_network
from .model import ModelOptions, fitting, referred
from .prediction import predict
from .recipe import Recipe
from .run import BEST, run_training
from .state import Row

PRESETS = Path(__file__).parent / "presets"
NETWORK = "timm name, genotype (bundled name, file or text), or the folder of a training or of a search"
ANSWERING = "timm name with weights, folder of a training, or an ONNX file that dots-zoo export wrote"
EVALUATED = "the network's own weights; they are what is evaluated with or without it"
QUIET = Option("quiet", bool, False, "neither a bar nor a line an epoch")
JSON = Option("json", bool, False, "print JSON and nothing else")


@dataclass(frozen=True)
class Training:
    """A training that has ended, in its folder.

    Args:
        path: the folder; a reference of the network wherever one is named.
        run: contents of its run.json.
    """

    path: Path
    run: Mapping[str, Any]

    @property
    def score(self) -> dict[str, float]:
        """Return the figures of the last epoch's weights on the test images."""
        return dict(self.run["score"])

    @property
    def best(self) -> Path | None:
        """Return the folder of the best epoch by validation; None where no images were held out for it."""
        return self.path / BEST if "best" in self.run else None

    @property
    def rows(self) -> list[Row]:
        """Return the figures of every epoch, the rows of metrics.jsonl."""
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text("utf-8").splitlines()]

    def model(self, **arguments: Any) -> nn.Module:
        """Build the network with its weights; `arguments` are those of timm.create_model."""
        network: nn.Module = create(resolve(self.path), weights=True, **arguments)
        return network


def train(network: str | os.PathLike[str], *, out: str | os.PathLike[str], **options: Any) -> Training:
    """Train a network and write the run into a folder, as `dots-zoo train` does.

    Args:
        network: what reference.py takes.
        out: folder of the run, new or empty.
        options: the command's, with underscores: `preset`, `resume`, `checkpoint_seconds`, `quiet`, and the
            fields of DataOptions, ModelOptions and Recipe, those of `augmentation` as a table.

    Raises:
        DotsZooError: before anything is written, for options and input that cannot be used.
    """
    return train_with(train_line().parse_values({"network": network, "out": out, **options}))


def evaluate(network: str | os.PathLike[str], **options: Any) -> Evaluation:
    """Evaluate a network with its weights on the test images of a data set, as `dots-zoo eval` does.

    Args:
        network: what reference.py takes, with weights.
        options: the command's, with underscores: `out`, `confusion`, `batch_size`, `quiet`, and the fields of
            DataOptions and ModelOptions.

    Raises:
        DotsZooError: where the network has no weights, or other classes or channels than the data.
    """
    return evaluate_with(eval_line().parse_values({"network": network, **options}))


def train_line() -> CommandLine:
    """Return the options of `dots-zoo train`."""
    line = CommandLine(
        "train",
        "Train a network and write its weights, log, curves and model card into a folder.",
        "NETWORK -o FOLDER",
        [
            "train runs/cell --preset small_cpu --data-root photos -o runs/net",
            "train resnet18 --preset modern --data cifar100 --data-root data -o runs/r18",
            "train runs/net --pretrained --preset small_cpu --data-root photos -o runs/photos",
            "train dots_cifar10 --preset cifar10_600ep --data-root data -o runs/paper",
            "train dots_cifar10 --preset small_cpu --epochs 5 --print-config > mine.yaml",
            "train dots_cifar10 --config mine.yaml -o runs/mine --resume",
        ],
        main=("data", "data_root", "epochs", "batch_size", "validation", "pretrained", "resume"),
        presets=presets_in(PRESETS),
        config=True,
    )
    line.positional("network", NETWORK)
    line.add(Option("out", str, REQUIRED, "folder of the run; new or empty"))
    line.add(Option("resume", bool, False, "resume from the checkpoint in the folder"))
    line.add(Option("checkpoint_seconds", float, 300.0, "time between two checkpoints; 0: every step"))
    line.add(QUIET)
    add_data_options(line)
    line.add_from(ModelOptions)
    line.add_from(Recipe)
    return line


def eval_line() -> CommandLine:
    """Return the options of `dots-zoo eval`."""
    line = CommandLine(
        "eval",
        "Say how many test images a network with its weights names right, in all and by class.",
        "NETWORK",
        [
            "eval runs/net --data-root photos",
            "eval runs/net --data-root photos --confusion confusion.png -o evaluation.json",
            "eval dots_cifar10_tiny --data cifar10 --data-root data",
        ],
        main=("data", "data_root", "confusion", "json"),
    )
    line.positional("network", NETWORK)
    line.add(Option("out", str | None, None, "JSON file of all figures"))
    line.add(Option("confusion", str | None, None, "picture of the confusion matrix: .png, .svg or .pdf"))
    line.add(Option("batch_size", int, 100, "images at a time"))
    line.add(JSON)
    line.add(QUIET)
    add_data_options(line)
    line.add_from(ModelOptions, skip=("pretrained",))
    line.add(Option("pretrained", bool, False, EVALUATED))
    return line


def predict_line() -> CommandLine:
    """Return the options of `dots-zoo predict`: the arguments of `predict`."""
    line = CommandLine(
        "predict",
        "Name what is on images, with probabilities.",
        "NETWORK IMAGES...",
        [
            "predict runs/net photo.jpg",
            "predict runs/net photos/new --top 3 -o predictions.json --sheet sheet.png",
            "predict net.onnx 'photos/new/*.jpg'",
        ],
        main=("top", "sheet", "json"),
    )
    line.positional("network", ANSWERING)
    line.positional("images", "image files, folders, globs", nargs="+")
    line.add_from(predict)
    line.add(JSON)
    return line


def train_with(options: Mapping[str, Any]) -> Training:
    """Train as the options of `dots-zoo train` say."""
    network, chosen, out = options["network"], build(ModelOptions, options), Path(options["out"])
    run = run_training(
        network,
        chosen,
        load_data(fitting(build(DataOptions, options), network, chosen)),
        build(Recipe, options),
        out,
        resume=options["resume"],
        checkpoint_seconds=options["checkpoint_seconds"],
        progress=not options["quiet"],
    )
    return Training(out, run)


def evaluate_with(options: Mapping[str, Any]) -> Evaluation:
    """Evaluate as the options of `dots-zoo eval` say, and write what files they name."""
    network, chosen = options["network"], build(ModelOptions, options)
    out, picture = (None if options[key] is None else Path(options[key]) for key in ("out", "confusion"))
    for path in filter(None, (out, picture)):
        check_output(path)
    if picture is not None:
        check_picture(picture)
    data = load_data(fitting(build(DataOptions, options), network, chosen))
    reference = referred(network, chosen, data.size)
    evaluation = evaluate_network(
        reference, data, batch_size=options["batch_size"], progress=not options["quiet"]
    )
    evaluation = replace(evaluation, path=out, picture=picture)
    if out is not None:
        write_file(out, json.dumps(evaluation.as_dict(), indent=1).encode())
    if picture is not None:
        write_file(picture, confusion_picture(evaluation, picture.suffix))
    return evaluation
