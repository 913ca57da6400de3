"""The commands `dots-zoo train`, `eval` and `predict`: options as in api.py, results as lines or as JSON."""

import json
from collections.abc import Sequence

from accelerate import PartialState  # type: ignore[import-untyped]

from ..options.command_line import CommandLine
from ..runtime.distributed import disconnecting
from ..runtime.malloc import keep_freed_memory
from .api import eval_line, evaluate_with, predict_line, train_line, train_with
from .prediction import predict
from .summary import summary


def command_lines() -> list[CommandLine]:
    """Return the options of every command of this module."""
    return [train_line(), eval_line(), predict_line()]


@disconnecting()
def train_main(argv: Sequence[str]) -> int:
    """Train as `argv` says; print a line an epoch and a summary at the end."""
    keep_freed_memory()
    training = train_with(train_line().parse(argv))
    if PartialState().is_main_process:
        print(summary(training.run, training.path))
    return 0


@disconnecting()
def eval_main(argv: Sequence[str]) -> int:
    """Evaluate as `argv` says; print a line of all images and one a class."""
    options = eval_line().parse(argv)
    evaluation = evaluate_with(options)
    if PartialState().is_main_process:
        print(json.dumps(evaluation.as_dict(), indent=1) if options["json"] else "\n".join(evaluation.lines))
    return 0


def predict_main(argv: Sequence[str]) -> int:
    """Predict as `argv` says; print a line an image."""
    options = predict_line().parse(argv)
    as_json = options.pop("json")
    predictions = predict(**options)
    print(json.dumps(predictions.as_dict(), indent=1) if as_json else "\n".join(predictions.lines))
    return 0
