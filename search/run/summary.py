"""Sum a completed search up in words: what was searched, what came of it, and the command to type next.

The page of a run and the terminal say the same; both read the files of the run alone.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]

from dots_zoo.data.datasets import DATASETS, Data
from dots_zoo.genotype import OPS, Genotype, load_genotype
from dots_zoo.macs import count
from dots_zoo.reference import create, resolve
from dots_zoo.runtime.best_effort import attempt

from ..methods.registry import METHODS
from ..stages.figures import TABLE, figure_title, weights_title
from .figure import Line

PRESETS = {"digits": "digits_small", "image_folder": "folder_small"}  # of a training on a CPU, by data set


@dataclass(frozen=True)
class Summary:
    """A completed search in words.

    Args:
        opening: one sentence: method, data, seed and time.
        facts: (name, value) of how it was searched and of the network that the cell makes.
        sentences: what the figures of the log say.
        table: (measurement, value) of the cell in a table of NAS-Bench-201; empty without one.
        command: what to type next; empty where the images are not a data set that the command line knows.
    """

    opening: str
    facts: tuple[tuple[str, str], ...]
    sentences: tuple[str, ...]
    table: tuple[tuple[str, str], ...]
    command: str

    def lines(self) -> list[str]:
        """Return the summary for a terminal."""
        table = [f"  {name}: {value}" for name, value in self.table]
        head = ["the cell in NAS-Bench-201:"] if table else []
        after = [f"next: {self.command}"] if self.command else []
        facts = [f"{name}: {value}" for name, value in self.facts]
        return [self.opening, *facts, *self.sentences, *head, *table, *after]


def read_log(out: Path) -> list[Line]:
    """Return the lines of a run's metrics.jsonl."""
    return [json.loads(text) for text in (out / "metrics.jsonl").read_text("utf-8").splitlines()]


def summarise(out: Path) -> Summary:
    """Return the summary of a completed search in the folder `out`."""
    run = json.loads((out / "run.json").read_text("utf-8"))
    settings = yaml.safe_load((out / "config.yaml").read_text("utf-8"))
    lines, genotype = read_log(out), load_genotype(out / "genotype.json")
    return Summary(
        opening=_opening(run),
        facts=tuple(_facts(run, settings)),
        sentences=tuple([*_figure_sentences(lines), _cell_sentence(genotype)]),
        table=tuple(
            (figure_title(name), f"{value:.6g}")
            for name, value in lines[-1].items()
            if name.startswith(TABLE)
        ),
        command=_command(out, run, settings),
    )


def describe_data(data: Data) -> dict[str, Any]:
    """Return the shape of the images of a search, for its run.json."""
    return {
        "images": len(data.labels),
        "input_size": [data.in_chans, data.size, data.size],
        "classes": data.classes,
    }


def describe_network(genotype: Path, data: Data) -> dict[str, Any] | None:
    """Return the network that `dots-zoo train` builds of a cell by default, with its cost, for run.json.

    None, with a warning, where it cannot be built or counted.
    """
    return attempt(f"{genotype}: the cost of its network", partial(_cost, genotype, data))


def _cost(genotype: Path, data: Data) -> dict[str, Any]:
    reference = resolve(str(genotype), size=data.size)
    with torch.device("meta"):  # nothing is drawn for its weights
        network = create(reference, weights=False, in_chans=data.in_chans, num_classes=data.classes)
    network.aux_head = None
    size = (data.in_chans, data.size, data.size)
    costs = count(network, size)
    return {
        "architecture": reference.architecture,
        "input_size": list(size),
        "params": costs.params,
        "macs": costs.macs,
    }


def _opening(run: Mapping[str, Any]) -> str:
    data, seconds = run["data"], duration(run["wall_seconds"])
    return (
        f"{run['method']} searched a cell on {run['dataset']} ({data['images']:,} training images of "
        f"{_size(data['input_size'])}, {data['classes']} classes) with seed {run['seed']} in {seconds}."
    )


def _facts(run: Mapping[str, Any], settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine, network = run["machine"], run["network"]
    facts = [("method", METHODS[run["method"]].title)] if run["method"] in METHODS else []
    if "space" in settings:
        facts.append(("search space", settings["space"]))
    if settings["topology"] != "none":
        facts.append(("topology search", settings["topology"].replace("_", " ")))
    if network is not None:
        facts.append(
            (
                "the cell's network",
                f"{network['architecture']}: {quantity(network['params'])} parameters, "
                f"{quantity(network['macs'])} MACs at {_size(network['input_size'])}",
            )
        )
    plural = "" if machine["threads"] == 1 else "s"
    threads = f"{machine['threads']} thread{plural} on {machine['cpus']} cores"
    return [*facts, ("searched on", machine["gpu"] or threads)]


def _figure_sentences(lines: Sequence[Line]) -> list[str]:
    """Say where losses and accuracies ended, and how far the weights are decided."""
    trained = [line for line in lines if "loss" in line and "accuracy" in line]
    sentences = []
    if trained:
        last = trained[-1]
        text = (
            f"In its last epoch the supernet named {100 * last['accuracy']:.1f} % of the training images "
            f"(loss {last['loss']:.3f})"
        )
        if "validation_accuracy" in last:
            text += f" and {100 * last['validation_accuracy']:.1f} % of the validation images"
        sentences.append(f"{text}.")
    for name in [name for name in lines[-1] if name.startswith("entropy.")]:
        values = [line[name] for line in lines if name in line]
        sentences.append(
            f"The {weights_title(name.removeprefix('entropy.'))} are {_decided(values[0], values[-1])}: the "
            f"entropy of their weights went from {values[0]:.2f} to {values[-1]:.2f} nats."
        )
    return sentences


def _decided(first: float, last: float) -> str:
    """Say how far weights are decided whose mean entropy went from `first` to `last`."""
    if last <= 0.02 * first:
        return "decided"
    return "mostly decided" if last <= 0.5 * first else "far from decided"


def _cell_sentence(genotype: Genotype) -> str:
    operations = [OPS[edge.op] for cell in genotype.cells.values() for edge in cell.edges]
    skips = sum(operation.skip for operation in operations)
    weighted = sum(operation.parametric for operation in operations)
    return f"Of {len(operations)} edges {weighted} have weights of their own; skip connections: {skips}."


def _command(out: Path, run: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return the command that trains the cell on the images it was searched on."""
    name = settings.get("data")
    if name not in DATASETS:
        return ""
    words = ["dots-zoo", "train", str(out), "--data", name]
    for option in ("data_root", "image_size"):
        if settings.get(option) is not None:
            words += [f"--{option.replace('_', '-')}", str(settings[option])]
    if run["machine"]["gpu"] is None:
        words += ["--preset", PRESETS.get(name, "small_cpu")]
    return shlex.join([*words, "--out", f"{out}-net"])


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def quantity(value: int) -> str:
    """Return a number of parameters or MACs with three digits and a unit in words."""
    for size, unit in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def _size(input_size: Sequence[int]) -> str:
    channels, height, width = input_size
    return f"{height}x{width} pixels" + (" in grey" if channels == 1 else "")
