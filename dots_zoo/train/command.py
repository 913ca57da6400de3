"""`dots-zoo train` and `dots-zoo eval`: options in, a line out.

Options come from the command line, a YAML file (`--config`) or a preset: `presets/NAME.yaml`, a paper's
numbers or small ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from accelerate import Accelerator  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser

from ..data.datasets import Data, DataOptions
from ..data.load import load_data
from ..kernels.malloc import keep_freed_memory
from ..runtime.config_cli import Verbatim, build, dotted, preset, preset_names, take_preset
from ..runtime.distributed import disconnecting
from ..runtime.errors import DotsZooError
from .evaluate import Score, evaluate
from .model import ModelOptions, as_trained, named
from .recipe import Recipe
from .run import summary, train

PRESETS = Path(__file__).parent / "presets"
WEIGHTS = "begin with the model's own weights; the classifier is new where the classes are others"
MODEL = (
    "timm name of one of our models, genotype (bundled name, file or text) or local-dir:FOLDER of a training"
)

EXAMPLES = """\
examples:
  dots-zoo train dots_cifar10 --preset cifar10_600ep --data_root data --out runs/paper
  dots-zoo train runs/search/genotype.json --preset modern --data cifar100 --data_root data --out runs/mine
  dots-zoo train local-dir:runs/mine --pretrained --preset small_cpu --data image_folder \\
      --data_root photos --out runs/photos
  dots-zoo train dots_cifar10 --preset small_cpu --epochs 5 --print_config > mine.yaml
  dots-zoo train dots_cifar10 --config mine.yaml --out runs/mine --resume
  accelerate launch --multi_gpu --num_processes 8 -m dots_zoo train dots_imagenet --preset imagenet_250ep \\
      --data_root imagenet --out runs/imagenet
  dots-zoo eval local-dir:runs/mine --pretrained --data cifar10 --data_root data"""


def train_parser(preset_name: str | None = None) -> ArgumentParser:
    """The options of a training; `preset_name` gives other defaults."""
    parser = ArgumentParser(
        prog="dots-zoo train",
        description="Train a network and write its weights, log, curves and model card into a folder. "
        f"--preset NAME gives other defaults to the options below: {', '.join(preset_names(PRESETS))}.",
        epilog=EXAMPLES,
        formatter_class=Verbatim,
    )
    parser.add_argument("model", type=str, help=MODEL)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--out", type=str, required=True, help="folder of the run; new or empty")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder")
    parser.add_argument(
        "--checkpoint_seconds", type=float, default=300.0, help="between two checkpoints; 0: every step"
    )
    parser.add_class_arguments(DataOptions)
    _add_model(parser)
    parser.add_class_arguments(Recipe)
    if preset_name is not None:
        parser.set_defaults(dotted(preset(PRESETS, preset_name)))
    return parser


def _add_model(parser: ArgumentParser) -> None:
    parser.add_argument("--pretrained", action="store_true", help=WEIGHTS)
    parser.add_class_arguments(ModelOptions, skip={"pretrained"})


@disconnecting()
def train_main(argv: Sequence[str]) -> None:
    """Train as `argv` says; print a line an epoch and one at the end."""
    keep_freed_memory()
    name, words = take_preset(argv)
    options = train_parser(name).parse_args(words).as_dict()
    out = Path(options["out"])
    run = train(
        options["model"],
        build(ModelOptions, options),
        load_data(build(DataOptions, options)),
        build(Recipe, options),
        out,
        resume=options["resume"],
        checkpoint_seconds=options["checkpoint_seconds"],
    )
    if run:  # the main process
        print(summary(run, out))


def eval_parser() -> ArgumentParser:
    """The options of an evaluation."""
    parser = ArgumentParser(
        prog="dots-zoo eval",
        description="Print how many test images a network names.",
        epilog=EXAMPLES,
        formatter_class=Verbatim,
    )
    parser.add_argument("model", type=str, help=MODEL)
    parser.add_argument("--batch_size", type=int, default=100, help="images at a time")
    parser.add_class_arguments(DataOptions)
    _add_model(parser)
    return parser


def eval_main(argv: Sequence[str]) -> None:
    """Evaluate as `argv` says and print one line."""
    options = eval_parser().parse_args(argv).as_dict()
    data = load_data(build(DataOptions, options))
    score = eval_model(options["model"], build(ModelOptions, options), data, options["batch_size"])
    print(
        f"{options['model']}: {100 * score.accuracy:.2f} % of {score.images} test images of {data.name} "
        f"(top five: {100 * score.top5:.2f} %, loss {score.loss:.4f})"
    )


def eval_model(model: str, options: ModelOptions, data: Data, batch_size: int = 100) -> Score:
    """How a network does on the test images; pretrained, they are normalised as its training images were.

    Raises DotsZooError where it has other classes or channels than the data.
    """
    architecture, arguments = named(model, options, data.size)
    source = model if model.startswith("local-dir:") else architecture
    network: Any = timm.create_model(source, pretrained=options.pretrained, **arguments)
    asked = data.classes, data.in_chans
    there = network.num_classes, network.pretrained_cfg["input_size"][0]
    if asked != there:
        raise DotsZooError(
            f"eval {model}: expected a network of {asked[0]} classes and {asked[1]} channels for "
            f"{data.name}, got {there[0]} and {there[1]}"
        )
    accelerator = Accelerator()
    network.to(accelerator.device)
    known = as_trained(data, network) if options.pretrained else data
    return evaluate(network, known.to(accelerator.device), accelerator, batch_size=batch_size, progress=True)
