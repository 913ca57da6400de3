"""Parse and run `dots-zoo train`, `eval` and `predict`; the Python functions take the same options.

Options come from the command line, a YAML file (`--config`) or a preset: `presets/NAME.yaml` holds a paper's
hyperparameters, or small ones.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from accelerate import PartialState  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser

from ..data.load import add_data_options
from ..macro import MACROS
from ..runtime.config_cli import Verbatim, dotted, preset, preset_names, take_preset
from ..runtime.distributed import disconnecting
from ..runtime.malloc import keep_freed_memory
from .api import evaluate_with, train_with
from .model import ModelOptions
from .prediction import predict
from .recipe import Recipe
from .summary import summary

PRESETS = Path(__file__).parent / "presets"
BEGIN = "begin with the model's own weights; the classifier is new where the classes are others"
EVALUATED = "the model's own weights; they are what is evaluated with or without it"
MACRO = "macro-architecture of a genotype; if not given that of its space for images of the size"
NETWORK = "timm name, genotype (bundled name, file or text), folder of a training or of a search"

EXAMPLES = """\
examples:
  dots-zoo train dots_cifar10 --preset cifar10_600ep --data_root data --out runs/paper
  dots-zoo train runs/search/genotype.json --preset modern --data cifar100 --data_root data --out runs/mine
  dots-zoo train runs/mine --pretrained --preset small_cpu --data image_folder \\
      --data_root photos --out runs/photos
  dots-zoo train dots_cifar10 --preset small_cpu --epochs 5 --print_config > mine.yaml
  dots-zoo train dots_cifar10 --config mine.yaml --out runs/mine --resume
  accelerate launch --multi_gpu --num_processes 8 -m dots_zoo train dots_imagenet --preset imagenet_250ep \\
      --data_root imagenet --out runs/imagenet
  dots-zoo eval runs/mine --data cifar10 --data_root data"""


def train_parser(preset_name: str | None = None) -> ArgumentParser:
    """Return the parser of a training; `preset_name` changes the defaults."""
    parser = ArgumentParser(
        prog="dots-zoo train",
        description="Train a network and write its weights, log, curves and model card into a folder. "
        f"--preset NAME gives other defaults to the options below: {', '.join(preset_names(PRESETS))}.",
        epilog=EXAMPLES,
        formatter_class=Verbatim,
    )
    parser.add_argument("network", type=str, help=NETWORK)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--out", type=str, required=True, help="folder of the run; new or empty")
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoint in the folder")
    parser.add_argument(
        "--checkpoint_seconds", type=float, default=300.0, help="between two checkpoints; 0: every step"
    )
    parser.add_argument("--quiet", action="store_true", help="neither a bar nor a line an epoch")
    add_data_options(parser)
    _add_model(parser, BEGIN)
    parser.add_class_arguments(Recipe)
    if preset_name is not None:
        parser.set_defaults(dotted(preset(PRESETS, preset_name)))
    return parser


def _add_model(parser: ArgumentParser, pretrained: str) -> None:
    parser.add_argument("--pretrained", action="store_true", help=pretrained)
    parser.add_argument("--macro", type=Literal[tuple(MACROS)] | None, help=MACRO)
    parser.add_class_arguments(ModelOptions, skip={"pretrained", "macro"})


@disconnecting()
def train_main(argv: Sequence[str]) -> int:
    """Train as `argv` says; print a line an epoch and a summary at the end."""
    keep_freed_memory()
    name, words = take_preset(argv)
    training = train_with(train_parser(name).parse_args(words).as_dict())
    if PartialState().is_main_process:
        print(summary(training.run, training.path))
    return 0


def eval_parser() -> ArgumentParser:
    """Return the parser of an evaluation."""
    parser = ArgumentParser(
        prog="dots-zoo eval",
        description="Print how many test images a network with its weights names, in all and by class.",
        epilog=EXAMPLES,
        formatter_class=Verbatim,
    )
    parser.add_argument("network", type=str, help=NETWORK)
    parser.add_argument("-o", "--out", type=str | None, help="JSON file of all figures")
    parser.add_argument("--confusion", type=str | None, help="picture of the confusion matrix")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--batch_size", type=int, default=100, help="images at a time")
    parser.add_argument("--quiet", action="store_true", help="no bar")
    add_data_options(parser)
    _add_model(parser, EVALUATED)
    return parser


def eval_main(argv: Sequence[str]) -> int:
    """Evaluate as `argv` says; print a line of all images and one a class."""
    options = eval_parser().parse_args(argv).as_dict()
    evaluation = evaluate_with(options)
    if PartialState().is_main_process:
        print(json.dumps(evaluation.as_dict(), indent=1) if options["json"] else "\n".join(evaluation.lines))
    return 0


def predict_main(argv: Sequence[str]) -> int:
    """Predict as `argv` says; print a line an image."""
    parser = ArgumentParser(prog="dots-zoo predict", epilog=EXAMPLES, formatter_class=Verbatim)
    parser.add_argument("network", type=str, help=NETWORK)
    parser.add_argument("images", type=str, nargs="+", help="image files, folders, globs")
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("-o", "--out", type=str | None)
    parser.add_argument("--sheet", type=str | None)
    parser.add_argument("--device", type=str | None)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv).as_dict()
    as_json = options.pop("json")
    predictions = predict(options.pop("network"), options.pop("images"), **options)
    print(json.dumps(predictions.as_dict(), indent=1) if as_json else "\n".join(predictions.lines))
    return 0
