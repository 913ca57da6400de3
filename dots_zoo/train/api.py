"""Train, evaluate and predict from Python: what the commands do, with their options as keyword arguments."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..data.datasets import DataOptions
from ..data.load import load_data
from ..reference import create, resolve
from ..runtime.atomic_write import check_output, write_file
from ..runtime.config_cli import build
from .evaluation import Evaluation, check_picture, confusion_picture, evaluate_network
from .model import ModelOptions, fitting, referred
from .recipe import Recipe
from .run import BEST, run_training
from .state import Row

Path_ = str | os.PathLike[str]


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
