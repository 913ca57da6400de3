"""Parse and run `dots-zoo train` and `dots-zoo eval`.

Options come from the command line, a YAML file (`--config`) or a preset: `presets/NAME.yaml` holds a paper's
hyperparameters, or small ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from accelerate import Accelerator  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser

from ..data.datasets import Data, DataOptions
from ..data.load import add_data_options, load_data
from ..macro import MACROS
from ..reference import Reference, create
from ..runtime.config_cli import Verbatim, build, dotted, preset, preset_names, take_preset
from ..runtime.distributed import disconnecting
from ..runtime.errors import DotsZooError
from ..runtime.malloc import keep_freed_memory
from .evaluate import Score, evaluate
from .model import ModelOptions, as_trained, fitting, referred
from .recipe import Recipe
from .run import summary, train

PRESETS = Path(__file__).parent / "presets"
BEGIN = "begin with the model's own weights; the classifier is new where the classes are others"
EVALUATED = "the model's own weights; they are what is evaluated with or without it"
MACRO = "macro-architecture of a genotype; if not given that of its space for images of the size"
MODEL = "timm name of one of our models, genotype (bundled name, file or text) or the folder of a training"

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
    parser.add_argument("model", type=str, help=MODEL)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--out", type=str, required=True, help="folder of the run; new or empty")
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoint in the folder")
    parser.add_argument(
        "--checkpoint_seconds", type=float, default=300.0, help="between two checkpoints; 0: every step"
    )
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
    options = train_parser(name).parse_args(words).as_dict()
    model, chosen, out = options["model"], build(ModelOptions, options), Path(options["out"])
    run = train(
        model,
        chosen,
        load_data(fitting(build(DataOptions, options), model, chosen)),
        build(Recipe, options),
        out,
        resume=options["resume"],
        checkpoint_seconds=options["checkpoint_seconds"],
    )
    if run:  # the main process
        print(summary(run, out))
    return 0


def eval_parser() -> ArgumentParser:
    """Return the parser of an evaluation."""
    parser = ArgumentParser(
        prog="dots-zoo eval",
        description="Print how many test images a network with its weights names.",
        epilog=EXAMPLES,
        formatter_class=Verbatim,
    )
    parser.add_argument("model", type=str, help=MODEL)
    parser.add_argument("--batch_size", type=int, default=100, help="images at a time")
    add_data_options(parser)
    _add_model(parser, EVALUATED)
    return parser


def eval_main(argv: Sequence[str]) -> int:
    """Evaluate as `argv` says and print one line."""
    options = eval_parser().parse_args(argv).as_dict()
    model, chosen = options["model"], build(ModelOptions, options)
    data = load_data(fitting(build(DataOptions, options), model, chosen))
    reference = referred(model, chosen, data.size)
    score = eval_model(reference, data, options["batch_size"])
    print(
        f"{reference.name}: {100 * score.accuracy:.2f} % of {score.images} test images of {data.name} at "
        f"{data.size}x{data.size} (top five: {100 * score.top5:.2f} %, loss {score.loss:.4f})"
    )
    return 0


def eval_model(reference: Reference, data: Data, batch_size: int = 100) -> Score:
    """Score a network with its weights on the test images, normalised as in its training.

    Raises DotsZooError where it has no weights, or other classes or channels than the data.
    """
    network = create(reference, weights=True)
    expected = data.classes, data.in_chans
    actual = network.num_classes, network.pretrained_cfg["input_size"][0]
    if expected != actual:
        raise DotsZooError(
            f"eval {reference.name}: expected a network of {expected[0]} classes and {expected[1]} channels "
            f"for {data.name}, got {actual[0]} and {actual[1]}"
        )
    accelerator = Accelerator()
    network.to(accelerator.device)
    normalised = as_trained(data, network).to(accelerator.device)
    return evaluate(network, normalised, accelerator, batch_size=batch_size, progress=True)
